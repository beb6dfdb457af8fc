"""What of a model costs what, and what would have to go for a broken contract to be met."""

from dataclasses import dataclass, replace

import numpy as np

from outpost import costs, recipe
from outpost.check import Checked
from outpost.contract import Line
from outpost.recipe import Recipe
from outpost.reference import LEAF


@dataclass(frozen=True)
class FeatureCost:
    """One signal with all its statistics, or one statistic ("*.mad") of all signals.

    `us` is what a window would save without it (what only one signal asks for is still summed for
    all, so single features save little), `nodes` how many comparisons look at it, `importance` its
    share of the impurity that all of them take away on the training windows.
    """

    name: str
    features: tuple[str, ...]
    us: float
    nodes: int
    importance: float


@dataclass(frozen=True)
class TreeCost:
    """One tree: nodes, longest path, bytes (its share by nodes), and how it does on its own.

    `missed` is by how much the share of training windows answered right changes without it.
    """

    number: int
    nodes: int
    longest: int
    bytes: float
    missed: float


def features(checked: Checked) -> list[FeatureCost]:
    """Return what could go of the features, dearest first; nothing of a raw window."""
    what, fitted = checked.what, checked.fitted
    if what.features.raw:
        return []
    names = what.feature_names
    looked = looks(checked)
    weights = dict(zip(names, getattr(fitted.model, "feature_importances_", np.zeros(len(names))),
                       strict=True))
    groups = {row.name: [f"{row.name}.{name}" for name in row.statistics]
              for row in what.features.rows}
    groups |= {f"*.{statistic}": [name for name in names if name.endswith(f".{statistic}")]
               for statistic in dict.fromkeys(name.rpartition(".")[2] for name in names)}
    whole = _pre_us(checked, set(names))
    found = [FeatureCost(group, tuple(those), whole - _pre_us(checked, set(names) - set(those)),
                         sum(looked[name] for name in those),
                         float(sum(weights[name] for name in those)))
             for group, those in groups.items()]
    return sorted(found, key=lambda one: -one.us)


def looks(checked: Checked) -> dict[str, int]:
    """Return how many comparisons look at each feature."""
    names = checked.what.feature_names
    counts = np.zeros(len(names), int)
    for tree in checked.fitted.forest.trees:
        counts += np.bincount(tree.feature[tree.left != LEAF], minlength=len(names))
    return dict(zip(names, counts.tolist(), strict=True))


def trees(checked: Checked) -> list[TreeCost]:
    """Return the trees in their order."""
    forest = checked.fitted.forest
    if len(forest.trees) < 2:
        return []
    nodes = [int((tree.left != LEAF).sum()) for tree in forest.trees]
    a_node = checked.sizes["forest"] / max(sum(nodes), 1)
    right = _right(checked, forest.trees)
    return [TreeCost(i, nodes[i], costs.longest_path(tree), a_node * nodes[i],
                     right - _right(checked, forest.trees[:i] + forest.trees[i + 1:]))
            for i, tree in enumerate(forest.trees)]


def _right(checked: Checked, trees: tuple) -> float:
    fitted = checked.fitted
    answers = replace(fitted.forest, trees=tuple(trees)).answer(fitted.x_train)
    return float((answers.chosen == fitted.train.y).mean())


def _pre_us(checked: Checked, names: set[str]) -> float:
    what = recipe.keep(checked.what, names)
    return checked.board.stage_us("pre", **costs.feature_work(what)) if names else 0.0


def remedies(checked: Checked) -> list[str]:
    """Return, for each line that is broken, what would have to go."""
    told = {"bytes": _fewer_bytes, "heap": _fewer_bytes, "heap_peak": _fewer_bytes,
            "instructions": _shorter_paths, "instructions_bound": _shorter_paths,
            "latency_us": _less_work, "latency_bound_us": _less_work,
            "energy_uj": _shorter_window, "awake_ms": _shorter_window,
            "life_days": _shorter_window}
    found = []
    for line in checked.lines:
        if not line.ok:
            sentence = told.get(line.name, _more_right)(checked, line)
            if sentence not in found:
                found.append(sentence)
    return found


