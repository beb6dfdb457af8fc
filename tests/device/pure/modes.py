"""Modes: each pair, each edge of each threshold, and random walks that never change too soon."""

import random

from node.modes import (
    ALLOWED,
    BATTERY_LOW,
    BUDGET,
    CASCADE,
    CHARGE,
    COUNT,
    CRITICAL,
    DEGRADED,
    FAILED,
    FAILING,
    FLASH,
    FULL,
    HEAT,
    INPUTS,
    LINK,
    MAIN,
    NONE,
    ORDER,
    OVER,
    SAFE,
    Modes,
    rows,
)

DWELL_S = 100
SAFE_S = 24 * DWELL_S


class Settings:
    critical_pct, hot_c, cold_c, dwell_s = 20, 75, -30, DWELL_S


WELL = (0, 0, 254, 100, 20, 0, 0)  # nothing is wrong
TABLE = rows(Settings)
# what alone demands each mode
DEMAND = {FULL: WELL, DEGRADED: (3,) + WELL[1:], CRITICAL: WELL[:CHARGE] + (20, 20, 0, 0),
          SAFE: WELL[:FAILED] + (5, 0)}
DWELLS = {FULL: DWELL_S, DEGRADED: DWELL_S, CRITICAL: DWELL_S, SAFE: SAFE_S}


def with_input(number, value):
    return WELL[:number] + (value,) + WELL[number + 1:]


def at(mode, now_s=1000):
    """Modes that have just changed to `mode`, or are FULL from the start."""
    modes = Modes()
    assert modes.step(DEMAND[mode], Settings, now_s) == (None if mode == FULL else FULL)
    assert modes.mode == mode
    if mode == FULL:
        modes.since_s = now_s
    return modes


# --- what a mode allows: never more than a milder one ---

for milder, worse in zip(ALLOWED, ALLOWED[1:]):
    assert milder[0] > worse[0] and milder[1] <= worse[1] and milder[3] <= worse[3]
assert [allowed[0] for allowed in ALLOWED] == [CASCADE, MAIN, COUNT, NONE]
assert [mode for mode in range(4) if not ALLOWED[mode][2]] == [CRITICAL]

# --- every pair of modes: after the dwell and not a second before, told with its reason ---

for old in range(4):
    for new in range(4):
        modes = at(old)
        for now_s in (1001, 1000 + DWELLS[old] - 1):
            assert modes.step(DEMAND[new], Settings, now_s) is None and modes.mode == old
        before = modes.step(DEMAND[new], Settings, 1000 + DWELLS[old])
        if old == new:
            assert before is None and modes.mode == old
            continue
        assert before == old and modes.mode == new, (old, new)
        if new > old:
            assert modes.reason == {1: 1, 2: BATTERY_LOW, 3: FAILING}[new]
        else:
            assert modes.reason == {1: 1, 2: BATTERY_LOW, 3: FAILING}[old] | OVER
        assert modes.since_s == 1000 + DWELLS[old]

# --- every edge of every threshold ---

for reason, mode, number, on, off in TABLE:
    step = 1 if on > off else -1  # towards worse
    modes = Modes()
    assert modes.step(with_input(number, on - step), Settings, 1000) is None
    assert modes.step(with_input(number, on), Settings, 1000) == FULL
    assert (modes.mode, modes.reason) == (mode, reason)
    # between the two thresholds it stays, however long
    for value in range(off + step, on, step):
        assert modes.step(with_input(number, value), Settings, 100000) is None, (reason, value)
        assert modes.mode == mode
    assert modes.step(with_input(number, off), Settings, 100000) == mode
    assert (modes.mode, modes.reason) == (FULL, reason | OVER)
    # and between them it doesn't begin either
    for value in range(off, on, step):
        assert modes.step(with_input(number, value), Settings, 200000) is None, (reason, value)
assert {row[0] for row in TABLE} == {1, 2, 3, 4, 5, 6, 7, 8}
assert {row[2] for row in TABLE} == {LINK, FLASH, BUDGET, CHARGE, HEAT, FAILED, ORDER}

# --- two demands: the worse rules, and its end leaves the other ---

both = (3, 0, 254, 20, 20, 0, 0)
modes = Modes()
modes.step(both, Settings, 1000)
assert (modes.mode, modes.reason) == (CRITICAL, BATTERY_LOW)
assert modes.step((2, 0, 254, 25, 20, 0, 0), Settings, 2000) == CRITICAL
assert (modes.mode, modes.reason) == (DEGRADED, BATTERY_LOW | OVER)
assert modes.step(WELL, Settings, 3000) == DEGRADED and modes.reason == 1 | OVER

# a demand that came and went within the dwell leaves no trace
modes = at(DEGRADED)
modes.step(both, Settings, 1001)
modes.step(DEMAND[DEGRADED], Settings, 1002)
assert modes.step(DEMAND[DEGRADED], Settings, 5000) is None and modes.mode == DEGRADED

# unknown values demand nothing
assert Modes().step(with_input(CHARGE, 255), Settings, 1000) is None
assert Modes().step(with_input(BUDGET, 255), Settings, 1000) is None

# --- random walks ---

random.seed(6)
LIMITS = ((0, 6), (0, 3), (0, 255), (0, 100), (-45, 90), (0, 8), (0, 0))
seen = set()
for walk in range(60):
    modes, now_s, changed_s = Modes(), 1000, None
    values = [random.randint(low, high) for low, high in LIMITS]
    modes.since_s = now_s  # as if it had just changed
    for _ in range(400):
        now_s += random.randint(1, DWELL_S)
        for i in range(INPUTS):
            low, high = LIMITS[i]
            span = max(1, (high - low) // 12)
            values[i] = max(low, min(high, values[i] + random.randint(-span, span)))
        if random.randint(0, 20) == 0:
            values[FAILED] = random.choice((0, 5))
        old = modes.mode
        before = modes.step(tuple(values), Settings, now_s)
        demanded = 0
        for row in TABLE:
            if modes.on >> row[0] & 1:
                demanded = max(demanded, row[1])
        if before is None:
            assert modes.mode == old
            continue
        seen.add((before, modes.mode))
        assert before == old and modes.mode == demanded != old
        if changed_s is not None:
            assert now_s - changed_s >= DWELLS[old], (walk, now_s, changed_s)
        changed_s = now_s
        # the reason explains the change: a row that demands the worse of the two modes
        rule = [row for row in TABLE if row[0] == modes.reason & ~OVER]
        assert len(rule) == 1 and rule[0][1] == max(before, modes.mode)
        assert bool(modes.reason & OVER) == (modes.mode < before)
        assert bool(modes.on >> rule[0][0] & 1) == (modes.mode > before)
assert len(seen) == 12, seen  # the walks went every way there is
print("OK")
