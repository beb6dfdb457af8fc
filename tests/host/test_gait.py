"""Daphnet read, freezes made, episodes scored: what is an alarm, a false one, and how late."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outpost import build, contract, daphnet, data, events, recipe
from outpost.data import DataError, Recording, Windows
from outpost.recipe import Events, RecipeError

GAIT = recipe.load(recipe.find("gait"))


@pytest.fixture(scope="module")
def dataset():
    return data.load(GAIT)


# --- scores ---


def timeline(text, labels, window=4, hop=2, post=1):
    """Score answers and labels written as a character a sample: `.` walking, `F` a freeze."""
    what = replace(GAIT, signal=replace(GAIT.signal, rate_hz=2.0, window=window, hop=hop),
                   post=replace(GAIT.post, window=post), events=Events("freeze", 1.0))
    states = np.array([{".": "walk", "F": "freeze"}[one] for one in labels[:18]])
    one = Recording("r", "walk", np.zeros((len(states), 9), np.int16), 2.0, "r", labels=states)
    starts = np.arange(0, len(states) - window + 1, hop)
    answers = np.array([int(one == ".") for one in text[:len(starts)]])  # classes: freeze, walk
    found = Windows(np.zeros((len(starts), window, 9), np.int16), answers,
                    np.zeros(len(starts), int), starts)
    return events.score(what, ("freeze", "walk"), [one], found, answers)


def test_an_alarm_while_it_lasts_is_a_detection():
    # windows end at samples 4, 6, 8, …; the episode is samples 6 to 11, in s 3 to 6
    found = timeline("..F.....", "......FFFFFF........")
    assert (found.episodes, found.detected, found.false_alarms) == (1, 1, 0)
    assert found.delays_s == (1.0,)  # the third window ends at sample 8, 4 s


def test_too_early_is_a_false_alarm_and_too_late_as_well():
    early = timeline("F.......", "......FFFFFF........")  # ends at 2 s, before the onset
    late = timeline(".......F", "......FFFF..........")  # ends at 9 s; 6 s would do
    for found in (early, late):
        assert (found.detected, found.false_alarms, found.share) == (0, 1, 0.0)
        assert found.delay_s == float("inf")
    tolerated = timeline("....F...", "......FFFF..........")  # ends at 6 s: just soon enough
    assert (tolerated.detected, tolerated.false_alarms) == (1, 0)


def test_one_alarm_however_long_it_sounds():
    found = timeline("FFF..FF.", "....................")
    assert (found.episodes, found.false_alarms, found.hours) == (0, 2, 9 / 3600)
    assert found.per_hour == pytest.approx(800)
    low, high = found.per_hour_interval()
    assert low == pytest.approx(800 / 2 * 0.2422, rel=1e-3) and high > 2000  # Poisson, two seen


def test_smoothing_is_the_nodes_own():
    """A majority of three waits for a second window, and outlasts a single one."""
    assert timeline("..F.....", "......FFFFFF........", post=3).detected == 0
    found = timeline("..FFF...", "......FFFFFF........", post=3)
    assert found.detected == 1 and found.delays_s == (2.0,)


@given(st.lists(st.booleans(), max_size=40))
def test_stretches_are_the_runs(flags):
    found = events.stretches(np.array(flags, bool))
    rebuilt = np.zeros(len(flags), bool)
    for first, last in found:
        assert last > first
        rebuilt[first:last] = True
    assert rebuilt.tolist() == flags
    assert all(a[1] < b[0] for a, b in zip(found, found[1:], strict=False))


# --- recordings ---


def test_blocks_of_walking_with_a_freeze_in_each(dataset):
    every = [*dataset.train, *dataset.test]
    assert len(every) == 10 and dataset.classes == ("freeze", "walk")
    assert not {one.group for one in dataset.train} & {one.group for one in dataset.test}
    for one in every:
        assert len(one.samples) == len(one.labels) == 176  # 11 s at 16 Hz
        ((first, last),) = events.stretches(one.labels == "freeze")
        assert 2 * 16 - 1 <= last - first <= 5 * 16 + 1


def test_a_window_is_of_the_class_of_most_of_its_samples(dataset):
    cut = data.windows(dataset.train, dataset.classes, 20, 5)
    for i in range(0, len(cut.y), 7):
        one = dataset.train[cut.recording[i]]
        inside = one.labels[cut.start[i]:cut.start[i] + 20] == "freeze"
        np.testing.assert_array_equal(cut.x[i], one.samples[cut.start[i]:cut.start[i] + 20])
        if inside.sum() != 10:
            assert (dataset.classes[cut.y[i]] == "freeze") == (inside.sum() > 10)


def test_what_is_made_is_a_freeze_by_its_definition():
    """Less power where steps are, more where legs tremble; the rest of the block untouched."""
    rng = np.random.default_rng(0)
    time_s = np.arange(704) / 64
    walking = (900 + 400 * np.sin(2 * np.pi * 1.5 * time_s) + 60 * np.sin(2 * np.pi * 5 * time_s)
               )[:, None] * np.ones((1, 9))
    made, labels = daphnet.with_freeze(walking, rng)
    ((first, last),) = events.stretches(labels == "freeze")
    np.testing.assert_allclose(made[:first - 16], walking[:first - 16])

    def index(part):
        power = np.abs(np.fft.rfft(part[:, 0] - part[:, 0].mean())) ** 2
        hz = np.fft.rfftfreq(len(part), 1 / 64)
        return (power[(hz >= 3) & (hz < 8)].sum() / power[(hz >= 0.5) & (hz < 3)].sum())

    assert index(made[first + 16:last - 16]) > 5 * index(walking[first + 16:last - 16])


def published(folder, people=4, bad=None):
    """Write files as the data set has them."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(1)
    for person in range(1, people + 1):
        lines = []
        for i in range(900):
            state = 0 if i < 60 or 500 <= i < 520 else 2 if 200 <= i < 380 else 1
            swing = 30 if state == 2 else 400
            values = " ".join(str(int(v)) for v in 900 + swing * rng.standard_normal(9))
            lines.append(f"{i * 1000 // 64} {values} {state}")
        if bad and person == 2:
            lines[99] = bad
        (folder / f"S{person:02}R01.txt").write_text("\n".join(lines) + "\n")


