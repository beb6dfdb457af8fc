"""`outpost build` end to end: modules executed on MicroPython, contract, cache, bad input."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from sklearn import datasets

from outpost import build, data, recipe, reference, train
from outpost.build import BuildError
from outpost.cli import app
from outpost.errors import OutpostError

FIGURES = ("model", "arch", "accuracy", "disagreements", "bytes", "heap", "seconds")


def table(folder, name):
    """Write a scikit-learn table as a folder of raw .npz rows, quantised, with its model.toml."""
    x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    if name != "digits":
        low, high = x.min(axis=0), x.max(axis=0)
        x = np.rint((x - low) / (high - low) * 65535 - 32768)
    folder.mkdir()
    np.savez(folder / "rows.npz", X=x[:, None, :], y=y)
    (folder / "model.toml").write_text(f"""
[model]
name = "{name}"
version = 1
[data]
path = "."
[signal]
window = {x.shape[1]}
[signal.channels]
value = "count"
[features]
kind = "raw"
[forest]
trees = 10
""")
    return folder / "model.toml"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Motion, built for the host and for a microcontroller."""
    out = tmp_path_factory.mktemp("motion")
    return build.build("motion", ["x64", "armv6m"], out)


def test_motion_keeps_its_promise(built):
    host, core = built.modules
    assert host.accuracy >= 0.975 and host.disagreements == 0 and not built.violations
    assert host.accuracy == built.accuracy["reference"]
    assert (built.windows, built.recordings) == (120, 40)
    assert core.accuracy is None and core.disagreements is None  # not executed: nothing is claimed
    assert core.bytes <= 3072
    for module in built.modules:
        path = built.folder / module.file
        assert path.stat().st_size == module.bytes and path.read_bytes()[:1] == b"M"


@pytest.mark.parametrize("name", ["digits", "iris", "wine", "breast_cancer"])
def test_tables_agree_on_micropython(name, tmp_path):
    result = build.build(str(table(tmp_path / name, name)), out=tmp_path / "out")
    assert result.modules[0].disagreements == 0
    assert result.modules[0].accuracy == result.accuracy["reference"] > 0.85


def test_golden_vectors(built, on_micropython):
    """What model.json holds for self-tests is what the module answers."""
    meta = json.loads((built.folder / "model.json").read_text())
    assert {vector["class"] for vector in meta["golden"]} == {0, 1, 2, 3}
    script = """
import json, motion
from array import array
meta = json.load(open(PATH))
votes = bytearray(4)
for vector in meta["golden"]:
    window = array("h", bytes.fromhex(vector["window"]))
    features = array("h", bytes(2 * len(meta["features"])))
    assert motion.classify(window, features, votes) == vector["class"]
    assert list(features) == vector["features"] and list(votes) == vector["votes"]
print(len(meta["golden"]), motion.ABI == meta["abi"], motion.VERSION == meta["version"])
"""
    script = script.replace("PATH", repr(str(built.folder / "model.json")))
    assert on_micropython(script, path=[built.folder / "x64"]) == "8 True True\n"


def test_metadata(built):
    meta = json.loads((built.folder / "model.json").read_text())
    what = recipe.load(recipe.find("motion"))
    assert meta["classes"] == ["Standing", "Running", "Walking", "Badminton"]
    assert [c["name"] for c in meta["channels"]] == list(what.signal.names)
    assert meta["features"] == what.feature_names
    assert (meta["window"], meta["hop"], meta["rate_hz"]) == (64, 30, 12.5)
    assert meta["post"]["weights"] == [1, 1, 1]


def test_windows_beyond_the_data_agree(built):
    """Not only on recordings: on any window the module answers like the reference."""
    what = recipe.load(recipe.find("motion"))
    dataset = data.load(what)
    fit = data.windows(dataset.train, dataset.classes, what.signal.window, what.signal.hop)
    forest = reference.from_sklearn(
        train.fit(what.forest, build_features(what, fit.x), fit.y))
    rng = np.random.default_rng(1)
    windows = rng.integers(-32768, 32768, (400, 64, 6)) >> rng.integers(0, 15, (400, 1, 6))
    windows = windows.astype(np.int16)
    windows[:3] = np.array([-32768, 32767, 0])[:, None, None]
    x = build_features(what, windows)
    found, votes, answers, _ = build.execute(built.folder / "x64" / "motion.mpy", windows, 12, 4)
    expected = forest.answer(x)
    assert (found == x).all() and (votes == expected.votes).all()
    assert (answers == expected.chosen).all() and len(np.unique(answers)) == 4


def build_features(what, windows):
    from outpost import features

    return features.compute(what, windows)


