"""Every mistake in a model.toml is told by file, key and what is allowed."""

import tomllib

import pytest

from outpost import recipe
from outpost.recipe import RecipeError

TOML = """
[model]
name = "mine"
version = 3
[data]
path = "recordings"
[signal]
sensor = "lsm6dsox"
rate_hz = 26
window = 40
[signal.channels]
ax = "m/s2"
ay = "g"
gz = "dps"
volts = { unit = "V", lsb = 0.002 }
[features.channels]
"*" = ["jerk", "mean"]
gz = ["crossings"]
[features.magnitudes]
accel = { of = ["ax", "ay"], statistics = ["mad"] }
[post]
method = "decay"
window = 3
decay = 0.5
[contract]
accuracy = 0.9
bytes = { armv6m = 3000 }
"""


def load(tmp_path, text):
    file = tmp_path / "model.toml"
    file.write_text(text)
    return recipe.load(file)


def test_what_is_declared_is_read(tmp_path):
    what = load(tmp_path, TOML)
    assert (what.name, what.version, what.signal.window, what.signal.hop) == ("mine", 3, 40, 40)
    assert what.signal.accel_range_g == 4 and what.signal.gyro_range_dps == 2000
    assert what.feature_names == ["ax.mean", "ax.jerk", "ay.mean", "ay.jerk", "gz.crossings",
                                  "volts.mean", "volts.jerk", "accel.mad"]
    counts = [channel.counts for channel in what.signal.channels]
    assert counts == pytest.approx([1e3 / 9.80665 / 0.122, 1e3 / 0.122, 1e3 / 70, 500])
    assert what.post.weights == [256, 128, 64]
    assert what.contract == {"accuracy": 0.9, "bytes": {"armv6m": 3000}}
    assert what.data.path == tmp_path / "recordings"


