"""Conversion: a fitted forest becomes model.h and model.c, by way of emlearn."""

from pathlib import Path
from typing import Any

from outpost import reference, trees
from outpost.errors import OutpostError
from outpost.features import header
from outpost.recipe import MAX_FEATURES, Recipe

MAX_TREES = 255  # votes are bytes
MAX_SOFT_CLASSES = 128
KINDS = ("RandomForestClassifier", "ExtraTreesClassifier", "DecisionTreeClassifier")


class ConvertError(OutpostError):
    """A model that can't become C under the rules of the device."""


def declare(recipe: Recipe, model: Any) -> reference.Forest:
    """Return what the compiled code of a fitted model must answer, as the recipe has it.

    Raises ConvertError naming what is too much.
    """
    kind = type(model).__name__
    if kind not in KINDS:
        raise ConvertError(f"{kind} can't be converted; allowed: {', '.join(KINDS)}")
    if model.n_features_in_ > MAX_FEATURES:
        raise ConvertError(f"{kind} has {model.n_features_in_} features; at most {MAX_FEATURES} "
                           "are allowed")
    count = len(getattr(model, "estimators_", [model]))
    if count > MAX_TREES:
        raise ConvertError(f"{kind} has {count} trees; at most {MAX_TREES} are allowed")
    soft = recipe.forest.vote == "soft"
    if soft and len(model.classes_) > MAX_SOFT_CLASSES:
        raise ConvertError(f"{len(model.classes_)} classes are too many for soft votes, which "
                           f"{MAX_SOFT_CLASSES} may have; use [forest] vote = \"hard\"")
    return reference.from_sklearn(model, soft, recipe.forest.early_exit)


def to_c(recipe: Recipe, model: Any) -> dict[str, str]:
    """Return model.h (shape and feature plan) and model.c (the model) by name."""
    forest = declare(recipe, model)
    macros = [f"/* {recipe.name} {recipe.version}: generated from model.toml */",
              f"#define OUTPOST_VERSION {recipe.version}",
              f"#define OUTPOST_CLASSES {forest.classes}",
              f"#define OUTPOST_TREES {len(forest.trees)}"]
    code = trees.to_c(model, forest, recipe.forest.form)
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