def test_an_unchanged_model_is_not_built_again(tmp_path, monkeypatch):
    file = table(tmp_path / "iris", "iris")
    first = build.build(str(file), out=tmp_path / "out")
    made = build._make
    monkeypatch.setattr(build, "_make", lambda *_: pytest.fail("built again"))
    again = build.build(str(file), out=tmp_path / "out")
    assert (first.cached, again.cached) == (False, True) and again.modules == first.modules

    calls = []
    monkeypatch.setattr(build, "_make", lambda *args: calls.append(args) or made(*args))
    module = tmp_path / "out" / first.modules[0].file
    module.write_bytes(module.read_bytes()[:-1] + b"\0")  # damaged
    assert not build.build(str(file), out=tmp_path / "out").cached
    with np.load(file.parent / "rows.npz") as old:
        np.savez(file.parent / "rows.npz", X=old["X"][::-1], y=old["y"][::-1])  # other data
    assert not build.build(str(file), out=tmp_path / "out").cached
    file.write_text(file.read_text().replace("trees = 10", "trees = 5"))  # another recipe
    assert not build.build(str(file), out=tmp_path / "out").cached
    assert not build.build(str(file), ["armv7m"], tmp_path / "out").cached  # one more
    assert build.build(str(file), ["armv7m", "x64"], tmp_path / "out").cached
    assert len(calls) == 4


def test_a_broken_contract_fails_and_says_by_how_much(tmp_path):
    file = table(tmp_path / "wine", "wine")
    build.build(str(file), out=tmp_path / "out")
    before = (tmp_path / "out" / "model.json").read_bytes()
    file.write_text(file.read_text() + "[contract]\naccuracy = 1.0\nworst_class = 1.0\n"
                                       "bytes = { armv6m = 100, x64 = 100000 }\n")
    result = build.build(str(file), ["x64", "armv6m"], tmp_path / "out")
    accuracy, worst, size = result.violations
    assert re.fullmatch(r"accuracy: (9\d\.\d\d) % where the contract demands 100.00 %, \d\.\d\d "
                        r"points too few", accuracy)
    assert re.match(r"worst_class: \d\d\.\d\d % \(\d\) where the contract demands 100", worst)
    got = result.modules[1].bytes
    assert size == (f"bytes: {got:,} B (on armv6m) where the contract allows 100 B, "
                    f"{got - 100:,} B too many")
    assert (tmp_path / "out" / "model.json").read_bytes() == before  # nothing was replaced


def test_code_that_disagrees_is_refused(tmp_path, monkeypatch):
    from outpost import trees

    file = table(tmp_path / "digits", "digits")
    monkeypatch.setattr(trees, "tree_thresholds",  # as emlearn does it by itself
                        lambda lines, tree: np.trunc(tree.threshold))
    with pytest.raises(BuildError, match=r"disagrees with the integer reference on \d+ of 539"):
        build.build(str(file), out=tmp_path / "out")
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out*"))


def outpost(*arguments, **environment):
    return subprocess.run([sys.executable, "-c", "from outpost.cli import main; main()",
                           *map(str, arguments)], capture_output=True, text=True,
                          env={**os.environ, **environment})


def test_command_line(tmp_path):
    file = table(tmp_path / "iris", "iris")
    run = outpost("build", file, "--arch", "armv7m", "--arch", "x64", "--board", "esp32c3",
                  "--out", tmp_path / "o", "--json")
    assert run.returncode == 0, run.stderr
    told = json.loads(run.stdout.splitlines()[-1])
    assert set(FIGURES) <= set(told)
    assert set(told["accuracy"]) == {"sklearn", "reference", "compiled"}
    assert told["arch"] == "armv7m" and told["accuracy"]["compiled"] is None
    assert [module["arch"] for module in told["modules"]] == ["armv7m", "x64", "rv32imc"]
    shown = outpost("build", file, "--arch", "x64", "--out", tmp_path / "o", COLUMNS="100")
    assert "unchanged" in shown.stdout and "not run" not in shown.stdout


@pytest.mark.parametrize(("arguments", "words"), [
    (["moton"], "no model 'moton'"), (["iris", "--arch", "z80"], "no architecture 'z80'")])
def test_mistakes_end_in_one_line(arguments, words, tmp_path):
    table(tmp_path / "iris", "iris")
    arguments = [str(tmp_path / word) if word == "iris" else word for word in arguments]
    run = outpost("build", *arguments, COLUMNS="200")
    assert run.returncode == 1 and run.stderr.startswith("error:") and words in run.stderr
    assert "Traceback" not in run.stderr


def test_a_module_that_crashes_is_quoted(tmp_path):
    broken = tmp_path / "broken.mpy"
    windows = np.zeros((1, 4, 1), np.int16)
    broken.write_bytes(b"C\x06\x00\x1f")
    with pytest.raises(BuildError, match=r"broken.mpy failed on MicroPython(.|\n)*incompatible"):
        build.execute(broken, windows, 4, 3)
    broken.write_bytes(b"M\x06\x00\x1f")  # cut off: MicroPython waits for the rest
    with pytest.raises(BuildError, match="broken.mpy was still running"):
        build.execute(broken, windows, 4, 3, timeout_s=1)


def test_every_error_is_an_outpost_error():
    assert issubclass(BuildError, OutpostError) and app.registered_commands
