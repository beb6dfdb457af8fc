"""When to wake and when to report: grid, pace, backoff and its jitter, alerts and modes."""

from node import schedule
from node.modes import CRITICAL, DEGRADED, FULL, SAFE
from node.state import State


class Settings:
    wake_s, wake_most_s, uplink_s, uplink_most_s = 300, 3600, 1800, 21600
    day_bytes = 0


def state(mode=FULL, **what):
    made = State()
    made.modes.mode, made.energy.pace_s = mode, 300
    for name in what:
        setattr(made, name, what[name])
    return made


# --- the timer: a grid at full pace, and so long after the wake began at a slower one ---

one = state()
assert schedule.timer_s(one, Settings, 1000) == 1200 == one.timer_s
assert schedule.timer_s(one, Settings, 1100) == 1200  # woken by motion: it is not put off
assert schedule.timer_s(one, Settings, 1200) == 1500  # and never due now
one.energy.pace_s, one.energy.began_s = 437, 1500
assert schedule.timer_s(one, Settings, 1506) == 1937
one.energy.began_s = 1000  # awake for longer than a pace
assert schedule.timer_s(one, Settings, 1937) == 1938
one = state(timer_s=1 << 30)  # a clock put back leaves no wake for years
assert schedule.timer_s(one, Settings, 1000) == 1200
for mode in (CRITICAL, SAFE):
    one = state(mode)
    one.energy.began_s = 1000
    assert schedule.timer_s(one, Settings, 1000) == 4600, mode

# --- backoff: doubles up to its most, a quarter more or less, sooner while an alert waits ---

for n in range(1, 30):
    one = state(unlinked=n)
    for alert, least_s in ((False, 1800), (True, 60)):
        wait_s = min(least_s << min(n - 1, 16), 21600)
        span = wait_s // 2
        lots = (0, 1, span // 3, span, span + 1, 0xFFFFFFFF)
        waits = [schedule.backoff_s(one, Settings, alert, lot) for lot in lots]
        least = wait_s - wait_s // 4
        assert waits[:5] == [least, least + 1, least + span // 3, least + span, least]
        assert least <= waits[5] <= least + span
one.energy.pace_s = 600  # a stretched pace stretches the schedule too, up to the most
assert schedule.backoff_s(state(unlinked=1), Settings, False, 900) == 1350 + 900
one = state(unlinked=1)
one.energy.pace_s = 600
assert schedule.backoff_s(one, Settings, False, 0) == 2700

# --- due: by schedule, or for an alert; in CRITICAL for an alert only ---

for mode in (FULL, DEGRADED, CRITICAL, SAFE):
    for alert in (False, True):
        one = state(mode, uplink_s=2000)
        assert not schedule.is_due(one, Settings, 1999, alert, False, 0)
        assert schedule.is_due(one, Settings, 2000, alert, False, 0) == (alert or mode != CRITICAL)
        # news goes out at once, unless the last attempts failed
        assert schedule.is_due(one, Settings, 1000, True, True, 0)
        one.unlinked = 3
        assert not schedule.is_due(one, Settings, 1000, True, True, 0)
        assert one.uplink_s == 1000 + 180  # 60 x 4, less a quarter
        assert schedule.is_due(one, Settings, 1180, True, False, 0)
        one.uplink_s = 1010  # sooner stays
        assert not schedule.is_due(one, Settings, 1000, True, True, 0) and one.uplink_s == 1010
print("OK")
