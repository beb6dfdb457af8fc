"""The best digits in 2.9, 8 and 32 KB on a Cortex-M0+: every kind of model, by bytes, as a plot.

Bytes are those of the whole .mpy file for armv6m, measured on host; accuracy is of the declared
integer reference, which the compiled code equals on every machine (tests/boards). Each model is
judged on a quarter of the training images that it has not seen; the best of a budget is chosen by
that, trained again on all of them, and only then shown the 540 held-out ones. Beside ours:
emlearn's loadable C of forests of depth 5, with its thresholds mended, on the same images.
`--plot` writes docs/digits.svg.
"""

import argparse
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import rivals
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import track
from rich.table import Table
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from outpost import build, convert, recipe, train
from outpost.errors import OutpostError
from outpost.net import tune
from outpost.paths import ROOT
from outpost.recipe import Forest, Recipe

ARCH = "armv6m"
BUDGETS = (2900, 8000, 32000)  # bytes of the whole module
PUBLISHED = ((8000, 0.45), (32000, 0.77))  # of another's forest of depth 5: docs/models.md
COLOURS = {"forest": "#2f6f9f", "network": "#c43c39", "neighbours": "#3b8f5a",
           "emlearn, depth 5": "#8a8f96", "published": "#1d2733"}
Fit = Callable[[np.ndarray, np.ndarray], Any]


@dataclass(frozen=True)
class Point:
    """A model: what it is, its bytes, and how often it is right where it was not trained."""

    family: str
    name: str
    bytes: int
    accuracy: float
    what: Recipe
    fit: Fit


def candidates(base: Recipe) -> Iterator[tuple[str, str, Recipe, Fit]]:
    """Yield (family, name, recipe, how to fit it)."""
    for kind, trees, depth, vote in product(
            ("RandomForestClassifier", "ExtraTreesClassifier"), (3, 5, 8, 12, 20, 32),
            (5, 8, None), ("hard", "soft")):
        limits = Forest(trees, depth, None, 1, 1, vote, form="compact", kind=kind)
        told = "random" if kind[0] == "R" else "extra"
        yield ("forest", f"{trees} {told} trees, depth {depth or 'free'}, {vote}",
               replace(base, forest=limits), lambda x, y, limits=limits: train.fit(limits, x, y))
    for hidden in ((8,), (12,), (16,), (20,), (32,), (48,), (64,), (96,), (192,), (96, 64)):
        yield "network", "64 → " + " → ".join(map(str, hidden)) + " → 10", base, network(hidden)
    for items in (25, 50, 100, 200, 300, 420):
        yield "neighbours", f"nearest of {items}", base, nearest(items)


def network(hidden: tuple[int, ...]) -> Fit:
    """Return what fits an int8 network."""
    def fit(x: np.ndarray, y: np.ndarray) -> Any:
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = make_pipeline(StandardScaler(), MLPClassifier(hidden, max_iter=150, alpha=1e-3,
                                                              random_state=1))
        return tune(model.fit(x.astype(float), y), x, y)
    return fit


def nearest(items: int) -> Fit:
    """Return what takes so many images of all as the ones to be near to."""
    def fit(x: np.ndarray, y: np.ndarray) -> Any:
        some, _ = train_test_split(np.arange(len(y)), train_size=items, random_state=1, stratify=y)
        model = make_pipeline(MinMaxScaler(), KNeighborsClassifier(1))
        return model.fit(x[some].astype(float), y[some])
    return fit


def rival(x: np.ndarray, y: np.ndarray, base: Recipe, held: np.ndarray, right: np.ndarray,
          folder: Path) -> Iterator[tuple[str, int, float]]:
    """Yield (name, bytes, accuracy) of emlearn's loadable trees of depth 5."""
    for trees in (1, 2, 3, 5, 8, 12, 20, 40):
        model = train.fit(Forest(trees, 5, None, 1, 1), x, y)
        content = rivals.emlearn("loadable", mended=True)(base, model, ARCH, folder)
        answers = convert.declare(replace(base, forest=replace(base.forest, vote="hard")), model)
        yield (f"{trees} trees", len(content),
               float((answers.answer(held).chosen == right).mean()))


def measured(points: list, base: Recipe, fitted: build.Fitted, folder: Path) -> list[Point]:
    """Return every candidate with its bytes, and its accuracy on images that it has not seen."""
    x, rest, y, right = train_test_split(fitted.x_train, fitted.train.y, test_size=0.25,
                                         random_state=1, stratify=fitted.train.y)
    found = []
    for family, name, what, fit in track(points, "models", console=Console(stderr=True)):
        try:
            model = fit(x, y)
            declared = convert.declare(what, model)
            size = len(rivals.native(what, model, ARCH, folder))
        except OutpostError as error:
            Console(stderr=True).print(f"{name}: {error}")
            continue
        accuracy = float((declared.answer(rest).chosen == right).mean())
        found.append(Point(family, name, size, accuracy, what, fit))
    return found


