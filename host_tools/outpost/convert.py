"""Conversion: a fitted forest becomes model.h and model.c, by way of emlearn's inline C."""

import copy
import re
from pathlib import Path
from typing import Any

import numpy as np

from outpost.errors import OutpostError
from outpost.features import header
from outpost.recipe import MAX_FEATURES, Recipe
from outpost.reference import integer_threshold

MAX_TREES = 255  # votes are bytes
KINDS = ("RandomForestClassifier", "ExtraTreesClassifier", "DecisionTreeClassifier")

_TREES = """\
#define OUTPOST_LEAST_THRESHOLD {least}
#include "trees.h"

{functions}

/* Add the vote of each tree to its class. */
static void outpost_tree_votes(const int16_t *features, uint8_t *votes)
{{
    OUTPOST_LOOK(features)
{calls}
}}
"""


class ConvertError(OutpostError):
    """A model that can't become C under the rules of the device."""


def trees_to_c(model: Any, features: int) -> str:
    """Return C with `outpost_tree_votes` for a fitted forest on int16 features.

    emlearn writes thresholds as truncated integers and compares with <, scikit-learn with <=; so
    each is replaced by floor(t) + 1 in a copy first. Raises ConvertError naming what is too much.
    """
    kind = type(model).__name__
    if kind not in KINDS:
        raise ConvertError(f"{kind} can't be converted; allowed: {', '.join(KINDS)}")
    if features > MAX_FEATURES:
        raise ConvertError(f"{kind} has {features} features; at most {MAX_FEATURES} are allowed")
    trees = len(getattr(model, "estimators_", [model]))
    if trees > MAX_TREES:
        raise ConvertError(f"{kind} has {trees} trees; at most {MAX_TREES} are allowed")
    import emlearn

    model = copy.deepcopy(model)
    for estimator in getattr(model, "estimators_", [model]):
        threshold = estimator.tree_.threshold
        inner = estimator.tree_.children_left != -1
        threshold[inner] = integer_threshold(threshold[inner]).astype(np.float64)
    code = emlearn.convert(model, method="inline", dtype="int16_t").save(
        name="outpost", include_proba=False)
    functions, separator, _ = code.partition("int32_t outpost_predict(")
    if not separator:
        raise ConvertError("emlearn's C is not laid out as expected; 0.23.2 is the version known")
    # how a feature is looked at is the business of firmware/native/trees.h
    functions = functions.replace("(const int16_t *features, int32_t features_length)",
                                  "(OUTPOST_AT)")
    # beyond int16: said outright, or compilers warn of a comparison that can't fail
    functions = re.sub(r"features\[\d+\] < 32768\b", "1", functions)
    functions = re.sub(r"features\[\d+\] < -32768\b", "0", functions)
    functions = re.sub(r"features\[(\d+)\] < (-?\d+)", r"OUTPOST_BELOW(\1, \2)", functions)
    if "features" in functions:
        raise ConvertError("emlearn's C is not laid out as expected; 0.23.2 is the version known")
    thresholds = re.findall(r"OUTPOST_BELOW\(\d+, (-?\d+)\)", functions)
    calls = "\n".join(f"    votes[outpost_tree_{i}(OUTPOST_HERE)]++;" for i in range(trees))
    return _TREES.format(least=min(map(int, thresholds), default=0), calls=calls,
                         functions=functions.strip())


def emit(recipe: Recipe, model: Any, folder: Path) -> list[Path]:
    """Write model.h (shape and feature plan) and model.c (the trees) into `folder`."""
    trees = len(getattr(model, "estimators_", [model]))
    macros = [f"/* {recipe.name} {recipe.version}: generated from model.toml */",
              f"#define OUTPOST_VERSION {recipe.version}",
              f"#define OUTPOST_CLASSES {len(model.classes_)}",
              f"#define OUTPOST_TREES {trees}"]
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / "model.h", folder / "model.c"]
    texts = ["\n".join(macros) + "\n" + header(recipe),
             '#include "model.h"\n' + trees_to_c(model, len(recipe.feature_names))]
    for path, text in zip(paths, texts, strict=True):
        path.write_text(text)
    return paths
