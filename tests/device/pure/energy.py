"""The ledger adds up, the battery's charge is followed, and the pace lets it last as asked."""

import random

from node import energy
from node.energy import LEAK, LISTEN, PHASES, SLEEP, UNKNOWN, Energy
from node.latency import BOOT, CAPTURE, INFER, STORE, UPLINK

DAY_S = 86400
POWER = {"boot_uw": 117384, "active_uw": 132051, "doze_uw": 2984, "radio_uw": 495051,
         "sensor_uw": 2006, "flash_uw": 73333, "sleep_nw": 87267, "listen_nw": 84333,
         "leak_nw": 330184, "boot_us": 68000}
LI_ION = {"capacity_mj": 43416000, "curve": [
    [0, 2502], [10, 3146], [20, 3372], [30, 3449], [40, 3532], [50, 3602], [60, 3680],
    [70, 3764], [80, 3842], [90, 3936], [100, 4032]]}
FLAT = {"capacity_mj": 33696000, "curve": [
    [0, 2000], [5, 3200], [10, 3450], [20, 3560], [50, 3620], [90, 3650], [100, 3670]]}
CELL = 43416000


class Settings:
    wake_s, wake_most_s, uplink_s, uplink_most_s = 60, 3600, 3600, 21600
    listen, life_days, critical_pct = 1, 0, 20


def made(power=POWER, battery=LI_ION):
    one = Energy()
    one.power, one.battery = power, battery
    return one


def mv(battery, share):
    """The voltage at a charge of `share` in 1/1000 %."""
    before = None
    for percent, at_mv in battery["curve"]:
        if before and share <= percent * 1000:
            step = percent * 1000 - before[0] * 1000
            return before[1] + (at_mv - before[1]) * (share - before[0] * 1000) // step
        before = percent, at_mv
    return battery["curve"][-1][1]


# --- charging a stage: state times time, to the nanojoule ---

one = made()
one.arrive(1000, 4032, Settings)
one.charge(BOOT, 477800, 0, 0, 0)
assert one.today[BOOT] == 477800 * 117384 // 1000
one.charge(CAPTURE, 5180600, 5120000, 0, 0)
assert one.today[CAPTURE] == (60600 * 132051 + 5120000 * 2984 + 5180600 * 2006) // 1000
one.charge(INFER, 26, 0, 0, 0)
assert one.today[INFER] == 26 * 132051 // 1000
one.charge(STORE, 75000, 0, 70800, 0)
assert one.today[STORE] == (75000 * 132051 + 70800 * 73333) // 1000
one.charge(UPLINK, 720000, 0, 1000, 704000)
assert one.today[UPLINK] == (16000 * 132051 + 1000 * 73333 + 704000 * 495051) // 1000
assert one.spent_nj == sum(one.today)
assert one.left_nj == CELL * 1000000 - one.spent_nj

# the sleep before is charged at the next wake
one.depart(6000999, True, False, True)
spent = one.spent_nj
one.arrive(1060, 4032, Settings)
assert one.today[SLEEP] == 54000 * 87267 // 1000
assert one.today[LISTEN] == 54000 * 84333 // 1000
assert one.today[LEAK] == 60 * 330184
assert one.spent_nj == spent + one.today[SLEEP] + one.today[LISTEN] + one.today[LEAK]
one.depart(1000000, True, False, False)  # motion was not to wake it
before = one.today[LISTEN]
one.arrive(1120, 4032, Settings)
assert one.today[LISTEN] == before and one.today[SLEEP] > 54000 * 87267 // 1000

# a clock that was set charges no years of sleep
for now_s in (1119, 1000000000):
    one.depart(0, True, False, False)
    spent = one.spent_nj
    one.arrive(now_s, 4032, Settings)
    assert one.spent_nj == spent and one.began_s == one.start_s == now_s

# --- a month of wakes: the sum is what went out of the battery, within a thousandth ---

