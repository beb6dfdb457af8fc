"""Trees to C: emlearn's nodes and leaves, made smaller, in a fast form or a compact one.

Equal subtrees of a tree are merged, and comparisons that decide nothing are dropped. The fast form
is code, an `if` a node; the compact one a table with a word a node, and a loop over it. Both add
up what the leaves say as firmware/native/votes.h does. Why, and what they cost: docs/models.md.
"""

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np

from outpost.carray import constants, rows
from outpost.errors import OutpostError
from outpost.reference import Forest, tree_thresholds, value_scale
from outpost.scale import unfold

NEVER, ALWAYS = -32768, 32768  # thresholds that no int16, or every one, is below

Node = tuple[int, int, int, int]  # feature, threshold, left, right; a child < 0 is leaf ~child

_FAST = """\
{head}#define OUTPOST_LEAST_THRESHOLD {least}
#include "trees.h"
#include "votes.h"

{functions}

static int32_t outpost_predict(const int16_t *features, uint8_t *votes)
{{
    OUTPOST_LOOK(features)
    struct outpost_count count;
    outpost_begin(&count, votes);
    (void)({votes});
    return outpost_end(&count, votes);
}}
"""

_COMPACT = """\
{head}#define OUTPOST_COMPACT 1
#define OUTPOST_LEAVES {leaves}
#define OUTPOST_CHILD_BITS {child}
#define OUTPOST_FEATURE_BITS {feature}
#define OUTPOST_THRESHOLD_BITS {threshold}
typedef uint{word}_t outpost_node_t;
static const outpost_node_t outpost_nodes[] = {{
{nodes}
}};
static const uint16_t outpost_sizes[] = {{
{sizes}
}};
#include "votes.h"
#include "nodes.h"
"""


class TreeError(OutpostError):
    """Trees that are too many or too large for the form they shall have."""


@dataclass(frozen=True)
class Trees:
    """What emlearn makes of a forest, merged: the nodes of each tree, its root first.

    `leaves` are what all trees' leaves refer to: a class, `classes` bytes of points, or a value.
    """

    trees: list[list[Node]]
    leaves: list[Any]
    features: int

    @property
    def nodes(self) -> int:
        """How many comparisons all trees have."""
        return sum(map(len, self.trees))


def read(model: Any, forest: Forest) -> Trees:
    """Return the trees of a fitted scikit-learn model, as emlearn has them.

    emlearn writes thresholds as truncated integers and compares with <, scikit-learn with <=; so
    each is replaced by floor(t) + 1 in a copy first.
    """
    from outpost import eml

    lines, last = unfold(model)
    last = copy.deepcopy(last)
    estimators = list(getattr(last, "estimators_", [last]))
    for estimator in estimators:
        threshold = estimator.tree_.threshold
        inner = estimator.tree_.children_left != -1
        threshold[inner] = tree_thresholds(lines, estimator.tree_)[inner]
    nodes, roots, leaves = eml.convert(last, method="inline", dtype="int16_t",
                                       leaf_bits=8 if forest.soft else None).forest_
    nodes = [[int(lines.columns[feature]), *rest] for feature, *rest in nodes]
    if forest.soft:
        leaves = [tuple(map(int, leaf)) for leaf in leaves]
    elif not forest.classes:
        scale = value_scale(estimators)
        leaves = [int(np.rint(leaf * scale)) for leaf in leaves]
    return Trees([_merged(nodes, root) for root in roots], leaves,
                 int(lines.columns.max()) + 1)


def _merged(nodes: list[list[Any]], root: int) -> list[Node]:
    """Return the nodes reached from `root`, equal ones once, children after their parents."""
    merged: list[Node] = []
    known: dict[Node, int] = {}

    def visit(at: int) -> int:
        if at < 0:
            return at
        feature, threshold, left, right = nodes[at]
        if threshold == ALWAYS:
            return visit(left)
        if threshold == NEVER:
            return visit(right)
        left, right = visit(left), visit(right)
        if left == right:
            return left
        node = (int(feature), int(threshold), left, right)
        if node not in known:
            known[node] = len(merged)
            merged.append(node)
        return known[node]

    first = visit(root)
    if first < 0:  # a table needs a node to start at
        return [(0, 0, first, first)]
    last = len(merged) - 1
    return [(feature, threshold, *(last - child if child >= 0 else child for child in children))
            for feature, threshold, *children in reversed(merged)]