@pytest.mark.parametrize(("old", "new", "words"), [
    ('name = "mine"', 'name = "My Model"', r"\[model\] name: is 'My Model'; allowed: small"),
    ('name = "mine"', "", r"\[model\] name: is missing; it must be a string"),
    ("version = 3", "version = 0", r"version: is 0; allowed: 1 to 65535"),
    ("version = 3", 'version = "3"', r"version: is '3'; it must be a whole number"),
    ("version = 3", "version = true", r"version: is True; it must be a whole number"),
    ("version = 3", "versoin = 3", r"version: is missing"),
    ('path = "recordings"', 'source = "kaggle"', r"\[data\] source: .*aeon:BasicMotions"),
    ('path = "recordings"', "", r"\[data\] source: give either source or path"),
    ('path = "recordings"', 'path = "a"\nsource = "sklearn:digits"', "either source or path"),
    ('path = "recordings"', 'path = "a"\ntest = 1.5', r"test: is 1.5; allowed: 0.05 to 0.95"),
    ("rate_hz = 26", "rate_hz = 25", r"\[signal\] rate_hz: is 25.0; allowed: 12.5, 26.0, 52.0"),
    ("rate_hz = 26", "rate_hz = 26\nwidnow = 5", r"widnow: is not known \(did you mean 'window'"),
    ("window = 40", "window = 5000", r"window: is 5000; allowed: 1 to 1024"),
    ("window = 40", "window = 1", r"\[features\] kind: statistics need a window of at least 2"),
    ("window = 40", "window = 40\naccel_range_g = 3", r"accel_range_g: is 3; allowed: 2, 4, 8"),
    ('sensor = "lsm6dsox"', 'sensor = "bmi160"', r"sensor: is 'bmi160'; allowed: lsm6dsox"),
    ('ax = "m/s2"', 'ax = "furlong"', r"\[signal.channels\] ax: is 'furlong'; allowed: count, mg"),
    ('ax = "m/s2"', 'time_ms = "g"', r"time_ms: is not a name for a channel"),
    ('lsb = 0.002', 'lsb = 0', r"\[signal.channels.volts\] lsb: is 0.0"),
    ('lsb = 0.002', 'lsb = 0.002, x = 1', r"volts\] x: is not known; allowed here: unit, lsb"),
    ('"jerk", "mean"', '"jerk", "median"', r"\*: has 'median' in it.*allowed: mean, deviation"),
    ('"jerk", "mean"', '"jerk", "jerk"', r"has 'jerk' twice"),
    ('"jerk", "mean"', "", r"is empty"),
    ("gz = [", "gx = [", r"\[features.channels\] gx: is not known"),
    ('of = ["ax", "ay"]', 'of = ["ax", "gz"]', r"accel\] of: .*side by side"),
    ('of = ["ax", "ay"]', 'of = ["ax"]', r"accel\] of: is ax; allowed: two or three"),
    ("accel = {", "ax = {", r"magnitudes\] ax: is not a name for a magnitude"),
    ('method = "decay"', 'method = "median"', r"\[post\] method: .*allowed: majority, decay"),
    ("accuracy = 0.9", "accuracy = 97.5", r"\[contract\] accuracy: is 97.5; allowed: 0.0 to 1.0"),
    ("accuracy = 0.9", "speed = 1", r"\[contract\] speed: is not known; allowed here: accuracy"),
    ("[contract]", "[kontract]", r"kontract: is not known \(did you mean 'contract'"),
    ("[contract]", "[forest]\ntrees = 256\n[contract]", r"\[forest\] trees: is 256; allowed: 1"),
    ("[post]", '[forest]\nvote = "some"\n[post]', r"vote: is 'some'; allowed: hard, soft"),
    ("[post]", '[forest]\nform = "small"\n[post]', r"form: is 'small'; allowed: fast, compact"),
    ("[post]", "[forest]\nearly_exit = 1\n[post]", r"early_exit: is 1; it must be true or false"),
    ("[post]", '[forest]\nkind = "SVC"\n[post]', r"\[forest\] kind: is 'SVC'; allowed: Rand"),
    ("[post]", '[estimator]\nkind = "GaussianNB"\n[forest]\n[post]', r"stands beside \[forest\]"),
    ("[post]", '[estimator]\nscale = "StandardScaler"\n[post]', r"\[estimator\] kind: is missing"),
    ("[post]", '[estimator]\nkind = "SVC"\n[post]', r"SVC can't be converted: .*; take RandomFor"),
    ("[post]", '[estimator]\nkind = "GausianNB"\n[post]', r"did you mean 'GaussianNB'"),
    ("[post]", '[estimator]\nkind = "ExtraTreesClassifier"\n[post]', r"belongs into \[forest\]"),
    ("[post]", '[estimator]\nkind = "ExtraTreesRegressor"\n[post]', r"a node decides between"),
    ("[post]", '[estimator]\nkind = "GaussianNB"\nscale = "PCA"\n[post]', r"PCA can't be"),
    ("[post]", '[estimator]\nkind = "GaussianNB"\nusual = "a"\n[post]', r"usual: is for det"),
    ("[post]", '[estimator]\nkind = "EllipticEnvelope"\n[post]', r"usual: is missing"),
    ("[post]", '[estimator]\nkind = "GaussianNB"\nselect = 0\n[post]', r"select: is 0; allow"),
    ("[post]", "[post", "not valid TOML"),
])
def test_mistakes_are_told(tmp_path, old, new, words):
    assert old in TOML
    with pytest.raises(RecipeError, match=words) as caught:
        load(tmp_path, TOML.replace(old, new))
    assert str(caught.value).startswith(str(tmp_path / "model.toml"))


def test_too_many_features_are_refused_by_name(tmp_path):
    raw = TOML[:TOML.index("[features.channels]")] + '[features]\nkind = "raw"\n'
    with pytest.raises(RecipeError, match=r"160 features; at most 127.*'volts\[31\]' is the"):
        load(tmp_path, raw)


@pytest.mark.parametrize("name", ["motion", "digits"])
def test_shipped_models_are_found_by_name_folder_and_file(name):
    file = recipe.find(name)
    assert recipe.find(str(file)) == file == recipe.find(str(file.parent))
    assert recipe.load(file).name == tomllib.loads(file.read_text())["model"]["name"] == name


def test_an_unknown_model_names_the_known():
    with pytest.raises(RecipeError, match="no model 'moton' .did you mean 'motion'.*digits,"):
        recipe.find("moton")
