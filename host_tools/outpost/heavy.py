"""The heavy tier: the model that the gateway asks about windows of which a node was unsure.

It sees the same windows without a device's limits: every statistic of every channel, and as many
trees as help. What people have said about windows from the field is trained on besides.
"""

import hashlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from outpost import build, data, features
from outpost.data import Windows
from outpost.errors import OutpostError
from outpost.recipe import STATISTICS, FeatureRow, Recipe

TREES = 300
OVER = 10  # a window from the field counts as so many of the recordings': the node met it


class HeavyError(OutpostError):
    """Labels that are none of the model's classes."""


@dataclass(frozen=True)
class Heavy:
    """A trained heavy model of `what`; `name` tells it from one that was trained on other data."""

    name: str
    what: Recipe
    classes: tuple[str, ...]
    model: Any  # scikit-learn's
    accuracy: float  # on held-out windows

    @property
    def size(self) -> int:
        """Bytes of the windows that it takes."""
        return 2 * self.what.signal.window * len(self.what.signal.channels)

    def answer(self, windows: list[bytes]) -> list[tuple[str, float]]:
        """Return (label, share of the trees' votes) for each window, as nodes send them.

        Each is `size` bytes: int16, little-endian, sample by sample.
        """
        x = features.compute(self.what, unpacked(self.what, windows))
        votes = self.model.predict_proba(x)
        best = votes.argmax(axis=1)
        return [(self.classes[self.model.classes_[i]], float(row[i]))
                for i, row in zip(best, votes, strict=True)]


def unpacked(what: Recipe, windows: list[bytes]) -> np.ndarray:
    """Return int16 (windows, window, channels) of windows as nodes send them."""
    return np.frombuffer(b"".join(windows), "<i2").astype(np.int16).reshape(
        len(windows), what.signal.window, len(what.signal.channels))


def train(what: Recipe, labelled: list[tuple[bytes, str]] = (),
          fitted: build.Fitted | None = None) -> Heavy:
    """Train on a recipe's own recordings and on `labelled` windows of nodes.

    Raises HeavyError for a label that isn't one of the classes.
    """
    from sklearn.ensemble import ExtraTreesClassifier

    if fitted is None:
        dataset = data.load(what)
        train_set, test_set = (data.windows(part, dataset.classes, what.signal.window,
                                            what.signal.hop)
                               for part in (dataset.train, dataset.test))
    else:
        dataset, train_set, test_set = fitted.dataset, fitted.train, fitted.test
    seen = unlimited(what)
    x, y = train_set.x, train_set.y
    weights = np.ones(len(y))
    if labelled:
        x = np.concatenate([x, unpacked(what, [samples for samples, _ in labelled])])
        y = np.concatenate([y, [_index(dataset.classes, label) for _, label in labelled]])
        weights = np.concatenate([weights, np.full(len(labelled), float(OVER))])
    forest = ExtraTreesClassifier(TREES, random_state=what.forest.seed)
    forest.fit(features.compute(seen, x), y, sample_weight=weights)
    digest = hashlib.sha256(x.tobytes() + y.astype(np.uint8).tobytes()).hexdigest()[:8]
    return Heavy(f"{what.name} {what.version} {digest}", seen, dataset.classes, forest,
                 _right(forest, seen, test_set))


def unlimited(what: Recipe) -> Recipe:
    """Return `what` with every statistic of every channel, and of the magnitudes it has."""
    if what.features.raw:
        return what
    rows = [FeatureRow(name, i, 1, STATISTICS) for i, name in enumerate(what.signal.names)]
    rows += [replace(row, statistics=STATISTICS) for row in what.features.rows if row.count > 1]
    return replace(what, features=replace(what.features, rows=tuple(rows), shift=0))


def _index(classes: tuple[str, ...], label: str) -> int:
    if label not in classes:
        raise HeavyError(f"a window is labelled {label!r}; there are {', '.join(classes)}")
    return classes.index(label)


def _right(forest: Any, seen: Recipe, windows: Windows) -> float:
    return float((forest.predict(features.compute(seen, windows.x)) == windows.y).mean())