def front(points: list[Point]) -> list[Point]:
    """Return the points that none of at most their bytes is righter than."""
    kept: list[Point] = []
    for one in sorted(points, key=lambda point: (point.bytes, -point.accuracy)):
        if not kept or one.accuracy > kept[-1].accuracy:
            kept.append(one)
    return kept


def final(point: Point, fitted: build.Fitted, folder: Path) -> tuple[int, float]:
    """Return bytes of a model trained on all training images, and its held-out accuracy."""
    model = point.fit(fitted.x_train, fitted.train.y)
    answers = convert.declare(point.what, model).answer(fitted.x_test)
    return (len(rivals.native(point.what, model, ARCH, folder)),
            float((answers.chosen == fitted.test.y).mean()))


# --- the plot ---

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 860, 480, 62, 52, 20
LEAST, MOST = 1500, 64000


def plot(ours: dict[str, list[tuple[int, float]]], path: Path) -> None:
    """Write the points of each family as an SVG: bytes by their logarithm, accuracy in percent."""
    def x(size: float) -> float:
        return LEFT + (WIDTH - LEFT - 20) * np.log(size / LEAST) / np.log(MOST / LEAST)

    def y(accuracy: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * (accuracy - 0.4) / 0.6

    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
             'font-family="system-ui, sans-serif" font-size="14" fill="#1d2733">',
             f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>']
    for share in (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0):
        parts.append(f'<path d="M{LEFT} {y(share):.1f}H{WIDTH - 20}" stroke="#e2e5e9"/>'
                     f'<text x="{LEFT - 8}" y="{y(share) + 5:.1f}" text-anchor="end">'
                     f"{100 * share:.0f} %</text>")
    for size in (2000, 2900, 4000, 8000, 16000, 32000, 64000):
        dash = ' stroke-dasharray="5 4"' if size in BUDGETS else ' opacity="0"'
        parts.append(f'<path d="M{x(size):.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="#66717e"{dash}/>'
                     f'<text x="{x(size):.1f}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle">'
                     f"{size / 1000:g}</text>")
    parts.append(f'<text x="{(LEFT + WIDTH) / 2}" y="{HEIGHT - 8}" text-anchor="middle">'
                 "KB of the whole module, Cortex-M0+</text>")
    for number, (family, points) in enumerate(ours.items()):
        colour = COLOURS[family]
        line = " ".join(f"{x(size):.1f},{y(accuracy):.1f}" for size, accuracy in points)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" '
                     'stroke-width="1.6"/>')
        parts += [f'<circle cx="{x(size):.1f}" cy="{y(accuracy):.1f}" r="3.6" fill="{colour}"/>'
                  for size, accuracy in points]
        at = HEIGHT - BOTTOM - 16 - 22 * (len(ours) - 1 - number)
        parts.append(f'<circle cx="{LEFT + 26}" cy="{at - 5}" r="5" fill="{colour}"/>'
                     f'<text x="{LEFT + 40}" y="{at}">{family}</text>')
    path.write_text("\n".join([*parts, "</svg>", ""]))


def main() -> None:
    """Print the tables; write the plot if asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plot", action="store_true", help="write docs/digits.svg")
    asked = parser.parse_args()
    base = recipe.load(recipe.find("digits"))
    fitted = build.fit(base)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        found = measured(list(candidates(base)), base, fitted, folder)
        table = Table("budget", "model", "bytes", "unseen quarter", "held out", box=SIMPLE_HEAD)
        for budget in BUDGETS:
            for family in ("forest", "network", "neighbours"):
                some = [one for one in found if one.family == family and one.bytes <= budget]
                if not some:
                    table.add_row(f"{budget:,}", f"{family}: none", "", "", "")
                    continue
                for best in sorted(some, key=lambda one: (-one.accuracy, one.bytes)):
                    size, held = final(best, fitted, folder)
                    if size <= budget:  # trees grow with what they are shown
                        break
                table.add_row(f"{budget:,}", best.name, f"{size:,}",
                              f"{100 * best.accuracy:.1f} %", f"{100 * held:.2f} %")
            table.add_section()
        x, y = fitted.x_train, fitted.train.y
        others = list(rival(x, y, base, fitted.x_test, fitted.test.y, folder))
        for name, size, accuracy in others:
            table.add_row("", f"emlearn loadable, depth 5, mended, {name}", f"{size:,}", "",
                          f"{100 * accuracy:.2f} %")
    Console(width=100).print(table)
    if asked.plot:
        fronts = {family: [(one.bytes, one.accuracy) for one in
                           front([one for one in found if one.family == family])]
                  for family in ("forest", "network", "neighbours")}
        fronts["emlearn, depth 5"] = [(size, accuracy) for _, size, accuracy in others]
        plot(fronts | {"published": list(PUBLISHED)}, ROOT / "docs/digits.svg")


if __name__ == "__main__":
    main()