def _fewer_bytes(checked: Checked, line: Line) -> str:
    excess = -(line.margin or 0)
    if excess >= checked.sizes["forest"]:
        return (f"{line.name}: without any model it would still be too much: "
                f"{checked.sizes['rest']:,} B are features, names and what MicroPython needs")
    if len(checked.fitted.forest.trees) < 2:
        return _smaller(checked, line)
    nodes = sum(tree.nodes for tree in trees(checked))
    each = checked.sizes["forest"] / nodes
    least = sorted(trees(checked), key=lambda tree: (tree.missed, -tree.bytes))
    gone, saved = [], 0.0
    for tree in least:
        if saved >= excess:
            break
        gone.append(tree.number)
        saved += tree.bytes
    which = ", ".join(map(str, sorted(gone)))
    return (f"{line.name}: a node takes {each:.1f} B, so {int(np.ceil(excess / each))} of {nodes} "
            f"nodes are too many: about as much as tree {which}, which "
            f"{'is' if len(gone) == 1 else 'are'} missed least; or a smaller depth, or leaves")


def _shorter_paths(checked: Checked, line: Line) -> str:
    longest = [tree.longest for tree in trees(checked)]
    if not longest:
        return _smaller(checked, line)
    share = (line.demanded or 0) / line.got
    return (f"{line.name}: {len(longest)} trees of at most {max(longest, default=0)} comparisons "
            f"each are about {100 * (1 - share):.0f} % too many: "
            f"{int(np.ceil(len(longest) * (1 - share)))} trees fewer, or less depth")


def _smaller(checked: Checked, line: Line) -> str:
    what = checked.what
    if what.estimator is None:
        return f"{line.name}: a smaller depth of its one tree, or fewer leaves"
    return (f"{line.name}: a smaller {what.estimator.kind}, or fewer features for it to look at: "
            "select in [estimator]")


def _less_work(checked: Checked, line: Line) -> str:
    """Drop signals and statistics, least importance for most time first, until the rest fits."""
    excess = -(line.margin or 0)
    what = checked.what
    left = set(what.feature_names)
    whole = _pre_us(checked, left)
    gone: list[str] = []
    for one in sorted(features(checked), key=lambda one: (one.importance + 1e-6) / one.us):
        if whole - _pre_us(checked, left) >= excess:
            break
        if left - set(one.features):
            left -= set(one.features)
            gone.append(one.name)
    saved = whole - _pre_us(checked, left)
    if saved < excess:
        return (f"{line.name}: no choice of its features is fast enough: features() is "
                f"{whole:.0f} µs of {line.got:.0f}; shorten the window of {what.signal.window} "
                "samples, or ask for fewer trees")
    return (f"{line.name}: {excess:.0f} µs too many; without {', '.join(gone)} features() takes "
            f"{saved:.0f} µs less, and a model trained without may miss them")


def _shorter_window(checked: Checked, line: Line) -> str:
    """Look for the longest window with which the line would be met."""
    what = checked.what
    for window in range(what.signal.window - 1, 1, -1):
        if _with_window(checked, what, window, line.name) >= 0:
            return (f"{line.name}: most of a wake is waiting for {what.signal.window} samples at "
                    f"{what.signal.rate_hz:g} Hz; with a window of {window} it would be met")
    return (f"{line.name}: no window is short enough; what the node takes asleep, to boot and to "
            "store is already too much for it on this board")


def _with_window(checked: Checked, what: Recipe, window: int, name: str) -> float:
    shorter = replace(what, signal=replace(what.signal, window=window))
    phases = costs.wake(checked.board, checked.battery, shorter, checked.fitted.forest)
    got = {"energy_uj": costs.wake_uj(phases), "awake_ms": costs.awake_ms(phases),
           "life_days": costs.life_days(checked.board, checked.battery, phases)}[name]
    line = next(line for line in checked.lines if line.name == name)
    return replace(line, got=got).margin or 0.0


def _more_right(checked: Checked, line: Line) -> str:
    where = f" of {line.where}" if line.where else ""
    return (f"{line.name}: nothing to take away will help; more recordings{where}, other features "
            f"or a larger forest may: outpost search {checked.what.name} --board "
            f"{checked.board.name} looks for one")
