"""Hours of a node's life on the real RP2040 firmware, checked against truth.

The emulated board gets motion from test recordings, a link that comes and goes, brown-outs in the
middle of flash operations and watchdog resets. What it reports goes into the gateway's store. In
the end every decision is compared with the declared integer reference's answer to the window the
sensor really delivered, and every window is accounted for.
"""

import json
import struct
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

import outpost.device  # noqa: F401  # firmware/ on the path
from node import record
from node.ring import Ring
from outpost import (
    build,
    convert,
    data,
    features,
    firmware,
    power,
    provision,
    recipe,
    tiers,
    train,
)
from outpost.boards import load as load_board
from outpost.console import steps
from outpost.emulator import SECOND_US, Emulator, EmulatorError
from outpost.gateway import schema, store, streams
from outpost.gateway.desk import Desk
from outpost.gateway.keys import enrol
from outpost.paths import BUILD
from outpost.world import run as world
from outpost.world.audit import Image

MODEL = "motion"
LANES = ("alert", "event", "telemetry", "diagnostic")
HOUR_S = 3600
EVENT_S = 8  # how long each motion lasts
GAP_S = 45  # from the start of one motion to the next, at least
SETTLE_S = 4200  # after the end, with a link: two uplink periods and a wake
PATIENCE_S = 8 * HOUR_S  # and longer, if the node has backed off: until it has been heard out
SILENCE_S = 20  # then it has said everything
GYRO, ACCEL = 1, 2  # tags of FIFO words


@dataclass
class Plan:
    """What will happen, in seconds from power-on: motions (time, recording), hours without a link
    as (from, to), and times of brown-outs and hangs.
    """

    motions: list[tuple[float, int]]
    outages: list[tuple[float, float]]
    cuts: list[float]
    hangs: list[float]


@dataclass
class Mission:
    """One mission: `windows` as (start in s, int16 (window, channels)), and `resets` in s."""

    windows: list[tuple[float, np.ndarray]] = field(default_factory=list)
    resets: list[float] = field(default_factory=list)
    power_cuts: int = 0
    watchdog: int = 0
    frames: int = 0
    unanswered: int = 0
    heard_s: float = 0  # when the last frame was answered


