"""Converted forests against the integer reference and scikit-learn: no disagreement, ever."""

import copy
import itertools

import numpy as np
import pytest
from converted import agree, everywhere, quantised, raw
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
from sklearn.model_selection import train_test_split
from sklearn.tree import DecisionTreeClassifier

from outpost import convert, reference, trees
from outpost.convert import ConvertError


def leaf_shares(model, x):
    """Return the class shares of the leaf each tree ends at: (trees, windows, classes)."""
    return np.stack([tree.predict_proba(x) for tree in model.estimators_])


WAYS = [{"vote": vote, "early_exit": early, "form": form} for vote in ("hard", "soft")
        for early in (False, True) for form in ("fast", "compact")]


@pytest.mark.parametrize(("name", "depth"), [("digits", 8), ("breast_cancer", None), ("iris", 3)])
@pytest.mark.parametrize("way", WAYS, ids=lambda way: "-".join(map(str, way.values())))
def test_no_disagreement(name, depth, way):
    x, y = quantised(name)
    x_train, x_test, y_train, _ = train_test_split(x, y, test_size=0.3, random_state=depth)
    model = RandomForestClassifier(10, max_depth=depth, random_state=depth).fit(x_train, y_train)
    rows = everywhere(x_test, 1)
    recipe = raw(x.shape[1], **way)
    found = agree(recipe, model, rows)

    shares = leaf_shares(model, rows)
    if way["vote"] == "hard":
        votes = np.eye(shares.shape[2], dtype=int)[shares.argmax(axis=2)]
        assert (found.asked == found.votes.sum(axis=1)).all()
    else:
        votes = np.floor(np.round(shares * 254) / 254 * 255).astype(int)
    assert (found.chosen == votes.sum(axis=0).argmax(axis=1)).all()
    if not way["early_exit"]:
        shift = 4 if way["vote"] == "soft" else 0  # 10 × 255 in a byte
        assert (found.votes == votes.sum(axis=0) >> shift).all() and (found.asked == 10).all()
    else:
        assert 5 <= found.asked.mean() < 10


@pytest.mark.parametrize("model", [ExtraTreesClassifier(7, random_state=1),
                                   DecisionTreeClassifier(random_state=1),
                                   RandomForestClassifier(3, max_depth=1, random_state=1)])
@pytest.mark.parametrize("form", ["fast", "compact"])
def test_other_forests(model, form):
    x, y = quantised("wine")
    model.fit(x, y)
    agree(raw(x.shape[1], form=form), model, everywhere(x, 2))


def test_soft_votes_are_scikit_learns():
    """Points in a byte choose the class that scikit-learn's floats choose."""
    x, y = quantised("digits")
    x_train, x_test, y_train, _ = train_test_split(x, y, test_size=0.3, random_state=0)
    model = RandomForestClassifier(10, max_leaf_nodes=100, random_state=0).fit(x_train, y_train)
    chosen = convert.declare(raw(64, vote="soft"), model).answer(x_test).chosen
    assert (chosen != model.predict(x_test)).mean() <= 0.002


def test_values_on_the_threshold():
    """x == floor(t) goes left and x + 1 right, where truncation would err on negative numbers."""
    x = np.array([[-5], [-4], [3], [4]], np.int16)
    model = RandomForestClassifier(5, bootstrap=False, random_state=0).fit(x, [0, 1, 2, 3])
    near = np.arange(-8, 9, dtype=np.int16)[:, None]
    for form in ("fast", "compact"):
        found = agree(raw(1, form=form), model, near)
        assert (found.chosen == model.predict(near)).all()


@pytest.mark.parametrize("way", WAYS, ids=lambda way: "-".join(map(str, way.values())))
def test_a_tree_that_is_one_leaf(way):
    x = np.zeros((6, 2), np.int16)
    model = RandomForestClassifier(4, random_state=0).fit(x, [0, 0, 1, 1, 1, 1])
    found = agree(raw(2, **way), model, x)
    assert (found.chosen == 1).all()


@pytest.mark.parametrize(("threshold", "expected"), [
    (1e9, 32768), (32767.5, 32768), (32767.0, 32768), (32766.5, 32767), (0.0, 1), (-0.5, 0),
    (-1.0, 0), (-32768.0, -32767), (-32768.5, -32768), (-1e9, -32768)])
def test_integer_thresholds(threshold, expected):
    assert reference.integer_threshold(np.array([threshold])).tolist() == [expected]


@pytest.mark.parametrize("threshold", [-1e6, -32769.0, -32768.5, -32768.0, 32766.5, 32767.0, 1e6])
@pytest.mark.parametrize("form", ["fast", "compact"])
def test_thresholds_beyond_int16_compile(threshold, form):
    """They mean never and always, in the compiled code too."""
    x = np.array([[-32768], [-1], [0], [32767]], np.int16)
    model = RandomForestClassifier(1, bootstrap=False, random_state=0).fit(x, [0, 0, 1, 1])
    model.estimators_[0].tree_.threshold[0] = threshold
    found = agree(raw(1, form=form), model, x)
    assert found.votes[:, 0].tolist() == [int(value <= threshold) for value in x[:, 0]]


@settings(max_examples=200, deadline=None)
@given(st.floats(-1e6, 1e6), st.integers(-32768, 32767))
def test_integer_threshold_is_exact(threshold, x):
    (whole,) = reference.integer_threshold(np.array([threshold]))
    assert (x < whole) == (x <= threshold)


def saying(rows, early_exit=True):
    """Return a forest of one-leaf trees that say `rows` (trees, classes), whatever they see."""
    none = np.array([0])
    return reference.Forest(tuple(
        reference.Tree(none, none, np.array([reference.LEAF]), np.array([reference.LEAF]),
                       np.array([row])) for row in rows), len(rows[0]), early_exit=early_exit)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(0, 2), min_size=1, max_size=6))
