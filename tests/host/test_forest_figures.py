"""What forests are held to on the host: accuracy of both votes, and bytes on a Cortex-M0+."""

from dataclasses import replace

import numpy as np
import pytest
from converted import agree, five_forests, raw, shipped
from sklearn.model_selection import StratifiedGroupKFold

from outpost import build, convert, data, features, recipe, reference, train, trees
from outpost.recipe import Forest


@pytest.mark.parametrize(("vote", "least"), [("hard", 0.934), ("soft", 0.940)])
def test_digits_over_five_seeds(vote, least):
    right = []
    for model, x, y in five_forests():
        found = agree(raw(64, vote=vote, form="compact"), model, x)
        right.append((found.chosen == y).mean())
    assert np.mean(right) >= least


@pytest.mark.parametrize(("form", "most"), [("compact", 5632), ("fast", 9500)])
def test_digits_on_a_cortex_m0(form, most, tmp_path):
    """93 % in 5.5 KB, all of the module included, or fast in 9.5."""
    what, fitted = shipped("digits", form=form)
    convert.emit(what, fitted.model, tmp_path)
    module = build.make_module(what, "armv6m", tmp_path)
    answers = convert.declare(what, fitted.model).answer(fitted.x_test)
    assert module["bytes"] <= most
    assert (answers.chosen == fitted.test.y).mean() >= 0.93


def test_motion_in_300_bytes():
    """15 trees of five leaves: 99 % over ten times five folds of the training recordings."""
    what = recipe.load(recipe.find("motion"))
    limits = Forest(15, None, 5, 1, 1, form="compact")
    dataset = data.load(what)
    seen = data.windows(dataset.train, dataset.classes, what.signal.window, what.signal.hop)
    x, y = features.compute(what, seen.x), seen.y
    model = train.fit(limits, x, y)
    nodes = trees.read(model, reference.from_sklearn(model)).nodes
    assert 4 * nodes + 2 * limits.trees <= 300  # a word a node, and how many each tree has
    code = convert.to_c(replace(what, forest=limits), model)["model.c"]
    assert "uint32_t outpost_node_t" in code

    right = []
    for repeat in range(10):
        folds = StratifiedGroupKFold(5, shuffle=True, random_state=repeat)
        for fit, held in folds.split(x, y, seen.recording):
            model = train.fit(replace(limits, seed=repeat), x[fit], y[fit])
            answers = reference.from_sklearn(model).answer(x[held])
            right.append((answers.chosen == y[held]).mean())
    assert np.mean(right) >= 0.99
