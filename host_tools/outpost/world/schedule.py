"""What happens in the virtual days: activities, motion, link and faults, all drawn from one seed.

Everything here is a function of the seed and of virtual time, so a world that is killed and
started again finds the same days.
"""

import math
from bisect import bisect_right
from dataclasses import dataclass, field
from random import Random

DAY_S = 86400
START_S = 1_767_571_200  # Monday 2026-01-05 00:00 UTC


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong from `time_s` on, once.

    `kind` is "cut" (power goes in the middle of the `operation`-th flash operation from then on),
    "brownout" (it goes while the sensor samples) or "hang" (the sensor's bus hangs until the
    watchdog bites).
    """

    time_s: int
    kind: str
    operation: int = 0


@dataclass
class Schedule:
    """The virtual days of one run; times are node time in seconds.

    `classes` are the labels there are recordings of; `quiet` is the one that a night consists of.
    """

    seed: int
    days: float
    classes: list[str]
    quiet: str
    activities: list[tuple[int, str]] = field(default_factory=list)  # (from, label), in order
    motions: list[int] = field(default_factory=list)
    links: list[tuple[int, int]] = field(default_factory=list)  # (up from, down from)
    silences: list[tuple[int, int]] = field(default_factory=list)  # the sensor says nothing
    faults: list[Fault] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Draw the days."""
        for day in range(math.ceil(self.days)):
            start = START_S + day * DAY_S
            self._live(start, self._random("activities", day))
            self._connect(start, day, self._random("links", day))
            self._fail(start, day, self._random("faults", day))
        self.motions.sort()
        self.faults.sort(key=lambda fault: fault.time_s)

    @property
    def end_s(self) -> int:
        """When the run is over."""
        return START_S + round(self.days * DAY_S)

    def label(self, time_s: float) -> str:
        """Return what the wearer is doing."""
        at = bisect_right(self.activities, time_s, key=lambda activity: activity[0])
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

    def battery_mv(self, time_s: float) -> int:
        """Return a lithium cell's voltage: a slow fall from full."""
        return max(3300, round(4150 - 9 * (time_s - START_S) / DAY_S))

    def temperature_c(self, time_s: float) -> int:
        """Return a mild day's temperature, warmest at three in the afternoon."""
        return round(16 + 7 * math.cos(2 * math.pi * ((time_s % DAY_S) / DAY_S - 0.625)))

    def random(self, name: str, number: int) -> Random:
        """Return the generator of one thing at one time."""
        return self._random(name, number)

    def _random(self, name: str, number: int) -> Random:
        return Random(f"{self.seed}/{name}/{number}")

    def _live(self, start: int, random: Random) -> None:
        # Night until about six, then stretches of half an hour to an hour and a half; half of
        # them quiet. What moves the node is each change, and now and then an active stretch.
        self.activities.append((start, self.quiet))
        at = start + random.randint(6 * 3600, 7 * 3600)
        while at < start + 22 * 3600:
            label = self.quiet if random.random() < 0.4 else random.choice(self.classes)
            until = min(at + random.randint(1800, 5400), start + 22 * 3600)
            self.activities.append((at, label))
            motion: float = at + random.randint(5, 60)
            while label != self.quiet and motion < until:
                self.motions.append(int(motion))
                motion += 60 + random.expovariate(1 / 900)
            at = until
        self.activities.append((at, self.quiet))

    def _connect(self, start: int, day: int, random: Random) -> None:
        # Two short bursts a day, none on some.
        if day % 3 == 2:
            return
        for earliest in (7, 17):
            up = start + earliest * 3600 + random.randint(0, 4 * 3600)
            self.links.append((up, up + random.randint(1800, 4200)))

    def _fail(self, start: int, day: int, random: Random) -> None:
        self.faults.append(Fault(start + random.randrange(DAY_S), "cut", random.randint(1, 40)))
        if day % 2 == 0:
            self.faults.append(Fault(start + random.randrange(DAY_S), "brownout"))
        if day % 3 == 1:
            self.faults.append(Fault(start + random.randrange(DAY_S), "hang"))
        if day % 3 == 0:
            silent = start + random.randint(8 * 3600, 18 * 3600)
            self.silences.append((silent, silent + random.randint(1800, 5400)))


def _within(spans: list[tuple[int, int]], time_s: float) -> bool:
    at = bisect_right(spans, time_s, key=lambda span: span[0])
    return at > 0 and time_s < spans[at - 1][1]
