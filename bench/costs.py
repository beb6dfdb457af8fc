"""The cost model against the emulated RP2040: times of features() and predict(), and its error.

Measures many plans of features and many forests, fits what `[costs.pre]` and `[costs.infer]` of
the board files hold, and prints how far the model is from what was measured, on subjects that the
fit has not seen. `--write` puts the figures into boards/: measured on emulator for the RP2040,
scaled by the clock (modelled) for the others. Kind of figure: measured on emulator (rp2040js,
125 MHz, instruction time; flash latency is not modelled). Builds the RP2040 firmware if there is
none yet.
"""

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy.optimize import nnls
from sklearn.datasets import load_digits

from outpost import (
    boards,
    build,
    compile,
    convert,
    costs,
    features,
    firmware,
    link,
    measure,
    recipe,
    reference,
    train,
)
from outpost.paths import NATIVE
from outpost.recipe import STATISTICS, FeatureRow, Features, Forest, Recipe

WINDOWS = 8
ARCH = "armv6m"
Subject = tuple[str, dict[str, float], float]  # what, work, µs measured


def plans(base: Recipe) -> Iterator[tuple[str, Recipe]]:
    """Yield recipes with all sorts of features of motion's six channels."""
    def of(name: str, statistics: tuple[str, ...], window: int = 64, channels: int = 6,
           vectors: tuple[str, ...] = ()) -> tuple[str, Recipe]:
        order = sorted(statistics, key=STATISTICS.index)
        rows = [FeatureRow(channel, i, 1, tuple(order))
                for i, channel in enumerate(base.signal.names[:channels]) if order]
        if vectors:
            rows.append(FeatureRow("accel", 0, 3, vectors))
        told = f", |a| {'+'.join(vectors)}" if vectors else ""
        return (f"{name}, {window} × {channels}{told}",
                replace(base, features=Features(False, tuple(rows)),
                        signal=replace(base.signal, window=window)))

    for statistic in STATISTICS:
        for window, channels in ((64, 6), (64, 2), (100, 6), (25, 3)):
            yield of(statistic, (statistic,), window, channels)
    yield of("nothing", (), 64, 0, ("mad",))
    yield of("nothing", (), 100, 0, ("mad", "max"))
    yield of("mean", ("mean",), 64, 6, ("mean",))
    yield of("energy", ("energy",), 32, 3, ("energy", "jerk"))
    rng = np.random.default_rng(1)
    for _ in range(30):
        some = tuple(rng.permutation(STATISTICS)[:rng.integers(1, 6)])
        vectors = tuple(sorted(rng.permutation(some)[:1], key=STATISTICS.index))
        yield of("+".join(sorted(some, key=STATISTICS.index)), some,
                 int(rng.choice((16, 25, 32, 50, 64, 100))), int(rng.integers(1, 7)),
                 vectors if rng.random() < 0.3 else ())


def module(what: Recipe, forest: object, folder: Path) -> bytes:
    """Return the module of a forest."""
    convert.emit(what, forest, folder)
    obj = compile.compile_module([NATIVE / "module.c"], [folder, NATIVE], ARCH, folder / "m.o")
    return link.link(obj, ARCH, what.name)


def measure_features(pico: measure.Pico, base: Recipe, folder: Path) -> list[Subject]:
    """Time features() of every plan."""
    found, rng = [], np.random.default_rng(0)
    for name, what in track(list(plans(base)), "features", console=Console(stderr=True)):
        shape = (WINDOWS, what.signal.window, len(what.signal.channels))
        windows = rng.integers(-3000, 3000, shape).astype(np.int16)
        x = features.compute(what, windows)
        forest = train.fit(Forest(1, 1, None, 1, 1), x, np.arange(WINDOWS) % 2)
        pico.load(module(what, forest, folder))
        times, got = pico.features(windows)
        if not (got == x).all():
            raise SystemExit(f"{name}: the board's features are not the host's")
        found.append((name, {"call": 1, **costs.feature_work(what)}, float(times.mean())))
    return found


