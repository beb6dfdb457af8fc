"""The gate that training data bears out, and the larger model that stands in for main."""

import json
from array import array
from dataclasses import replace

import numpy as np
import pytest

from node import gate as on_node
from outpost import boards, build, data, flash, image, provision, recipe, tiers
from outpost.data import Windows
from outpost.paths import BOARDS, MODELS
from outpost.recipe import Gate, RecipeError, Tiers
from outpost.world import scenario
from outpost.world.run import prepare, settings

MOTION = MODELS / "motion" / "model.toml"


@pytest.fixture(scope="module")
def motion():
    what = recipe.load(MOTION)
    dataset = data.load(what)
    parts = [data.windows(part, dataset.classes, what.signal.window, what.signal.hop)
             for part in (dataset.train, dataset.test)]
    return what, list(dataset.classes), *parts


def made(spans_by_class):
    """Windows of 8 samples and 2 channels; channel 0 moves by so much over the first 4."""
    x, y = [], []
    for label, moved in spans_by_class:
        window = np.zeros((8, 2), np.int16)
        window[3, 0], window[6, 0], window[:, 1] = moved, 30000, label * 1000
        window[0, 1] += 7
        x.append(window)
        y.append(label)
    count = np.arange(len(y))
    return Windows(np.stack(x), np.array(y), count, np.zeros_like(count))


def with_gate(what, **changes):
    gate = Gate(samples=4, channels=(what.signal.names[0],), label="b", span=None)
    return replace(what, tiers=Tiers(gate=replace(gate, **changes)))


def test_a_span_is_half_of_the_least_that_another_class_shows(motion):
    what = with_gate(motion[0])
    train = made([(1, 3), (1, 40), (0, 100), (0, 90), (2, 300)])
    gate = tiers.fit(what, ["a", "b", "c"], train)
    assert gate == {"samples": 4, "channels": [0], "span": 45, "class": 1}
    held_out = made([(1, 45), (1, 46), (0, 45), (2, 20000)])
    assert tiers.quiet(gate, held_out.x).tolist() == [True, False, True, False]
    assert tiers.measure(gate, held_out) == {"decided": 0.5, "of_its_class": 0.5, "wrong": 0.25}
    assert tiers.fit(with_gate(motion[0], span=9), ["a", "b", "c"], train)["span"] == 9
    assert tiers.fit(replace(what, tiers=Tiers()), ["a", "b", "c"], train) is None


def test_a_gate_that_the_data_does_not_bear_out_is_refused(motion):
    train = made([(1, 60), (0, 100)])
    with pytest.raises(tiers.TierError, match="lets no training window of b through: others "
                                              "move by as little as 100 counts"):
        tiers.fit(with_gate(motion[0]), ["a", "b"], train)
    with pytest.raises(tiers.TierError, match="'b'; there are x, y"):
        tiers.fit(with_gate(motion[0]), ["x", "y"], train)


def test_the_host_and_the_node_find_the_same_windows_quiet(motion):
    what, classes, train, test = motion
    gate = tiers.fit(what, classes, train)
    expected = tiers.quiet(gate, test.x)
    assert 0 < expected.sum() < len(expected)
    channels = test.x.shape[2]
    found = [on_node.quiet(array("h", window.astype(np.int16).tobytes()), channels, gate)
             for window in test.x]
    assert found == expected.tolist()


def test_motions_gate_spares_half_of_the_standing_and_errs_on_none():
    built = build.build("motion")
    assert built.gated["of_its_class"] > 0.5 and built.gated["wrong"] == 0
    meta = json.loads((built.folder / "model.json").read_text())
    told = settings(meta)
    assert told["gate"] == meta["tiers"]["gate"] and told["unsure"] == 51
    assert told["large"] is None


def text_with(tail):
    head = MOTION.read_text()
    return head[:head.index("[tiers]")] + tail


@pytest.mark.parametrize(("tail", "words"), [
    ("[tiers]\nheavy = 'x'\n", "heavy: is not known; allowed here: large, unsure"),
    ("[tiers]\nunsure = 2.0\n", r"unsure: is 2.0; allowed: 0.0 to 1.0"),
    ("[tiers.gate]\nsamples = 64\nchannels = ['accel_x']\nclass = 'Standing'\n",
     "samples: is 64; allowed: 2 to 63"),
    ("[tiers.gate]\nsamples = 16\nchannels = ['accel']\nclass = 'Standing'\n",
     r"'accel' in it \(did you mean 'accel_"),
    ("[tiers.gate]\nsamples = 16\nchannels = ['accel_x']\n", "class: is missing"),
    ("[tiers.gate]\nsamples = 16\nchannels = ['accel_x']\nclass = 'Standing'\nspan = 0\n",
     "span: is 0"),
])
def test_what_is_wrong_with_tiers_is_told(tmp_path, tail, words):
    (tmp_path / "model.toml").write_text(text_with(tail))
    with pytest.raises(RecipeError, match=words):
        recipe.load(tmp_path / "model.toml")


def test_a_larger_model_stands_in_if_it_takes_the_same_windows(tmp_path):
    (tmp_path / "model.toml").write_text(
        text_with("").replace('name = "motion"', 'name = "motion_large"')
        .replace("trees = 10", "trees = 20"))
    meta = json.loads((build.build("motion").folder / "model.json").read_text())
    meta["tiers"]["large"] = str(tmp_path)
    large = tiers.large(meta, [build.HOST])
    told = settings(meta, large=large)
    assert told["large"]["name"] == "motion_large" and told["model"]["name"] == "motion"
    assert told["large"]["crc32"] != told["model"]["crc32"]
    larger = (tmp_path / "model.toml").read_text()
    (tmp_path / "model.toml").write_text(f"{larger}[contract]\nbytes = 1000\n")
    with pytest.raises(tiers.TierError, match="breaks its contract: bytes: "):
        tiers.large(meta, [build.HOST])
    (tmp_path / "model.toml").write_text(larger)
    meta["rate_hz"] = 26.0
    with pytest.raises(tiers.TierError, match=" can't stand in for motion: its rate_hz is "
                                              "12.5, not 26.0"):
        tiers.large(meta, [build.HOST])
    meta["tiers"]["large"] = None
    assert tiers.large(meta, [build.HOST]) is None


def test_a_node_carries_the_larger_model_too(tmp_path):
    """Laid out for a world, and flashed."""
    (tmp_path / "large").mkdir()
    (tmp_path / "large/model.toml").write_text(
        text_with("").replace('name = "motion"', 'name = "motion_large"'))
    (tmp_path / "main").mkdir()
    (tmp_path / "main/model.toml").write_text(
        text_with(f"[tiers]\nlarge = '{tmp_path / 'large'}'\n")
        .replace('name = "motion"', 'name = "motion_small"'))
    board = boards.load("esp32")
    plan = prepare(tmp_path / "run", str(tmp_path / "main"), board, scenario.load("factory"), 1, 1)
    plan.lock.close()
    models = {path.name for path in (tmp_path / "run/node/models").iterdir()}
    assert models == {"motion_small.mpy", "motion_large.mpy"}
    (tmp_path / "fake32.toml").write_text(
        (BOARDS / "esp32.toml").read_text().replace('"xtensawin"', '"x64"'))
    disk = flash.files(boards.load(str(tmp_path / "fake32.toml")), str(tmp_path / "main"),
                       provision.Node(7, bytes(32), "esp32"), None)
    files = image.read_littlefs(disk)
    assert {"models/motion_small.mpy", "models/motion_large.mpy"} <= set(files)
    assert json.loads(files["settings.json"])["large"]["name"] == "motion_large"