def test_the_published_files_are_split_by_person(tmp_path):
    published(tmp_path / "dataset")
    what = replace(GAIT, data=replace(GAIT.data, source="uci:Daphnet", path=tmp_path / "dataset"))
    found = data.load(what)
    every = [*found.train, *found.test]
    assert len(every) == 8  # what is not part of the experiment cuts each file in two
    people = {part: {one.group for one in getattr(found, part)} for part in ("train", "test")}
    assert people["train"] | people["test"] == {"S01", "S02", "S03", "S04"}
    assert not people["train"] & people["test"]
    assert found.classes == ("freeze", "walk")
    assert {name for name, _ in data.fingerprint(what)} == {f"S{i:02}R01.txt" for i in range(1, 5)}


@pytest.mark.parametrize(("bad", "words"), [
    ("1000 1 2 3 1", "S02R01.txt line 100: 5 numbers"),
    ("1000 1 2 3 4 5 6 7 8 9 7", "line 100: 11 numbers, the last 7"),
    ("1000 1 2 x 4 5 6 7 8 9 1", "line 100: invalid literal")])
def test_damaged_files_are_named(bad, words, tmp_path):
    published(tmp_path, bad=bad)
    with pytest.raises(DataError, match=words):
        list(daphnet.published(tmp_path))


def test_an_empty_folder_says_where_the_files_come_from(tmp_path):
    with pytest.raises(DataError, match="no S01R01.txt or the like.*UCI Machine Learning"):
        list(daphnet.published(tmp_path))


# --- recipe and contract ---


@pytest.mark.parametrize(("old", "new", "error", "words"), [
    ('class = "freeze"', 'class = "fall"', DataError, "class is 'fall'; the recordings have"),
    ("tolerance_s = 1.0", "tolerance_s = -1", RecipeError, "tolerance_s: is -1"),
    ('"aeon:Daphnet"', '"uci:Daphnet"', RecipeError, "path: is missing: the folder with S01R01"),
    ("rate_hz = 16.0 ", "", RecipeError, "no rate_hz")])
def test_refusals(old, new, error, words, tmp_path):
    file = tmp_path / "model.toml"
    file.write_text(recipe.find("gait").read_text().replace(old, new))
    with pytest.raises(error, match=words):
        data.load(recipe.load(file))


def test_gait_keeps_its_contract_and_every_event_line_can_be_missed():
    fitted = build.fit(GAIT)
    answers = fitted.forest.answer(fitted.x_test).chosen
    lines = {line.name: line for line in contract.of_build(
        GAIT, fitted.dataset, answers, fitted.test, {"armv6m": 4013})}
    assert all(line.ok for line in lines.values())
    assert {"detected", "false_alarms_per_hour", "delay_s"} <= set(lines)
    assert lines["detected"].low < lines["detected"].got <= lines["detected"].high
    walk = np.full_like(answers, fitted.dataset.classes.index("walk"))
    missed = [line.name for line in contract.of_events(
        GAIT, fitted.dataset.classes, fitted.dataset.test, walk, fitted.test) if not line.ok]
    assert missed == ["detected", "delay_s"]
    jumpy = np.arange(len(answers)) // 4 % 2
    missed = [line.broken for line in contract.of_events(
        GAIT, fitted.dataset.classes, fitted.dataset.test, jumpy, fitted.test) if not line.ok]
    assert any(sentence.startswith("false_alarms_per_hour: ") for sentence in missed)
