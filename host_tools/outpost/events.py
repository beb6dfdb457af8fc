"""Event-wise scores: which episodes were noticed, how soon, and how often it was a false alarm.

A window's answer says little about a freeze of four seconds. What counts is whether the node's
smoothed answer says so while it lasts, how long after it began, and how often it does when nothing
is the matter. The smoothing is the node's own (firmware/node/post.py).
"""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from outpost.data import Recording, Windows
from outpost.device import post
from outpost.recipe import Recipe

NOTHING = 255  # of node/record.py: no decision yet


@dataclass(frozen=True)
class Events:
    """What happened, and what was noticed; times in s, `per_hour` of time without an episode."""

    episodes: int
    detected: int
    delays_s: tuple[float, ...]  # of those detected, from onset to alarm
    false_alarms: int
    hours: float

    @property
    def share(self) -> float:
        """The share of episodes detected; 0 if there were none."""
        return self.detected / self.episodes if self.episodes else 0.0

    @property
    def per_hour(self) -> float:
        """False alarms an hour."""
        return self.false_alarms / self.hours if self.hours else 0.0

    @property
    def delay_s(self) -> float:
        """The median delay; infinite if nothing was detected."""
        return float(np.median(self.delays_s)) if self.delays_s else float("inf")

    def share_interval(self) -> tuple[float, float]:
        """Return the exact 95 % interval of `share`."""
        if not self.episodes:
            return 0.0, 1.0
        found = stats.binomtest(self.detected, self.episodes).proportion_ci(0.95, "exact")
        return float(found.low), float(found.high)

    def per_hour_interval(self) -> tuple[float, float]:
        """Return the exact 95 % interval of `per_hour`, of a Poisson process."""
        low = stats.chi2.ppf(0.025, 2 * self.false_alarms) / 2 if self.false_alarms else 0.0
        high = stats.chi2.ppf(0.975, 2 * self.false_alarms + 2) / 2
        return float(low / self.hours), float(high / self.hours)


def score(what: Recipe, classes: tuple[str, ...], recordings: list[Recording], windows: Windows,
          answers: np.ndarray) -> Events:
    """Return the scores of a model's `answers` (windows,) to windows of `recordings`.

    The recipe must have [events]. An episode is a stretch of its class in a recording's labels; it
    is detected if the smoothed answer is that class at the end of some window between its onset
    and `tolerance_s` after its end. A false alarm is a stretch of such answers of which none is.
    """
    signal, events = what.signal, what.events
    positive = classes.index(events.label)
    episodes, delays, false_alarms, seconds = 0, [], 0, 0.0
    for number, one in enumerate(recordings):
        here = np.flatnonzero(windows.recording == number)
        here = here[np.argsort(windows.start[here])]
        ends_s = (windows.start[here] + signal.window) / signal.rate_hz
        alarms = _smoothed(what, answers[here]) == positive
        inside = one.labels == events.label
        seconds += float((~inside).sum()) / signal.rate_hz
        explained = np.zeros(len(here), bool)
        for onset, end in stretches(inside):
            onset_s, end_s = onset / signal.rate_hz, end / signal.rate_hz + events.tolerance_s
            during = (ends_s >= onset_s) & (ends_s <= end_s)
            explained |= during
            episodes += 1
            if (alarms & during).any():
                delays.append(float(ends_s[alarms & during][0] - onset_s))
        false_alarms += sum(not explained[first:last].any() for first, last in stretches(alarms))
    return Events(episodes, len(delays), tuple(delays), false_alarms, seconds / 3600)


def stretches(flags: np.ndarray) -> list[tuple[int, int]]:
    """Return (first, one past the last) of each run of true."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(int), [0]])))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def _smoothed(what: Recipe, answers: np.ndarray) -> np.ndarray:
    """Return what the node would say after each answer, beginning with nothing."""
    history = bytearray([NOTHING] * post.SIZE)
    said, current = [], NOTHING
    for answer in answers.tolist():
        post.remember(history, answer)
        current = post.vote(history, what.post.weights, current)
        said.append(current)
    return np.array(said, int)
