"""Training: a model on integer features, within the limits the recipe sets."""

import importlib
from typing import Any

import numpy as np
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
from sklearn.tree import DecisionTreeClassifier

from outpost import kinds
from outpost.errors import OutpostError
from outpost.recipe import Estimator, Forest, Recipe

MODULES = {"GaussianNB": "naive_bayes", "KNeighborsClassifier": "neighbors",
           "MLPClassifier": "neural_network", "EllipticEnvelope": "covariance",
           "GaussianMixture": "mixture", "BayesianGaussianMixture": "mixture"}


class TrainError(OutpostError):
    """A model that can't be trained as its recipe says."""


def model(what: Recipe, classes: tuple[str, ...], features: np.ndarray, y: np.ndarray) -> Any:
    """Fit what a recipe asks for on int16 `features` (windows, features) and class indices `y`.

    Returns a model that `convert.declare` knows. Raises TrainError or KindError.
    """
    if what.estimator is None:
        return fit(what.forest, features, y)
    return _estimator(what, what.estimator, classes, features.astype(float), y)


def fit(limits: Forest, features: np.ndarray, y: np.ndarray) -> Any:
    """Fit a forest on int16 `features` (windows, features) and class indices `y` (windows,).

    The features are already what the device computes, so nothing needs to be quantised afterwards.
    """
    given = {"max_depth": limits.depth, "max_leaf_nodes": limits.leaves,
             "min_samples_leaf": limits.leaf_samples, "ccp_alpha": limits.prune,
             "random_state": limits.seed}
    if limits.kind == "DecisionTreeClassifier":
        return DecisionTreeClassifier(**given).fit(features, y)
    kind = {"RandomForestClassifier": RandomForestClassifier,
            "ExtraTreesClassifier": ExtraTreesClassifier}[limits.kind]
    return kind(n_estimators=limits.trees, **given).fit(features, y)


def _estimator(what: Recipe, wanted: Estimator, classes: tuple[str, ...], x: np.ndarray,
               y: np.ndarray) -> Any:
    from sklearn import preprocessing
    from sklearn.feature_selection import SelectKBest
    from sklearn.pipeline import make_pipeline

    steps = []
    if wanted.select is not None:
        if wanted.select > x.shape[1]:
            raise TrainError(f"{what.file}: [estimator] select: is {wanted.select}, and there are "
                             f"{x.shape[1]} features")
        # chosen with all classes, though a detector learns only one
        steps.append(SelectKBest(k=wanted.select).fit(x, y))
    if wanted.scale is not None:
        steps.append(getattr(preprocessing, wanted.scale)())
    pipeline = make_pipeline(*steps, _make(what, wanted))
    if wanted.kind not in kinds.DETECTORS:
        pipeline.fit(x, y)
        if wanted.kind == "MLPClassifier":
            from outpost import net

            return net.tune(pipeline, x, y, wanted.seed)
        return pipeline
    from outpost.convert import Detector

    if len(classes) != 2 or wanted.usual not in classes:
        raise TrainError(f"{what.file}: [estimator] usual: is {wanted.usual!r}, and it must be "
                         f"one of two classes; the recordings have {', '.join(classes)}")
    usual = classes.index(wanted.usual)
    seen = x[y == usual]
    if wanted.select is not None:  # as it was chosen, not by what one class alone tells
        inner = make_pipeline(*steps[1:], pipeline[-1]).fit(steps[0].transform(seen))
        pipeline = make_pipeline(steps[0], *[step for _, step in inner.steps])
    else:
        pipeline.fit(seen)
    return Detector(pipeline, float(np.quantile(pipeline.score_samples(seen),
                                                wanted.contamination)), usual)


def _make(what: Recipe, wanted: Estimator) -> Any:
    """Return scikit-learn's own, with the recipe's parameters."""
    kind = getattr(importlib.import_module(f"sklearn.{MODULES[wanted.kind]}"), wanted.kind)
    allowed = kind().get_params()
    given = {key: tuple(value) if isinstance(value, list) else value
             for key, value in wanted.parameters.items()}
    for key in given:
        if key not in allowed or key in ("random_state", "contamination"):
            own = ("kind", "scale", "select", "usual", "contamination", "seed")
            raise TrainError(f"{what.file}: [estimator] {key}: is not known; allowed here: "
                             f"{', '.join((*own, *allowed))}")
    if "random_state" in allowed:
        given["random_state"] = wanted.seed
    return kind(**given)
