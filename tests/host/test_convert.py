"""Converted forests against the integer reference and scikit-learn: no disagreement, ever."""

import copy
from types import SimpleNamespace

import cffi
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import datasets
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.naive_bayes import GaussianNB
from sklearn.tree import DecisionTreeClassifier

from outpost import convert, features, reference
from outpost.convert import ConvertError

BATCH = """
#include <stdint.h>
#define OUTPOST_FEATURES {features}
{trees}
void batch(const int16_t *features, uint8_t *votes, int count);
void batch(const int16_t *features, uint8_t *votes, int count)
{{
    for (int i = 0; i < count; i++, features += OUTPOST_FEATURES, votes += {classes}) {{
        outpost_tree_votes(features, votes);
    }}
}}
"""


def compiled_votes(model, x):
    """Return the votes of the converted trees, compiled and run on this machine."""
    source = BATCH.format(features=x.shape[1], classes=len(model.classes_),
                          trees=convert.trees_to_c(model, x.shape[1]))
    x = np.ascontiguousarray(x, np.int16)
    votes = np.zeros((len(x), len(model.classes_)), np.uint8)
    ffi = cffi.FFI()
    ffi.cdef("void batch(const int16_t *features, uint8_t *votes, int count);")
    ffi.dlopen(str(features.shared_object({}, source))).batch(
        ffi.cast("int16_t *", ffi.from_buffer(x)), ffi.cast("uint8_t *", ffi.from_buffer(votes)),
        len(x))
    return votes


def quantised(name):
    """Return a data set as int16: floats are scaled to the whole range before any training."""
    x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    if name != "digits":
        low, high = x.min(axis=0), x.max(axis=0)
        x = np.rint((x - low) / (high - low) * 65535 - 32768)
    return x.astype(np.int16), y


def sklearn_hard_votes(model, x):
    """Count the classes scikit-learn's own trees predict."""
    votes = np.zeros((len(x), len(model.classes_)), int)
    for tree in model.estimators_:
        votes[np.arange(len(x)), tree.predict(x).astype(int)] += 1
    return votes


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("depth", [8, None])
@pytest.mark.parametrize("name", ["digits", "iris", "wine", "breast_cancer"])
def test_no_disagreement(name, depth, seed):
    x, y = quantised(name)
    x_train, x_test, y_train, _ = train_test_split(x, y, test_size=0.3, random_state=seed)
    model = RandomForestClassifier(10, max_depth=depth, random_state=seed).fit(x_train, y_train)
    everywhere = np.concatenate([x_test, np.random.default_rng(seed).integers(
        -32768, 32768, (2000, x.shape[1])).astype(np.int16)])
    expected = reference.from_sklearn(model).votes(everywhere)
    assert (expected == sklearn_hard_votes(model, everywhere)).all()
    assert (compiled_votes(model, everywhere) == expected).all()


@pytest.mark.parametrize("model", [ExtraTreesClassifier(7, random_state=1),
                                   DecisionTreeClassifier(random_state=1),
                                   RandomForestClassifier(3, max_depth=1, random_state=1)])
def test_other_forests(model):
    x, y = quantised("wine")
    model.fit(x, y)
    assert (compiled_votes(model, x) == reference.from_sklearn(model).votes(x)).all()


def test_values_on_the_threshold():
    """x == floor(t) goes left and x + 1 right, where truncation would err on negative numbers."""
    x = np.array([[-5], [-4], [3], [4]], np.int16)
    model = RandomForestClassifier(5, bootstrap=False, random_state=0).fit(x, [0, 1, 2, 3])
    near = np.arange(-8, 9, dtype=np.int16)[:, None]
    assert (compiled_votes(model, near) == sklearn_hard_votes(model, near)).all()


def test_a_tree_that_is_one_leaf():
    x = np.zeros((6, 2), np.int16)
    model = RandomForestClassifier(4, random_state=0).fit(x, [0, 0, 1, 1, 1, 1])
    votes = compiled_votes(model, x)
    assert (votes == reference.from_sklearn(model).votes(x)).all() and votes.sum() == 24


@pytest.mark.parametrize(("threshold", "expected"), [
    (1e9, 32768), (32767.5, 32768), (32767.0, 32768), (32766.5, 32767), (0.0, 1), (-0.5, 0),
    (-1.0, 0), (-32768.0, -32767), (-32768.5, -32768), (-1e9, -32768)])
def test_integer_thresholds(threshold, expected):
    assert reference.integer_threshold(np.array([threshold])).tolist() == [expected]


@pytest.mark.parametrize("threshold", [-1e6, -32769.0, -32768.5, -32768.0, 32766.5, 32767.0, 1e6])
def test_thresholds_beyond_int16_compile(threshold):
    """They mean never and always, in the compiled code too."""
    x = np.array([[-32768], [-1], [0], [32767]], np.int16)
    model = RandomForestClassifier(1, bootstrap=False, random_state=0).fit(x, [0, 0, 1, 1])
    model.estimators_[0].tree_.threshold[0] = threshold
    votes = compiled_votes(model, x)
    assert (votes == reference.from_sklearn(model).votes(x)).all()
    assert votes[:, 0].tolist() == [int(value <= threshold) for value in x[:, 0]]


@settings(max_examples=200, deadline=None)
@given(st.floats(-1e6, 1e6), st.integers(-32768, 32767))
def test_integer_threshold_is_exact(threshold, x):
    (whole,) = reference.integer_threshold(np.array([threshold]))
    assert (x < whole) == (x <= threshold)


def test_the_model_is_left_as_it_was():
    x, y = quantised("iris")
    model = RandomForestClassifier(3, random_state=0).fit(x, y)
    before = copy.deepcopy([tree.tree_.threshold for tree in model.estimators_])
    convert.trees_to_c(model, x.shape[1])
    for old, tree in zip(before, model.estimators_, strict=True):
        assert (old == tree.tree_.threshold).all()


def test_the_lowest_of_equal_classes_wins():
    assert reference.decide(np.array([[1, 4, 4, 1], [2, 2, 2, 2]], np.uint8)).tolist() == [1, 0]


def test_output_is_constant_data_only():
    x, y = quantised("iris")
    code = convert.trees_to_c(RandomForestClassifier(3, random_state=0).fit(x, y), x.shape[1])
    assert "float" not in code
    for line in code.splitlines():
        if line and not line[0].isspace() and not line.startswith(("//", "/*", "#", "{", "}")):
            assert line.startswith("static "), line


@pytest.mark.parametrize(("model", "count", "words"), [
    (LogisticRegression(), 4, "LogisticRegression can't be converted"),
    (GaussianNB(), 4, "GaussianNB can't be converted"),
    (SimpleNamespace(), 4, "allowed: RandomForestClassifier"),
    (RandomForestClassifier(), 128, "128 features; at most 127")])
def test_refusals_name_what_is_wrong(model, count, words):
    with pytest.raises(ConvertError, match=words):
        convert.trees_to_c(model, count)


def test_too_many_trees_are_refused():
    x, y = quantised("iris")
    with pytest.raises(ConvertError, match="256 trees; at most 255"):
        convert.trees_to_c(RandomForestClassifier(256, max_depth=1).fit(x, y), x.shape[1])
