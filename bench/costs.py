"""The cost model against the emulated RP2040: times of features() and predict(), and its error.

Measures many plans of features and many models of all kinds, fits what `[costs.pre]` and
`[costs.infer]` of the board files hold, and prints how far the model is from what was measured, on
modules that the fit has not seen. `--write` puts the figures into boards/: measured on emulator
for the RP2040, scaled by the clock (modelled) for the others. Kind of figure: measured on emulator
(rp2040js, 200 MHz, instruction time; flash latency is not modelled). Builds the RP2040 firmware if
there is none yet.
"""

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy.optimize import nnls
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from sklearn.mixture import GaussianMixture
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

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
    train,
)
from outpost.net import tune
from outpost.paths import NATIVE
from outpost.recipe import STATISTICS, FeatureRow, Features, Forest, Recipe

WINDOWS = 8
ARCH = "armv6m"
CALLS = {"pre": "features()", "infer": "predict()"}
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


def raw(base: Recipe, width: int, **way: object) -> Recipe:
    """Return a recipe whose features are `width` values as they are."""
    return replace(base, signal=replace(base.signal, window=width, hop=width),
                   forest=replace(base.forest, **way))


def tables() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return data sets in int16: digits as they are, others spread over all that an int16 has."""
    found = {"digits": load_digits(return_X_y=True)}
    for name, load in (("iris", load_iris), ("wine", load_wine), ("cancer", load_breast_cancer)):
        x, y = load(return_X_y=True)
        low, high = x.min(axis=0), x.max(axis=0)
        found[name] = np.rint((x - low) / (high - low) * 65535 - 32768), y
    return {name: (x.astype(np.int16), y) for name, (x, y) in found.items()}


def models(base: Recipe) -> Iterator[tuple[str, Recipe, Any, np.ndarray]]:
    """Yield (words, recipe, fitted, int16 features): forests of all forms, and all other kinds."""
    every = tables()
    ways = [{"vote": vote, "form": form, "early_exit": early}
            for vote in ("hard", "soft") for form in ("fast", "compact")
            for early in (False, True)]
    for way in ways:
        for name, trees, depth in (("digits", 1, 8), ("digits", 3, 3), ("digits", 10, 5),
                                   ("digits", 10, 8), ("digits", 20, 3), ("wine", 5, 2),
                                   ("wine", 12, 6), ("cancer", 4, 8), ("cancer", 16, 4)):
            x, y = every[name]
            told = " ".join(word for word in (way["vote"], way["form"],
                                              "early" * way["early_exit"]) if word)
            yield (f"{told}: {name}, {trees} trees of depth {depth}", raw(base, x.shape[1], **way),
                   train.fit(Forest(trees, depth, None, 1, 1), x, y), x)
    for name, (x, y) in every.items():
        plain, width = raw(base, x.shape[1]), x.shape[1]
        fit, half = x.astype(float), slice(None, None, 1 + len(x) // 150)
        yield f"GaussianNB: {name}", plain, GaussianNB().fit(fit, y), x
        for k in (1, 5, 15):
            yield (f"{k} neighbours: {name}", plain,
                   KNeighborsClassifier(k).fit(fit[half], y[half]), x)
        for hidden in ((), (8,), (24, 12)):
            net = make_pipeline(StandardScaler(), MLPClassifier(hidden, max_iter=60,
                                                                random_state=0)).fit(fit, y)
            yield f"network {hidden}: {name}", plain, tune(net, x, y), x
        few = fit[:, :6] if width > 13 else fit
        for components in (1, 2, 3):
            mixture = GaussianMixture(components, reg_covar=1.0, random_state=0)
            mixture.fit(few)
            if components > 1:  # one answer needs no code
                yield f"{components} components: {name}", plain, mixture, x
            low = float(np.quantile(mixture.score_samples(few), 0.1))
            yield (f"detector of {components}: {name}", plain, convert.Detector(mixture, low), x)


def measure_models(pico: measure.Pico, folder: Path) -> list[Subject]:
    """Time predict() of models of all kinds, on rows that take little, something and most."""
    base = recipe.load(recipe.find("digits"))
    found = []
    for told, what, fitted, x in track(list(models(base)), "models",
                                       console=Console(stderr=True)):
        ours = convert.declare(what, fitted)
        order = np.argsort(costs.path_lengths(ours, x), kind="stable")
        wild = np.random.default_rng(0).integers(-32768, 32768, (1, x.shape[1]))
        rows = np.concatenate([x[order[[0, len(x) // 2, -1]]], wild]).astype(np.int16)
        pico.load(module(what, fitted, folder))
        times, chosen, votes = pico.predict(rows)
        expected = ours.answer(rows)
        if not (votes == expected.votes).all() or not (chosen == expected.chosen).all():
            raise SystemExit(f"{told}: the board's votes are not the reference's")
        for row, us in zip(rows, times, strict=True):
            found.append((told, {"call": 1, **costs.infer_work(what, ours, row[None])}, float(us)))
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
    errors: list[float] = []
    fits: dict[str, dict[str, float]] = {}
    for i, (name, work, us) in enumerate(subjects):
        if name not in fits:
            fits[name] = fit([one for one in subjects if one[0] != name])
        guess = modelled(fits[name], work)
        errors.append(guess / us - 1)
        if i % max(1, len(subjects) // listed) == 0:
            table.add_row(name, f"{us:.2f}", f"{guess:.2f}", f"{100 * errors[-1]:+.1f} %")
    kinds = np.array([name.partition(":")[0] for name, _, _ in subjects])
    for kind in ["", *dict.fromkeys(kinds)] if ":" in subjects[0][0] else [""]:
        if kind in ("", kinds[0]):
            table.add_section()
        size = np.abs(errors)[kinds == kind] if kind else np.abs(errors)
        table.add_row(kind or "all", f"{len(size)} measured", "median, worst",
                      f"{100 * np.median(size):.1f} %, {100 * size.max():.1f} %")
    console.print(table)
    return fit(subjects)


def write(section: str, figures: dict[str, float], stated: str) -> None:
    """Put the figures of a section into every board file."""
    measured_at = boards.load("rp2040").chip["clock"].to("MHz")
    for name in boards.names():
        board = boards.load(name)
        clock = board.chip["clock"].to("MHz")
        kind, scaled = "measured on emulator", ""
        if name != "rp2040":
            kind = "modelled"
            scaled = f", scaled from the emulated RP2040 by the clock ({measured_at:g}/{clock:g})"
        for key, us in figures.items():
            ns = 1e3 * us * measured_at / clock
            value = round(ns, 1) if ns < 100 else round(ns)
            boards.set_figure(board.file, f"costs.{section}.{key}", value, kind, stated + scaled,
                              "ns" if key == "call" else f"ns/{key}")


def main() -> None:
    """Measure, fit, print, and write if asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="put the figures into boards/")
    parser.add_argument("sections", nargs="*", help=f"of {', '.join(CALLS)}; both by default")
    asked = parser.parse_args()
    asked.sections = asked.sections or list(CALLS)
    if not measure.FIRMWARE.is_file():
        built = build.build("motion", ("x64", ARCH))
        firmware.build([built.folder])
    console = Console(width=100)
    with tempfile.TemporaryDirectory() as scratch, measure.Pico() as pico:
        subjects = {}
        if "pre" in asked.sections:
            base = recipe.load(recipe.find("motion"))
            subjects["pre"] = measure_features(pico, base, Path(scratch))
        if "infer" in asked.sections:
            subjects["infer"] = measure_models(pico, Path(scratch))
    fitted = {section: show(console, f"{CALLS[section]}: each by a fit to the others", some, 24)
              for section, some in subjects.items()}
    table = Table("figure", "ns", box=SIMPLE_HEAD, title="per unit of work")
    for section, figures in fitted.items():
        for key, us in figures.items():
            table.add_row(f"costs.{section}.{key}", f"{1e3 * us:.1f}")
    console.print(table)
    for section, figures in fitted.items() if asked.write else ():
        write(section, figures, "bench/costs.py on rp2040js 1.4.1, MicroPython 1.25.0: fitted "
              f"to {len(subjects[section])} measurements")


if __name__ == "__main__":
    main()