def measure_forests(pico: measure.Pico, folder: Path) -> list[Subject]:
    """Time predict() of forests of all sizes, on the digits that take the longest way."""
    x, y = load_digits(return_X_y=True)
    x = x.astype(np.int16)
    base = recipe.load(recipe.find("digits"))
    shapes = [(trees, depth) for trees in (1, 2, 5, 10, 20) for depth in (1, 2, 3, 5, 8)]
    found = []
    for trees, depth in track(shapes, "forests", console=Console(stderr=True)):
        forest = train.fit(Forest(trees, depth, None, 1, 1), x, y)
        ours = reference.from_sklearn(forest)
        paths = costs.path_lengths(ours, x)
        rows = np.argsort(paths)[[0, len(x) // 2, -1]]
        pico.load(module(base, forest, folder))
        times, chosen, votes = pico.predict(x[rows])
        expected = ours.answer(x[rows])
        if not (votes == expected.votes).all() or not (chosen == expected.chosen).all():
            raise SystemExit("the board's votes are not the reference's")
        for row, us in zip(rows, times, strict=True):
            found.append((f"{trees} trees of depth {depth}, {paths[row]} nodes",
                          {"call": 1, "tree": trees, "node": int(paths[row])}, float(us)))
    return found


def fit(subjects: list[Subject]) -> dict[str, float]:
    """Return µs a unit of work: least squares of relative errors, none negative."""
    names = sorted({name for _, work, _ in subjects for name, count in work.items() if count})
    table = np.array([[work.get(name, 0) / us for name in names] for _, work, us in subjects])
    found, _ = nnls(table, np.ones(len(subjects)))
    return dict(zip(names, found, strict=True))


def modelled(figures: dict[str, float], work: dict[str, float]) -> float:
    """Return the µs the figures give."""
    return sum(figures.get(name, 0) * count for name, count in work.items())


def show(console: Console, title: str, subjects: list[Subject], listed: int) -> dict[str, float]:
    """Print the model's error, of each subject by a fit to the others; return the whole fit."""
    table = Table("", "measured, µs", "modelled, µs", "error", box=SIMPLE_HEAD, title=title)
    errors = []
    for i, (name, work, us) in enumerate(subjects):
        guess = modelled(fit(subjects[:i] + subjects[i + 1:]), work)
        errors.append(guess / us - 1)
        if i % max(1, len(subjects) // listed) == 0:
            table.add_row(name, f"{us:.2f}", f"{guess:.2f}", f"{100 * errors[-1]:+.1f} %")
    table.add_section()
    size = np.abs(errors)
    table.add_row(f"{len(errors)} subjects", "", "median, worst",
                  f"{100 * np.median(size):.1f} %, {100 * size.max():.1f} %")
    console.print(table)
    return fit(subjects)


def write(section: str, figures: dict[str, float], stated: str) -> None:
    """Put the figures of a section into every board file."""
    for name in boards.names():
        board = boards.load(name)
        clock = board.chip["clock"].to("MHz")
        kind, scaled = "measured on emulator", ""
        if name != "rp2040":
            kind = "modelled"
            scaled = f", scaled from the emulated RP2040 by the clock (125/{clock:g})"
        for key, us in figures.items():
            ns = 1e3 * us * 125 / clock
            boards.set_figure(board.file, f"costs.{section}.{key}", round(ns, ns < 100 or None),
                              kind, stated + scaled, "ns" if key == "call" else f"ns/{key}")


def main() -> None:
    """Measure, fit, print, and write if asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="put the figures into boards/")
    asked = parser.parse_args()
    if not measure.FIRMWARE.is_file():
        built = build.build("motion", ("x64", ARCH))
        firmware.build([built.folder])
    console = Console(width=100)
    with tempfile.TemporaryDirectory() as scratch, measure.Pico() as pico:
        base = recipe.load(recipe.find("motion"))
        pre = measure_features(pico, base, Path(scratch))
        infer = measure_forests(pico, Path(scratch))
    fitted = {"pre": show(console, "features(): each by a fit to the others", pre, 20),
              "infer": show(console, "predict(): each by a fit to the others", infer, 20)}
    table = Table("figure", "ns", box=SIMPLE_HEAD, title="per unit of work")
    for section, figures in fitted.items():
        for key, us in figures.items():
            table.add_row(f"costs.{section}.{key}", f"{1e3 * us:.1f}")
        if asked.write:
            write(section, figures, "bench/costs.py on rp2040js 1.4.1, MicroPython 1.25.0: fitted "
                  f"to {len(pre if section == 'pre' else infer)} measurements")
    console.print(table)


if __name__ == "__main__":
    main()
