"""Converted models, compiled and run on this machine, against what they must answer."""

from dataclasses import replace
from pathlib import Path

import cffi
import numpy as np
from sklearn import datasets
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import train_test_split

from outpost import build, convert, features
from outpost import recipe as recipes
from outpost.recipe import Channel, Data, Features, Forest, Post, Recipe, Signal

BATCH = """
{model}
void batch(const int16_t *features, uint8_t *votes, int32_t *chosen, int count);
void batch(const int16_t *features, uint8_t *votes, int32_t *chosen, int count)
{{
    for (int i = 0; i < count; i++, features += OUTPOST_FEATURES, votes += OUTPOST_CLASSES) {{
        chosen[i] = outpost_predict(features, votes);
    }}
}}
"""


def raw(count, **forest):
    """Return a recipe whose features are `count` values as they are."""
    return Recipe(
        file=Path("table"), name="table", version=1, classes=None,
        data=Data(None, Path("."), None, None, 0.3, 1),
        signal=Signal((Channel("value", "count", 1.0),), count, count, None, None, None, None),
        features=Features(raw=True, rows=()),
        forest=Forest(10, None, None, 1, 1, **forest), post=Post("majority", 1, 0.5))


def compiled(recipe, model, declared, x):
    """Return what the converted model answers, compiled and run on this machine."""
    x = np.ascontiguousarray(x, np.int16)
    code = convert.to_c(recipe, model)
    source = BATCH.format(model=code["model.c"])
    votes = np.full((len(x), declared.classes), 0xAA, np.uint8)
    chosen = np.zeros(len(x), np.int32)
    ffi = cffi.FFI()
    ffi.cdef("void batch(const int16_t *, uint8_t *, int32_t *, int);")
    library = ffi.dlopen(str(features.shared_object({"model.h": code["model.h"]}, source)))
    library.batch(ffi.cast("int16_t *", ffi.from_buffer(x)),
                  ffi.cast("uint8_t *", ffi.from_buffer(votes)),
                  ffi.cast("int32_t *", ffi.from_buffer(chosen)), len(x))
    return chosen, votes


def agree(recipe, model, x):
    """Assert that the converted model answers as the reference does; return those answers."""
    declared = convert.declare(recipe, model)
    expected = declared.answer(x)
    chosen, votes = compiled(recipe, model, declared, x)
    np.testing.assert_array_equal(votes, expected.votes)
    np.testing.assert_array_equal(chosen, expected.chosen)
    return expected


def quantised(name):
    """Return a data set as int16: floats are scaled to the whole range before any training."""
    x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    if name != "digits":
        low, high = x.min(axis=0), x.max(axis=0)
        x = np.rint((x - low) / (high - low) * 65535 - 32768)
    return x.astype(np.int16), y


def everywhere(x, seed):
    """Return `x` and rows from all over int16, edges among them."""
    rng = np.random.default_rng(seed)
    wild = rng.integers(-32768, 32768, (1000, x.shape[1]))
    wild[:20] = rng.choice([-32768, -1, 0, 1, 32767], (20, x.shape[1]))
    return np.concatenate([x, wild]).astype(np.int16)


def five_forests():
    """Yield ten trees of at most a hundred leaves on raw digits, with what they have not seen."""
    x, y = quantised("digits")
    for seed in range(5):
        x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=0.3, random_state=seed,
                                                            stratify=y)
        model = RandomForestClassifier(10, max_leaf_nodes=100, random_state=seed)
        yield model.fit(x_train, y_train), x_test, y_test


def shipped(name, **way):
    """Return (recipe, fitted) of a model as it is shipped, but for what [forest] has in `way`."""
    what = recipes.load(recipes.find(name))
    return replace(what, forest=replace(what.forest, **way)), build.fit(what)