def draw(hours: float, random: Random, recordings: int, events: int, cuts: int, hangs: int
         ) -> Plan:
    """Draw a plan of `hours`; the link is away about half of the time."""
    end = hours * HOUR_S
    slots = sorted(random.sample(range(int(end // GAP_S)), events))
    motions = [(60 + slot * GAP_S + random.uniform(0, GAP_S - EVENT_S - 5),
                random.randrange(recordings)) for slot in slots]
    outages, at = [], random.uniform(0, HOUR_S)
    while at < end:
        until = at + random.uniform(0.5, 3) * HOUR_S
        outages.append((at, min(until, end)))
        at = until + random.uniform(0.5, 3) * HOUR_S
    cut_at = sorted(random.uniform(0.02, 0.9) * end for _ in range(cuts))
    # one hang while it senses a motion, the next asleep, and so on
    hang_at = [motions[random.randrange(len(motions))][0] + 3 if i % 2 == 0
               else random.uniform(0.02, 0.98) * end for i in range(hangs)]
    return Plan(motions, outages, cut_at, sorted(hang_at))


def fly(hours: float, seed: int = 1, events: int | None = None, cuts: int = 5, hangs: int = 2,
        folder: Path | None = None) -> dict[str, Any]:
    """Run a mission of `hours` and return its figures; see docs/emulator.md for each.

    `folder` keeps the flash image and the database (default build/mission). Raises EmulatorError
    when the chip stops, OutpostError when something can't be built.
    """
    folder = folder or BUILD / "mission"
    folder.mkdir(parents=True, exist_ok=True)
    what = recipe.load(recipe.find(MODEL))
    built = build.build(MODEL, ["x64", "armv6m"])
    meta = json.loads((built.folder / "model.json").read_text())
    image = firmware.build([built.folder])
    dataset = data.load(what)
    random = Random(seed)
    events = max(10, round(hours * 9.5)) if events is None else events
    plan = draw(hours, random, len(dataset.test), events, cuts, hangs)
    started = time.monotonic()
    for name in ("records.db", "records.db-wal", "records.db-shm"):
        (folder / name).unlink(missing_ok=True)
    engine = store.connect(folder / "records.db")
    with Emulator(usb=False) as board, tempfile.TemporaryDirectory() as scratch:
        settings = world.settings(meta) | {"listen": 1}
        settings["model"]["crc32"] = 0  # compiled into the firmware
        figures = power.figures(load_board("rp2040"), power.battery())
        node = provision.Node(1, Random(seed).randbytes(provision.KEY_BYTES), "rp2040")
        with engine.begin() as db:
            enrol(db, node.number, node.key)
        files = firmware.files_image({"settings.json": json.dumps(settings).encode(),
                                      "board.json": json.dumps(figures).encode(),
                                      "identity.json": json.dumps(node.identity()).encode()})
        board.load(uf2=image.uf2, parts={firmware.FILES_OFFSET: files})
        for number, one in enumerate(dataset.test):
            path = Path(scratch) / f"{number}.i16"
            path.write_bytes(one.samples.astype("<i2").tobytes())
        signal = what.signal
        for at, number in plan.motions:
            board.play(Path(scratch) / f"{number}.i16", signal.rate_hz, len(signal.channels),
                       signal.accel_range_g, signal.gyro_range_dps, at * SECOND_US,
                       EVENT_S * SECOND_US)
        desk = Desk(engine, clock=None)
        mission, last, least = _live(board, plan, hours, random, desk, meta["window"])
        board.save(folder / "flash.img")
    verdict = _judge(mission, engine, what, dataset, folder / "flash.img")
    return {
        "hours": hours, "seed": seed, "events": len(plan.motions), **verdict,
        "resets": mission.watchdog, "power_cuts": mission.power_cuts,
        "outages": len(plan.outages), "frames": mission.frames, "unanswered": mission.unanswered,
        "heap_free_min": least, "instructions": last.instructions,
        "flash_operations": last.operations,
        "awake_share": round(1 - (last.sleep_us + last.idle_us) / last.now_us, 5),
        "wall_s": round(time.monotonic() - started, 1)}


def _live(board: Emulator, plan: Plan, hours: float, random: Random, desk: Desk, rows: int
          ) -> tuple[Mission, Any, int | None]:
    """Drive the board through the plan; return what happened, the last Stop, least free heap."""
    mission = Mission()
    end = hours * HOUR_S
    actions = sorted([(at, "cut") for at in plan.cuts] + [(at, "hang") for at in plan.hangs])
    line, least, armed = bytearray(), [], False
    stop = board.power()
    with steps(f"{hours:g} hours on the emulated RP2040", round(hours) + 2) as step:
        hour = 0
        while (now := stop.now_us / SECOND_US) < max(end + SETTLE_S,
                                                     mission.heard_s + SILENCE_S) \
                or mission.heard_s < end:
            if now > end + PATIENCE_S:
                raise EmulatorError(f"nothing heard of the node for {PATIENCE_S / HOUR_S:g} hours")
            if now >= hour * HOUR_S:
                step(f"hour {hour}")
                hour += 1
            while actions and actions[0][0] <= now:
                _, kind = actions.pop(0)
                if kind == "hang":
                    board.ask("hang")
                elif armed:  # the one before hasn't struck yet
                    actions.append((now + HOUR_S / 10, "cut"))
                    actions.sort()
                else:
                    armed = True
                    torn = ({"seed": random.randrange(1 << 31)} if random.random() < 0.5
                            else {"keep": random.randrange(257)})
                    board.cut(random.randint(1, 6), **torn)
            until = min(at for at in (hour * HOUR_S, *(at for at, _ in actions[:1]),
                                      mission.heard_s + SILENCE_S) if at > now)
            stop = board.run(max(1.0, until * SECOND_US - stop.now_us), frame=True)
            now = stop.now_us / SECOND_US
            line += stop.uart
            if stop.reason == "frame":
                mission.frames += 1
                frame, _, line = line.partition(b"\0")
                if any(a <= now < b for a, b in plan.outages):
                    mission.unanswered += 1
                else:
                    mission.heard_s = now
                    board.send(streams.answer(desk, bytes(frame) + b"\0"), "uart")
            elif stop.reason == "watchdog":
                mission.watchdog += 1
                mission.resets.append(now)
                line.clear()
            elif stop.reason == "power":
                mission.power_cuts += 1
                armed = False
                mission.resets.append(now)
                line.clear()
                stop = board.power(on=True, after_us=random.uniform(0.05, 30) * SECOND_US)
            elif stop.reason != "time":
                raise EmulatorError(f"the firmware stopped at {now:.1f} s: {stop.reason}")
            if board_words := board.scratch():
                least.append(board_words[2])
            for start_us, words in board.windows():
                _collect(mission, start_us / SECOND_US, words, rows)
    return mission, stop, min((n for n in least if n), default=None)


def _collect(mission: Mission, start_s: float, words: list[list[int]], rows: int) -> None:
    """Add words read from the FIFO to the window that began at `start_s`."""
    if not mission.windows or mission.windows[-1][0] != start_s:
        mission.windows.append((start_s, []))
    mission.windows[-1][1].extend(words)


def _judge(mission: Mission, engine: Any, what: recipe.Recipe, dataset: data.Dataset,
           image: Path) -> dict[str, Any]:
    """Compare what is stored with truth; return counts, all of which but decisions should be 0.

    disagreements: stored decisions that no window explains, or whose class or share of votes is
    not the reference's. lost: windows read and decided whose decision is missing, gaps in the
    order of a lane, and records readable in flash that aren't stored. unflushed: windows whose
    decision was still gathered in RAM when a reset took it, as promised (at most a page):
    docs/ring-format.md.
    """
    truth = [(start, window) for start, words in mission.windows
             if start < mission.heard_s  # later ones wait for the next uplink
             and (window := _window(words, what)) is not None]
    x = features.compute(what, np.stack([window for _, window in truth]))
    answers = _declared(what, dataset).answer(x)
    votes, chosen = answers.votes, answers.chosen
    pairs, gated, gaps, stored = _stored(engine)
    at = disagreements = lost = unflushed = 0

    def skipped(first: int, after: int) -> None:
        # windows first..after-1 have no decision: right only up to a reset
        nonlocal lost, unflushed
        later = truth[after][0] if after < len(truth) else float("inf")
        for i in range(first, after):
            if any(truth[i][0] < reset <= later for reset in mission.resets):
                unflushed += 1
            else:
                lost += 1

    for reading, (decision, share) in pairs:
        match = next((i for i in range(at, len(truth))
                      if tuple(x[i][:len(reading)]) == reading), None)
        if match is None:
            disagreements += 1
            continue
        skipped(at, match)
        at = match + 1
        expected = int(votes[match][chosen[match]]) * 255 // int(votes[match].sum())
        disagreements += decision != chosen[match] or share != expected
    skipped(at, len(truth))
    gate = tiers.fit(what, list(dataset.classes), _training(what, dataset))
    still = sum(_still(words, gate, what) for _, words in mission.windows) if gate else 0
    disagreements += max(0, len(gated) - still)
    disagreements += sum(gate is None or label != gate["class"] for label in gated)
    return {"windows": len(truth) + still, "decisions": len(pairs) + len(gated),
            "gated": len(gated), "disagreements": int(disagreements),
            "lost": lost + gaps + _unreported(image, stored), "unflushed": unflushed,
            "stored": len(stored)}


def _window(words: list[list[int]], what: recipe.Recipe) -> np.ndarray | None:
    """Return int16 (window, 6) of the FIFO words of one capture, None if it was cut short."""
    rows = what.signal.window
    accel = [word[1:] for word in words if word[0] == ACCEL][:rows]
    gyro = [word[1:] for word in words if word[0] == GYRO][:rows]
    if len(accel) < rows or len(gyro) < rows:
        return None
    return np.hstack([np.array(accel, np.int16), np.array(gyro, np.int16)])


def _still(words: list[list[int]], gate: dict[str, Any], what: recipe.Recipe) -> bool:
    """Return whether a capture ended early, and what was read of it bears the gate out."""
    rows = [word[1:] for word in words if word[0] == ACCEL]
    if not gate["samples"] <= len(rows) < what.signal.window:
        return False
    window = np.zeros((1, len(rows), 6), np.int16)
    window[0, :, :3] = rows
    return bool(tiers.quiet(gate, window)[0])


def _training(what: recipe.Recipe, dataset: data.Dataset) -> data.Windows:
    """Return the windows that the recipe trains on."""
    return data.windows(dataset.train, dataset.classes, what.signal.window, what.signal.hop)


def _declared(what: recipe.Recipe, dataset: data.Dataset) -> convert.Declared:
    """Train the recipe's forest anew and return its declared integer reference."""
    part = _training(what, dataset)
    model = train.model(what, dataset.classes, features.compute(what, part.x), part.y)
    return convert.declare(what, model)


def _stored(engine: Any
            ) -> tuple[list[tuple[tuple[int, ...], tuple[int, int]]], list[int], int, set]:
    """Return (readings with main's decisions in order, the gate's, gaps in the lanes, all
    identities).
    """
    with engine.connect() as db:
        rows = db.execute(schema.records.select().order_by(
            schema.records.c.lane, schema.records.c.epoch, schema.records.c.seq)).all()
    pairs, gated, gaps, reading, before = [], [], 0, None, None
    for row in rows:
        here = (row.lane, row.epoch)
        if before and before[0] == here:
            gaps += row.prev > before[1]  # numbers the node never used are no gap
        before = (here, row.seq)
        if row.kind == record.READING:
            values = struct.unpack(f"<{len(row.payload) // 2}h", row.payload[1:])
            reading = values if row.payload[0] == record.FEATURES else None
        elif row.kind == record.DECISION and row.payload[3] & 15 == record.BY_GATE:
            gated.append(row.payload[0])
        elif row.kind == record.DECISION:
            pairs.append((reading or (), (row.payload[0], row.payload[1])))
    return pairs, gated, gaps, {(row.lane, row.epoch, row.seq, bytes(row.payload)) for row in rows}


def _unreported(image: Path, stored: set) -> int:
    """Count records that the rings in the flash image hold and the store does not.

    What a lane appended after the last that was stored waits for the next uplink; the end of an
    outage, for instance, is recorded once an uplink has been answered.
    """
    board = load_board("rp2040")
    region = board.flash.region("ring")
    device = Image(image.read_bytes()[region.offset:region.end])
    first = missing = 0
    for lane, name in enumerate(LANES):
        ring = Ring(device, first, board.lanes[name], lane, 256)
        ring.mount()
        newest = max((seq for its_lane, epoch, seq, _ in stored
                      if (its_lane, epoch) == (lane, ring.epoch)), default=0)
        for seq, _, _, payload in ring.records(1):
            if seq > max(newest, ring.acked):
                break
            missing += (lane, ring.epoch, seq, bytes(payload)) not in stored
        first += board.lanes[name]
    return missing
