"""The declared integer reference: what a forest's compiled code must answer, vote for vote.

A tree goes left where `x < floor(threshold) + 1`, which for whole x is scikit-learn's
`x <= threshold`. Its answer is the leaf's most frequent class. Each tree has one vote; most votes
win, and of equal ones the lowest class.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

LEAF = -1


@dataclass(frozen=True)
class Tree:
    """One tree as arrays by node; `left` is LEAF at leaves, where `answer` is the class."""

    feature: np.ndarray
    threshold: np.ndarray  # int32: go left below it
    left: np.ndarray
    right: np.ndarray
    answer: np.ndarray


@dataclass(frozen=True)
class Forest:
    """Trees that vote on `classes` classes."""

    trees: tuple[Tree, ...]
    classes: int

    def votes(self, features: np.ndarray) -> np.ndarray:
        """Return how many trees chose each class: uint8 (windows, classes) for int16 features."""
        votes = np.zeros((len(features), self.classes), np.uint8)
        rows = np.arange(len(features))
        for tree in self.trees:
            node = np.zeros(len(features), np.intp)
            while (inner := tree.left[node] != LEAF).any():
                below = features[rows, tree.feature[node]] < tree.threshold[node]
                node = np.where(inner, np.where(below, tree.left[node], tree.right[node]), node)
            votes[rows, tree.answer[node]] += 1
        return votes


def integer_threshold(threshold: np.ndarray) -> np.ndarray:
    """Return int32 t with x < t exactly where x <= threshold, for every int16 x.

    Thresholds beyond int16 become -32768 (never) and 32768 (always).
    """
    return np.clip(np.floor(threshold) + 1, -32768, 32768).astype(np.int32)


def from_sklearn(model: Any) -> Forest:
    """Read the trees of a fitted scikit-learn forest or decision tree classifier."""
    trees = []
    for estimator in getattr(model, "estimators_", [model]):
        tree = estimator.tree_
        trees.append(Tree(
            feature=np.maximum(tree.feature, 0), threshold=integer_threshold(tree.threshold),
            left=tree.children_left.copy(), right=tree.children_right.copy(),
            answer=tree.value[:, 0, :].argmax(axis=1)))
    return Forest(tuple(trees), len(model.classes_))


def decide(votes: np.ndarray) -> np.ndarray:
    """Return the class with most votes, of equal ones the lowest: (windows,) from votes."""
    return votes.argmax(axis=1)
