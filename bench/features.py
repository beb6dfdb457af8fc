"""Which features, which window, how large a forest: cross-validation on motion's training split.

Prints the tables of docs/features.md. The published test split is not looked at. Accuracy is that
of the integer reference (hard vote), per window; folds are by recording, so windows of one
recording never stand on both sides. Kind of figure: measured on this host; deterministic.
"""

import argparse
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import track
from rich.table import Table
from sklearn.model_selection import StratifiedGroupKFold

from outpost import data, features, recipe, reference, train
from outpost.recipe import STATISTICS, FeatureRow, Features, Forest, Recipe

FOLDS, REPEATS = 5, 10


def everything(base: Recipe, window: int, hop: int) -> Recipe:
    """Return `base` with another window and with all statistics of all signals."""
    rows = [FeatureRow(name, i, 1, STATISTICS) for i, name in enumerate(base.signal.names)]
    rows += [FeatureRow(name, first, 3, STATISTICS) for name, first in (("accel", 0), ("gyro", 3))]
    return replace(base, signal=replace(base.signal, window=window, hop=hop),
                   features=Features(raw=False, rows=tuple(rows)))


class Trial:
    """The training windows of one window length with all features, to choose columns from."""

    def __init__(self, base: Recipe, dataset: data.Dataset, window: int, hop: int) -> None:
        wide = everything(base, window, hop)
        self.windows = data.windows(dataset.train, dataset.classes, window, hop)
        self.x = features.compute(wide, self.windows.x)
        self.names = wide.feature_names

    def accuracy(self, wanted: Iterable[str], forest: Forest) -> tuple[int, float, float, float]:
        """Cross-validate with the features `wanted`.

        Returns features, accuracy, its standard error over repeats, and leaves + nodes a forest.
        """
        columns = [i for i, name in enumerate(self.names) if name in set(wanted)]
        x, y, groups = self.x[:, columns], self.windows.y, self.windows.recording
        right, nodes = [], []
        for repeat in range(REPEATS):
            folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=repeat)
            hits = 0
            for fit, held in folds.split(x, y, groups):
                model = train.fit(replace(forest, seed=repeat), x[fit], y[fit])
                answers = reference.from_sklearn(model).answer(x[held]).chosen
                hits += int((answers == y[held]).sum())
                nodes.append(sum(tree.tree_.node_count for tree in model.estimators_))
            right.append(hits / len(y))
        return (len(columns), float(np.mean(right)), float(np.std(right) / np.sqrt(REPEATS)),
                float(np.mean(nodes)))


def of(signals: Iterable[str], statistics: Iterable[str]) -> list[str]:
    """Return the names of these statistics of these signals."""
    return [f"{signal}.{statistic}" for signal in signals for statistic in statistics]


def main() -> None:
    """Print one table for windows, one for statistics, one for signals, one for the forest."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="motion")
    base = recipe.load(recipe.find(parser.parse_args().model))
    dataset = data.load(base)
    accel, gyro = base.signal.names[:3], base.signal.names[3:]
    channels = [*accel, *gyro]
    chosen = base.feature_names
    window, hop = base.signal.window, base.signal.hop
    trial = Trial(base, dataset, window, hop)

    runs: list[tuple[str, str, Trial, Iterable[str], Forest]] = []
    for size, step in ((16, 16), (32, 31), (48, 38), (64, 30), (96, 29), (125, 125)):
        other = trial if size == window else Trial(base, dataset, size, step)
        runs.append(("window", f"{size} samples, {size / base.signal.rate_hz:.2f} s", other,
                     chosen, base.forest))
    for statistic in STATISTICS:
        runs.append(("one statistic, six channels", statistic, trial, of(channels, [statistic]),
                     base.forest))
    for first in ("deviation", "mad", "energy"):
        for second in ("crossings", "jerk", "peak_to_peak"):
            runs.append(("two statistics, six channels", f"{first}, {second}", trial,
                         of(channels, [first, second]), base.forest))
    used = {name.split(".")[1] for name in chosen}
    for label, signals in (("accelerometer", accel), ("gyroscope", gyro),
                           ("accelerometer, magnitude", [*accel, "accel"]),
                           ("both", channels), ("both, magnitudes", [*channels, "accel", "gyro"]),
                           ("magnitudes alone", ["accel", "gyro"])):
        runs.append(("signals, with the chosen statistics", label, trial, of(signals, used),
                     base.forest))
    for magnitude in ("accel", "gyro"):
        runs.append(("chosen, and a magnitude", magnitude, trial,
                     [*chosen, *of([magnitude], used)], base.forest))
    runs.append(("everything", "nine statistics of eight signals", trial, trial.names,
                 base.forest))
    runs.append(("chosen", "as in model.toml", trial, chosen, base.forest))
    for statistic in [name for name in STATISTICS if name not in used]:
        added = {*chosen, *of(channels, [statistic])}
        runs.append(("chosen, and one statistic more", statistic, trial, added, base.forest))
    for trees in (3, 5, 10, 20, 40):
        for depth in (3, 4, None):
            runs.append(("forest", f"{trees} trees, depth {depth or 'free'}", trial, chosen,
                         replace(base.forest, trees=trees, depth=depth)))

    table = Table("", "", "features", "accuracy", "±", "nodes", box=SIMPLE_HEAD,
                  title=f"{base.name}: {len(dataset.train)} training recordings, {REPEATS} × "
                        f"{FOLDS}-fold cross-validation by recording")
    console, last = Console(width=100), ""
    for group, label, which, wanted, forest in track(runs, console=Console(stderr=True)):
        count, accuracy, error, nodes = which.accuracy(wanted, forest)
        if group != last and last:
            table.add_section()
        table.add_row(group if group != last else "", label, str(count), f"{100 * accuracy:.2f} %",
                      f"{100 * error:.2f}", f"{nodes:.0f}")
        last = group
    console.print(table)


if __name__ == "__main__":
    main()
