"""The search: fronts, spaces, nested evaluation, storage that is gone on with, and refusals."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from outpost import boards, build, grow, measure, recipe, reference, search, sizes, train
from outpost.cli import app
from outpost.recipe import Forest
from outpost.space import SearchError, Space

CELL = boards.batteries()["li-ion-18650"]
TOML = """
[model]
name = "shakes"
version = 3
[data]
path = "."
[signal]
rate_hz = 20.0
window = 40
hop = 20
[signal.channels]
accel_x = "count"
accel_y = "count"
accel_z = "count"
light = "count"
[features.channels]
accel_x = ["mad", "crossings"]
light = ["mean"]
[forest]
trees = 5
depth = 4
"""


@pytest.fixture
def model(tmp_path):
    """A model.toml with recordings of three kinds of shaking beside it, hard to tell apart."""
    rng = np.random.default_rng(4)
    time_s = np.arange(160) / 20
    x, y = [], []
    for label, hz in (("slow", 1.0), ("quick", 2.0), ("jerky", 3.5)):
        for _ in range(9):
            wave = np.sin(2 * np.pi * hz * time_s + rng.uniform(0, 6)) * rng.uniform(60, 160)
            x.append(np.stack([wave + rng.normal(0, 120, 160) for _ in range(3)]
                              + [rng.normal(500, 50, 160)]))
            y.append(label)
    folder = tmp_path / "shakes"
    folder.mkdir()
    np.savez(folder / "all.npz", X=np.rint(x), y=y, rate_hz=20.0)
    (folder / "model.toml").write_text(TOML)
    return folder / "model.toml"


@pytest.fixture(autouse=True)
def no_emulator(monkeypatch):
    monkeypatch.setattr(measure.Pico, "present", staticmethod(lambda: False))


def space_of(file, **changes):
    what = recipe.load(file)
    return Space(replace(what, **changes) if changes else what, boards.load("esp32c3"), CELL)


CHOICE = {"rate_hz": 10.0, "window": 16, "hop": 2, "signals": "accel", "statistic_1": "mad",
          "statistic_2": "jerk", "statistic_3": "none", "kept": 3,
          "kind": "RandomForestClassifier", "trees": 4, "depth": 3,
          "leaf_samples": 2, "prune": 0.005, "shift": 2, "gate": 0.0,
          "caution": 2.0, "vote": "soft", "form": "compact"}


# --- fronts ---


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9)), min_size=1, max_size=30))
def test_nothing_on_the_front_is_beaten_and_all_else_is(points):
    front = search.pareto(points)
    for i, (accuracy, energy) in enumerate(points):
        beaten = any(a >= accuracy and e <= energy and (a, e) != (accuracy, energy)
                     for a, e in points)
        twin = any(points[j] == points[i] for j in front)
        assert (i in front) <= (not beaten) and twin == (not beaten)
    energies = [points[i][1] for i in front]
    assert energies == sorted(energies)


def test_energies_that_are_as_good_as_equal_leave_one_point():
    assert search.pareto([(0.90, 100.0), (0.95, 100.5), (0.96, 120.0)], 0.01) == [1, 2]


def test_the_knee_is_where_more_joules_stop_to_pay():
    assert search.knee([(0.5, 10.0), (0.9, 11.0), (0.93, 40.0), (0.94, 100.0)]) == 1


# --- spaces ---


def test_what_there_is_to_choose_from(model):
    found = space_of(model)
    assert found.rates == (5.0, 10.0, 20.0)
    assert 40 in found.windows and max(found.windows) <= 40  # eight seconds at 5 Hz
    assert found.signals["accel"] == (0, 3)  # the magnitude of three axes
    assert found.groups["|accel|"] == ("accel",) and found.groups["light"] == ("light",)
    assert found.groups["accel+light, |accel+light|"] == (
        "accel_x", "accel_y", "accel_z", "light", "accel")
    for start in found.starts():
        assert found.recipe(start).feature_names


def test_a_choice_is_a_recipe_that_builds(model):
    found = space_of(model)
    what = found.recipe(CHOICE)
    assert (what.signal.rate_hz, what.signal.window, what.signal.hop) == (10.0, 16, 8)
    assert len(what.feature_names) == 3
    assert {name.split(".")[1] for name in what.feature_names} <= {"mad", "jerk"}
    assert what.forest == Forest(4, 3, None, 2, 1, "soft", False, "compact",
                                 prune=0.005) and what.features.shift == 2
    file = model.parent / "found.toml"
    search.write_toml(what, file)
    assert "accel_y" in file.read_text() and recipe.load(file).feature_names == what.feature_names
    assert recipe.load(file).features.shift == 2
    fitted = build.fit(recipe.load(file))
    assert (fitted.x_train == found.grid(10.0, 16, 8).columns(what.feature_names, 2)).all()
    assert fitted.forest.soft and len(fitted.forest.trees) == 4


def test_search_may_be_told_what_not_to_use(model):
    model.write_text(TOML + '[search]\nstatistics = ["mad"]\nsignals = ["accel_x", "accel"]\n')
    found = space_of(model)
    assert list(found.groups) == ["accel", "|accel|", "accel, |accel|"]
    assert found.statistics == ("mad",) and found.groups["accel"] == ("accel_x",)


@pytest.mark.parametrize("limits", [
    Forest(6, 4, None, 1, 3), Forest(3, None, 7, 2, 9, vote="soft"), Forest(1, 2, None, 5, 0),
    Forest(5, 4, None, 3, 2, kind="ExtraTreesClassifier"),
    Forest(5, 8, None, 1, 2, prune=0.02),
    Forest(1, 5, None, 2, 4, kind="DecisionTreeClassifier")])
def test_forests_grown_in_a_hurry_are_those_that_are_built(limits):
    rng = np.random.default_rng(1)
    x = rng.integers(-900, 900, (150, 7)).astype(np.int16)
    y = (x[:, 0] + rng.integers(-200, 200, 150) > 0) + 2 * (x[:, 3] > 100)
    forest, classes = grow.grown(limits, x, y)
    slow = reference.from_sklearn(train.fit(limits, x, y), limits.vote == "soft")
    assert (classes == np.unique(y)).all() and forest.soft == slow.soft
    for ours, theirs in zip(forest.trees, slow.trees, strict=True):
        for part in ("feature", "threshold", "left", "right", "said"):
            np.testing.assert_array_equal(getattr(ours, part), getattr(theirs, part))


def test_held_out_recordings_have_no_say(model):
    """What a choice is worth stays what it is when they are replaced by noise."""
    honest, other = space_of(model), space_of(model)
    for rate in other.rates:
        dataset = other.dataset(rate)
        noise = [replace(one, samples=one.samples[::-1] * 3, label="slow") for one in dataset.test]
        other._sets[rate] = replace(dataset, test=noise)
    assert honest.worth(CHOICE) == other.worth(CHOICE)
    assert honest.worth(CHOICE, 1) != honest.worth(CHOICE, 2)  # other folds


def test_features_are_chosen_without_the_fold_they_are_judged_by(model):
    """Labels drawn by lot: choosing the best of many features must not look better than chance."""
    what = recipe.load(model)
    found = Space(what, boards.load("esp32c3"), CELL)
    grid = found.grid(20.0, 20, 20)
    rng = np.random.default_rng(3)
    noise = rng.integers(-500, 500, grid.x.shape).astype(np.int16)
    found._grids[20.0, 20, 20] = replace(grid, x=noise)
    choice = {**CHOICE, "rate_hz": 20.0, "window": 20, "hop": 1, "statistic_3": "max",
              "signals": "accel+light, |accel+light|", "kept": 2}
    right = np.mean([found.worth(choice, seed).accuracy for seed in range(4)])
    assert abs(right - 1 / 3) < 0.09


def test_bounds_are_those_of_the_contract_and_the_board(model):
    contract = {"bytes": {"rv32imc": 100.0}, "energy_uj": 1e9, "life_days": {"esp32c3": 1e5},
                "accuracy": 0.2, "latency_us": 1.0}
    limits = space_of(model, contract=contract).worth(CHOICE).limits
    assert {name for name, missed in limits.items() if missed > 0} == {
        "bytes", "life_days", "latency_us"}
    assert limits["energy_uj"] < 0 and limits["memory"] < 0 and limits["accuracy"] < 0


def test_more_of_anything_has_more_bytes():
    fitted = sizes.fitted("rv32imc")
    assert fitted.error < 0.15
    assert fitted.bytes["node fast"] > fitted.bytes["node compact"] > 3


def test_a_gate_spares_joules_and_its_threshold_comes_from_the_training_folds(model):
    """One class stands still: most of its windows are decided by the first quarter of them."""
    with np.load(model.parent / "all.npz") as old:
        x, y = old["X"].copy(), old["y"]
    x[y == "slow", :3] = np.random.default_rng(5).integers(-9, 9, x[y == "slow", :3].shape)
    np.savez(model.parent / "all.npz", X=x, y=y, rate_hz=20.0)
    found = space_of(model)
    assert found.quietest == "slow"
    without, with_it = (found.worth({**CHOICE, "gate": gate, "kept": 6}) for gate in (0.0, 0.25))
    gate = with_it.recipe.tiers.gate
    assert gate.samples == 4 and gate.channels == ("accel_x", "accel_y", "accel_z")
    assert gate.label == "slow" and gate.span > 20
    assert with_it.gated > 0.2 and with_it.energy_uj < without.energy_uj
    assert with_it.accuracy > without.accuracy - 0.05 and with_it.limits == without.limits
    file = model.parent / "gated.toml"
    search.write_toml(with_it.recipe, file)
    assert recipe.load(file).tiers.gate == gate


# --- studies ---


def test_a_search_ends_with_a_model_that_builds_and_goes_on_where_it_stopped(model, tmp_path):
    out = tmp_path / "found"
    first = search.search(str(model), "esp32c3", 8, out=out)
    assert first.trials == 8 and (out / "study.log").is_file()
    seen = []
    run = CliRunner().invoke(app, ["search", str(model), "--board", "esp32c3", "--trials", "14",
                                   "--jobs", "1", "--out", str(out), "--json"])
    assert run.exception is None, run.output
    told = json.loads(run.stdout.splitlines()[-1])
    seen = [told[key] for key in ("front", "best", "seconds", "baseline", "knee")]
    assert all(seen) and told["trials"] == 14
    for one in told["front"]:
        assert {"accuracy", "energy_uj", "bytes", "latency_us", "held_out"} <= set(one)
    accuracies = [one["accuracy"] for one in told["front"]]
    assert accuracies == sorted(accuracies)
    best = told["best"]
    assert best["accuracy"] >= told["baseline"]["accuracy"]
    assert told["dominates"] == (best["energy_uj"] < told["baseline"]["energy_uj"])
    page = (out / "front.html").read_text()
    assert 'src="http' not in page and "model.toml" in page
    built = build.build(str(out), ["x64", "rv32imc"], tmp_path / "built")
    assert not built.violations and built.modules[1].bytes == best["bytes"]
    assert built.modules[0].accuracy == pytest.approx(best["held_out"]["value"])

    model.write_text(TOML.replace("trees = 5", "trees = 6") + "[contract]\nbytes = 9000\n")
    with pytest.raises(SearchError, match="study.log holds a search of other data"):
        search.search(str(model), "esp32c3", 8, out=out)


def test_several_processes_share_a_database(model, tmp_path):
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    found = search.search(str(model), "esp32c3", 6, jobs=2, storage=url, out=tmp_path / "out")
    assert found.trials >= 6
    study = search.optuna.load_study(study_name="shakes-esp32c3", storage=url)
    assert len(study.trials) >= 6 and study.user_attrs["of"]


def test_two_machines_share_one_study_in_postgresql(model, tmp_path, postgres):
    """The same command twice at once, as on two machines; a third finds all of it done."""
    url = postgres.database()
    here = [sys.executable, "-m", "outpost", "search", str(model), "--board", "esp32c3", "--jobs",
            "1", "--trials", "8", "--storage", url, "--json", "--out"]
    both = [subprocess.Popen([*here, tmp_path / name], stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, text=True) for name in ("one", "other")]
    told = []
    for process in both:
        out, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
        told.append(json.loads(out.splitlines()[-1]))
    study = search.optuna.load_study(study_name="shakes-esp32c3", storage=url)
    done = sum(trial.state == search.TrialState.COMPLETE for trial in study.trials)
    assert 8 <= done <= 9  # whoever is at work when the eighth is done ends that one
    assert all(8 <= one["trials"] <= done and one["front"] for one in told)
    again = search.search(str(model), "esp32c3", 8, storage=url, out=tmp_path / "third")
    assert again.trials == done and again.rate == 0
    assert again.json()["front"] in [one["front"] for one in told]


# --- refusals ---


def test_nothing_within_the_bounds_is_said_and_by_how_much(model, tmp_path):
    model.write_text(TOML + "[contract]\nlatency_us = 1\n")
    with pytest.raises(SearchError, match=r"none of \d trials keeps the contract's bounds; the "
                                          r"nearest misses one by [\d.]+ %"):
        search.search(str(model), "esp32c3", 3, out=tmp_path / "out")


@pytest.mark.parametrize(("old", "new", "words"), [
    ('[features.channels]\naccel_x = ["mad", "crossings"]\nlight = ["mean"]',
     '[features]\nkind = "raw"', "kind is raw"),
    ("[forest]\ntrees = 5\ndepth = 4", '[estimator]\nkind = "GaussianNB"',
     r"\[estimator\] is a GaussianNB"),
    ("rate_hz = 20.0\nwindow", "window", "has no rate_hz, so a window has no length"),
    ("[forest]", '[search]\nsignals = ["acel"]\n[forest]', "signals has 'acel'; there are"),
    ("[forest]", '[search]\nstatistics = ["median"]\n[forest]', "statistics: has 'median'"),
])
def test_models_that_can_not_be_searched_for(model, old, new, words):
    model.write_text(TOML.replace(old, new))
    if "raw" in new:
        model.write_text(model.read_text().replace("window = 40", "window = 20"))
    with pytest.raises((SearchError, recipe.RecipeError), match=words):
        space_of(model)


def test_a_class_with_one_training_recording_is_refused(model):
    with np.load(model.parent / "all.npz") as old:
        keep = [*range(9), *range(9, 11), *range(18, 27)]
        np.savez(model.parent / "all.npz", X=old["X"][keep], y=old["y"][keep], rate_hz=20.0)
    with pytest.raises(SearchError, match="a class has one recording to train on"):
        space_of(model)


def test_digits_have_no_window_to_choose():
    with pytest.raises(SearchError, match="kind is raw"):
        space_of(recipe.find("digits"))


def test_a_worker_that_dies_is_told_of_and_what_is_done_is_kept(model, tmp_path, monkeypatch):
    monkeypatch.setattr(search.multiprocessing.get_context("spawn"), "Process", Dead)
    with pytest.raises(SearchError, match="2 of 2 processes failed.*the same command goes on"):
        search.search(str(model), "esp32c3", 3, jobs=2, out=tmp_path / "out")
    assert (tmp_path / "out/study.log").is_file()


class Dead:
    """A process that has ended by itself, and not well."""

    exitcode = 1

    def __init__(self, **_):
        pass

    def start(self):
        pass

    terminate = start

    def is_alive(self):
        return False


def test_a_model_that_reads_otherwise_than_it_was_found_is_not_left_behind(model, tmp_path):
    what = space_of(model).recipe(CHOICE)
    other = replace(what, forest=replace(what.forest, seed=-1))  # no recipe may say so
    with pytest.raises((SearchError, recipe.RecipeError)):
        search.write_toml(other, tmp_path / "found.toml")
    assert not (tmp_path / "found.toml").exists()


@pytest.mark.parametrize(("arguments", "words"), [
    (["--battery", "potato"], "no battery 'potato'"),
    (["--board", "pico"], "no board 'pico'"),
    (["--storage", "postgresql://nobody@127.0.0.1:9/none"], "127.0.0.1:9")])
def test_mistakes_are_named(arguments, words, tmp_path):
    run = CliRunner().invoke(app, ["search", "motion", "--trials", "1", "--out",
                                   str(tmp_path / "out"), *arguments])
    assert words in str(run.exception), run.exception
