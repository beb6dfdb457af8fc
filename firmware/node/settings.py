# Settings: settings.json, checked against one table; a file that breaks a rule is refused whole.
# The version is the file's own, counted up by whoever writes it; what each means: docs/wake.md.

import json

from micropython import const

READABLE = const(0)  # what problem number 0 is about: the file itself, not one setting

# name, default, least, most. A least of None marks what has its own check below.
_RULES = (
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
)
_MODEL = ("name", "crc32", "abi", "window", "channels", "features", "classes")


class Settings:
    def __init__(self, path):
        """Defaults, then what the file says; `problem` is None or what is wrong with it."""
        self.problem = None
        for rule in _RULES:
            setattr(self, rule[0], rule[1])
        try:
            with open(path) as file:
                text = file.read()
            given = json.loads(text)
            # MicroPython's json takes the beginning of a file for the whole of it.
            if not isinstance(given, dict) or text.count("{") != text.count("}"):
                raise ValueError
        except (OSError, ValueError):
            self.problem = READABLE
            return
        for number, (name, default, least, most) in enumerate(_RULES):
            if not _allowed(name, given.get(name, default), least, most):
                self.problem = number + 1
                return
        for name, default, _, _ in _RULES:
            setattr(self, name, given.get(name, default))


def _allowed(name, value, least, most):
    if least is not None:
        return _is_int(value, least, most)
    if name == "model":
        return value is None or (
            isinstance(value, dict) and isinstance(value.get("name"), str)
            and all(_is_int(value.get(key), 0, 0xFFFFFFFF) for key in _MODEL[1:]))
    length, most = (15, 0xFFFF) if name == "post" else (16, 126)
    return (isinstance(value, (list, tuple)) and len(value) <= length
            and (name != "post" or len(value) > 0)
            and all(_is_int(item, 0, most) for item in value))


def _is_int(value, least, most):
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most