random.seed(1)
one, clock_us, drained, slept_us, since = made(), 0, 0, 0, 0
while clock_us < 30 * DAY_S * 1000000:
    slept_us = random.randint(1, 300000000)
    began = clock_us
    one.arrive(1 + clock_us // 1000000, 3900, Settings)
    for stage, took, doze, flash, radio in (
            (BOOT, random.randint(400000, 500000), 0, 0, 0),
            (CAPTURE, 5200000, 5120000, 0, 0), (INFER, random.randint(1, 900), 0, 0, 0),
            (STORE, random.randint(90000, 99000), 0, random.randint(0, 90000), 0),
            (UPLINK, 800000, 0, 100, 790000)):
        one.charge(stage, took, doze, flash, radio)
        clock_us += took
        state = "boot_uw" if stage == BOOT else "active_uw"
        drained += ((took - doze - radio) * POWER[state] + doze * POWER["doze_uw"]
                    + radio * POWER["radio_uw"] + flash * POWER["flash_uw"]
                    + (took * POWER["sensor_uw"] if stage == CAPTURE else 0)) * 1000
    listens = random.randint(0, 1)
    one.depart(clock_us - began, True, False, listens)
    drained += slept_us * (POWER["sleep_nw"] + listens * POWER["listen_nw"])
    clock_us += slept_us
    drained += (clock_us - began) * POWER["leak_nw"]
one.arrive(1 + clock_us // 1000000, 3900, Settings)
assert abs(one.spent_nj * 1000000 - drained) * 1000 < drained, (one.spent_nj, drained)
assert one.spent_nj == sum(one.today)  # nobody asked for a new day
rate = drained // clock_us
assert abs(one.rate_nw - rate) * 10 < rate, (one.rate_nw, rate)
days = one.days_left()
assert days == one.left_nj // one.rate_nw // DAY_S > 100

# --- days ---

one = made()
one.arrive(3 * DAY_S + 10, 4032, Settings)
assert one.new_day(3 * DAY_S + 20) is None
one.charge(INFER, 1000, 0, 0, 0)
assert one.new_day(4 * DAY_S) == (3, [0, 0, 0, 132051] + [0] * 6)
assert one.today == [0] * PHASES and one.day == 4 and one.spent_nj == 132051

# --- state of charge ---

for battery in (LI_ION, FLAT):
    one, last = made(battery=battery), -1
    for percent, at_mv in battery["curve"]:
        charge, _ = one._by_voltage(at_mv)
        assert charge == percent * 100
    for at_mv in range(1900, 4200):
        charge, off = one._by_voltage(at_mv)
        assert last <= charge <= 10000 and off > 0
        last = charge
    assert one._by_voltage(0)[0] == 0 and one._by_voltage(9999)[0] == 10000
    # it begins with what the voltage says
    one.arrive(1000, mv(battery, 50000), Settings)
    assert 49 <= one.soc() <= 50

# a wrong estimate finds its way: soon if it is far off, within days if it is near
for begin, truth in ((100000, 30000), (10000, 90000), (60000, 52000), (52000, 60000)):
    one, now_s = made(), 1000
    one.arrive(now_s, mv(LI_ION, begin), Settings)
    one.depart(0, False, False, False)
    for _ in range(14 * 24):
        now_s += 3600
        one.arrive(now_s, mv(LI_ION, truth), Settings)
        one.depart(0, False, False, False)
        assert abs(one.soc() - truth // 1000) <= 17  # 5 % and three times what 20 mV may be
    assert abs(one.soc() - truth // 1000) <= 2, (begin, truth, one.soc())

# on a flat curve a voltage that wavers by 20 mV hardly moves it in a day
one, now_s, least, most = made(battery=FLAT), 1000, 100, 0
one.arrive(now_s, mv(FLAT, 70000), Settings)
for i in range(24 * 60):
    one.depart(0, False, False, False)
    now_s += 60
    one.arrive(now_s, mv(FLAT, 70000) + random.randint(-20, 20), Settings)
    least, most = min(least, one.soc()), max(most, one.soc())
assert most - least <= 3, (least, most)

# without a battery, or without any figures, nothing is known and nothing fails
for power, battery in ((POWER, {}), ({}, {}), ({}, LI_ION)):
    one = made(power, battery)
    one.arrive(1000, 3000, Settings)
    one.charge(CAPTURE, 5000, 0, 0, 0)
    one.depart(5000, True, True, True)
    one.arrive(1060, 3000, Settings)
    assert (one.soc() == UNKNOWN) == (not battery)
    assert one.pace_s == 60 and one.afford == UNKNOWN and one.may_listen()
    if not power:
        assert one.spent_nj == 0 and one.days_left() == 0xFFFF
        assert one.link_us(Settings) > 1 << 29

# --- pacing: a life in the model, as the cycle leads it ---


class Asked(Settings):
    def __init__(self, life_days, **more):
        self.life_days = life_days
        self.wake_s, self.uplink_s = 300, 3600
        for name in more:
            setattr(self, name, more[name])


def live(settings, days, wake_us=4500000, gap_s=None, one=None, now_s=1000):
    """Live `days`; motion comes `gap_s` after each sleep began. Returns the ledger and counts."""
    one = one or made()
    battery_nj = CELL * 1000000
    end_s, uplink_s, by_event, wakes, events, paces = now_s + days * DAY_S, 0, False, 0, 0, []
    while now_s < end_s:
        left = (battery_nj - one.spent_nj) // (CELL * 10)  # 1/1000 %
        before_s = one.pace_s
        one.arrive(now_s, mv(LI_ION, left), settings)
        if before_s:  # the pace changes by an eighth of its range at most
            assert abs(one.pace_s - before_s) <= settings.wake_most_s // 8
        one.charge(STORE, wake_us, 0, 0, 0)
        if now_s >= uplink_s:
            one.charge(UPLINK, 740000, 0, 0, 740000)
            uplink_s = now_s + one.uplink_s(settings)
            assert settings.uplink_s <= uplink_s - now_s <= settings.uplink_most_s
        listens = settings.listen and one.may_listen()
        one.depart(wake_us, True, by_event, listens)
        wakes, events = wakes + 1, events + by_event
        if now_s // DAY_S > len(paces):
            paces.append(one.pace_s)
        by_event = bool(listens and gap_s and gap_s < one.pace_s)
        now_s += gap_s if by_event else one.pace_s
    return one, wakes, events, paces


# plenty: the pace is what settings ask for
one, wakes, _, paces = live(Asked(30), 10)
assert set(paces) == {300} and one.afford > 100 and wakes == 10 * 288

# a year asked of a battery that would last half of one: it is there at the end, and not half full
year = Asked(365)
quick, *_ = live(Asked(0), 10)
assert quick.days_left() < 300, quick.days_left()
one, wakes, _, paces = live(year, 365)
assert 20 <= one.soc() <= 26, one.soc()
assert min(paces) >= 300 and 300 < paces[len(paces) // 2] < 3600
# smoothly: after the first day it moves by less than a fifth within the year
settled = sorted(paces[len(paces) // 10:-len(paces) // 10])
assert settled[-1] * 10 <= settled[0] * 12, (settled[0], settled[-1])
assert one.end_s == 1000 + 365 * DAY_S

# more than it can give: the slowest pace, and the budget says so
one, wakes, _, paces = live(Asked(3650), 30)
assert paces[-1] == 3600 and one.afford < 80, one.afford
assert one.uplink_s(Asked(3650)) == 21600

# motion without end takes half of what may be spent at most, and the timer still has its wakes
one, wakes, events, _ = live(year, 120, gap_s=100)
still, calm, _, _ = live(year, 120)
assert events > 1000
assert wakes - events > calm // 4, (wakes, events, calm)
assert still.left_nj - one.left_nj < CELL * 1000000 // 50, (still.soc(), one.soc())
# and without a life asked for nobody holds it back
_, wakes, events, _ = live(Asked(0), 2, gap_s=100)
assert events == wakes - 1

# how long an uplink may keep the radio on follows the budget, and is long enough for something
rich, *_ = live(Asked(60), 5)
assert rich.link_us(Asked(60)) > 2 * one.link_us(Asked(3650, uplink_s=10)) >= 2 * 3000000

# --- retained memory ---

kept = bytearray(energy.SIZE)
one.save(memoryview(kept))
found = made()
found.load(memoryview(kept))
for name in ("began_s", "awake_ms", "listened", "start_s", "end_s", "day", "pace_s", "rate_nw",
             "event_nw", "wake_uj", "link_uj", "credit_uj", "today", "spent_nj", "seen_nj",
             "left_nj"):
    assert getattr(found, name) == getattr(one, name), name
assert found.spent_nj > 1 << 32

# the clock put forward shifts what is told in its time
found.clock_set(1000000)
assert found.began_s == one.began_s + 1000000 and found.end_s == one.end_s + 1000000
spent = found.spent_nj
found.arrive(one.began_s + 1000060, 3600, Settings)
assert 0 < found.spent_nj - spent < 60 * 1000000
print("OK")
