"""The cost model: what is counted, that every board has its figure, and the joules of a wake."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import RandomForestClassifier

from outpost import boards, costs, power, recipe, reference
from outpost.recipe import STATISTICS, FeatureRow, Features

MOTION = recipe.load(recipe.find("motion"))


def with_rows(*rows, window=64):
    return replace(MOTION, features=Features(False, tuple(rows)),
                   signal=replace(MOTION.signal, window=window))


@pytest.fixture(scope="module")
def grown():
    rng = np.random.default_rng(2)
    x = rng.integers(-500, 500, (300, 6))
    model = RandomForestClassifier(7, max_depth=6, random_state=1)
    model.fit(x, (x[:, 0] > 0) * 2 + (x[:, 1] > x[:, 2]))
    return model, reference.from_sklearn(model), rng.integers(-600, 600, (200, 6)).astype(np.int16)


def test_paths_are_those_scikit_learn_takes(grown):
    model, forest, x = grown
    paths, _ = model.decision_path(x)
    nodes = np.asarray(paths.sum(axis=1)).ravel() - len(forest.trees)  # leaves compare nothing
    assert (costs.path_lengths(forest, x) == nodes).all()
    assert [costs.longest_path(tree) for tree in forest.trees] == [
        estimator.tree_.max_depth for estimator in model.estimators_]
    longest = costs.forest_work(forest)
    assert longest["tree"] == 7 and longest["node"] >= costs.forest_work(forest, x)["node"]
    assert costs.forest_work(forest, x)["node"] == nodes.max()


def test_work_follows_the_features():
    mad = costs.feature_work(with_rows(FeatureRow("a", 0, 1, ("mad",)),
                                       FeatureRow("b", 1, 1, ("crossings",))))
    # a sum that one row wants is made for both; a window of 64 divides by shifts
    assert {key: count for key, count in mad.items() if count} == {
        "row": 2, "value": 128, "centred": 128, "mad": 128, "crossings": 128}
    vector = costs.feature_work(with_rows(FeatureRow("v", 0, 3, ("energy", "peak_to_peak")),
                                          window=100))
    assert {key: count for key, count in vector.items() if count} == {
        "row": 1, "vector": 100, "bound": 200, "energy": 100, "root": 1, "division": 1}
    digits = recipe.load(recipe.find("digits"))
    assert costs.feature_work(digits) == {"copy": 64}


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_more_features_never_cost_less(data):
    board = boards.load(data.draw(st.sampled_from(boards.names())))
    rows = [FeatureRow(name, i, 1, tuple(sorted(data.draw(
        st.sets(st.sampled_from(STATISTICS), min_size=1)), key=STATISTICS.index)))
        for i, name in enumerate(MOTION.signal.names[:data.draw(st.integers(1, 6))])]
    window = data.draw(st.sampled_from((16, 25, 64)))
    less, more = (board.stage_us("pre", **costs.feature_work(with_rows(*some, window=window)))
                  for some in (rows[:-1] or rows, rows))
    assert 0 < less <= more


@pytest.mark.parametrize("name", boards.names())
def test_every_unit_of_work_has_its_figure(name, grown):
    board = boards.load(name)
    every = with_rows(FeatureRow("v", 0, 3, STATISTICS), window=100)
    raw = recipe.load(recipe.find("digits"))
    units = {*costs.feature_work(every), *costs.feature_work(raw), "value"}
    assert units == {figure.per for figure in board.costs["pre"].values() if figure.per}
    assert set(costs.forest_work(grown[1])) == {
        figure.per for figure in board.costs["infer"].values() if figure.per}


def test_a_wake_is_mostly_waiting(grown):
    board, battery = boards.load("rp2040"), boards.batteries()["li-ion-18650"]
    phases = {phase.name: phase for phase in costs.wake(board, battery, MOTION, grown[1])}
    assert phases["wait"].us == 64 / 12.5 * 1e6
    watts = power.powers_uw(board, battery, "serial")
    assert phases["wait"].uj == pytest.approx(
        phases["wait"].us * (watts["doze"] + watts["sensor"]) / 1e6)
    half = costs.wake(board, battery, replace(MOTION, signal=replace(
        MOTION.signal, window=32)), grown[1])
    whole = costs.wake_uj(list(phases.values()))
    assert 0.5 * whole < costs.wake_uj(half) < 0.65 * whole