def to_c(model: Any, forest: Forest, form: str) -> str:
    """Return C with `outpost_predict` for a fitted model that `forest` is the reference of.

    Raises TreeError when a leaf list or a node does not fit.
    """
    trees = read(model, forest)
    return _fast(trees, forest) if form == "fast" else _compact(trees, forest)


def _head(forest: Forest, leaves: list[Any]) -> tuple[str, list[int]]:
    """Return the lines both forms begin with, and what stands for each leaf in them."""
    if not forest.classes:
        return "#define OUTPOST_VOTE OUTPOST_SUM\n", leaves
    early = f"#define OUTPOST_EARLY_EXIT {int(forest.early_exit)}\n"
    if not forest.soft:
        return f"#define OUTPOST_VOTE OUTPOST_HARD\n{early}", [int(leaf) for leaf in leaves]
    entries: list[int] = []
    places = []
    for leaf in leaves:
        places.append(len(entries))
        entries += [number << 8 | points for number, points in enumerate(leaf) if points]
        entries[-1] |= 0x8000
    return (f"#define OUTPOST_VOTE OUTPOST_SOFT\n{early}"
            f"#define OUTPOST_POINTS_SHIFT {forest.shift}\n"
            + constants("outpost_leaves", entries, "uint16_t", ""), places)


def _fast(trees: Trees, forest: Forest) -> str:
    head, leaves = _head(forest, trees.leaves)
    functions = [
        f"OUTPOST_INLINE int32_t outpost_tree_{i}(OUTPOST_AT)\n{{\n{_ifs(tree, leaves)}\n}}"
        for i, tree in enumerate(trees.trees)]
    votes = " ||\n           ".join(
        f"outpost_vote(&count, votes, outpost_tree_{i}(OUTPOST_HERE), {i + 1})"
        for i in range(len(trees.trees)))
    least = min(threshold for tree in trees.trees for _, threshold, _, _ in tree)
    return _FAST.format(head=head, least=least, functions="\n\n".join(functions), votes=votes)


def _ifs(tree: list[Node], leaves: list[int]) -> str:
    """Return a tree as nested ifs; a subtree that several lead to is jumped to."""
    parents = [0] * len(tree)
    for *_, left, right in tree:
        for child in {left, right}:
            if child >= 0:
                parents[child] += 1
    written: set[int] = set()
    lines: list[str] = []

    def write(at: int, depth: int) -> None:
        pad = "    " * min(depth, 6)
        if at < 0:
            lines.append(f"{pad}return {leaves[~at]};")
        elif at in written:
            lines.append(f"{pad}goto node_{at};")
        else:
            written.add(at)
            feature, threshold, left, right = tree[at]
            if parents[at] > 1:
                lines.append(f"node_{at}:")
            lines.append(f"{pad}if (OUTPOST_BELOW({feature}, {threshold})) {{")
            write(left, depth + 1)
            lines.append(f"{pad}}}")
            write(right, depth)

    write(0, 1)
    return "\n".join(lines)


def _compact(trees: Trees, forest: Forest) -> str:
    head, leaves = _head(forest, trees.leaves)
    if not forest.classes:
        head += constants("outpost_values", leaves, "int16_t", "")
        leaves = list(range(len(leaves)))
    first_node = max(leaves) + 1
    longest = max(map(len, trees.trees))
    child = (first_node + longest - 1).bit_length()
    feature = max((trees.features - 1).bit_length(), 1)
    thresholds = [node[1] for tree in trees.trees for node in tree]
    threshold = max(max(t if t >= 0 else ~t for t in thresholds).bit_length() + 1, 2)
    word = 32 if 2 * child + feature + threshold <= 32 else 64
    if child > 16:
        raise TreeError(f"a tree of {longest} nodes and {first_node} leaf entries is too large "
                        "for the compact form; limit depth or leaves in [forest], or use "
                        'form = "fast"')

    def code(to: int) -> int:
        return leaves[~to] if to < 0 else first_node + to

    words = [(limit % (1 << threshold)) << (word - threshold) | index << 2 * child
             | code(right) << child | code(left)
             for tree in trees.trees for index, limit, left, right in tree]
    return _COMPACT.format(
        head=head, leaves=first_node, child=child, feature=feature, threshold=threshold, word=word,
        nodes=_table(words, hexadecimal=True), sizes=_table([len(tree) for tree in trees.trees]))


def _table(numbers: list[int], hexadecimal: bool = False) -> str:
    """Return `numbers` as the rows of a C array."""
    texts = [f"{number:#x}u" if hexadecimal else str(number) for number in numbers]
    if hexadecimal and max(numbers) >> 32:
        texts = [f"{text}ll" for text in texts]
    return rows(texts)
