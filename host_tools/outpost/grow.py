"""Trees grown by scikit-learn's own builder, without what its estimators do around it.

An estimator checks, copies and encodes for a millisecond before it grows a small tree for a tenth
of one. A search grows ten thousands; so here are the same trees, draw for draw (a test holds them
against train.fit), of rows that need no checking.
"""

from types import SimpleNamespace

import numpy as np
from sklearn.tree import _criterion, _splitter, _tree

from outpost import reference
from outpost.recipe import Forest


def grown(limits: Forest, x: np.ndarray, y: np.ndarray) -> tuple[reference.Forest, np.ndarray]:
    """Return the forest that train.fit returns for int16 `x` (windows, features), and its classes.

    `y` (windows,) are class indices.
    """
    classes, trees = grow(limits, x, y)
    soft = limits.vote == "soft"
    return reference.from_trees(trees, soft, limits.early_exit), classes


def importance(limits: Forest, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return how much of the impurity each feature takes away, as scikit-learn's forests have it.

    float64 (features,), not scaled to a sum of 1.
    """
    _, trees = grow(limits, x, y)
    return np.sum([tree.compute_feature_importances() for tree in trees], axis=0)


def grow(limits: Forest, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, list[_tree.Tree]]:
    """Return the classes and scikit-learn's trees."""
    classes, codes = np.unique(y, return_inverse=True)
    table = SimpleNamespace(x=np.ascontiguousarray(x, np.float32),
                            y=np.ascontiguousarray(codes[:, None], np.float64),
                            classes=np.array([len(classes)], np.intp))
    if limits.kind == "DecisionTreeClassifier":
        return classes, [_tree_of(limits, table, limits.seed, None, x.shape[1])]
    some = max(1, int(np.sqrt(x.shape[1])))
    rng = np.random.RandomState(limits.seed)
    trees = []
    for _ in range(limits.trees):
        seed = rng.randint(np.iinfo(np.int32).max)
        weights = None
        if limits.kind != "ExtraTreesClassifier":  # a tree sees a row as often as it was drawn
            drawn = np.random.RandomState(seed).randint(0, len(y), len(y), dtype=np.int32)
            weights = np.bincount(drawn, minlength=len(y)).astype(np.float64)
        trees.append(_tree_of(limits, table, seed, weights, some))
    return classes, trees


def _tree_of(limits: Forest, table: SimpleNamespace, seed: int, weights: np.ndarray | None,
             some: int) -> _tree.Tree:
    """Grow one tree that looks at `some` features a node."""
    split = (_splitter.RandomSplitter if limits.kind == "ExtraTreesClassifier"
             else _splitter.BestSplitter)
    splitter = split(_criterion.Gini(1, table.classes), some, limits.leaf_samples, 0.0,
                     np.random.RandomState(seed), None)
    depth = np.iinfo(np.int32).max if limits.depth is None else limits.depth
    bounds = (splitter, 2, limits.leaf_samples, 0.0, depth)
    builder = (_tree.DepthFirstTreeBuilder(*bounds, 0.0) if limits.leaves is None
               else _tree.BestFirstTreeBuilder(*bounds, limits.leaves, 0.0))
    tree = _tree.Tree(table.x.shape[1], table.classes, 1)
    builder.build(tree, table.x, table.y, weights, None)
    if not limits.prune:
        return tree
    pruned = _tree.Tree(table.x.shape[1], table.classes, 1)
    _tree._build_pruned_tree_ccp(pruned, tree, limits.prune)
    return pruned
