"""The contract of a model: what `[contract]` demands, and one function for each figure.

A `Line` sets a demand beside what was got and says how that was obtained. What is collected, and
by which means, is `outpost check`'s business (check.py); the search and the benchmarks call the
same functions. What each figure means: docs/contract.md.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from outpost import events
from outpost.data import Dataset, Recording, Windows
from outpost.recipe import Recipe

HERE = "measured on host"  # of the kinds of boards.KINDS, and this one besides
EMULATED = "measured on emulator"
MODELLED = "modelled"
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Term:
    """What can be demanded: its unit, and whether the demand is the least or the most allowed."""

    words: str
    unit: str  # "share" is told in percent
    least: bool = False


TERMS = {
    "accuracy": Term("accuracy", "share", least=True),
    "worst_class": Term("worst class", "share", least=True),
    "detected": Term("events seen", "share", least=True),
    "false_alarms_per_hour": Term("false alarms", "/h"),
    "delay_s": Term("  median delay", "s"),
    "drift": Term("drift", "PSI"),
    "bytes": Term("module", "B"),
    "heap": Term("heap", "B"),
    "heap_peak": Term("  loading", "B"),
    "instructions": Term("prediction", "instr."),
    "instructions_bound": Term("  longest paths", "instr."),
    "latency_us": Term("window", "µs"),
    "latency_bound_us": Term("  longest paths", "µs"),
    "awake_ms": Term("awake", "ms"),
    "energy_uj": Term("a wake", "µJ"),
    "life_days": Term("life", "days", least=True),
    "awake_p99_ms": Term("awake, 99 %", "ms"),
    "joules_per_day": Term("a day", "J"),
}


@dataclass(frozen=True)
class Line:
    """One line of the contract. `low` and `high` bound `got` with 95 % confidence, if known."""

    name: str
    demanded: float | None
    got: float
    kind: str
    how: str
    low: float | None = None
    high: float | None = None
    where: str = ""  # which class, which architecture

    @property
    def term(self) -> Term:
        """What is demanded here."""
        return TERMS[self.name]

    @property
    def margin(self) -> float | None:
        """By how much the demand is met; negative if it is not."""
        if self.demanded is None:
            return None
        return self.got - self.demanded if self.term.least else self.demanded - self.got

    @property
    def ok(self) -> bool:
        """Whether the demand is met; also if there is none."""
        return self.margin is None or self.margin >= 0

    @property
    def broken(self) -> str:
        """The sentence for a demand that is not met."""
        got, demanded = self.told(self.got), self.told(self.demanded)
        short = -(self.margin or 0)
        by = f"{100 * short:.2f} points" if self.term.unit == "share" else self.told(short)
        where = f" ({self.where})" if self.where else ""
        return (f"{self.name}: {got}{where} where the contract "
                f"{'demands' if self.term.least else 'allows'} {demanded}, {by} too "
                f"{'few' if self.term.least else 'many'}")

    def told(self, value: float | None) -> str:
        """Return a value of this line with its unit."""
        if value is None:
            return ""
        if self.term.unit == "share":
            return f"{100 * value:.2f} %"
        digits = 0 if abs(value) >= 1000 or float(value).is_integer() else 1
        return f"{value:,.{digits}f} {self.term.unit}"

    def json(self) -> dict[str, Any]:
        """Return the object of `--json`."""
        return {"name": self.name, "demanded": self.demanded, "got": self.got,
                "margin": self.margin, "ok": self.ok, "kind": self.kind, "how": self.how,
                "unit": self.term.unit, "interval": None if self.low is None else
                [self.low, self.high], "where": self.where}


@dataclass(frozen=True)
class Share:
    """A share of windows, with its confidence interval."""

    value: float
    low: float
    high: float
    windows: int
    recordings: int
    of: str = ""


def interval(right: np.ndarray, recording: np.ndarray) -> tuple[float, float]:
    """Return the 95 % interval of a share, where windows of one recording are not independent.

    `right` is bool (windows,), `recording` the index of each window's recording. Korn and Graubard
    (1998), Survey Methodology 24: the exact interval of Clopper and Pearson for as many
    independent windows as the variance between recordings says these are worth. If all are right,
    or none, a recording is worth one window. With one recording nothing is known.
    """
    _, group = np.unique(recording, return_inverse=True)
    n, clusters = len(right), int(group.max()) + 1
    if clusters < 2:
        return 0.0, 1.0
    share = float(right.mean())
    if 0 < share < 1:
        off = np.bincount(group, weights=right - share)
        variance = clusters / (clusters - 1) * float((off**2).sum()) / n**2
        worth = min(share * (1 - share) / variance, n) if variance else n
    else:
        worth = clusters
    tail = (1 - CONFIDENCE) / 2
    worth *= (stats.t.ppf(1 - tail, n - 1) / stats.t.ppf(1 - tail, clusters - 1)) ** 2
    hits = share * worth
    low = stats.beta.ppf(tail, hits, worth - hits + 1) if hits > 0 else 0.0
    high = stats.beta.ppf(1 - tail, hits + 1, worth - hits) if hits < worth else 1.0
    return float(low), float(high)


def accuracy(answers: np.ndarray, windows: Windows) -> Share:
    """Return the share of windows whose class was answered: `answers` is (windows,)."""
    return _share(answers == windows.y, windows.recording, "")


def worst_class(answers: np.ndarray, windows: Windows, classes: tuple[str, ...]) -> Share:
    """Return the same of the class that has the lowest."""
    right = answers == windows.y
    found = [_share(right[windows.y == i], windows.recording[windows.y == i], name)
             for i, name in enumerate(classes) if (windows.y == i).any()]
    return min(found, key=lambda share: (share.value, share.of))


def _share(right: np.ndarray, recording: np.ndarray, of: str) -> Share:
    return Share(float(right.mean()), *interval(right, recording), len(right),
                 len(np.unique(recording)), of)


def demand(what: Recipe, name: str, where: str | None = None) -> float | None:
    """Return what the contract demands, of an architecture or a board where that matters."""
    wanted = what.contract.get(name)
    return wanted.get(where) if isinstance(wanted, dict) else wanted


def of_answers(what: Recipe, classes: tuple[str, ...], answers: np.ndarray, windows: Windows,
               kind: str = HERE, machine: str = "x64 on MicroPython") -> list[Line]:
    """Return the lines that a model's answers to held-out windows decide."""
    lines = []
    for name, share in (("accuracy", accuracy(answers, windows)),
                        ("worst_class", worst_class(answers, windows, classes))):
        how = (f"compiled code, {machine}: {share.windows} held-out windows of "
               f"{share.recordings} recordings")
        lines.append(Line(name, demand(what, name), share.value, kind, how, share.low, share.high,
                          share.of))
    return lines


