"""Every kind of model: the compiled code against the integer reference, and that against sklearn.

Disagreements with the reference: none. With scikit-learn's floats: as many as each test says.
"""

import numpy as np
import pytest
from converted import agree, everywhere, quantised, raw
from sklearn.covariance import EllipticEnvelope
from sklearn.ensemble import ExtraTreesRegressor, RandomForestClassifier, RandomForestRegressor
from sklearn.feature_selection import SelectKBest, VarianceThreshold
from sklearn.mixture import BayesianGaussianMixture, GaussianMixture
from sklearn.model_selection import train_test_split
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, RobustScaler, StandardScaler
from sklearn.tree import DecisionTreeRegressor

from outpost import build, convert, kinds, net, recipe
from outpost.convert import ConvertError, Detector
from outpost.kinds import KindError


def parts(name, seed=1):
    """Return a data set of whole numbers as floats, split: scikit-learn overflows int16."""
    x, y = quantised(name)
    return train_test_split(x.astype(float), y, test_size=0.4, random_state=seed, stratify=y)


SCALED = [(), (StandardScaler(),), (MinMaxScaler((-1, 2)),), (RobustScaler(),),
          (VarianceThreshold(), SelectKBest(k=3)), (SelectKBest(k=4), StandardScaler())]


@pytest.mark.parametrize("steps", SCALED, ids=lambda steps: "+".join(
    type(step).__name__ for step in steps) or "bare")
@pytest.mark.parametrize("name", ["iris", "wine"])
def test_pipelines_are_folded(name, steps):
    """Scalers and selectors vanish in integers: trees exactly, the rest within the margin."""
    x_train, x_test, y_train, _ = parts(name)
    for model, most in ((RandomForestClassifier(5, random_state=0), 0), (GaussianNB(), 1),
                        (KNeighborsClassifier(3), 1)):
        pipeline = make_pipeline(*steps, model).fit(x_train, y_train)
        found = agree(raw(x_train.shape[1]), pipeline, everywhere(x_test, 4))
        floats = pipeline.predict(x_test)
        if isinstance(model, RandomForestClassifier):  # hard votes, of its own trees
            scaled = pipeline[:-1].transform(x_test) if steps else x_test
            hard = sum(np.eye(3)[tree.predict(scaled).astype(int)] for tree in model.estimators_)
            floats = hard.argmax(axis=1)
        assert (found.chosen[:len(x_test)] != floats).sum() <= most


def test_thresholds_behind_a_scaler_are_exact():
    """On, below and above every threshold, where float32 rounds as scikit-learn rounds it."""
    rng = np.random.default_rng(0)
    x = rng.integers(-32768, 32768, (400, 2)).astype(np.int16)
    y = (x[:, 0] > 1234) ^ (x[:, 1] < -777)
    pipeline = make_pipeline(StandardScaler(), RobustScaler(),
                             RandomForestClassifier(5, random_state=0)).fit(x, y)
    declared = convert.declare(raw(2), pipeline)
    edges = np.unique(np.concatenate([tree.threshold for tree in declared.trees]))
    near = np.clip(np.concatenate([edges - 1, edges, edges + 1]), -32768, 32767)
    rows = np.array(np.meshgrid(near[:60], near[:60])).T.reshape(-1, 2).astype(np.int16)
    scaled = pipeline[:-1].transform(rows)
    votes = sum(np.eye(2)[tree.predict(scaled).astype(int)] for tree in pipeline[-1].estimators_)
    assert (declared.answer(rows).votes == votes).all()


