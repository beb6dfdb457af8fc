"""What a prediction takes, by [costs.infer]: near what is measured, never less at its worst."""

import numpy as np
import pytest
from machines import MACHINES  # noqa: F401  # tests/host on the path
from sklearn.datasets import load_digits
from test_every_kind import KINDS, quantised, raw

from outpost import boards, convert, costs, firmware, measure, train
from outpost import build as builds
from outpost.compile import compile_module
from outpost.link import link
from outpost.paths import NATIVE

FORMS = [(vote, form, early) for vote in ("hard", "soft") for form in ("fast", "compact")
         for early in (False, True)]
NEAR, NEAR_US = 0.2, 1.0  # as far as the model may be from the emulated RP2040
SLACK = 0.05  # of what it says is the worst


def module(recipe, model, folder):
    convert.emit(recipe, model, folder)
    obj = compile_module([NATIVE / "module.c"], [folder, NATIVE], "armv6m", folder / "t.o")
    return link(obj, "armv6m", "table")


def forest(vote, form, early, x, y):
    recipe = raw(x.shape[1], vote=vote, form=form, early_exit=early)
    return recipe, train.fit(recipe.forest, x, y)


def subjects():
    """Yield (words, recipe, model, features): every kind, and forests in every form."""
    x, y = quantised("wine")
    for kind, fit in KINDS.items():
        yield kind, raw(x.shape[1]), fit(x.astype(float), y), x
    digits, label = load_digits(return_X_y=True)
    for number, way in enumerate(FORMS):
        some = (x, y) if number % 3 == 0 else (digits.astype(np.int16), label)
        yield " ".join(map(str, way)), *forest(*way, *some), some[0]


def rows_of(declared, x):
    """Return a few rows of the data, a long one, and wild ones."""
    wild = np.random.default_rng(3).integers(-32768, 32768, (3, x.shape[1])).astype(np.int16)
    order = np.argsort(costs.path_lengths(declared, x), kind="stable")
    return x[order[[0, len(x) // 2, -1]]], np.concatenate(
        [[costs.longest_window(declared, x)], wild])


@pytest.fixture(scope="module")
def pico():
    if not measure.Pico.present():
        built = builds.build("motion", (builds.HOST, "armv6m"))
        firmware.build([built.folder])
    with measure.Pico() as machine:
        yield machine


@pytest.fixture(scope="module")
def counter():
    with measure.Counter("armv6m") as machine:
        yield machine


@pytest.mark.parametrize("subject", list(subjects()), ids=lambda subject: subject[0])
def test_the_worst_is_known(subject, pico, counter, tmp_path):
    _, recipe, model, x = subject
    board = boards.load("rp2040")
    declared = convert.declare(recipe, model)
    seen, others = rows_of(declared, x)
    content = module(recipe, model, tmp_path)

    def us(rows=None):
        return board.stage_us("infer", **costs.infer_work(recipe, declared, rows))

    pico.load(content)
    every = np.concatenate([seen, others])
    times = pico.predict(every)[0]
    said = np.array([us(row[None]) for row in every])
    np.testing.assert_allclose(said, times, rtol=NEAR, atol=NEAR_US)
    assert times.max() <= us() * (1 + SLACK)

    counter.load(content)  # instructions: the worst from a few windows, as `outpost check` does
    counts, more = (counter.predict(rows)[0] for rows in (seen, others))
    assert more.max() <= counts.max() * us() / us(seen) * (1 + SLACK)
