"""How many bytes a module will have, before it is compiled: a model fitted to a few that were.

The modules it is fitted to are compiled once for an architecture; their sizes are kept in the
cache, by the hash of the C and of what writes it, so the model follows the code generator.
"""

import functools
import hashlib
import json
import tempfile
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from outpost import cache, compile, convert, costs, link, profile, reference, train, trees
from outpost.console import steps
from outpost.paths import NATIVE
from outpost.recipe import FORMS, STATISTICS, VOTES, FeatureRow, Features, Forest, Recipe
from outpost.reference import LEAF

SUBJECTS = 36
ROWS = 300  # of noise, to grow trees on


@dataclass(frozen=True)
class Sizes:
    """Bytes by what there is of a model; `error` is the median of |model / compiled - 1|."""

    bytes: dict[str, float]
    error: float
    worst: float

    def module(self, recipe: Recipe, forest: reference.Forest) -> float:
        """Return the bytes of a model's module."""
        return sum(self.bytes.get(name, 0.0) * count
                   for name, count in parts(recipe, forest).items())


def parts(recipe: Recipe, forest: reference.Forest) -> Counter[str]:
    """Return what a module is made of: the code of each statistic once, rows, trees and nodes."""
    form = recipe.forest.form
    found = Counter({"module": 1, form: 1, f"tree {form}": len(forest.trees),
                     f"node {form}": forest.nodes})
    if forest.soft:  # a leaf's points are kept once for all leaves that have the same
        leaves = np.unique(np.concatenate([tree.said[tree.left == LEAF] for tree in forest.trees]),
                           axis=0)
        found.update({"soft": 1, "points": int((leaves > 0).sum())})
    if not recipe.features.raw:
        work = costs.feature_work(recipe)
        found["row"] = work["row"]
        found.update(name for name in ("vector", "bound", "centred", "root", "division")
                     if work[name])
        found.update({name for row in recipe.features.rows for name in row.statistics})
    return found


@functools.cache
def fitted(arch: str) -> Sizes:
    """Return the model for an architecture; compiles a few modules the first time."""
    sources = [*sorted(path for path in NATIVE.rglob("*") if path.is_file()),
               *(Path(module.__file__) for module in (convert, trees, train, compile, link))]
    key = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]

    def make(folder: Path) -> None:
        (folder / "sizes.json").write_text(json.dumps(_compile_all(arch)))

    folder = cache.item(f"sizes/{arch}-{key}", make)
    return fit([(Counter(found), size)
                for found, size in json.loads((folder / "sizes.json").read_text())])


def fit(subjects: list[tuple[Counter[str], int]]) -> Sizes:
    """Fit bytes to compiled modules; the error is of each by a fit to the others."""
    from scipy.optimize import nnls

    names = sorted({name for found, _ in subjects for name in found})
    table = np.array([[found[name] for name in names] for found, _ in subjects], float)
    sizes = np.array([size for _, size in subjects], float)
    errors = []
    for i in range(len(subjects)):
        others = np.arange(len(subjects)) != i
        found, _ = nnls(table[others] / sizes[others, None], np.ones(others.sum()))
        errors.append(abs(float(table[i] @ found) / sizes[i] - 1))
    found, _ = nnls(table / sizes[:, None], np.ones(len(sizes)))
    return Sizes(dict(zip(names, found.tolist(), strict=True)), float(np.median(errors)),
                 float(max(errors)))


def _compile_all(arch: str) -> list[tuple[dict[str, int], int]]:
    """Compile modules of all sorts; return what each is made of, and its bytes."""
    rng = np.random.default_rng(7)
    subjects = []
    with steps(f"sizes of modules for {arch}", SUBJECTS) as step, \
            tempfile.TemporaryDirectory(prefix="outpost-sizes-") as scratch:
        for number in range(SUBJECTS):
            step(f"{number + 1} of {SUBJECTS}")
            what = _some_recipe(rng)
            width = len(what.feature_names)
            x = rng.integers(-8000, 8000, (ROWS, width)).astype(np.int16)
            y = rng.integers(0, 4, ROWS) if number % 2 else (x[:, 0] > 0) + 2 * (x[:, -1] > 0)
            forest = train.fit(what.forest, x, y)
            convert.emit(what, forest, Path(scratch))
            obj = compile.compile_module([NATIVE / "module.c"], [Path(scratch), NATIVE], arch,
                                         Path(scratch) / "module.o")
            subjects.append((dict(parts(what, convert.declare(what, forest))),
                             len(link.link(obj, arch, what.name))))
    return subjects


def _some_recipe(rng: np.random.Generator) -> Recipe:
    """Return a recipe with features and forest drawn by lot."""
    base = profile.recipe_of({**profile.DEFAULTS, "features": 9 * 6,
                              "window": int(rng.choice((50, 64)))})
    some = rng.permutation(STATISTICS)[:rng.integers(1, 5)]
    wanted = tuple(sorted(some, key=STATISTICS.index))
    rows = [FeatureRow(name, i, 1, wanted)
            for i, name in enumerate(base.signal.names[:rng.integers(1, 7)])]
    if rng.random() < 0.4:
        rows.append(FeatureRow("all", 0, 3, wanted[:1]))
    return replace(base, features=Features(False, tuple(rows)),
                   forest=Forest(int(rng.choice((1, 3, 8, 16))), int(rng.choice((2, 3, 5, 8))),
                                 None, 1, int(rng.integers(1000)), str(rng.choice(VOTES)),
                                 False, str(rng.choice(FORMS))))
