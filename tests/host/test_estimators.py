"""[estimator] in model.toml: every kind built, and run on MicroPython, as a person would."""

import json
import re

import numpy as np
import pytest
from test_build import outpost, table

from outpost import build
from outpost.kinds import KindError
from outpost.train import TrainError


def with_estimator(tmp_path, name, lines, two=None):
    """Return a recipe with [estimator] `lines` on a table; `two` names a class, or not, only."""
    file = table(tmp_path / name, name)
    text = re.sub(r"\[forest\]\n.*\n", f"[estimator]\n{lines}\n", file.read_text())
    file.write_text(text)
    if two is not None:
        with np.load(file.parent / "rows.npz") as rows:
            x, y = rows["X"], rows["y"]
        np.savez(file.parent / "rows.npz", X=x, y=np.where(y == two, "usual", "other"))
    return file


@pytest.mark.parametrize(("name", "lines", "two", "least"), [
    ("wine", 'kind = "GaussianNB"', None, 0.9),
    ("wine", 'kind = "KNeighborsClassifier"\nscale = "RobustScaler"\nn_neighbors = 3', None, 0.9),
    ("wine", 'kind = "MLPClassifier"\nscale = "StandardScaler"\nhidden_layer_sizes = [8]\n'
             "max_iter = 2000", None, 0.9),
    ("wine", 'kind = "MLPClassifier"\nselect = 8\nscale = "MinMaxScaler"\nhidden_layer_sizes = []'
             "\nmax_iter = 3000", None, 0.9),
    ("wine", 'kind = "EllipticEnvelope"\nusual = "usual"\nselect = 5', 1, 0.8),
    ("iris", 'kind = "GaussianMixture"\nusual = "usual"\nn_components = 2', 0, 0.85)])
def test_built_and_run(name, lines, two, least, tmp_path):
    file = with_estimator(tmp_path, name, lines, two)
    result = build.build(str(file), out=tmp_path / "out")
    (host,) = result.modules
    assert host.disagreements == 0
    assert host.accuracy == result.accuracy["reference"] >= least
    assert abs(result.accuracy["sklearn"] - host.accuracy) <= 0.03
    meta = json.loads((tmp_path / "out" / "model.json").read_text())
    assert meta["kind"] in lines and meta["forest"] is None


@pytest.mark.parametrize(("lines", "error", "words"), [
    ('kind = "GaussianNB"\nneighbours = 3', TrainError,
     "neighbours: is not known; allowed here: kind, scale, .*, priors, var_smoothing"),
    ('kind = "GaussianNB"\nselect = 9', TrainError, "select: is 9, and there are 4 features"),
    ('kind = "GaussianMixture"\nusual = "0"', TrainError,
     "usual: is '0', and it must be one of two classes; the recordings have 0, 1, 2"),
    ('kind = "MLPClassifier"\nactivation = "tanh"', KindError, "activation = 'tanh' can't be"),
    ('kind = "KNeighborsClassifier"\nweights = "distance"', KindError, 'take weights = "unif')])
def test_what_cant_be_is_refused_when_it_trains(lines, error, words, tmp_path):
    with pytest.raises(error, match=words):
        build.build(str(with_estimator(tmp_path, "iris", lines)), out=tmp_path / "out")


def test_a_refusal_ends_in_one_line(tmp_path):
    file = with_estimator(tmp_path, "iris", 'kind = "GradientBoostingClassifier"')
    run = outpost("build", file, COLUMNS="300")
    assert run.returncode == 1 and run.stderr.startswith("error:")
    assert ("GradientBoostingClassifier can't be converted: its trees add up floats and end in an "
            "exponential; take RandomForestClassifier or ExtraTreesClassifier") in run.stderr


def test_other_forests_by_name(tmp_path):
    for kind, trees in (("ExtraTreesClassifier", 10), ("DecisionTreeClassifier", 1)):
        file = table(tmp_path / kind, "iris")
        file.write_text(file.read_text().replace("[forest]", f'[forest]\nkind = "{kind}"'))
        result = build.build(str(file), out=tmp_path / f"{kind}-out")
        meta = json.loads((tmp_path / f"{kind}-out" / "model.json").read_text())
        assert result.modules[0].disagreements == 0 and meta["kind"] == kind
        assert meta["forest"]["trees"] == trees


def test_check_measures_other_kinds_too(tmp_path):
    file = with_estimator(tmp_path, "iris", 'kind = "GaussianNB"')
    run = outpost("check", file, "--board", "esp32c3", "--explain")
    assert run.returncode == 0, run.stderr
    assert "accuracy" in run.stdout and "no tree looks at" not in run.stdout
