"""The declared integer reference: what a forest's compiled code must answer, vote for vote.

A tree goes left where `x < floor(threshold) + 1`, which for whole x is scikit-learn's
`x <= threshold`. What its leaf says is added up: one vote for the leaf's most frequent class
(hard), up to 255 points for each class, as large as its share of the leaf's training samples
(soft), or the leaf's value as a whole number (a regression). The class with most wins, of equal
ones the lowest.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from outpost.scale import Lines, unfold

LEAF = -1
VALUE = 32767  # a regression's leaf, at most
POINTS = 255  # what a soft tree has for a class, at most


@dataclass(frozen=True)
class Answers:
    """What a model answers: the module's answer and `votes` buffer, window by window.

    `chosen` int32 (windows,) is a class, or a regression's value; `votes` uint8 (windows,
    classes), without columns for a regression; `asked` (windows,) how many trees were asked.
    """

    chosen: np.ndarray
    votes: np.ndarray
    asked: np.ndarray


@dataclass(frozen=True)
class Tree:
    """One tree as arrays by node; `left` is LEAF at leaves, which say `said` (nodes, classes)."""

    feature: np.ndarray
    threshold: np.ndarray  # int32: go left below it
    left: np.ndarray
    right: np.ndarray
    said: np.ndarray

    def leaves(self, features: np.ndarray) -> np.ndarray:
        """Return the node each row of int16 `features` ends at."""
        node = np.zeros(len(features), np.intp)
        rows = np.arange(len(features))
        while (inner := self.left[node] != LEAF).any():
            below = features[rows, self.feature[node]] < self.threshold[node]
            node = np.where(inner, np.where(below, self.left[node], self.right[node]), node)
        return node


@dataclass(frozen=True)
class Forest:
    """Trees whose leaves say something about `classes` classes (0: the value of a regression).

    With `early_exit` no tree is asked any more once it could not change the class.
    """

    trees: tuple[Tree, ...]
    classes: int
    soft: bool = False
    early_exit: bool = False
    unit: float = 1.0  # of a regression: what 1 of its answer stands for

    @property
    def nodes(self) -> int:
        """How many comparisons the trees have."""
        return sum(int((tree.left != LEAF).sum()) for tree in self.trees)

    @property
    def shift(self) -> int:
        """How many bits of the points are left out of `votes`, so that all fit a byte."""
        return max((POINTS * len(self.trees)).bit_length() - 8, 0) if self.soft else 0

    def answer(self, features: np.ndarray) -> Answers:
        """Return the answers to int16 `features` (windows, features)."""
        total = np.zeros((len(features), max(self.classes, 1)), np.int64)
        asked = np.zeros(len(features), int)
        going = np.ones(len(features), bool)
        for number, tree in enumerate(self.trees, 1):
            total[going] += tree.said[tree.leaves(features[going])]
            asked[going] = number
            if self.early_exit and self.classes:
                left = len(self.trees) - number
                going[going] = ~self._sure(total[going], left * (POINTS if self.soft else 1))
        if not self.classes:
            nothing = np.zeros((len(total), 0), np.uint8)
            return Answers(total[:, 0].astype(np.int32), nothing, asked)
        return Answers(total.argmax(axis=1).astype(np.int32),
                       (total >> self.shift).astype(np.uint8), asked)

    @staticmethod
    def _sure(total: np.ndarray, gain: int) -> np.ndarray:
        """Return where no class can overtake the first, if each may still gain `gain`."""
        best = total.argmax(axis=1)[:, None]
        number = np.arange(total.shape[1])
        needed = total + gain + (number < best)  # of equal ones the lowest wins
        np.put_along_axis(needed, best, 0, axis=1)
        return needed.max(axis=1) <= np.take_along_axis(total, best, axis=1)[:, 0]


def integer_threshold(threshold: np.ndarray) -> np.ndarray:
    """Return int32 t with x < t exactly where x <= threshold, for every int16 x.

    Thresholds beyond int16 become -32768 (never) and 32768 (always).
    """
    return np.clip(np.floor(threshold) + 1, -32768, 32768).astype(np.int32)


def points(share: np.ndarray) -> np.ndarray:
    """Return classes' shares of a leaf, 0 to 1, as points in a byte: emlearn 0.23.2's rounding."""
    return (np.round(share * 254) / 254 * 255).astype(np.uint8).astype(int)


def tree_thresholds(lines: Lines, tree: Any) -> np.ndarray:
    """Return int32 thresholds of a tree's nodes for int16 features as they are before `lines`.

    Behind scalers each is found by scaling every int16, as scikit-learn does it, in float32.
    """
    if not lines.scaled:
        return integer_threshold(tree.threshold)
    every = np.arange(-32768, 32768, dtype=np.int32)
    count = int(lines.steps[0].n_features_in_)
    scaled = lines.transform(np.repeat(every[:, None], count, axis=1)).astype(np.float32)
    found = np.zeros(len(tree.threshold), np.int32)
    for node in np.flatnonzero(tree.children_left != LEAF):
        found[node] = np.searchsorted(scaled[:, tree.feature[node]], tree.threshold[node],
                                      side="right") - 32768
    return found


def value_scale(estimators: list[Any]) -> float:
    """Return the power of two by which a regression's leaves just fit an int16."""
    largest = max(float(np.abs(estimator.tree_.value).max()) for estimator in estimators)
    return 2.0 ** np.floor(np.log2(VALUE / largest)) if largest else 1.0


def from_sklearn(model: Any, soft: bool = False, early_exit: bool = False) -> Forest:
    """Read the trees of a fitted scikit-learn forest or tree, or a pipeline that ends in one."""
    lines, last = unfold(model)
    estimators = list(getattr(last, "estimators_", [last]))
    classes = len(getattr(last, "classes_", ()))
    scale = 1.0 if classes else value_scale(estimators)
    trees = []
    for estimator in estimators:
        tree = estimator.tree_
        value = tree.value[:, 0, :]
        said = _said(value, soft) if classes else np.rint(value * scale).astype(int)
        trees.append(Tree(
            feature=lines.columns[np.maximum(tree.feature, 0)],
            threshold=tree_thresholds(lines, tree),
            left=tree.children_left.copy(), right=tree.children_right.copy(), said=said))
    return Forest(tuple(trees), classes, soft, early_exit, 1 / (scale * len(trees)))


def from_trees(trees: list[Any], soft: bool = False, early_exit: bool = False) -> Forest:
    """Read scikit-learn's bare trees of a classifier, `tree_` of its estimators."""
    read = tuple(Tree(feature=np.maximum(tree.feature, 0), left=tree.children_left.copy(),
                      threshold=integer_threshold(tree.threshold),
                      right=tree.children_right.copy(), said=_said(tree.value[:, 0, :], soft))
                 for tree in trees)
    return Forest(read, trees[0].max_n_classes, soft, early_exit)


def _said(share: np.ndarray, soft: bool) -> np.ndarray:
    """Return what leaves say, of the shares (nodes, classes) of their training samples."""
    return points(share) if soft else np.eye(share.shape[1], dtype=int)[share.argmax(axis=1)]
