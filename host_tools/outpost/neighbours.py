"""Nearest neighbours in integers: the training windows themselves, and exact distances to them.

Squared distances are sums of squares of whole numbers; of equal ones the earlier window counts as
nearer. The k nearest have one vote each. C: firmware/native/neighbours.h.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from outpost.carray import constants
from outpost.kinds import KindError
from outpost.reference import Answers
from outpost.scale import Lines, Scale, fold

LIMIT = 32767
MOST = 255  # votes are bytes


@dataclass(frozen=True)
class Neighbours:
    """Training windows `items` int16 (items, features), scaled, with their classes `labels`."""

    scale: Scale
    items: np.ndarray
    labels: np.ndarray
    k: int
    classes: int
    trees = ()

    def work(self, x: np.ndarray | None = None) -> dict[str, int]:
        """Return how much a prediction takes at most, of any window or of `x`: [costs.infer]."""
        count, width = self.items.shape
        apart, moves = self.items.size, count * self.k
        if x is not None:
            apart, moves = self._looked_at(self.scale.apply(x))
        return {"line": width, "item": count, "apart": apart, "move": moves, "nearest": self.k,
                "class": self.classes}

    def _looked_at(self, z: np.ndarray) -> tuple[int, int]:
        """Return how many differences a window of `z` takes, and how many moves, at most."""
        near = np.full((len(z), self.k), np.iinfo(np.int64).max)
        apart, moves = np.zeros(len(z), int), np.zeros(len(z), int)
        for item in self.items:
            sums = ((z - item) ** 2).cumsum(axis=1)
            apart += np.minimum((sums < near[:, -1:]).sum(axis=1) + 1, z.shape[1])
            distance = np.minimum(sums[:, -1], near[:, -1])
            moves += (near > distance[:, None]).sum(axis=1)
            near = np.sort(np.column_stack([near, distance]), axis=1)[:, :-1]
        return int(apart.max()), int(moves.max())

    def answer(self, features: np.ndarray) -> Answers:
        """Return the answers to int16 `features` (windows, features)."""
        z = self.scale.apply(features)
        votes = np.zeros((len(z), self.classes), np.uint8)
        for row, votes_of_row in zip(z, votes, strict=True):
            distance = ((self.items - row) ** 2).sum(axis=1)
            nearest = np.argsort(distance, kind="stable")[:self.k]
            votes_of_row += np.bincount(self.labels[nearest], minlength=self.classes).astype(
                np.uint8)
        return Answers(votes.argmax(axis=1).astype(np.int32), votes, np.zeros(len(z), int))

    def c(self) -> str:
        """Return C with `outpost_predict`."""
        small = self.items.min() >= -128 and self.items.max() <= 127
        return (f'#include "scale.h"\n#define OUTPOST_FAR {self.scale.limit}\n'
                f"#define OUTPOST_LINES {self.items.shape[1]}\n"
                f"#define OUTPOST_ITEMS {len(self.items)}\n#define OUTPOST_NEAREST {self.k}\n"
                f"typedef {'int8_t' if small else 'int16_t'} outpost_item_t;\n"
                f"{self.scale.c('outpost_scales')}"
                f"{constants('outpost_items', self.items.ravel(), 'outpost_item_t', '')}"
                f"{constants('outpost_labels', self.labels, 'uint8_t', '')}"
                '#include "neighbours.h"\n')


def neighbours(lines: Lines, model: Any) -> Neighbours:
    """Return the integer form of a fitted KNeighborsClassifier behind the lines of a pipeline.

    Scaled features get as many bits as the training windows leave room for in an int16.
    """
    if model.weights != "uniform":
        raise KindError(f"KNeighborsClassifier with weights = {model.weights!r} can't be "
                        'converted: they are floats; take weights = "uniform"')
    if model.effective_metric_ != "euclidean":
        raise KindError(f"KNeighborsClassifier with metric = {model.effective_metric_!r} can't be "
                        'converted; take metric = "euclidean"')
    if model.n_neighbors > MOST:
        raise KindError(f"{model.n_neighbors} neighbours are too many: their votes are bytes; "
                        f"take at most {MOST}")
    seen = np.asarray(model._fit_X, float)
    whole = np.rint((seen - lines.offset) / lines.gain)
    x = np.zeros((len(seen), int(lines.columns.max()) + 1), np.int64)
    x[:, lines.columns] = whole
    zeros, rate = np.zeros(len(lines.columns)), np.ones(len(lines.columns))
    if lines.scaled:
        zeros = -lines.offset / lines.gain
        rate = lines.gain * 2.0 ** np.floor(np.log2(LIMIT / 2 / np.abs(seen).max()))
    scale = fold(lines.columns, zeros, rate, LIMIT)
    return Neighbours(scale, scale.apply(x), np.asarray(model._y, np.int64),
                      model.n_neighbors, len(model.classes_))