def of_events(what: Recipe, classes: tuple[str, ...], recordings: list[Recording],
              answers: np.ndarray, windows: Windows, kind: str = HERE) -> list[Line]:
    """Return the lines that event-wise scores of held-out recordings decide, if there are any."""
    if what.events is None:
        return []
    found = events.score(what, classes, recordings, windows, answers)
    how = (f"{found.detected} of {found.episodes} episodes of {what.events.label} in "
           f"{len(recordings)} held-out recordings, smoothed as on the node")
    calm = f"{found.false_alarms} in {found.hours * 3600:.0f} s without an episode"
    return [Line("detected", demand(what, "detected"), found.share, kind, how,
                 *found.share_interval()),
            Line("false_alarms_per_hour", demand(what, "false_alarms_per_hour"), found.per_hour,
                 kind, calm, *found.per_hour_interval()),
            Line("delay_s", demand(what, "delay_s"), found.delay_s, kind,
                 "from onset to the end of the window that raised the alarm")]


def of_bytes(what: Recipe, arch: str, size: int) -> Line:
    """Return the line of a module's size."""
    return Line("bytes", demand(what, "bytes", arch), size, HERE, f"the .mpy file for {arch}",
                where=f"on {arch}")


def of_build(what: Recipe, dataset: Dataset, answers: np.ndarray, windows: Windows,
             sizes: dict[str, int]) -> list[Line]:
    """Return the lines that a build alone decides; `sizes` are bytes by architecture."""
    return [*of_answers(what, dataset.classes, answers, windows),
            *of_events(what, dataset.classes, dataset.test, answers, windows),
            *(of_bytes(what, arch, size) for arch, size in sizes.items())]
