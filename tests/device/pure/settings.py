"""Settings: one table of rules; what breaks one is refused whole and named by its number."""

import json
import os

from node.settings import READABLE, Settings, current, forget

PATH = "settings-test.json"
MODEL = {"name": "motion", "crc32": 1, "abi": 1, "window": 64, "channels": 6, "features": 12,
         "classes": 4}
GATE = {"samples": 16, "channels": [0, 1, 2], "span": 60, "class": 3}
GOOD = {"version": 7, "wake_s": 60, "window": 64, "channels": 6, "period_us": 80000,
        "model": MODEL, "post": [1, 1, 1], "reading": [0, 11], "from_a_later_version": True,
        "gate": GATE, "large": MODEL, "unsure": 80, "life_days": 730}


def load(text):
    with open(PATH, "w") as file:
        file.write(text)
    return Settings(PATH)


def default(settings):
    fresh = Settings("no such file")
    assert fresh.problem == READABLE
    return all(getattr(settings, name) == getattr(fresh, name) for name in
               ("version", "wake_s", "awake_ms", "uplink_s", "window", "model", "post"))


try:
    good = load(json.dumps(GOOD))
    assert good.problem is None
    assert (good.version, good.wake_s, good.window, good.reading) == (7, 60, 64, [0, 11])
    assert good.model == MODEL and good.post == [1, 1, 1]
    assert good.uplink_s == 1800  # not in the file
    assert (good.gate, good.large, good.unsure, good.life_days) == (GATE, MODEL, 80, 730)
    assert (good.wake_most_s, good.critical_pct, good.cold_c) == (3600, 20, -30)

    assert load("{}").problem is None  # all defaults is a choice, too

    # read once, and again when the file has been replaced, or when it was no good
    assert current("no such file").problem == READABLE
    assert current(PATH).wake_s == 300
    load(json.dumps(GOOD))
    assert current(PATH).wake_s == 300
    forget()
    assert current(PATH).wake_s == 60

    whole = json.dumps(GOOD)
    for text in ["", "[]", "null", "7", '"x"'] + [whole[:i] for i in range(1, len(whole))]:
        bad = load(text)
        assert bad.problem == READABLE and default(bad), text

    seen = set()
    for name, values in (
            ("version", (-1, 1 << 32, "1", None, True, 1.5)), ("wake_s", (4, 86401, [])),
            ("awake_ms", (0, 600001)), ("uplink_s", (9, 604801)), ("state_s", (1, {})),
            ("listen", (2, -1, False)), ("window", (-1, 4097, None)), ("channels", (0, 33)),
            ("period_us", (0, 60000001)),
            ("model", (7, [], {}, {"name": 1}, dict(MODEL, abi="1"), dict(MODEL, name=None))),
            ("post", (None, [], [1] * 16, [-1], [65536], ["1"], 3)),
            ("reading", (None, [127], [0] * 17, [-1])),
            ("large", (7, [], {}, dict(MODEL, abi="1"))),
            ("gate", (7, [], {}, dict(GATE, span=-1), dict(GATE, samples=4097),
                      dict(GATE, channels=[32]), dict(GATE, channels=3), {"samples": 16},
                      dict(GATE, samples=64), dict(GATE, samples=0), dict(GATE, channels=[6]),
                      dict(GATE, channels=[]))),
            ("trial", (-1, 256, True)),
            ("unsure", (-1, 256)), ("life_days", (-1, 3651, 1.5)), ("wake_most_s", (4, 86401)),
            ("uplink_most_s", (9, 604801)), ("critical_pct", (-1, 91)), ("hot_c", (-41, 126)),
            ("cold_c", (-61, 126)), ("dwell_s", (-1, 86401))):
        numbers = set()
        for value in values:
            given = dict(GOOD)
            given[name] = value
            bad = load(json.dumps(given))
            assert bad.problem is not None and default(bad), (name, value)
            numbers.add(bad.problem)
        assert len(numbers) == 1 and not numbers & seen, name  # each setting has its own number
        seen |= numbers
finally:
    os.remove(PATH)
print("OK")
