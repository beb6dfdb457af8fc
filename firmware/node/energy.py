# What has been spent, what is left, and what the node can afford: integers at the battery.
# The model, each number's meaning and what was left out: docs/power.md.

from struct import pack_into, unpack_from

from micropython import const

from node.latency import BOOT, CAPTURE, UPLINK

SLEEP = const(7)  # phases that follow the stages of a wake
LISTEN = const(8)  # the sensor watches for motion meanwhile
LEAK = const(9)  # self-discharge
PHASES = const(10)

UNKNOWN = const(255)  # soc, without a battery in board.json

_DAY_S = const(86400)
_LONG_S = const(34560000)  # a sleep longer than 400 days is a clock that was set
_MEAN_S = const(259200)  # rate_nw looks back three days
_WEEK_S = const(604800)
_NOISE_MV = const(20)  # what a reading of the voltage may be off, temperature included
_LINK_LEAST_US = const(3000000)
_LINK_MOST_US = const(0x3FFFFFFF)
_MOST = const(0x3FFFFFFF)
_FORMAT = "<IIIIIIIIIIiB10QQQQ"
SIZE = const(149)


class Energy:
    def __init__(self):
        self.power = {}  # figures of board.json: they aren't retained
        self.battery = {}
        self.began_s = 0  # the wake before, 0: this is the first
        self.awake_ms = 0  # and how long it lasted
        self.listened = 0
        self.start_s = 0  # when counting began
        self.end_s = 0  # when the life asked for is over
        self.day = 0  # what `today` is of, days since the clock's epoch
        self.pace_s = 0  # between two timer wakes
        self.rate_nw = 0  # mean power
        self.event_nw = 0  # of it, for wakes by motion
        self.wake_uj = 0  # what a whole wake takes
        self.link_uj = 0  # what an uplink takes
        self.credit_uj = 0  # what wakes by motion may take
        self.today = [0] * PHASES  # nJ by phase
        self.spent_nj = 0  # since counting began
        self.seen_nj = 0  # of it, up to the wake before: what rate_nw knows
        self.left_nj = 0
        # Of this wake only:
        self.afford = UNKNOWN  # budget in % of what the slowest pace takes
        self._spend_uw = 0
        self._wake_nj = self._link_nj = 0

    # --- the ledger ---

    def charge(self, stage, took_us, doze_us, flash_us, radio_us):
        """A stage took so long, and of that so much in these states."""
        power = self.power
        if not power:
            return
        awake_us = max(0, took_us - doze_us - radio_us)
        spent = awake_us * power["boot_uw" if stage == BOOT else "active_uw"]
        if stage == CAPTURE:
            spent += doze_us * power["doze_uw"] + took_us * power["sensor_uw"]
        if flash_us:
            spent += flash_us * power["flash_uw"]
        if radio_us:
            spent += radio_us * power["radio_uw"]
        spent //= 1000
        if stage == UPLINK:
            self._link_nj += spent
        else:
            self._wake_nj += spent
        self._add(stage, spent)

    def _add(self, phase, nj):
        self.today[phase] += nj
        self.spent_nj += nj
        self.left_nj = max(0, self.left_nj - nj)

    # --- a wake begins ---

    def arrive(self, now_s, battery_mv, settings, on_reserve=False):
        """Charge the sleep that is over, look at the battery, and plan.

        `on_reserve`: the mode is one that may use up what others leave, below critical_pct.
        """
        elapsed_s = now_s - self.began_s
        if self.began_s and 0 <= elapsed_s < _LONG_S:
            self._slept(elapsed_s)
            if self.battery:
                self._correct(battery_mv, elapsed_s)
        else:
            elapsed_s = 0
            self._begin(now_s, battery_mv, settings)
        self.began_s = now_s
        self._plan(settings, elapsed_s, on_reserve)

    def _begin(self, now_s, battery_mv, settings):
        self.start_s, self.day = now_s, now_s // _DAY_S
        self.pace_s = settings.wake_s
        if self.battery:
            charge, _ = self._by_voltage(battery_mv)
            self.left_nj = self.battery["capacity_mj"] * charge * 100
            reserve = settings.critical_pct * 100
            share = max(0, charge - reserve) * 1000 // (10000 - reserve)
            self.end_s = now_s + settings.life_days * _DAY_S * share // 1000

    def _slept(self, elapsed_s):
        power = self.power
        if power:
            asleep_ms = max(0, elapsed_s * 1000 - self.awake_ms)
            self._add(SLEEP, asleep_ms * power["sleep_nw"] // 1000)
            if self.listened:
                self._add(LISTEN, asleep_ms * power["listen_nw"] // 1000)
            self._add(LEAK, elapsed_s * power["leak_nw"])
        known_s = self.began_s + elapsed_s - self.start_s
        change = self.spent_nj - self.seen_nj - self.rate_nw * elapsed_s
        self.rate_nw = min(_MOST, self.rate_nw + change // max(1, min(known_s, _MEAN_S)))
        self.seen_nj = self.spent_nj

    def _by_voltage(self, mv):
        # State of charge in 1/100 %, and how much of that a reading may be off.
        before, off = None, 0
        for percent, at_mv in self.battery["curve"]:
            if before:
                step, rise = 100 * (percent - before[0]), at_mv - before[1]
                off = step * _NOISE_MV // rise
                if mv < at_mv:
                    return max(0, 100 * before[0] + step * (mv - before[1]) // rise), off
            before = percent, at_mv
        return 10000, off

    def _correct(self, mv, elapsed_s):
        # Towards what the voltage says, within days or, where the curve is flat, months; but
        # never further from it than 5 % and three times what a reading may be off.
        charge, off = self._by_voltage(mv)
        unit = self.battery["capacity_mj"] * 100  # nJ in 1/100 %
        gap = charge * unit - self.left_nj
        step = gap * elapsed_s // (_DAY_S + _DAY_S * off * off // 40000)
        band = (500 + 3 * off) * unit
        if abs(gap - step) > band:
            step = gap - band if gap > 0 else gap + band
        self.left_nj = max(0, self.left_nj + step)

    def _plan(self, settings, elapsed_s, on_reserve):
        # From what is left and how long it shall last: the pace, and what motion may take.
        power, slowest_s = self.power, max(settings.wake_s, settings.wake_most_s)
        if not (settings.life_days and power and self.battery):
            self.pace_s, self.afford = settings.wake_s, UNKNOWN
            self._spend_uw = 0
            return
        above_nj = self.left_nj - self.battery["capacity_mj"] * 10000 * settings.critical_pct
        left_s = max(_WEEK_S, self.end_s - self.began_s)
        budget_uw = max(0, above_nj) // 1000 // left_s
        fixed_uw = (power["sleep_nw"] + power["leak_nw"]
                    + (power["listen_nw"] if settings.listen else 0)) // 1000
        fixed_uw += self.link_uj // max(settings.uplink_s, settings.uplink_most_s)
        self.afford = min(UNKNOWN - 1, 100 * budget_uw // max(
            1, fixed_uw + self.wake_uj // slowest_s))
        if on_reserve:
            budget_uw = self.left_nj // 1000 // left_s
        self._spend_uw = spend_uw = max(0, budget_uw - fixed_uw)

        half_uw = spend_uw // 2
        self.event_nw -= self.event_nw * elapsed_s // max(_MEAN_S, elapsed_s)
        self.credit_uj = min(self.credit_uj + half_uw * elapsed_s, half_uw * _DAY_S, _MOST)

        timer_uw = spend_uw - min(self.event_nw // 1000, half_uw)
        takes_uj = self.wake_uj + self.link_uj * settings.wake_s // settings.uplink_s
        wanted_s = takes_uj // timer_uw if timer_uw else slowest_s
        pace_s = max(settings.wake_s, min(self.pace_s, slowest_s))
        change_s = max(settings.wake_s, min(wanted_s, slowest_s)) - pace_s
        if change_s:  # an eighth of the way, a second at least
            pace_s += change_s // 8 if abs(change_s) >= 8 else change_s // abs(change_s)
        self.pace_s = pace_s

    # --- what follows from the plan ---

    def may_listen(self):
        """Whether motion may wake the node: what such wakes take is within the budget."""
        return self.afford == UNKNOWN or self.credit_uj > 0

    def uplink_s(self, settings):
        """Seconds between two uplinks: they are stretched as the wakes are."""
        stretched_s = settings.uplink_s * self.pace_s // settings.wake_s
        return max(settings.uplink_s, min(stretched_s, settings.uplink_most_s))

    def link_us(self, settings):
        """How long an uplink's radio may be on; at least long enough for something."""
        if self.afford == UNKNOWN:
            return _LINK_MOST_US
        share_uj = self._spend_uw * self.uplink_s(settings) // 2
        return max(_LINK_LEAST_US, share_uj * 1000 // self.power["radio_uw"] * 1000)

    # --- a wake ends ---

    def depart(self, awake_us, whole, by_event, listens):
        """Learn what wakes take from this one, if it did all that a wake does."""
        self.awake_ms, self.listened = awake_us // 1000, int(listens)
        wake_uj, link_uj = self._wake_nj // 1000, self._link_nj // 1000
        if whole:
            self.wake_uj += (wake_uj - self.wake_uj) // 8 if self.wake_uj else wake_uj
        if link_uj:
            self.link_uj += (link_uj - self.link_uj) // 4 if self.link_uj else link_uj
        if by_event and self.afford != UNKNOWN:
            self.event_nw = min(_MOST, self.event_nw + self._wake_nj // _MEAN_S)
            self.credit_uj = max(-_MOST, self.credit_uj - wake_uj)
        self._wake_nj = self._link_nj = 0

    # --- told ---

    def soc(self):
        """State of charge in percent; UNKNOWN without a battery."""
        if not self.battery:
            return UNKNOWN
        return min(100, self.left_nj // (self.battery["capacity_mj"] * 10000))

    def days_left(self):
        """How long what is left lasts at the mean power of the last days; 65535 unknown."""
        if not self.battery or not self.rate_nw:
            return 0xFFFF
        return min(0xFFFE, self.left_nj // self.rate_nw // _DAY_S)

    def new_day(self, now_s):
        """At the first wake of a day: (the day before, its nJ by phase), and begin anew."""
        day = now_s // _DAY_S
        if self.day - 1 <= day <= self.day:  # the clock was put back: it has begun all the same
            return None
        before = self.day, self.today
        self.day, self.today = day, [0] * PHASES
        return before

    def clock_set(self, by_s):
        """The node's clock was put forward by so much."""
        self.began_s = max(0, self.began_s + by_s)
        self.start_s = max(0, self.start_s + by_s)
        self.end_s = max(0, self.end_s + by_s)
        if abs(by_s) >= _DAY_S:  # it was never right, and no day is to be told of
            self.day = self.began_s // _DAY_S

    # --- retained memory ---

    def save(self, buf):
        pack_into(_FORMAT, buf, 0, self.began_s, self.awake_ms, self.start_s, self.end_s,
                  self.day, self.pace_s, self.rate_nw, self.event_nw, self.wake_uj, self.link_uj,
                  self.credit_uj, self.listened, *self.today, self.spent_nj, self.seen_nj,
                  self.left_nj)

    def load(self, buf):
        numbers = unpack_from(_FORMAT, buf)
        (self.began_s, self.awake_ms, self.start_s, self.end_s, self.day, self.pace_s,
         self.rate_nw, self.event_nw, self.wake_uj, self.link_uj, self.credit_uj,
         self.listened) = numbers[:12]
        self.today = list(numbers[12:22])
        self.spent_nj, self.seen_nj, self.left_nj = numbers[22:]
