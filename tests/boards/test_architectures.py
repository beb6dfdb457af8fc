"""Every architecture's code, executed: features, votes and class as the host has them."""

import numpy as np
import pytest
import xtensa
from machines import MACHINES

from outpost import mpy
from outpost.compile import ARCHITECTURES, compile_module
from outpost.link import link
from outpost.paths import NATIVE, ROOT
from outpost.toolchain import xtensa as toolchain

WINDOWS = 240
ARITHMETIC = ROOT / "tests/fakes/arithmetic.c"

every_machine = pytest.mark.parametrize("machine", MACHINES)
every_model = pytest.mark.parametrize("name", ["motion", "digits"])


@pytest.fixture
def call(tmp_path):
    """Compile, link and run: `call(machine, name, sources, include_dirs, function, rows)`."""
    def run(machine, name, sources, include_dirs, function, rows):
        arch, answer = MACHINES[machine]
        obj = compile_module(sources, include_dirs, arch, tmp_path / f"{name}.o")
        data = link(obj, arch, name)
        mpy.decode(data, ARCHITECTURES[arch].word)
        return answer(name, data, function, rows, tmp_path)
    return run


def test_no_architecture_is_left_out():
    assert {arch for arch, _ in MACHINES.values()} == set(ARCHITECTURES)


@every_machine
@every_model
def test_classify(machine, name, model, call):
    what = model(name)
    windows = np.concatenate([what.windows, what.more_windows])[:WINDOWS]
    assert len(windows) == WINDOWS
    rng = np.random.default_rng(3)
    windows = np.concatenate([windows, rng.integers(  # as no sensor would ever deliver them
        -32768, 32768, (20, *windows.shape[1:])).astype(np.int16)])
    x = what.features(windows)
    expected = what.answer(x)
    votes = expected.votes
    rows = [(window.reshape(-1), np.zeros(x.shape[1], np.int16),
             np.zeros(votes.shape[1], np.uint8)) for window in windows]
    answers = call(machine, name, [NATIVE / "module.c"], [what.folder, NATIVE], "classify", rows)
    np.testing.assert_array_equal([after[1] for _, after in answers], x)
    np.testing.assert_array_equal([after[2] for _, after in answers], votes)
    np.testing.assert_array_equal([answer for answer, _ in answers], expected.chosen)


@every_machine
@every_model
def test_predict_on_any_features(machine, name, model, call):
    """Negative features too, which a Cortex-M0 looks at in a way of its own."""
    what = model(name)
    real = what.features(what.windows)[:40].astype(np.int64)
    rng = np.random.default_rng(4)
    alone = np.eye(real.shape[1], dtype=np.int64)
    x = np.concatenate([real, -real, rng.integers(-32768, 32768, (80, real.shape[1])),
                        np.full((1, real.shape[1]), -32768), np.full((1, real.shape[1]), 32767),
                        real[0] * (1 - alone) - alone]).astype(np.int16)  # one negative each
    expected = what.answer(x)
    votes = expected.votes
    rows = [(features, np.full(votes.shape[1], 0xAA, np.uint8)) for features in x]
    answers = call(machine, name, [NATIVE / "module.c"], [what.folder, NATIVE], "predict", rows)
    np.testing.assert_array_equal([after[1] for _, after in answers], votes)
    np.testing.assert_array_equal([answer for answer, _ in answers], expected.chosen)


@every_machine
@pytest.mark.parametrize("way", [
    {"form": "compact"}, {"early_exit": True}, {"form": "compact", "early_exit": True},
    {"vote": "soft"}, {"vote": "soft", "form": "compact", "early_exit": True}],
    ids=lambda way: " ".join(f"{key}={value}" for key, value in way.items()))
def test_every_way_to_vote(machine, way, model, call):
    """Forms, soft votes, early exit: on digits, and on features no image has."""
    what = model("digits", **way)
    rng = np.random.default_rng(6)
    x = np.concatenate([what.features(what.windows)[:60],
                        rng.integers(-5, 20, (40, 64)).astype(np.int16)])
    expected = what.answer(x)
    rows = [(features, np.full(10, 0xAA, np.uint8)) for features in x]
    answers = call(machine, "digits", [NATIVE / "module.c"], [what.folder, NATIVE], "predict",
                   rows)
    np.testing.assert_array_equal([after[1] for _, after in answers], expected.votes)
    np.testing.assert_array_equal([answer for answer, _ in answers], expected.chosen)


@every_machine
@pytest.mark.parametrize("function", ["floats", "wholes"])
def test_arithmetic(machine, function, call, monkeypatch):
    """Floats, division, 64 bits, copies: the runtime library where there is no instruction."""
    monkeypatch.setattr(toolchain, "CORE", xtensa.CORE)
    rng = np.random.default_rng(5)
    edges = np.array([0, 1, 0x80000000, 0x3F800000, 0xBF800000, 0x7F800000, 0xFF800000, 0x7FC00000,
                      0x00800000, 0x007FFFFF, 0x00000001, 0x7F7FFFFF, 0x4B000001, 0xFFFFFFFF],
                     np.uint32)
    ordinary = rng.normal(0, 1000, (60, 2)).astype(np.float32).view(np.uint32)
    pairs = np.concatenate([np.array(np.meshgrid(edges, edges), np.uint32).T.reshape(-1, 2),
                            ordinary, rng.integers(0, 2**32, (80, 2)).astype(np.uint32)])
    rows = [(pair.view(np.uint8), np.zeros(96, np.uint8)) for pair in pairs]
    expected, got = (call(each, "arithmetic", [ARITHMETIC], [NATIVE], function, rows)
                     for each in ("unix", machine))
    assert [answer for answer, _ in got] == list(range(1, len(rows) + 1))  # the calls, counted
    np.testing.assert_array_equal([after[1].view(np.uint32) for _, after in got],
                                  [after[1].view(np.uint32) for _, after in expected])
