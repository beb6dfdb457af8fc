"""What a model costs on a board, modelled from its cost table: times, and the joules of a wake.

Nothing is compiled or run, so that a search can ask thousands of times. How far the figures are
from what the emulator measures, bench/costs.py prints: docs/contract.md.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from outpost import power
from outpost.boards import Battery, Board
from outpost.recipe import Recipe
from outpost.reference import LEAF, Forest, Tree

RECORDS = 2  # a wake appends to the ring: a reading and a decision
RECORD_BYTES = 48  # of both, and their share of pages


def feature_work(recipe: Recipe) -> Counter[str]:
    """Return how often `features()` does each thing that `[costs.pre]` has a figure for.

    It follows firmware/native/features.c, where a sum that one row wants is made for every row.
    """
    size, rows = recipe.signal.window, recipe.features.rows
    if recipe.features.raw:
        return Counter(copy=size * len(recipe.signal.channels))
    asked = Counter(name for row in rows for name in row.statistics)
    samples = size * len(rows)
    vectors = size * sum(row.count > 1 for row in rows)
    looks = {"energy", "jerk", "deviation", "mad", "crossings"} & asked.keys()
    centred = bool({"deviation", "mad", "crossings"} & looks)
    bounds = (bool({"min", "peak_to_peak"} & asked.keys())
              + bool({"max", "peak_to_peak"} & asked.keys()))
    divided = 0 if size & (size - 1) == 0 else 1  # a power of two is a shift
    means = len(rows) if centred or "mean" in asked else 0
    return Counter({
        "row": len(rows), "value": samples - vectors, "vector": vectors,
        "bound": samples * bounds, "centred": samples * centred,
        **dict.fromkeys(looks, samples),
        "root": asked["deviation"] + asked["energy"] + asked["jerk"],
        "division": divided * (means + asked["deviation"] + asked["mad"] + asked["energy"]
                               + asked["jerk"])})


def forest_work(forest: Forest, x: np.ndarray | None = None) -> Counter[str]:
    """Return how often `predict()` does each thing that `[costs.infer]` has a figure for.

    Nodes are those of each tree's longest path; with int16 features `x` (windows, features),
    those of the worst of these windows.
    """
    if x is None:
        nodes = sum(longest_path(tree) for tree in forest.trees)
    else:
        nodes = int(path_lengths(forest, x).max())
    return Counter(tree=len(forest.trees), node=nodes)


def longest_path(tree: Tree) -> int:
    """Return how many nodes the longest way from the root to a leaf compares at."""
    depth = np.zeros(len(tree.left), int)
    for node in range(len(tree.left)):  # children come after their parents
        if tree.left[node] != LEAF:
            depth[[tree.left[node], tree.right[node]]] = depth[node] + 1
    return int(depth.max())


def path_lengths(forest: Forest, x: np.ndarray) -> np.ndarray:
    """Return at how many nodes of all trees together each window's prediction compares."""
    total = np.zeros(len(x), int)
    rows = np.arange(len(x))
    for tree in forest.trees:
        node = np.zeros(len(x), np.intp)
        while (inner := tree.left[node] != LEAF).any():
            total += inner
            below = x[rows, tree.feature[node]] < tree.threshold[node]
            node = np.where(inner, np.where(below, tree.left[node], tree.right[node]), node)
    return total


@dataclass(frozen=True)
class Phase:
    """A part of a wake: how long it takes, and what it takes from the battery."""

    name: str
    us: float
    uj: float


def wake(board: Board, battery: Battery, recipe: Recipe, forest: Forest) -> list[Phase]:
    """Return the phases of one wake by the timer that senses, decides and stores, without uplink.

    As docs/power.md counts: the wait for samples is spent dozing, the rest awake. The recipe must
    have a rate.
    """
    signal = recipe.signal
    values = signal.window * len(signal.channels)
    watts = power.powers_uw(board, battery, next(iter(board.power["radio"])))
    capture_us = board.stage_us("capture", sample=signal.window, value=values, B=2 * values)
    times = {"boot": board.stage_us("boot"), "wait": 1e6 * signal.window / signal.rate_hz,
             "capture": capture_us, "pre": board.stage_us("pre", **feature_work(recipe)),
             "infer": board.stage_us("infer", **forest_work(forest)),
             "post": board.stage_us("post"),
             "store": board.stage_us("store", record=RECORDS, page=RECORD_BYTES / 256,
                                     B=RECORD_BYTES)}
    states = {"boot": watts["boot"], "wait": watts["doze"] + watts["sensor"],
              "capture": watts["active"] + watts["sensor"]}
    return [Phase(name, us, us * states.get(name, watts["active"]) * 1e-6)
            for name, us in times.items()]


def wake_uj(phases: list[Phase]) -> float:
    """Return the joules of a wake in µJ, at the battery."""
    return sum(phase.uj for phase in phases)
