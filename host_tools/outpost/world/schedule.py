"""What happens in the virtual days of a scenario: all of it drawn from one seed.

Everything here is a function of scenario, seed and true virtual time, so a world that is killed
and started again finds the same days.
"""

import math
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field
from random import Random

from outpost.world.scenario import Scenario

DAY_S = 86400
COLDEST_DAY = 15  # of the year
WEATHER = 0.7  # how much of a day's weather is the day's before
SUN_STEP_S = 900


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong from `time_s` on, once.

    `kind` is "cut" (power goes in the middle of the `operation`-th flash operation from then on),
    "brownout" (it goes while the sensor samples), "asleep" (while the node sleeps), "uplink"
    (while it connects) or "hang" (the sensor's bus hangs until the watchdog bites).
    """

    time_s: int
    kind: str
    operation: int = 0


FAULTS = {"cuts": "cut", "brownouts": "brownout", "asleep": "asleep", "uplinks": "uplink",
          "hangs": "hang"}


@dataclass
class Schedule:
    """The virtual days of one run; times are true seconds since 1970.

    `classes` are the labels there are recordings of; `quiet` is the one that a night consists of.
    """

    scenario: Scenario
    seed: int
    days: float
    classes: list[str]
    quiet: str
    activities: list[tuple[int, str]] = field(default_factory=list)  # (from, label), in order
    motions: list[int] = field(default_factory=list)
    links: list[tuple[int, int]] = field(default_factory=list)  # (up from, down from)
    silences: list[tuple[int, int]] = field(default_factory=list)  # the sensor says nothing
    faults: list[Fault] = field(default_factory=list)
    weather_c: list[float] = field(default_factory=list)  # by day
    sky: list[float] = field(default_factory=list)  # share of the sun's power, by day

    def __post_init__(self) -> None:
        """Draw the days."""
        self.start_s = self.scenario.start_s
        days = math.ceil(self.days)
        for day in range(days):
            start = self.start_s + day * DAY_S
            self._live(start, self.random("activities", day))
            self._connect(start, self.random("links", day))
            self._fail(start, day, self.random("faults", day))
        self._come_and_go(days)
        gone = [(self.start_s + int(first * DAY_S), self.start_s + int(last * DAY_S))
                for first, last in self.scenario.link.gone]
        self.links = list(_without(_joined(self.links), gone))
        self.silences = _joined(self.silences)
        self._weather(days + 2)
        self.motions.sort()
        self.faults.sort(key=lambda fault: fault.time_s)

    @property
    def end_s(self) -> int:
        """When the run is over."""
        return self.start_s + round(self.days * DAY_S)

    def label(self, time_s: float) -> str:
        """Return what there is to sense."""
        at = bisect_right(self.activities, time_s, key=_first)
        return self.activities[max(0, at - 1)][1]

    def link_up(self, time_s: float) -> bool:
        """Return whether there is a way home; there always is once the days are over."""
        return time_s >= self.end_s or _within(self.links, time_s)

    def silent(self, time_s: float) -> bool:
        """Return whether the sensor has stopped answering."""
        return _within(self.silences, time_s)

    def next_motion_s(self, after_s: float) -> float:
        """Return when something next moves the node, infinity if never."""
        at = bisect_right(self.motions, after_s)
        return self.motions[at] if at < len(self.motions) else math.inf

    def temperature_c(self, time_s: float) -> float:
        """Return the temperature: of the year, the day and the weather."""
        what = self.scenario.temperature
        day, second = divmod(time_s - self.start_s, DAY_S)
        part = second / DAY_S
        before, after = self.weather_c[self._day(day)], self.weather_c[self._day(day + 1)]
        year = time_s / DAY_S / 365.25 % 1 - COLDEST_DAY / 365.25
        return (what.mean_c - what.year_c * math.cos(2 * math.pi * year)
                + what.day_c * math.cos(2 * math.pi * (part - 0.625))
                + before + (after - before) * part)

    def drift_ppm(self, time_s: float) -> float:
        """Return how much faster the node's clock goes than true time."""
        clock = self.scenario.clock
        return clock.drift_ppm + clock.drift_ppm_c * (self.temperature_c(time_s) - 25)

    def harvest_mj(self, from_s: float, to_s: float) -> float:
        """Return what a panel brings between two times, in mJ; it is not asked whether it fits."""
        if self.scenario.solar is None:
            return 0.0
        steps = math.ceil((to_s - from_s) / SUN_STEP_S)
        step_s = (to_s - from_s) / max(1, steps)
        return sum(self.sun_mw(from_s + (i + 0.5) * step_s) for i in range(steps)) * step_s

    def sun_mw(self, time_s: float) -> float:
        """Return the power of the panel."""
        solar = self.scenario.solar
        if solar is None:
            return 0.0
        day = self._day((time_s - self.start_s) / DAY_S)
        tilt = math.radians(23.44)
        latitude = math.radians(solar.latitude)
        year = time_s / DAY_S / 365.25 % 1 - 172 / 365.25  # from midsummer
        if solar.latitude < 0:
            year += 0.5
            latitude = -latitude
        declination = tilt * math.cos(2 * math.pi * year)
        hour = 2 * math.pi * (time_s % DAY_S / DAY_S - 0.5)
        height = (math.sin(latitude) * math.sin(declination)
                  + math.cos(latitude) * math.cos(declination) * math.cos(hour))
        return solar.noon_mw * self.sky[day] * max(0.0, height) / math.cos(latitude - tilt)

    def random(self, name: str, number: int) -> Random:
        """Return the generator of one thing at one time."""
        return Random(f"{self.seed}/{name}/{number}")

    def _day(self, day: float) -> int:
        return min(max(0, int(day)), len(self.sky) - 1)

    def _live(self, start: int, random: Random) -> None:
        # Stretches of one label each. What moves the node is each change to something lively, and
        # such a stretch now and then.
        what = self.scenario.activity
        resting = (start // DAY_S + 3) % 7 in what.rest_days  # 1970 began on a Thursday
        shortest, longest = (int(60 * minutes) for minutes in what.stretch_min)
        others = [label for label in self.classes if label != self.quiet]
        at = start
        while at < start + DAY_S:
            part = bisect_right(what.hours, (at - start) / 3600, key=_first)
            busy = not resting and random.random() < what.hours[part - 1][1]
            until = at + random.randint(shortest, longest)
            if not busy and part < len(what.hours):
                until = min(until, start + int(3600 * what.hours[part][0]) + 1)
            until = min(until, start + DAY_S)
            label = random.choice(others) if busy and others else self.quiet
            self.activities.append((at, label))
            motion: float = at + random.randint(5, 60)
            while busy and motion < until:
                self.motions.append(int(motion))
                if not what.motions_per_hour:
                    break
                motion += 60 + random.expovariate(what.motions_per_hour / 3600)
            at = until

    def _connect(self, start: int, random: Random) -> None:
        link = self.scenario.link
        if random.random() < link.skip:
            return
        for earliest, latest, shortest, longest in link.bursts:
            up = start + int(3600 * random.uniform(earliest, latest))
            self.links.append((up, up + int(60 * random.uniform(shortest, longest))))

    def _come_and_go(self, days: int) -> None:
        link, random = self.scenario.link, self.random("outages", 0)
        at, end = float(self.start_s), self.start_s + days * DAY_S
        while link.up_h and at < end:
            until = at + random.expovariate(1 / (3600 * link.up_h))
            self.links.append((int(at), int(min(until, end))))
            at = until + (random.expovariate(1 / (3600 * link.down_h)) if link.down_h else 1)

    def _fail(self, start: int, day: int, random: Random) -> None:
        faults = self.scenario.faults
        for rate, kind in FAULTS.items():
            for _ in range(self._times(rate, day)):
                self.faults.append(Fault(start + random.randrange(DAY_S), kind,
                                         random.randint(1, 40) if kind == "cut" else 0))
        for _ in range(self._times("silences", day)):
            silent = start + random.randrange(DAY_S)
            self.silences.append((silent, silent + int(60 * random.uniform(*faults.silence_min))))

    def _times(self, fault: str, day: int) -> int:
        """Return how often something goes wrong on a day: evenly, from a day by lot on."""
        rate = getattr(self.scenario.faults, fault)
        since = self.random(fault, 0).random()
        return math.floor((day + 1) * rate + since) - math.floor(day * rate + since)

    def _weather(self, days: int) -> None:
        solar, swing = self.scenario.solar, self.scenario.temperature.weather_c
        weather = 0.0
        for day in range(days):
            random = self.random("weather", day)
            weather = WEATHER * weather + random.gauss(0, swing * math.sqrt(1 - WEATHER**2))
            self.weather_c.append(weather)
            sky = 1.0
            if solar is not None:
                if random.random() < solar.overcast:
                    sky = solar.through
                if any(first <= day < last for first, last in solar.fails):
                    sky = 0.0
            self.sky.append(sky)


def _first(pair: tuple[float, ...]) -> float:
    return pair[0]


def _joined(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return spans in order, those that touch as one."""
    joined: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if joined and start <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((start, end))
    return joined


def _without(spans: Iterable[tuple[int, int]], gone: list[tuple[int, int]]
             ) -> Iterable[tuple[int, int]]:
    """Yield what is left of spans in order when the spans `gone` are taken out."""
    for start, end in spans:
        for first, last in sorted(gone):
            if start < last and first < end:
                if start < first:
                    yield start, first
                start = max(start, last)
        if start < end:
            yield start, end


def _within(spans: list[tuple[int, int]], time_s: float) -> bool:
    at = bisect_right(spans, time_s, key=_first)
    return at > 0 and time_s < spans[at - 1][1]
