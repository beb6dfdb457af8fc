"""Drift: whether windows from nodes still look like those a model was trained on.

The population stability index of each feature, against training windows in the mix of classes that
the model sees in the new ones: a person who rests all night has not made the sensor drift.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import stats

from outpost import build, contract, data, features
from outpost.contract import Line
from outpost.errors import OutpostError
from outpost.recipe import Recipe

BINS = 10  # of equal training windows
STABLE = 0.25  # from here on a population is commonly held to have shifted
CHANCE = 0.01  # of any feature beyond its limit when nothing has drifted
LEAST = 20  # windows


class DriftError(OutpostError):
    """Windows that can't be compared with a model's."""


@dataclass(frozen=True)
class Feature:
    """One feature: its index, and what that may be by chance alone."""

    name: str
    psi: float
    limit: float

    @property
    def drifted(self) -> bool:
        """Whether it has shifted by more than chance or the usual limit allows."""
        return self.psi > self.limit


@dataclass(frozen=True)
class Drift:
    """All features, worst first; `mix` is the share of each class that the model saw."""

    windows: int
    recordings: int
    features: list[Feature]
    mix: dict[str, float]

    @property
    def worst(self) -> Feature:
        """The feature that is farthest beyond its limit, or nearest to it."""
        return self.features[0]

    @property
    def warning(self) -> str | None:
        """The sentence to tell, if any feature has drifted."""
        gone = [one for one in self.features if one.drifted]
        if not gone:
            return None
        told = ", ".join(f"{one.name} {one.psi:.2f}" for one in gone[:4])
        more = f" and {len(gone) - 4} more" if len(gone) > 4 else ""
        return (f"{len(gone)} of {len(self.features)} features have drifted from the training "
                f"windows (population stability index above {self.worst.limit:.2f}: "
                f"{told}{more}): look at sensor and mounting, then label these windows and train "
                "on them")


def of_folder(what: Recipe, folder: Path, fitted: build.Fitted | None = None) -> Drift:
    """Compare the recordings in `folder`, as `outpost pull` writes them, with a model's own.

    Their labels are not looked at. Raises OutpostError if they don't fit or are too few.
    """
    fitted = fitted or build.fit(what)
    recordings = data.pulled(what, folder)
    new = data.windows(recordings, tuple(sorted({one.label for one in recordings})),
                       what.signal.window, what.signal.hop)
    if len(new.x) < LEAST:
        raise DriftError(f"{folder}: {len(new.x)} windows; a comparison needs {LEAST}")
    return compare(what, fitted, features.compute(what, new.x), len(recordings))


def compare(what: Recipe, fitted: build.Fitted, x: np.ndarray, recordings: int) -> Drift:
    """Return the drift of int16 features `x` (windows, features) of so many recordings."""
    classes = len(fitted.dataset.classes)
    old, new = (np.bincount(fitted.forest.answer(part).chosen, minlength=classes)
                for part in (fitted.x_train, x))
    share = np.divide(new / len(x), old / len(fitted.x_train), out=np.zeros(classes),
                      where=old > 0)
    weights = share[fitted.forest.answer(fitted.x_train).chosen]
    if not weights.any():  # the model sees only classes it never answers in training
        weights = np.ones(len(fitted.x_train))
    trained_on = len(np.unique(fitted.train.recording))
    found = []
    for i, name in enumerate(what.feature_names):
        value, bins = psi(fitted.x_train[:, i], x[:, i], weights)
        noise = stats.chi2.ppf(1 - CHANCE / len(what.feature_names), max(bins - 1, 1))
        found.append(Feature(name, value, max(
            STABLE, float(noise) * (1 / trained_on + 1 / recordings))))
    found.sort(key=lambda one: one.limit - one.psi)
    return Drift(len(x), recordings, found, {
        label: float(count / len(x))
        for label, count in zip(fitted.dataset.classes, new, strict=True)})


def psi(old: np.ndarray, new: np.ndarray, weights: np.ndarray | None = None
        ) -> tuple[float, int]:
    """Return the population stability index of `new` (windows,) against `old`, and its bins.

    The sum of (p - q) ln(p / q) over bins that hold equal shares of `old`, weighted by `weights`;
    a bin counts half a window more than it holds, so that an empty one is no infinity.
    """
    edges = np.unique(np.quantile(old, np.linspace(0, 1, BINS + 1)[1:-1], method="inverted_cdf"))
    counts = np.array([
        np.bincount(np.searchsorted(edges, values, "left"), each, len(edges) + 1)
        for values, each in ((old, weights), (new, None))])
    counts = counts[:, counts.any(axis=0)]
    counts = counts * np.array([[len(old)], [len(new)]]) / counts.sum(axis=1, keepdims=True)
    q, p = (counts + 0.5) / (counts + 0.5).sum(axis=1, keepdims=True)
    return float(((p - q) * np.log(p / q)).sum()), counts.shape[1]


def line(what: Recipe, found: Drift) -> Line:
    """Return the contract's line: the worst feature, against the contract's or the usual limit."""
    wanted = contract.demand(what, "drift")
    return Line("drift", wanted if wanted is not None else found.worst.limit, found.worst.psi,
                contract.HERE, f"population stability index of {found.windows} windows of "
                f"{found.recordings} recordings against the training windows, same mix of classes",
                where=found.worst.name)


