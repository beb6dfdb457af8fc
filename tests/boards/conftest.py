"""Models as tests on emulated machines need them."""

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """Return what `model(name)` gives: C in `folder`, windows, and what the reference says.

    Further arguments replace those of [forest].
    """
    made = {}

    def make(name, **forest):
        key = (name, *forest.items())
        if key not in made:
            made[key] = _make(name, tmp_path_factory.mktemp(name), forest)
        return made[key]

    return make


def _make(name, folder, other):
    from outpost import convert, data, features, recipe, train

    what = recipe.load(recipe.find(name))
    what = replace(what, forest=replace(what.forest, **other))
    dataset = data.load(what)
    signal = what.signal
    train_set, test_set = (data.windows(part, dataset.classes, signal.window, signal.hop)
                           for part in (dataset.train, dataset.test))
    forest = train.model(what, dataset.classes, features.compute(what, train_set.x), train_set.y)
    convert.emit(what, forest, folder)
    return SimpleNamespace(
        name=name, folder=folder, windows=test_set.x, more_windows=train_set.x,
        features=lambda windows: features.compute(what, windows),
        answer=convert.declare(what, forest).answer)
