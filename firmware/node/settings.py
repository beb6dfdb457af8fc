# Settings: settings.json, checked against one table; a file that breaks a rule is refused whole.
# What was changed since it was written stands in it under `changes`: node/document.py. What each
# means: docs/wake.md.

import json

from micropython import const

READABLE = const(0)  # what problem number 0 is about: the file itself, not one setting

# name, default, least, most. A least of None marks what has its own check below.
RULES = (
    ("version", 0, 0, 0xFFFFFFFF),
    ("wake_s", 300, 5, 86400),  # between two timer wakes
    ("awake_ms", 20000, 100, 600000),  # hard limit of one wake
    ("uplink_s", 1800, 10, 604800),  # between two attempts to report
    ("state_s", 21600, 60, 604800),  # between two STATE records
    ("listen", 1, 0, 1),  # wake on motion as well
    ("window", 0, 0, 4096),  # samples; 0: nothing to sense
    ("channels", 1, 1, 32),
    ("period_us", 100000, 1, 60000000),  # between two samples
    ("model", None, None, None),  # what the model must be, or null
    ("post", (1,), None, None),  # weights of the last decisions, newest first
    ("reading", (), None, None),  # features that go into a READING
    ("large", None, None, None),  # a model to use in DEGRADED in the other's place, or null
    ("gate", None, None, None),  # when main need not run, or null: see node/gate.py
    ("unsure", 0, 0, 255),  # margin of votes below which a window is sent up, in 255ths
    ("life_days", 0, 0, 3650),  # how long a full battery shall last; 0: nobody asks
    ("wake_most_s", 3600, 5, 86400),  # between two timer wakes at the slowest
    ("uplink_most_s", 21600, 10, 604800),  # between two attempts when they fail
    ("critical_pct", 20, 0, 90),  # state of charge from which on the node is CRITICAL
    ("hot_c", 75, -40, 125),
    ("cold_c", -30, -60, 125),
    ("dwell_s", 900, 0, 86400),  # between two changes of mode
    ("frame", 1024, 51, 1024),  # bytes of a frame, where the link takes as many
    ("trial", 0, 0, 100),  # good wakes until these settings are kept: node/update.py; 0: they are
    ("day_bytes", 0, 0, 0x3FFFFFFF),  # that its link may carry a day, both ways; 0: nobody counts
    ("changes", {}, None, None),  # name: [stamp, value], or [stamp] for what the file itself says
    ("document", 0, 0, 0xFFFFFFFF),  # CRC-32 of the gateway's that is on trial, 0: none is
)
# These come with a signed package, or by cable.
FIXED = ("version", "model", "large", "trial", "changes", "document")
_MODEL = ("name", "crc32", "abi", "window", "channels", "features", "classes")
_GATE = (("samples", 4096), ("span", 0xFFFF), ("class", 254))  # and channels


_known = None  # while nobody has replaced the file; outlives a wake where RAM does


def current(path):
    """The node's settings, read anew only after forget()."""
    global _known
    if _known is None or _known.problem is not None:
        _known = Settings(path)
    return _known


def forget():
    """The file has been replaced."""
    global _known
    _known = None


class Settings:
    def __init__(self, path):
        """Defaults, then what the file says; `problem` is None or what is wrong with it."""
        try:
            with open(path) as file:
                text = file.read()
            given = json.loads(text)
            # MicroPython's json takes the beginning of a file for the whole of it.
            if not isinstance(given, dict) or text.count("{") != text.count("}"):
                raise ValueError
            self.problem = broken(given)
        except (OSError, ValueError):
            self.problem = READABLE
        if self.problem is not None:
            given = {}
        given = _overlaid(given)
        for name, default, _, _ in RULES:
            setattr(self, name, given.get(name, default))
        for change in self.changes.values():
            self.version = max(self.version, change[0])


def number(name):
    """Which setting that is, counted from 1 as in docs/wake.md; 0 for one that is not known."""
    for at, rule in enumerate(RULES):
        if rule[0] == name:
            return at + 1
    return 0


def called(number):
    """The name of a setting by its number; None for 0, the file itself."""
    return RULES[number - 1][0] if number else None


def broken(given):
    """The number of the first rule that `given` breaks, or None."""
    if "changes" in given:
        changes = given["changes"]
        if not are_changes(changes):
            return number("changes")
        for name in FIXED:
            if name in changes:
                return number(name)
        given = _overlaid(given)
    at = 0
    for name, _, least, most in RULES:
        at += 1
        if name in given:
            value = given[name]
            if least is None:
                if not allowed(name, value, least, most) or (
                        name == "gate" and not _fits(value, given)):
                    return at
            elif type(value) is not int or not least <= value <= most:
                return at
    return None


def _overlaid(given):
    # What holds: the changes over what the file itself says.
    if not given.get("changes"):
        return given
    now = dict(given)
    for name, change in given["changes"].items():
        if len(change) > 1:
            now[name] = change[1]
    return now


def are_changes(changes):
    """Whether that has the shape of changes, whatever they are of."""
    return isinstance(changes, dict) and all(
        isinstance(change, list) and 0 < len(change) < 3 and _is_int(change[0], 1, 0xFFFFFFFF)
        for change in changes.values())


def allowed(name, value, least, most):
    """Whether a setting may have that value, whatever the others are."""
    if least is not None:
        return _is_int(value, least, most)
    if name == "changes":
        return True  # looked at already
    if name == "gate":
        return value is None or isinstance(value, dict) and (
            all(_is_int(value.get(key), 0, most) for key, most in _GATE)
            and _are_ints(value.get("channels"), 32, 31))
    if name == "model" or name == "large":
        return value is None or (
            isinstance(value, dict) and isinstance(value.get("name"), str)
            and all(_is_int(value.get(key), 0, 0xFFFFFFFF) for key in _MODEL[1:]))
    if name == "post":
        return _are_ints(value, 15, 0xFFFF) and len(value) > 0
    return _are_ints(value, 16, 126)


def _fits(gate, given):
    # It looks at some of the window's channels, and ends before the window does.
    return gate is None or (0 < gate["samples"] < given.get("window", 0) and gate["channels"]
                            and max(gate["channels"]) < given.get("channels", 1))


def _are_ints(value, length, most):
    if not isinstance(value, (list, tuple)) or len(value) > length:
        return False
    for item in value:  # a generator would take twice as long
        if not _is_int(item, 0, most):
            return False
    return True


def _is_int(value, least, most):
    return type(value) is int and least <= value <= most  # no bool is
