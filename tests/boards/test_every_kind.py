"""Every kind of model, executed on MicroPython: answers and votes as the reference has them.

The models are small and their features raw, so that only the kind is at work.
"""

import sys

import numpy as np
import pytest
import xtensa
from machines import MACHINES
from sklearn.covariance import EllipticEnvelope
from sklearn.ensemble import ExtraTreesClassifier, RandomForestRegressor
from sklearn.feature_selection import SelectKBest
from sklearn.mixture import GaussianMixture
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, RobustScaler, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from outpost import convert, net
from outpost.compile import compile_module
from outpost.link import link
from outpost.paths import NATIVE, ROOT
from outpost.toolchain import xtensa as toolchain

sys.path.append(str(ROOT / "tests/host"))
from converted import everywhere, quantised, raw  # noqa: E402

CHOSEN = ("unix", "M0", "M4", "RV32", "Xtensa")  # 64 bits, and 32 of each family
ROWS = 80


def network(x, y):
    """Return an int8 network of two layers."""
    model = make_pipeline(StandardScaler(), MLPClassifier((9,), max_iter=150, random_state=0))
    return net.tune(model.fit(x, y), x, y)


def detector(model):
    """Return a function that fits a detector to the first class."""
    def fit(x, y):
        fitted = model.fit(x[y == 0])
        return convert.Detector(fitted, float(np.quantile(fitted.score_samples(x), 0.3)))
    return fit


KINDS = {
    "single tree": DecisionTreeClassifier(random_state=0).fit,
    "extra trees behind a scaler": make_pipeline(
        StandardScaler(), ExtraTreesClassifier(5, random_state=0)).fit,
    "regression": lambda x, y: RandomForestRegressor(5, max_depth=6, random_state=0).fit(
        x, x[:, 0] / 999 - y),
    "naive Bayes": GaussianNB().fit,
    "neighbours": KNeighborsClassifier(5).fit,
    "scaled neighbours": make_pipeline(MinMaxScaler(), KNeighborsClassifier(3)).fit,
    "envelope": detector(EllipticEnvelope(random_state=0)),
    "mixture": detector(make_pipeline(RobustScaler(), GaussianMixture(2, random_state=0))),
    "components": lambda x, y: GaussianMixture(3, random_state=0).fit(x),
    "network": network,
    "selected": make_pipeline(SelectKBest(k=5), StandardScaler(), GaussianNB()).fit,
}


@pytest.mark.parametrize("machine", CHOSEN)
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind(machine, kind, tmp_path, monkeypatch):
    monkeypatch.setattr(toolchain, "CORE", xtensa.CORE)
    x, y = quantised("wine")
    model = KINDS[kind](x.astype(float), y)
    recipe = raw(x.shape[1])
    declared = convert.declare(recipe, model)
    convert.emit(recipe, model, tmp_path)
    rows = everywhere(x, 12)
    rows = np.concatenate([rows[:ROWS // 2], rows[-ROWS // 2:]])  # from the data, and wild
    expected = declared.answer(rows)
    assert len(np.unique(expected.chosen)) > 1

    arch, answer = MACHINES[machine]
    obj = compile_module([NATIVE / "module.c"], [tmp_path, NATIVE], arch, tmp_path / "table.o")
    calls = [(row, np.full(declared.classes, 0xAA, np.uint8)) for row in rows]
    answers = answer("table", link(obj, arch, "table"), "predict", calls, tmp_path)
    np.testing.assert_array_equal([after[1] for _, after in answers], expected.votes)
    np.testing.assert_array_equal([one for one, _ in answers], expected.chosen)
