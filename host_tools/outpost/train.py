"""Training: a random forest on integer features, within the limits the recipe sets."""

import numpy as np
from sklearn.ensemble import RandomForestClassifier

from outpost.recipe import Forest


def fit(limits: Forest, features: np.ndarray, y: np.ndarray) -> RandomForestClassifier:
    """Fit a forest on int16 `features` (windows, features) and class indices `y` (windows,).

    The features are already what the device computes, so nothing needs to be quantised afterwards.
    """
    forest = RandomForestClassifier(
        n_estimators=limits.trees, max_depth=limits.depth, max_leaf_nodes=limits.leaves,
        min_samples_leaf=limits.leaf_samples, random_state=limits.seed)
    return forest.fit(features, y)
