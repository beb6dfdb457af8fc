# For the person at the REPL: node.status(), node.selftest(), node.log(). Nothing of it runs in the
# field, and none of it writes a record.

import gc
import os
import sys
from array import array

from node import board, golden, model, record
from node.modes import OVER
from node.outbox import LANES, Outbox
from node.settings import Settings
from node.state import State

_LANES = ("alert", "event", "telemetry", "diagnostic")
_KINDS = ("", "reading", "decision", "event", "state", "window", "count", "day", "setting",
          "clock", "result")
_CAUSES = ("cold boot", "timer", "event pin", "watchdog", "brown-out")
_REASONS = ("", "class changed", "bad settings", "sensor silent", "model refused", "uplink failed",
            "flash failed", "deadline missed", "stage failed", "mode changed", "update")
_MODES = ("full", "degraded", "critical", "safe")
_WHY = ("", "link lost", "flash bad", "budget short", "battery low", "hot", "cold", "failing",
        "ordered")
_REFUSED = ("none is set", "file missing", "file damaged", "will not load", "other ABI",
            "other shape")


def mount(here):
    outbox = Outbox(here.flash(), here.random32, here.lanes())
    outbox.mount()
    return outbox


def facts(here=None):
    """What there is to know, as a dictionary that json can print."""
    here = here or board.here()
    settings, outbox = Settings("settings.json"), mount(here)
    loaded, problem = None, None
    try:
        loaded = model.load(settings.model).__name__
    except model.Refused as error:
        problem = _REFUSED[error.args[0]]
    gc.collect()
    state, kept = State(), None
    if state.load(here.retained()):  # after a sleep; not after power was off
        energy = state.energy
        energy.power, energy.battery = here.power, here.battery
        kept = {"mode": _MODES[state.modes.mode], "soc": energy.soc(),
                "days_left": energy.days_left(), "pace_s": energy.pace_s,
                "spent_mj": energy.spent_nj // 1000000, "uw": energy.rate_nw // 1000}
    lanes = {}
    for name, ring in zip(_LANES, outbox.lanes):
        lanes[name] = {"epoch": ring.epoch, "next": ring.next_seq, "acknowledged": ring.acked,
                       "dropped": ring.dropped, "sectors": ring.sectors}
    return {"node": here.node_id, "keyed": bool(getattr(here, "key", b"")),
            "platform": sys.platform, "micropython": sys.version.split()[-3],
            "cause": _CAUSES[here.cause], "time_s": here.now_s(), "heap_free": gc.mem_free(),
            "settings": settings.version, "settings_problem": settings.problem,
            "model": loaded, "model_problem": problem, "ring": lanes,
            "waiting": outbox.depth(), "battery_mv": here.battery_mv(),
            "temperature_c": here.temperature_c(), "kept": kept}


def status(here=None):
    """Print what the node is and how it fares."""
    told = facts(here)
    print("node      %d%s, woken by %s" % (told["node"], "" if told["keyed"] else " (no key)",
                                           told["cause"]))
    print("runs      MicroPython %s on %s, %d bytes of heap free" % (
        told["micropython"], told["platform"], told["heap_free"]))
    print("settings  version %d%s" % (told["settings"], "" if told["settings_problem"] is None
                                      else ", refused (rule %d)" % told["settings_problem"]))
    print("model     %s" % (told["model"] or told["model_problem"]))
    for name in _LANES:
        lane = told["ring"][name]
        print("ring      %-10s %d recorded, %d acknowledged, %d dropped, %d sectors" % (
            name, lane["next"] - 1, lane["acknowledged"], lane["dropped"], lane["sectors"]))
    print("power     %d mV, %d deg C" % (told["battery_mv"], told["temperature_c"]))
    if told["kept"]:
        print("mode      %(mode)s, charge %(soc)d %%, %(days_left)d days left at %(uw)d uW, "
              "a wake every %(pace_s)d s" % told["kept"])


def selftest(here=None):
    """Check each part, print a line for each; True if all are well."""
    here = here or board.here()
    well = True
    for name, good, detail in tests(here, Settings("settings.json"), None):
        well = well and good
        print("%-9s %-4s %s" % (name, "ok" if good else "FAIL", detail))
    return well


def tests(here, settings, outbox):
    """Check each part; yield (name, whether it is well, what there is to say)."""
    def ring(here, settings):
        box = outbox or mount(here)
        return "%d records wait, %d dropped" % (box.depth(), box.dropped())

    for name, check in (("settings", _settings), ("identity", _identity), ("ring", ring),
                        ("model", _model), ("sensor", _sensor), ("battery", _battery)):
        try:
            good, detail = True, check(here, settings)
        except board.Late:
            raise
        except Exception as error:
            good, detail = False, "%s: %s" % (type(error).__name__, error)
        yield name, good, detail


def identify(here, settings):
    """What runs here, in one line."""
    gc.collect()
    return "%s, MicroPython %s, %d bytes of heap free, settings %d, model %s" % (
        sys.platform, sys.version.split()[-3], gc.mem_free(), settings.version,
        settings.model and settings.model["name"])


def _settings(here, settings):
    if settings.problem is not None:
        raise ValueError("settings.json is refused (rule %d)" % settings.problem)
    return "version %d" % settings.version


def _identity(here, settings):
    if not getattr(here, "key", b""):
        raise ValueError("node %d has no key: flash it" % here.node_id)
    return "node %d" % here.node_id


def _model(here, settings):
    if settings.model is None:
        return "none is set"
    try:
        module = model.load(settings.model)
    except model.Refused as error:
        raise ValueError(_REFUSED[error.args[0]])
    return "%s, %d golden windows right" % (module.__name__,
                                            golden.check(module, settings.model)[0])


def _sensor(here, settings):
    if not settings.window:
        return "none is set"
    window = array("h", bytes(2 * settings.window * settings.channels))
    here.sensor(settings).capture(window)
    spans = []
    for channel in range(settings.channels):
        values = [window[i] for i in range(channel, len(window), settings.channels)]
        spans.append("%d..%d" % (min(values), max(values)))
    return " ".join(spans[:6])


def _battery(here, settings):
    mv = here.battery_mv()
    if not 1800 <= mv <= 6000:
        raise ValueError("%d mV cannot be: is the divider wired?" % mv)
    return "%d mV" % mv


def log(count=20, here=None):
    """Print the last records, all lanes together, oldest first."""
    last = []
    for lane, ring in enumerate(mount(here or board.here()).lanes):
        mine = []
        for seq, kind, time_s, payload in ring.records():
            mine.append((time_s, lane, seq, kind, bytes(payload)))
            if len(mine) > count:
                mine.pop(0)
        last += mine
    last.sort()
    for time_s, lane, seq, kind, payload in last[-count:]:
        print("%10d s  %-10s %6d  %s" % (time_s, _LANES[lane], seq, _words(kind, payload)))


def _words(kind, payload):
    if kind == record.DECISION:
        return "decision %d (%d %%), smoothed %d" % (
            payload[0], payload[1] * 100 // 255, payload[2])
    if kind == record.EVENT and payload[0] == record.MODE_CHANGED:
        return "%s, was %s: %s%s" % (
            _MODES[payload[1] & 15], _MODES[payload[1] >> 4], _WHY[payload[2] & 127],
            " is over" if payload[2] & OVER else "")
    if kind == record.EVENT:
        return "%s, detail %d, value %d" % (
            _REASONS[payload[0]] if payload[0] < len(_REASONS) else payload[0],
            payload[1], payload[2])
    return "%s, %d bytes" % (_KINDS[kind] if kind < len(_KINDS) else kind, len(payload))


def dump(here=None):
    """Print every record that can be read, as base64 frames, one a line: for `outpost pull`."""
    from binascii import b2a_base64

    from node.batch import Batch
    from node.frame import Seal

    here = here or board.here()
    outbox = mount(here)
    frame = Batch(bytearray(512), here.node_id, Seal(b""))  # a cable needs no proof
    for lane in range(LANES):
        ring = outbox.lanes[lane]
        begun = False
        for seq, kind, time_s, payload in ring.records():
            if begun and frame.add(seq, kind, time_s, payload):
                last = seq
                continue
            if begun:
                _print_frame(frame, b2a_base64)
            frame.begin(lane, ring.epoch, last if begun else seq - 1, True)
            frame.add(seq, kind, time_s, payload)
            begun, last = True, seq
        if begun:
            _print_frame(frame, b2a_base64)


def _print_frame(frame, encode):
    size = frame.end()
    sys.stdout.write(encode(frame.view[:size]))


_PACKAGE = ("kept", "there is none", "cut short", "not a package of this version",
            "this node trusts nobody: flash it", "not signed by whom this node trusts",
            "damaged", "for another processor", "not newer than the model that is here", "no room",
            "will not load", "wrong answer to a golden window", "too slow", "crashed",
            "its settings break a rule", "another one is on trial")


def install(forced=False):
    """Put the model of models/new.pkg on trial; print what came of it."""
    from node import identity, package, update

    try:
        told = package.install(Settings("settings.json"), identity.trusted(), forced)
    except package.Refused as refused:
        print("refused: " + _PACKAGE[refused.args[0]])
        return False
    print("%s %d is on trial for %d good wakes" % (told["name"], told["version"], update.TRIAL))
    return True


def change(**values):
    """Change settings of this node, from its next wake on; the gateway hears of it."""
    from node import document, settings, update

    now = Settings(update.CURRENT)
    stamp = document.stamp(now.version, document.NODE)
    both = dict(now.changes)
    both.update({name: [stamp, value] for name, value in values.items()})
    problem = update.problem({"changes": both}) if now.problem is None else now.problem
    for name in values:
        if not settings.number(name):
            raise ValueError("there is no setting %s" % name)
    if problem is not None:
        raise ValueError("%s is refused" % (settings.called(problem) or update.CURRENT))
    update.change({"changes": both})


_WINDOWS = "windows"


def capture(label, count=1, here=None):
    """Keep `count` windows of the sensor as training data, to be fetched by `outpost pull`."""
    here, settings = here or board.here(), Settings("settings.json")
    if "_" in label or "/" in label or not label:
        raise ValueError("a label has no _ and no /")
    try:
        os.mkdir(_WINDOWS)
    except OSError:
        pass
    window = array("h", bytes(2 * settings.window * settings.channels))
    for number in range(count):
        time_s = here.now_s()
        here.sensor(settings).capture(window)
        with open("%s/%s_%d_%d" % (_WINDOWS, label, time_s, number), "wb") as file:
            file.write(window)
