"""Drawings over time as SVG that a browser stretches: templates/curve.html puts them on a page.

Coordinates are thousandths of the width from the left, and of the height from the top.
"""

import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

DAY_S = 86400
FULL = 1000  # width and height
TICKS = 6  # at most, of the time
STEPS_S = (60, 300, 900, 3600, 3 * 3600, 6 * 3600, 12 * 3600,
           *(days * DAY_S for days in (1, 2, 4, 7, 14, 28, 84, 364)))
EDGES = (20, 970)  # a word nearer to the side would stick out


@dataclass
class Curve:
    """A drawing from `begin_s` to `end_s`, of values from `low` to `high` in some `unit`."""

    begin_s: float
    end_s: float
    low: float
    high: float
    unit: str
    lines: list[tuple[str, str, bool]] = field(default_factory=list)  # points, colour, dashed
    boxes: list[tuple[int, int, int, int, str, str, float]] = field(default_factory=list)
    # left, top, width, height, colour, words, opacity
    dots: list[tuple[int, int, str, str]] = field(default_factory=list)  # colour, words
    keys: dict[str, str] = field(default_factory=dict)  # name: colour

    def x(self, time_s: float) -> int:
        """Return where a time is."""
        return round(FULL * (time_s - self.begin_s) / max(1.0, self.end_s - self.begin_s))

    def y(self, value: float) -> int:
        """Return where a value is."""
        return round(FULL * (1 - (value - self.low) / (self.high - self.low)))

    def line(self, points: Iterable[tuple[float, float]], colour: str, dashed: bool = False
             ) -> None:
        """Draw through (time, value)s."""
        self.lines.append((" ".join(f"{self.x(at)},{self.y(value)}" for at, value in points),
                           colour, dashed))

    def box(self, begin_s: float, end_s: float, low: float, high: float, colour: str, said: str,
            opacity: float = 1) -> None:
        """Fill the space between two times and two values, as far as it is drawn."""
        left, right = (min(max(0, self.x(at)), FULL) for at in (begin_s, end_s))
        top = self.y(high)
        if left < right:
            self.boxes.append((left, top, right - left, self.y(low) - top, colour, said, opacity))

    def dot(self, time_s: float, value: float, said: str, colour: str = "transparent") -> None:
        """Mark a value; one that can't be seen still says what it is."""
        self.dots.append((self.x(time_s), self.y(value), colour, said))

    @property
    def rows(self) -> list[tuple[int, str]]:
        """Values beside the drawing: where, and in words."""
        step = _nice((self.high - self.low) / 4)
        first = math.ceil(self.low / step - 1e-9)
        return [(self.y(step * i), f"{step * i:.6g} {self.unit}")
                for i in range(first, math.floor(self.high / step + 1e-9) + 1)]

    @property
    def columns(self) -> list[tuple[int, str]]:
        """Times below the drawing: where, and in words."""
        return [(self.x(at), said) for at, said in _times(self.begin_s, self.end_s)
                if EDGES[0] <= self.x(at) <= EDGES[1]]


def _nice(step: float) -> float:
    """Return the next 1, 2 or 5 of some power of ten."""
    power = 10 ** math.floor(math.log10(step))
    return next(times * power for times in (1, 2, 5, 10) if times * power >= step * (1 - 1e-9))


def _times(begin_s: float, end_s: float) -> Iterator[tuple[float, str]]:
    """Yield round times between two, the date where a day begins."""
    step = next((one for one in STEPS_S if (end_s - begin_s) / one <= TICKS), STEPS_S[-1])
    at = math.ceil(begin_s / step) * step
    while at <= end_s:
        told = time.gmtime(at)
        yield at, time.strftime("%H:%M", told) if at % DAY_S else time.strftime(
            "%d %b", told).lstrip("0")
        at += step