def test_early_exit_is_as_early_as_can_be(votes):
    """Not one tree later than the class is certain, and not one earlier: by trying all endings."""
    x = np.zeros((1, 1), np.int16)
    found = saying(np.eye(3, dtype=int)[votes]).answer(x)
    asked = int(found.asked[0])

    def winners(known):
        endings = itertools.product(range(3), repeat=len(votes) - known)
        return {np.bincount([*votes[:known], *ending], minlength=3).argmax()
                for ending in endings}

    assert winners(asked) == {found.chosen[0]}
    assert len(winners(asked - 1)) > 1 or asked == 1


def test_early_exit_spares_trees():
    """At least 38 % of a forest that is seldom in doubt; the class stays the same."""
    x, y = quantised("iris")
    model = RandomForestClassifier(10, random_state=0).fit(x, y)
    early, full = (agree(raw(4, early_exit=early), model, x) for early in (True, False))
    assert (early.chosen == full.chosen).all() and early.asked.mean() <= 6.2


def test_equal_subtrees_are_merged():
    """x0 chooses between two trees that are the same below, but for one whose leaves agree."""
    nodes = [[0, 5, 1, 2], [1, 3, -1, 3], [1, 3, -1, 4], [2, 9, -1, -2], [2, 9, -1, -2]]
    assert trees._merged(nodes, 0) == [(1, 3, -1, 1), (2, 9, -1, -2)]
    assert trees._merged([[0, 5, 1, -2], [1, 7, -1, -1]], 0) == [(0, 5, -1, -2)]
    assert trees._merged([[3, 5, -1, -1]], 0) == [(0, 0, -1, -1)]


def test_a_shared_subtree_is_reached_from_everywhere():
    """Digits have some; that the code answers as before is told by test_no_disagreement."""
    x, y = quantised("digits")
    model = RandomForestClassifier(10, max_depth=8, random_state=8).fit(x, y)
    declared = convert.declare(raw(64), model)
    assert trees.read(model, declared).nodes < 0.99 * declared.nodes
    assert "goto node_" in trees.to_c(model, declared, "fast")


def test_a_node_is_one_word_if_it_fits():
    x, y = quantised("digits")
    model = RandomForestClassifier(10, max_depth=8, random_state=0).fit(x, y)
    code = convert.to_c(raw(64, form="compact"), model)["model.c"]
    assert "typedef uint32_t outpost_node_t" in code
    rng = np.random.default_rng(0)
    x, y = rng.integers(-32768, 32768, (300, 100)).astype(np.int16), rng.integers(0, 2, 300)
    model = RandomForestClassifier(2, random_state=0).fit(x, y)
    recipe = raw(100, form="compact")
    assert "typedef uint64_t outpost_node_t" in convert.to_c(recipe, model)["model.c"]
    agree(recipe, model, everywhere(x, 3))


def test_the_model_is_left_as_it_was():
    x, y = quantised("iris")
    model = RandomForestClassifier(3, random_state=0).fit(x, y)
    before = copy.deepcopy([tree.tree_.threshold for tree in model.estimators_])
    convert.to_c(raw(4), model)
    for old, tree in zip(before, model.estimators_, strict=True):
        assert (old == tree.tree_.threshold).all()


@pytest.mark.parametrize("way", WAYS, ids=lambda way: "-".join(map(str, way.values())))
def test_output_is_constant_data_only(way):
    x, y = quantised("iris")
    model = RandomForestClassifier(3, random_state=0).fit(x, y)
    code = convert.to_c(raw(4, **way), model)["model.c"]
    assert "float" not in code
    for line in code.splitlines():
        if line and not line[0].isspace() and not line.startswith(
                ("//", "/*", "#", "{", "}", "typedef", "node_")):
            assert line.startswith(("static const", "static int32_t outpost_predict",
                                    "OUTPOST_INLINE ")), line


def test_what_is_too_much_is_refused():
    x, y = quantised("iris")
    many = RandomForestClassifier(256, max_depth=1).fit(x, y)
    with pytest.raises(ConvertError, match="256 trees; at most 255"):
        convert.declare(raw(4), many)
    wide = RandomForestClassifier(1, max_depth=1).fit(np.zeros((3, 128)), [0, 1, 1])
    with pytest.raises(ConvertError, match="feature 128; at most 127"):
        convert.declare(raw(128), wide)
    rows = np.arange(129)[:, None]
    varied = RandomForestClassifier(1, random_state=0).fit(rows, rows[:, 0] // 2)
    varied.classes_ = np.arange(129)
    with pytest.raises(ConvertError, match='129 classes are too many for soft.*vote = "hard"'):
        convert.declare(raw(1, vote="soft"), varied)
    varied.classes_ = np.arange(256)
    with pytest.raises(ConvertError, match="256 classes are too many; at most 255"):
        convert.declare(raw(1), varied)
    both = DecisionTreeClassifier(max_depth=1).fit(x, np.column_stack([y, y]))
    with pytest.raises(ConvertError, match="DecisionTreeClassifier has 2 outputs; only one"):
        convert.declare(raw(4), both)


def test_trees_beyond_the_compact_form_are_refused():
    node = (0, 1, 1, ~0)
    forest = reference.Forest((), 2)
    with pytest.raises(trees.TreeError, match="a tree of 65536 nodes and 2 leaf entries is too "
                                              'large for the compact form.*form = "fast"'):
        trees._compact(trees.Trees([[node] * 65536], [0, 1], 1), forest)
