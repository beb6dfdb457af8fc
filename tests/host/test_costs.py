"""The cost model: what is counted, that every board has its figure, and the joules of a wake."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import RandomForestClassifier
from sklearn.mixture import GaussianMixture
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from outpost import boards, convert, costs, net, power, recipe, reference, train
from outpost.recipe import FORMS, STATISTICS, VOTES, FeatureRow, Features

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
    longest, some = costs.infer_work(MOTION, forest), costs.infer_work(MOTION, forest, x)
    assert longest["tree"] == 7 and longest["node"] >= some["node"] == nodes.max()


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
    units = set().union(*(costs.infer_work(*model) for model in every_kind()))
    assert units == {figure.per for figure in board.costs["infer"].values() if figure.per}


def every_kind():
    """Yield (recipe, declared): forests in every form, and every other kind."""
    rng = np.random.default_rng(5)
    x = rng.integers(-500, 500, (90, 3)).astype(np.int16)
    y = (x[:, 0] > 0) + (x[:, 1] > 0) * 1
    huge = (rng.integers(-32768, 32768, (400, 100)).astype(np.int16), rng.integers(0, 9, 400))
    for vote, form, early in product(VOTES, FORMS, (False, True)):
        limits = replace(MOTION.forest, vote=vote, form=form, early_exit=early, depth=None)
        for some in ((abs(x), y), (x, y), huge):
            what = replace(MOTION, forest=replace(limits, trees=2))
            yield what, convert.declare(what, train.fit(what.forest, *some))
    mixture = GaussianMixture(2).fit(x)
    network = MLPClassifier((4,), max_iter=400, random_state=1)
    for model in (GaussianNB(), KNeighborsClassifier(3)):
        yield MOTION, convert.declare(MOTION, model.fit(x, y))
    for model in (mixture, convert.Detector(mixture, -9.0),
                  net.tune(make_pipeline(StandardScaler(), network).fit(x, y), x, y)):
        yield MOTION, convert.declare(MOTION, model)


def test_no_window_takes_more_than_the_worst():
    rng = np.random.default_rng(6)
    for what, declared in every_kind():
        wild = rng.integers(-32768, 32768, (20, 100)).astype(np.int16)
        worst, some = costs.infer_work(what, declared), costs.infer_work(what, declared, wild)
        assert all(some[unit] <= worst[unit] for unit in some), (some, worst)


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
