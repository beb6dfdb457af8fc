"""What forests are held to on emulated machines: five seeds everywhere, instructions on an M0."""

import sys

import numpy as np
import pytest
from machines import MACHINES

from outpost import convert, measure
from outpost.compile import compile_module
from outpost.link import link
from outpost.paths import NATIVE, ROOT

sys.path.append(str(ROOT / "tests/host"))
from converted import five_forests, raw, shipped  # noqa: E402


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("vote", ["hard", "soft"])
def test_digits_over_five_seeds(machine, vote, tmp_path):
    """All held-out images of five forests: no disagreement with the integer reference."""
    arch, answer = MACHINES[machine]
    for number, (model, x, _) in enumerate(five_forests()):
        recipe = raw(64, vote=vote, form="compact" if number % 2 else "fast")
        convert.emit(recipe, model, tmp_path)
        obj = compile_module([NATIVE / "module.c"], [tmp_path, NATIVE], arch, tmp_path / "t.o")
        rows = [(row, np.zeros(10, np.uint8)) for row in x.astype(np.int16)]
        answers = answer("table", link(obj, arch, "table"), "predict", rows, tmp_path)
        expected = convert.declare(recipe, model).answer(x)
        np.testing.assert_array_equal([after[1] for _, after in answers], expected.votes)
        np.testing.assert_array_equal([one for one, _ in answers], expected.chosen)


@pytest.mark.parametrize(("form", "mean", "worst"), [("fast", 450, 500), ("compact", 1500, 1500)])
def test_instructions_of_digits(form, mean, worst, tmp_path):
    """The call from Python less an empty one, on 60 held-out images."""
    what, fitted = shipped("digits", form=form)
    convert.emit(what, fitted.model, tmp_path)
    obj = compile_module([NATIVE / "module.c"], [tmp_path, NATIVE], "armv6m", tmp_path / "d.o")
    with measure.Counter("armv6m") as counter:
        counter.load(link(obj, "armv6m", "digits"))
        counts, chosen, _ = counter.predict(fitted.x_test[:60])
    assert (chosen == fitted.forest.answer(fitted.x_test[:60]).chosen).all()
    assert counts.mean() <= mean and counts.max() <= worst
