"""What a model costs on a board, modelled from its cost table: times, and the joules of a wake.

Nothing is compiled or run, so that a search can ask thousands of times. How far the figures are
from what the emulator measures, bench/costs.py prints: docs/contract.md.
"""

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np

from outpost import power
from outpost.boards import Battery, Board
from outpost.convert import Declared
from outpost.recipe import Recipe
from outpost.reference import LEAF, Forest, Tree

RECORDS = 2  # a wake appends to the ring: a reading and a decision
RECORD_BYTES = 48  # of both
WAKE_S, UPLINK_S = 300, 1800  # what firmware/node/settings.py has by default


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


def infer_work(recipe: Recipe, model: Declared, x: np.ndarray | None = None) -> Counter[str]:
    """Return how often `predict()` does each thing that `[costs.infer]` has a figure for, at most.

    That is the worst that can be: every tree's longest path, no early exit, every distance to its
    end. With int16 features `x` (windows, features), the most that any of these windows takes.
    """
    if not model.trees:
        return Counter(model.work(x))
    compact, trees = recipe.forest.form == "compact", len(model.trees)
    if x is None:
        asked, nodes = trees, sum(longest_path(tree) for tree in model.trees)
        entries = sum(int((tree.said > 0).sum(axis=1).max()) for tree in model.trees)
    else:
        answers = model.answer(x)
        asked, nodes = int(answers.asked.max()), int(path_lengths(model, x).max())
        entries = int(sum((tree.said[tree.leaves(x)] > 0).sum(axis=1) * (answers.asked >= number)
                          for number, tree in enumerate(model.trees, 1)).max())
    found = Counter({"walk": asked, "step": nodes} if compact else {"tree": asked, "node": nodes})
    if compact and _node_bits(model) > 32:
        found["wide"] = nodes
    if not compact:  # firmware/native/trees.h: how a Cortex-M0 looks at features
        signed = any((tree.threshold[tree.left != LEAF] < 1).any() for tree in model.trees)
        many = len(recipe.feature_names)
        below = x is None or bool((x < 0).any())
        found.update({"signed": nodes} if signed else {"look": many, "clamp": many * below})
    if model.classes:
        found["class"] = model.classes
    if model.soft:
        found["entry"] = entries
    if model.early_exit and model.soft:
        found["rival"] = model.classes * max(asked - (trees - 1) // 2, 0)
    elif model.early_exit:
        found["check"] = asked
    return found


def _node_bits(forest: Forest) -> int:
    """Return how many bits a node of the compact form needs; docs/models.md has the parts."""
    leaves = forest.classes
    if forest.soft or not forest.classes:
        said = np.concatenate([tree.said[tree.left == LEAF] for tree in forest.trees])
        leaves = int((np.unique(said, axis=0) != 0).sum())
    inner = [tree.left != LEAF for tree in forest.trees]
    limits = np.concatenate([tree.threshold[on] for tree, on in
                             zip(forest.trees, inner, strict=True)])
    features = max(int(tree.feature.max()) for tree in forest.trees)
    child = (leaves + max(int(on.sum()) for on in inner) - 1).bit_length()
    limit = int(np.maximum(limits, ~limits).max(initial=1))
    return 2 * child + max(features.bit_length(), 1) + limit.bit_length() + 1


def longest_path(tree: Tree) -> int:
    """Return how many nodes the longest way from the root to a leaf compares at."""
    depth = np.zeros(len(tree.left), int)
    for node in range(len(tree.left)):  # children come after their parents
        if tree.left[node] != LEAF:
            depth[[tree.left[node], tree.right[node]]] = depth[node] + 1
    return int(depth.max())


def path_lengths(forest: Forest, x: np.ndarray) -> np.ndarray:
    """Return at how many nodes of all trees that are asked each window's prediction compares."""
    total = np.zeros(len(x), int)
    rows = np.arange(len(x))
    early = forest.trees and forest.early_exit
    asked = forest.answer(x).asked if early else len(forest.trees)
    for number, tree in enumerate(forest.trees, 1):
        node = np.zeros(len(x), np.intp)
        while (inner := tree.left[node] != LEAF).any():
            total += inner & (number <= asked)
            below = x[rows, tree.feature[node]] < tree.threshold[node]
            node = np.where(inner, np.where(below, tree.left[node], tree.right[node]), node)
    return total


def latency_us(board: Board, recipe: Recipe, model: Declared) -> tuple[float, float]:
    """Return µs of features(), and of predict() at its longest."""
    return (board.stage_us("pre", **feature_work(recipe)),
            board.stage_us("infer", **infer_work(recipe, model)))


@dataclass(frozen=True)
class Phase:
    """A part of a wake: how long it takes, and what it takes from the battery."""

    name: str
    us: float
    uj: float


def wake(board: Board, battery: Battery, recipe: Recipe, model: Declared) -> list[Phase]:
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
             "infer": board.stage_us("infer", **infer_work(recipe, model)),
             "post": board.stage_us("post"),
             "store": board.stage_us("store", record=RECORDS, page=RECORD_BYTES / 256,
                                     B=RECORD_BYTES)}
    states = {"boot": watts["boot"], "wait": watts["doze"] + watts["sensor"],
              "capture": watts["active"] + watts["sensor"]}
    return [Phase(name, us, us * states.get(name, watts["active"]) * 1e-6)
            for name, us in times.items()]


