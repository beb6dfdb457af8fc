"""The C features against their definitions (docs/features.md), written out in NumPy."""

import math
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from outpost import features, recipe
from outpost.features import FeatureError
from outpost.paths import NATIVE
from outpost.recipe import STATISTICS, Channel, FeatureRow, Features

MOTION = recipe.load(recipe.find("motion"))
# a power of two, one that is not, the shortest and the longest
SHAPES = ((64, 6), (100, 3), (2, 1), (3, 4), (1000, 2), (1024, 3))


def shaped(window, channels, rows=None):
    """Return a recipe for this shape: by default every statistic of every signal there can be."""
    if rows is None:
        rows = [FeatureRow(f"c{i}", i, 1, STATISTICS) for i in range(channels)]
        rows += [FeatureRow(f"m{first}{count}", first, count, STATISTICS)
                 for count in (2, 3) for first in range(channels - count + 1)][:4]
    signal = replace(MOTION.signal, window=window, hop=window,
                     channels=tuple(Channel(f"c{i}", "count", 1.0) for i in range(channels)))
    return replace(MOTION, signal=signal, features=Features(raw=False, rows=tuple(rows)))


def isqrt(value):
    return math.isqrt(int(value))


def statistic(name, x):
    """Return one statistic of the int64 samples `x`, before saturation."""
    n, mean = len(x), int(x.sum()) // len(x)
    steps = np.diff(x)
    return {
        "mean": lambda: mean,
        "deviation": lambda: isqrt(((x - mean) ** 2).sum() // n),
        "mad": lambda: np.abs(x - mean).sum() // n,
        "min": lambda: x.min(),
        "max": lambda: x.max(),
        "energy": lambda: isqrt((x ** 2).sum() // n),
        "peak_to_peak": lambda: x.max() - x.min(),
        "crossings": lambda: np.count_nonzero(np.diff((x > mean).astype(int))),
        "jerk": lambda: isqrt((steps ** 2).sum() // n),
    }[name]()


def definition(what, window):
    """Return the features of one window (samples, channels) as the definitions have them."""
    out = []
    for row in what.features.rows:
        x = window[:, row.first:row.first + row.count].astype(np.int64)
        if row.count > 1:
            x = np.array([min(isqrt((sample ** 2).sum()), 32767) for sample in x])
        else:
            x = x[:, 0]
        out += [min(statistic(name, x), 32767) >> what.features.shift * (name != "crossings")
                for name in row.statistics]
    return out


def extremes(window, channels):
    """Return the windows that reach furthest in each sum."""
    def full(value):
        return np.full((window, channels), value, np.int16)

    spike, dip, swing = full(0), full(32767), full(-32768)
    spike[window // 2] = 32767
    dip[-1] = -32768
    swing[::2] = 32767
    skew = full(32767)
    skew[: window // 2] = -32768
    return np.stack([full(-32768), full(32767), full(0), full(-1), full(1), full(1234), spike, dip,
                     swing, skew])


@pytest.mark.parametrize("shape", SHAPES)
def test_extremes_are_exact(shape):
    what, windows = shaped(*shape), extremes(*shape)
    expected = [definition(what, window) for window in windows]
    assert features.compute(what, windows).tolist() == expected


@pytest.mark.parametrize("shift", [1, 5, 10])
def test_a_shift_takes_bits_from_all_but_counts(shift):
    """Rounded down also where a mean is negative."""
    what = shaped(100, 3)
    what = replace(what, features=replace(what.features, shift=shift))
    windows = np.concatenate([extremes(100, 3), np.random.default_rng(2).integers(
        -400, 300, (20, 100, 3)).astype(np.int16)])
    assert features.compute(what, windows).tolist() == [definition(what, w) for w in windows]


@pytest.mark.parametrize("shape", SHAPES[:4])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_window_is_exact(shape, data):
    what = shaped(*shape)
    sample = st.one_of(st.integers(-32768, 32767), st.sampled_from([-32768, -1, 0, 1, 32767]),
                       st.integers(-300, 300))
    window = data.draw(arrays(np.int16, shape, elements=sample))
    assert features.compute(what, window[None])[0].tolist() == definition(what, window)


@pytest.mark.parametrize("name", STATISTICS)
def test_each_statistic_alone(name):
    """Without the others in the plan their sums are not compiled; what is left stays right."""
    what = shaped(40, 3, [FeatureRow("c2", 2, 1, (name,)), FeatureRow("v", 0, 3, (name,))])
    windows = np.random.default_rng(4).integers(-32768, 32768, (50, 40, 3)).astype(np.int16)
    assert features.compute(what, windows).tolist() == [definition(what, w) for w in windows]


def test_rows_may_want_different_statistics():
    what = shaped(16, 3, [FeatureRow("c0", 0, 1, ("mean", "jerk")),
                          FeatureRow("c2", 2, 1, ("max",)),
                          FeatureRow("v", 1, 2, ("mad", "energy", "crossings"))])
    windows = np.random.default_rng(5).integers(-500, 500, (50, 16, 3)).astype(np.int16)
    assert features.compute(what, windows).tolist() == [definition(what, w) for w in windows]


def test_raw_passes_the_window_through():
    what = replace(shaped(7, 2), features=Features(raw=True, rows=()))
    windows = np.random.default_rng(6).integers(-32768, 32768, (9, 7, 2)).astype(np.int16)
    assert (features.compute(what, windows) == windows.reshape(9, 14)).all()
    assert what.feature_names[:3] == ["c0[0]", "c1[0]", "c0[1]"]


@pytest.mark.parametrize(("shape", "dtype"), [((3, 64, 5), np.int16), ((3, 63, 6), np.int16),
                                              ((64, 6), np.int16), ((3, 64, 6), np.int32)])
def test_wrong_windows_are_refused(shape, dtype):
    with pytest.raises(FeatureError, match="int16"):
        features.compute(MOTION, np.zeros(shape, dtype))


def test_no_undefined_behaviour():
    """The extremes again, in code that traps at the first overflow or bad shift."""
    script = ("import sys; sys.path.insert(0, sys.argv[1]); import test_features as t\n"
              "for shape in t.SHAPES:\n"
              "    t.features.compute(t.shaped(*shape), t.extremes(*shape))\n"
              "print('defined')")
    compiler = "cc -fsanitize=undefined -fsanitize-undefined-trap-on-error"
    run = subprocess.run([sys.executable, "-c", script, os.path.dirname(__file__)], text=True,
                         env={**os.environ, "CC": compiler}, capture_output=True)
    assert run.stdout == "defined\n", run.stderr


ZIG = [sys.executable, "-m", "ziglang", "cc", "-fno-sanitize=all", "-target"]


@pytest.mark.parametrize("compiler", [
    ["cc"], [*ZIG, "x86_64-linux-musl"],
    [*ZIG, "thumb-freestanding-eabi", "-mcpu=cortex_m0plus"],
    [*ZIG, "riscv32-freestanding-none", "-mcpu=generic_rv32+m+c"]])
def test_compiles_clean_and_calls_no_library(compiler, tmp_path):
    """No warning on 32 and 64 bits, and nothing left for a linker to find: no divide, no float."""
    (tmp_path / "model.h").write_text(features.header(shaped(100, 6)))
    (tmp_path / "all.c").write_text('#include "model.h"\n#include "features.c"\n'
                                    "void all(const int16_t *window, int16_t *out)\n"
                                    "{ outpost_features(window, out); }\n")
    run = subprocess.run(
        [*compiler, "-std=c99", "-Os", "-ffreestanding", "-fno-builtin", "-fno-stack-protector",
         "-Wall", "-Wextra", "-Wconversion", "-Wsign-conversion", "-Werror", "-I", str(tmp_path),
         "-I", str(NATIVE), "-c", "-o", str(tmp_path / "all.o"), str(tmp_path / "all.c")],
        capture_output=True, text=True)
    assert run.returncode == 0 and not run.stderr, run.stderr

    from elftools.elf.elffile import ELFFile

    with (tmp_path / "all.o").open("rb") as handle:
        symbols = ELFFile(handle).get_section_by_name(".symtab").iter_symbols()
        undefined = {s.name for s in symbols if s["st_shndx"] == "SHN_UNDEF"} - {""}
    assert not {name for name in undefined if not name.startswith("__aeabi_unwind")}


def test_a_compiler_that_fails_is_quoted(monkeypatch):
    monkeypatch.setenv("CC", "cc -include no_such_file.h")
    with pytest.raises(FeatureError, match="could not compile"):
        features.compute(MOTION, np.zeros((1, 64, 6), np.int16))
