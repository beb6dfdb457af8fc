"""Drift of pulled windows, and what a model's figures rest on: splits, balance, warnings."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from outpost import build, contract, drift, honesty, measure, pull, recipe
from outpost.cli import app
from outpost.drift import DriftError

MOTION = recipe.load(recipe.find("motion"))


@pytest.fixture(scope="module")
def fitted():
    return build.fit(MOTION)


@pytest.fixture
def pulled(tmp_path, fitted):
    """`pulled(windows)`: a folder as `outpost pull` leaves it, labelled by what the node said."""
    def write(windows):
        for i, window in enumerate(windows):
            pull.save_window(f"Walking_{i}_0", window.astype("<i2").tobytes(), MOTION, tmp_path)
        return tmp_path
    return write


@given(st.lists(st.integers(-50, 50), min_size=20, max_size=200))
def test_a_population_is_stable_against_itself(values):
    old = np.array(values)
    assert drift.psi(old, old)[0] == pytest.approx(0)
    shuffled = np.random.default_rng(0).permutation(old)
    assert drift.psi(old, shuffled)[0] == pytest.approx(0)


def test_the_index_is_what_the_books_say():
    old, new = np.repeat([0, 1], [500, 500]), np.repeat([0, 1], [800, 200])
    value, bins = drift.psi(old, new)
    p, q = np.array([0.8, 0.2]), np.array([0.5, 0.5])
    assert bins == 2 and value == pytest.approx(((p - q) * np.log(p / q)).sum(), rel=0.01)


def test_held_out_windows_have_not_drifted_whatever_their_mix(fitted, pulled):
    standing = fitted.test.y == fitted.dataset.classes.index("Standing")
    resting = np.concatenate([fitted.test.x[standing], fitted.test.x[~standing][:4]])
    found = drift.of_folder(MOTION, pulled(resting), fitted)
    assert found.warning is None and drift.line(MOTION, found).ok
    assert found.mix["Standing"] > 0.8 and found.windows == len(resting) == found.recordings
    raw = max(drift.psi(fitted.x_train[:, i], fitted.x_test[standing][:, i])[0] for i in range(12))
    assert raw > 1  # the mix alone would have looked like drift


def test_a_sensor_that_has_become_weaker_has_drifted(fitted, pulled):
    weak = fitted.test.x // 3
    found = drift.of_folder(MOTION, pulled(weak), fitted)
    assert "mad" in found.worst.name and found.worst.drifted
    assert "features have drifted from the training windows" in found.warning
    line = drift.line(MOTION, found)
    assert not line.ok and line.broken.startswith("drift: ")


def test_check_tells_and_fails(fitted, pulled, monkeypatch):
    monkeypatch.setattr(measure.Pico, "present", staticmethod(lambda: False))
    monkeypatch.setattr(measure.Counter, "present", staticmethod(lambda arch: False))
    folder = pulled(fitted.test.x // 3)
    run = CliRunner().invoke(app, ["check", "motion", "--drift", str(folder), "--json"])
    assert "drift: " in str(run.exception)
    told = json.loads(run.stdout.splitlines()[-1])
    assert told["drift"]["windows"] == 120 and not told["ok"]
    assert [one["label"] for one in told["data"]["classes"]] == list(fitted.dataset.classes)
    shown = CliRunner().invoke(app, ["check", "motion", "--drift", str(folder)])
    assert "split as published" in shown.stdout and "PSI" in shown.stdout


def test_pull_warns(fitted, pulled):
    written = sorted(pulled(fitted.test.x // 3).glob("*.csv"))
    got = pull.Pulled(1, 0, written[0], written)
    assert "drifted" in pull.drift_of(got, "motion")
    for path in written[drift.LEAST - 1:]:
        path.unlink()
    assert pull.drift_of(got, "motion") is None  # too few to tell
    assert pull.drift_of(pull.Pulled(1, 0, written[0], []), "motion") is None


def test_too_few_windows_are_refused(fitted, pulled):
    with pytest.raises(DriftError, match="5 windows; a comparison needs 20"):
        drift.of_folder(MOTION, pulled(fitted.test.x[:5]), fitted)


def test_drift_may_be_demanded(fitted):
    found = drift.Drift(50, 50, [drift.Feature("a.mad", 0.4, 0.5)], {})
    strict = recipe.replace(MOTION, contract={"drift": 0.1})
    assert drift.line(MOTION, found).ok and not drift.line(strict, found).ok
    assert contract.TERMS["drift"].unit == "PSI"


# --- splits ---


def test_what_motion_rests_on(fitted):
    found = honesty.splits(fitted)
    assert found.by == "as published" and not found.warnings
    for one in found.classes:
        assert (one.groups_train, one.groups_test) == (10, 10)
        assert (one.windows_train, one.windows_test) == (30, 30)


def test_few_held_out_groups_and_uneven_classes_are_told():
    gait = build.fit(recipe.load(recipe.find("gait")))
    found = honesty.splits(gait)
    assert found.by == "by recording"
    assert found.warnings == ["fewer than 5 held-out groups: freeze (4), walk (4); one recording "
                              "more or less moves their share a lot"]
    uneven = [honesty.Class("rest", 9, 9, 900, 90), honesty.Class("fall", 9, 9, 30, 9)]
    (told,) = honesty._warnings(uneven)
    assert told.startswith("rest has 900 training windows, fall 30")