@pytest.mark.parametrize("model", [
    RandomForestRegressor(6, max_depth=5, random_state=0), DecisionTreeRegressor(random_state=0),
    ExtraTreesRegressor(4, max_depth=6, random_state=0)], ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("form", ["fast", "compact"])
def test_regressions(model, form):
    """The answer is a sum of leaves in 16 bits; half of its unit a tree is lost to rounding."""
    x_train, x_test, y_train, _ = parts("wine")
    target = x_train[:, 0] / 1000.0 - y_train
    model.fit(x_train, target)
    recipe = raw(x_train.shape[1], form=form)
    found = agree(recipe, model, everywhere(x_test, 5))
    unit = convert.declare(recipe, model).unit
    exact = model.predict(everywhere(x_test, 5))
    assert found.votes.shape[1] == 0
    assert np.abs(found.chosen * unit - exact).max() <= unit * len(
        getattr(model, "estimators_", [1])) / 2 < 0.001


@pytest.mark.parametrize(("name", "most"), [("iris", 0), ("wine", 0), ("breast_cancer", 1),
                                            ("digits", 4)])
def test_naive_bayes(name, most):
    """Digits have pixels that never change in a class, so that one more is 5,000 deviations."""
    x_train, x_test, y_train, _ = parts(name)
    model = GaussianNB().fit(x_train, y_train)
    found = agree(raw(x_train.shape[1]), model, everywhere(x_test, 6))
    assert (found.chosen[:len(x_test)] != model.predict(x_test)).sum() <= most
    votes = found.votes[:len(x_test)]
    assert (votes.max(axis=1) == 255).all() and (votes.argmax(axis=1) == found.chosen[:len(votes)]
                                                 ).all()


@pytest.mark.parametrize(("name", "k"), [("iris", 1), ("iris", 5), ("digits", 3), ("wine", 255)])
def test_nearest_neighbours(name, k):
    """Distances are exact: only where two are equal may scikit-learn take another."""
    x_train, x_test, y_train, _ = parts(name)
    k = min(k, len(x_train))
    model = KNeighborsClassifier(k, algorithm="brute").fit(x_train, y_train)
    found = agree(raw(x_train.shape[1]), model, everywhere(x_test, 7)[:900])
    assert (found.chosen[:len(x_test)] != model.predict(x_test)).mean() <= 0.01
    assert (found.votes.sum(axis=1) == k).all()


def detectors():
    """Return fitted detectors with pipelines in front, named."""
    x_train, _, y_train, _ = parts("wine")
    x_train = x_train[y_train == 1][:, :6]
    for name, model in {"envelope": EllipticEnvelope(contamination=0.1, random_state=0),
                        "mixture": GaussianMixture(2, random_state=0, reg_covar=1e3),
                        "diagonal": GaussianMixture(3, covariance_type="diag", random_state=0,
                                                    reg_covar=1e3),
                        "tied": GaussianMixture(2, covariance_type="tied", random_state=0),
                        "spherical": GaussianMixture(2, covariance_type="spherical",
                                                     random_state=0)}.items():
        model.fit(x_train)
        scores = model.score_samples(x_train)
        yield name, Detector(model, float(np.quantile(scores, 0.1)), usual=1), x_train
    scaled = make_pipeline(StandardScaler(), GaussianMixture(2, random_state=0)).fit(x_train)
    yield "scaled", Detector(scaled, float(np.quantile(scaled.score_samples(x_train), 0.05))), \
        x_train


@pytest.mark.parametrize("which", list(detectors()), ids=lambda which: which[0])
def test_detectors(which):
    """Exact by the reference; by scikit-learn's score within 1/32 nat of the threshold."""
    _, detector, x_train = which
    rng = np.random.default_rng(0)
    spread = x_train.std(axis=0)
    x = np.concatenate([x_train, rng.normal(x_train.mean(axis=0), 2 * spread, (400, 6))])
    x = np.clip(np.rint(x), -32768, 32767)
    found = agree(raw(6), detector, everywhere(x, 8))
    score = detector.model.score_samples(x)
    clear = np.abs(score - detector.threshold) > 0.0625 + 1e-3 * np.abs(score)
    floats = detector.predict(x)
    assert (found.chosen[:len(x)] == floats)[clear].all() and clear.mean() > 0.9
    assert 0.05 < (floats == detector.usual).mean() < 0.95
    assert (found.votes.argmax(axis=1) == found.chosen).all()


def test_an_envelope_by_itself_has_scikit_learns_threshold():
    x_train, x_test, y_train, _ = parts("iris")
    model = EllipticEnvelope(random_state=0).fit(x_train[y_train == 0])
    found = agree(raw(4), model, everywhere(x_test, 9))
    assert (found.chosen[:len(x_test)] != (model.predict(x_test) == -1)).sum() <= 1


@pytest.mark.parametrize("model", [GaussianMixture(4, random_state=0),
                                   BayesianGaussianMixture(n_components=3, random_state=0)],
                         ids=lambda model: type(model).__name__)
def test_components_of_a_mixture(model):
    """Without a threshold the answer is the component."""
    x_train, x_test, _, _ = parts("iris")
    model.fit(x_train)
    found = agree(raw(4), model, everywhere(x_test, 10))
    assert (found.chosen[:len(x_test)] != model.predict(x_test)).sum() <= 1


@pytest.mark.parametrize(("name", "hidden", "steps"), [
    ("digits", (24,), ()), ("digits", (16, 12), (StandardScaler(),)),
    ("iris", (), (StandardScaler(),)), ("breast_cancer", (8,), (MinMaxScaler(),))])
def test_networks(name, hidden, steps):
    """int8 is within half a point of float on what it was not trained on, or a window."""
    x_train, x_test, y_train, y_test = parts(name)
    model = make_pipeline(*steps, MLPClassifier(hidden, max_iter=120, random_state=0))
    model.fit(x_train, y_train)
    tuned = net.tune(model, x_train, y_train)
    found = agree(raw(x_train.shape[1]), tuned, everywhere(x_test, 11))
    before, after = ((chosen == y_test).sum() for chosen in
                     (tuned.predict(x_test), found.chosen[:len(x_test)]))
    assert after >= before - max(1, 0.005 * len(y_test))
    assert all(layer.weights.dtype == np.int8 for layer in tuned.net.layers)
    assert [layer.weights.shape[0] for layer in tuned.net.layers[:-1]] == list(hidden)
    assert (np.take_along_axis(found.votes, found.chosen[:, None], 1) == 255).all()


@pytest.mark.parametrize(("name", "hidden"), [("digits", 16), ("motion", 8)])
def test_shipped_data_in_int8(name, hidden):
    """Within half a point of float, held out."""
    fitted = build.fit(recipe.load(recipe.find(name)))
    model = make_pipeline(StandardScaler(), MLPClassifier((hidden,), max_iter=600, random_state=1))
    model.fit(fitted.x_train.astype(float), fitted.train.y)
    tuned = net.tune(model, fitted.x_train, fitted.train.y)
    float_, int8 = ((answers == fitted.test.y).mean() for answers in (
        tuned.predict(fitted.x_test), tuned.net.answer(fitted.x_test).chosen))
    assert int8 >= float_ - 0.005 and float_ > 0.95


def test_further_training_pays():
    """Rounded only, a small network loses more than trained further as it is computed."""
    x_train, _, y_train, _ = parts("digits")
    model = make_pipeline(StandardScaler(), MLPClassifier((8,), max_iter=300, random_state=0))
    model.fit(x_train, y_train)
    losses = []
    for epochs in (0, net.EPOCHS):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(net, "EPOCHS", epochs)
            patch.setattr(net, "LOSS", 1)
            whole = net.tune(model, x_train, y_train).net
        losses.append((whole.answer(x_train).chosen != y_train).mean())
    assert losses[1] < losses[0]


def test_a_layer_that_quantises_badly_is_refused_by_number():
    x_train, _, y_train, _ = parts("digits")
    model = MLPClassifier((16, 8), max_iter=50, random_state=0).fit(x_train, y_train)
    model.coefs_[1][3, 2] = 900.0  # all others round to nothing
    with pytest.raises(KindError, match=r"layer 2 \(16 → 8\) quantises badly: .* dB or less"):
        net.tune(model, x_train, y_train)


@pytest.mark.parametrize(("name", "words"), [
    (name, f"{name} can't be converted: .*; take {instead}".replace("(", r"\(").replace(
        ")", r"\)").replace("[", r"\[").replace("]", r"\]"))
    for name, (_, instead) in kinds.REFUSED.items()])
def test_what_cant_be_honoured_is_refused_by_name(name, words):
    """As a model, or as a step before one; by name alone, since some come from other packages."""
    stranger = type(name, (), {"n_features_in_": 4})()
    with pytest.raises(KindError, match=words):
        convert.declare(raw(4), stranger)
    pipeline = make_pipeline(StandardScaler(), GaussianNB()).fit(*quantised("iris"))
    pipeline.steps.insert(1, ("stranger", stranger))
    with pytest.raises(KindError, match=words):
        convert.declare(raw(4), pipeline)


def test_what_nobody_has_heard_of_is_refused_with_what_is_allowed():
    with pytest.raises(KindError, match="RandomForestClassifer can't be converted .did you mean "
                                        "'RandomForestClassifier'.*allowed: RandomForest"):
        convert.declare(raw(4), type("RandomForestClassifer", (), {"n_features_in_": 4})())


@pytest.mark.parametrize(("model", "words"), [
    (KNeighborsClassifier(3, weights="distance"), 'take weights = "uniform"'),
    (KNeighborsClassifier(3, metric="manhattan"), 'take metric = "euclidean"'),
    (make_pipeline(MinMaxScaler(clip=True), GaussianNB()), "take clip=False"),
    (GaussianMixture(2, random_state=0), "raise reg_covar")])
def test_settings_that_cant_be_honoured_are_refused(model, words):
    model.fit(*quantised("iris"))
    if isinstance(model, GaussianMixture):
        model.precisions_cholesky_ *= 1e12
    with pytest.raises(KindError, match=words):
        convert.declare(raw(4), model)


def test_networks_are_refused_for_what_they_lack():
    x, y = quantised("iris")
    model = MLPClassifier((4,), max_iter=20, random_state=0).fit(x, y)
    with pytest.raises(ConvertError, match=r"give outpost.net.tune\(model, x, y\)"):
        convert.declare(raw(4), model)
    curved = MLPClassifier((4,), activation="tanh", max_iter=20, random_state=0).fit(x, y)
    with pytest.raises(KindError, match="activation = 'tanh' can't be converted.*\"relu\""):
        net.tune(curved, x, y)
    scaled = make_pipeline(StandardScaler(), model).fit(x, y)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(net, "LOSS", -1)
        with pytest.raises(KindError, match="loses .* points in int8.*or take wider layers"):
            net.tune(scaled, x, y)
    with pytest.raises(KindError, match="GaussianNB is no MLPClassifier"):
        net.tune(GaussianNB().fit(x, y), x, y)
    with pytest.raises(KindError, match="256 neighbours are too many"):
        convert.declare(raw(4), KNeighborsClassifier(256).fit(np.tile(x, (2, 1)), np.tile(y, 2)))
