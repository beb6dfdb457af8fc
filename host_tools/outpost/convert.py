"""Conversion: a fitted scikit-learn model becomes model.h and model.c.

`declare` returns the declared integer reference of a model, of whatever kind: it has `classes`,
`trees` (of a forest) and `answer(features)`, and the compiled code answers exactly as it does.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from outpost import gauss, kinds, neighbours, net, reference, trees
from outpost.errors import OutpostError
from outpost.features import header
from outpost.recipe import MAX_FEATURES, Recipe
from outpost.scale import unfold

MAX_TREES = 255  # votes are bytes
MAX_CLASSES = 255
MAX_SOFT_CLASSES = 128

Declared = reference.Forest | gauss.Bayes | gauss.Mixture | neighbours.Neighbours | net.Net


class ConvertError(OutpostError):
    """A model that can't become C under the rules of the device."""


@dataclass(frozen=True)
class Detector:
    """A fitted EllipticEnvelope or mixture, or a pipeline that ends in one, as a classifier.

    A window whose score_samples() is below `threshold` is of the other class than `usual`, 0 or 1.
    """

    model: Any
    threshold: float
    usual: int = 0

    @property
    def classes_(self) -> np.ndarray:
        """The two classes."""
        return np.arange(2)

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Return the class of each row, by scikit-learn's floats."""
        score = self.model.score_samples(np.asarray(x, float))  # mixtures of 1.9 overflow int16
        return np.where(score >= self.threshold, self.usual, 1 - self.usual)


def declare(recipe: Recipe, model: Any) -> Declared:
    """Return what the compiled code of a fitted model must answer, as the recipe has it.

    Raises KindError for what can't be honoured, ConvertError naming what is too much.
    """
    if isinstance(model, net.Tuned):
        _limits(net.unfold(model.model)[0], len(model.classes_))
        return model.net
    detector = model if isinstance(model, Detector) else None
    lines, last = unfold(detector.model if detector else model)
    kind = type(last).__name__
    classes = len(getattr(last, "classes_", ()))
    _limits(lines, classes)
    if kind in kinds.TREES or kind in kinds.REGRESSIONS:
        return _forest(recipe, model, last, classes)
    if kind == "GaussianNB":
        return gauss.bayes(lines, last)
    if kind == "KNeighborsClassifier":
        return neighbours.neighbours(lines, last)
    if kind == "MLPClassifier":
        raise ConvertError("an MLPClassifier is trained further in int8 before it is converted: "
                           "give outpost.net.tune(model, x, y)")
    usual, threshold = (detector.usual, detector.threshold) if detector else (0, None)
    if kind == "EllipticEnvelope":
        limit = last.offset_ if threshold is None else threshold
        return gauss.envelope(lines, last, limit, usual)
    return gauss.mixture(lines, last, threshold, usual)


def _limits(lines: Any, classes: int) -> None:
    if lines.columns.max() >= MAX_FEATURES:
        raise ConvertError(f"the model looks at feature {lines.columns.max() + 1}; at most "
                           f"{MAX_FEATURES} are allowed")
    if classes > MAX_CLASSES:
        raise ConvertError(f"{classes} classes are too many; at most {MAX_CLASSES} are allowed")


def _forest(recipe: Recipe, model: Any, last: Any, classes: int) -> reference.Forest:
    kind = type(last).__name__
    count = len(getattr(last, "estimators_", [last]))
    if count > MAX_TREES:
        raise ConvertError(f"{kind} has {count} trees; at most {MAX_TREES} are allowed")
    if last.n_outputs_ > 1:
        raise ConvertError(f"{kind} has {last.n_outputs_} outputs; only one is allowed")
    soft = recipe.forest.vote == "soft" and classes > 0
    if soft and classes > MAX_SOFT_CLASSES:
        raise ConvertError(f"{classes} classes are too many for soft votes, which "
                           f"{MAX_SOFT_CLASSES} may have; use [forest] vote = \"hard\"")
    return reference.from_sklearn(model, soft, recipe.forest.early_exit)


def to_c(recipe: Recipe, model: Any) -> dict[str, str]:
    """Return model.h (shape and feature plan) and model.c (the model) by name."""
    declared = declare(recipe, model)
    macros = [f"/* {recipe.name} {recipe.version}: generated from model.toml */",
              f"#define OUTPOST_VERSION {recipe.version}",
              f"#define OUTPOST_CLASSES {declared.classes}",
              f"#define OUTPOST_TREES {len(declared.trees)}"]
    code = (trees.to_c(model, declared, recipe.forest.form) if declared.trees else declared.c())
    return {"model.h": "\n".join(macros) + "\n" + header(recipe),
            "model.c": f'#include <stdint.h>\n#include "model.h"\n{code}'}


def emit(recipe: Recipe, model: Any, folder: Path) -> list[Path]:
    """Write model.h and model.c into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, text in to_c(recipe, model).items():
        paths.append(folder / name)
        paths[-1].write_text(text)
    return paths