def gated_uj(board: Board, battery: Battery, recipe: Recipe, model: Declared) -> float:
    """Return the joules in µJ of a wake that the recipe's gate ends: it must have one."""
    gate = recipe.tiers.gate
    short = replace(recipe, signal=replace(recipe.signal, window=gate.samples))
    return wake_uj([phase for phase in wake(board, battery, short, model)
                    if phase.name not in ("pre", "infer")])


def wake_uj(phases: list[Phase]) -> float:
    """Return the joules of a wake in µJ, at the battery."""
    return sum(phase.uj for phase in phases)


def awake_ms(phases: list[Phase]) -> float:
    """Return how long a wake keeps the node from sleeping, in ms, without uplink."""
    return sum(phase.us for phase in phases) / 1e3


def life_days(board: Board, battery: Battery, phases: list[Phase]) -> float:
    """Return how long a full battery lasts at the settings' pace, nothing going wrong.

    A wake every 300 s and an uplink of what gathered every 1,800 s (firmware/node/settings.py);
    no harvest, no motion, no link that is down. `outpost simulate` lives through all that.
    """
    kind = next(iter(board.costs["uplink"]))
    watts = power.powers_uw(board, battery, kind)
    wakes, uplinks = 86400 / WAKE_S, 86400 / UPLINK_S
    uplink_us = board.stage_us(f"uplink.{kind}", B=RECORD_BYTES * wakes / uplinks)
    awake_s = wakes * awake_ms(phases) / 1e3 + uplinks * uplink_us / 1e6
    day_uj = (wakes * wake_uj(phases) + uplinks * uplink_us * watts["radio"] / 1e6
              + (86400 - awake_s) * (watts["sleep"] + watts["listen"]) + 86400 * watts["leak"])
    return power.capacity_mj(battery) * 1e3 / day_uj


def longest_window(forest: Forest, x: np.ndarray, seed: int = 1, rounds: int = 3) -> np.ndarray:
    """Return int16 features (features,) made to take as long a way through all trees as is found.

    From the longest of `x`, one feature after the other takes the value on either side of one of
    its thresholds that lengthens the way most. What it finds is a way that exists; the longest
    paths of all trees together are the bound.
    """
    rng = np.random.default_rng(seed)
    best = x[path_lengths(forest, x).argmax()].copy()
    values: dict[int, list[int]] = {}
    for tree in forest.trees:
        for node in np.flatnonzero(tree.left != LEAF):
            at = int(tree.threshold[node])
            values.setdefault(int(tree.feature[node]), []).extend((at - 1, at))
    for _ in range(rounds):
        for feature in rng.permutation(sorted(values)):
            tried = np.clip(np.unique(values[feature]), -32768, 32767).astype(np.int16)
            rows = np.repeat(best[None], len(tried) + 1, axis=0)
            rows[1:, feature] = tried
            best = rows[path_lengths(forest, rows).argmax()]
    return best
