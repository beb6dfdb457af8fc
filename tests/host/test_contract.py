"""The contract: intervals by recording, lines and their sentences, every demand refused once."""

import json
import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats
from typer.testing import CliRunner

from outpost import boards, build, check, contract, explain, measure, recipe
from outpost.cli import app
from outpost.contract import Line
from outpost.data import Windows

IMPOSSIBLE = {"accuracy": 1.0, "worst_class": 1.0, "bytes": 100, "latency_us": 20,
              "awake_ms": 100, "energy_uj": 1000, "life_days": 100_000}


def windows(y, recording):
    return Windows(np.zeros((len(y), 2, 1), np.int16), np.array(y), np.array(recording),
                   np.zeros(len(y), int))


# --- intervals ---


def test_windows_that_are_recordings_give_the_exact_interval():
    right = np.arange(200) >= 12
    low, high = contract.interval(right, np.arange(200))
    exact = stats.binomtest(188, 200).proportion_ci(0.95, "exact")
    assert (low, high) == pytest.approx((exact.low, exact.high), abs=0.003)


def test_all_right_is_worth_as_much_as_there_are_recordings():
    low, high = contract.interval(np.ones(120, bool), np.arange(120) // 3)
    assert high == 1 and low == pytest.approx(0.025 ** (1 / 40), abs=0.004)
    low, high = contract.interval(np.zeros(120, bool), np.arange(120) // 3)
    assert low == 0 and high < 0.1


def test_one_recording_tells_nothing():
    assert contract.interval(np.arange(50) > 3, np.zeros(50, int)) == (0.0, 1.0)


def test_recordings_that_are_right_or_wrong_as_a_whole_widen_it():
    recording = np.arange(300) // 10
    whole = recording % 10 > 0  # three recordings of thirty are wrong
    spread = np.arange(300) % 10 > 0  # one window of each is
    assert whole.mean() == spread.mean() == 0.9
    narrow, wide = (contract.interval(right, recording) for right in (spread, whole))
    assert wide[0] < narrow[0] < 0.9 < narrow[1] < wide[1]


def test_the_interval_holds_what_it_promises():
    """Recordings differ (beta), windows of one are alike: 95 % of intervals cover the truth."""
    rng = np.random.default_rng(5)
    recording = np.repeat(np.arange(30), 8)
    covered = 0
    for _ in range(400):
        each = rng.beta(8, 2, 30)  # 80 % on average
        right = rng.random(240) < each[recording]
        low, high = contract.interval(right, recording)
        covered += low <= 0.8 <= high
    assert covered / 400 >= 0.93


def test_shares():
    found = windows([0, 0, 1, 1, 1, 1], [0, 0, 1, 1, 2, 2])
    answers = np.array([0, 0, 1, 0, 1, 1])
    assert contract.accuracy(answers, found).value == pytest.approx(5 / 6)
    worst = contract.worst_class(answers, found, ("still", "moving", "never seen"))
    assert (worst.of, worst.value, worst.windows, worst.recordings) == ("moving", 0.75, 4, 2)


# --- lines ---


def test_whatever_can_be_demanded_has_a_line():
    assert set(recipe.CONTRACT_KEYS) <= set(contract.TERMS)


@pytest.mark.parametrize(("line", "margin", "told"), [
    (Line("accuracy", 0.9, 0.95, "", ""), 0.05, None),
    (Line("accuracy", 0.9, 0.875, "", ""), -0.025,
     "accuracy: 87.50 % where the contract demands 90.00 %, 2.50 points too few"),
    (Line("bytes", 1000, 1300, "", "", where="on armv6m"), -300,
     "bytes: 1,300 B (on armv6m) where the contract allows 1,000 B, 300 B too many"),
    (Line("life_days", 365, 93.4, "", ""), -271.6,
     "life_days: 93.4 days where the contract demands 365 days, 271.6 days too few"),
    (Line("heap", None, 1e9, "", ""), None, None)])
def test_a_line_says_by_how_much(line, margin, told):
    assert line.margin == (margin if margin is None else pytest.approx(margin))
    assert line.ok == (told is None)
    if told:
        assert line.broken == told


def test_a_demand_may_depend_on_the_architecture():
    digits = recipe.load(recipe.find("digits"))
    assert contract.demand(digits, "bytes", "armv6m") == 12000
    assert contract.demand(digits, "bytes", "xtensawin") is None
    assert contract.of_bytes(digits, "xtensawin", 10**6).ok


# --- check, from recordings to lines ---


@pytest.fixture
def nothing_to_measure_on(monkeypatch):
    """No emulated machine, so that these tests need none; tests/boards measures."""
    monkeypatch.setattr(measure.Pico, "present", staticmethod(lambda: False))
    monkeypatch.setattr(measure.Counter, "present", staticmethod(lambda arch: False))


def demanding(folder, contract):
    """Write motion's model.toml with another contract."""
    text = recipe.find("motion").read_text()
    lines = "".join(f"{key} = {value}\n" for key, value in contract.items())
    file = folder / "model.toml"
    file.write_text(re.sub(r"\[contract\].*", f"[contract]\n{lines}", text, flags=re.S))
    return file


def test_motion_keeps_its_contract(nothing_to_measure_on):
    found = check.check("motion", "rp2040")
    lines = {line.name: line for line in found.lines}
    assert found.ok and not explain.remedies(found)
    assert lines["accuracy"].got == pytest.approx(119 / 120)
    assert lines["accuracy"].low < 0.975 < lines["accuracy"].got < lines["accuracy"].high
    assert lines["bytes"].got < 3072 and lines["bytes"].where == "on armv6m"
    assert {"latency_bound_us", "awake_ms", "energy_uj", "life_days"} <= set(lines)
    assert {line.kind for line in found.lines} == {contract.HERE, contract.MODELLED}
    features = explain.features(found)
    assert {one.name for one in features} == {
        "*.mad", "*.crossings", *found.what.signal.names}
    assert sum(one.importance for one in features) == pytest.approx(2)  # by signal, by statistic
    assert all(one.us > 0 for one in features)
    trees = explain.trees(found)
    assert len(trees) == 10 and sum(tree.nodes for tree in trees) == sum(
        explain.looks(found).values())


def test_every_demand_can_be_refused(nothing_to_measure_on, tmp_path):
    """Each line that is missed is named, with what would have to go; the command fails."""
    file = demanding(tmp_path, IMPOSSIBLE)
    run = CliRunner().invoke(app, ["check", str(file), "--board", "rp2040", "--json"])
    assert isinstance(run.exception, check.CheckError)
    told = json.loads(run.stdout.splitlines()[-1])
    missed = {line["name"] for line in told["lines"] if not line["ok"]}
    assert missed == {*IMPOSSIBLE, "latency_bound_us"} - {"latency_us"} and told["ok"] is False
    for line in told["lines"]:
        assert set(line) >= {"name", "demanded", "got", "ok", "kind", "margin", "how"}
        if not line["ok"]:
            assert f"{line['name']}: " in str(run.exception)
            assert any(remedy.startswith(f"{line['name']}: ") for remedy in told["remedies"])


def test_remedies_are_enough(nothing_to_measure_on, tmp_path):
    """What a remedy names, taken away, meets the demand."""
    file = demanding(tmp_path, {"bytes": 1700, "latency_us": 60, "energy_uj": 30000})
    found = check.check(str(file), "rp2040")
    size, time, energy = explain.remedies(found)
    board, battery = found.board, found.battery

    window = int(re.search(r"with a window of (\d+)", energy)[1])
    for wanted, met in ((window, True), (window + 1, False)):
        what = replace(found.what, signal=replace(found.what.signal, window=wanted))
        phases = check.costs.wake(board, battery, what, found.fitted.forest)
        assert (check.costs.wake_uj(phases) <= 30000) is met

    gone = re.search(r"without (.*) features\(\)", time)[1].split(", ")
    names = {name for name in found.what.feature_names
             if not any(name.startswith(f"{one}.") or f"*.{name.split('.')[1]}" == one
                        for one in gone)}
    assert sum(check.costs.latency_us(board, recipe.keep(found.what, names),
                                      found.fitted.forest)) <= 60

    nodes, each = re.search(r"so (\d+) of", size)[1], re.search(r"takes ([\d.]+) B", size)[1]
    assert int(nodes) * float(each) >= found.sizes["module"] - 1700


@pytest.mark.parametrize(("arguments", "words"), [
    (["motion", "--board", "pico"], "no board 'pico'"),
    (["motion", "--battery", "potato"], "no battery 'potato'"),
    (["moton"], "no model 'moton'")])
def test_mistakes_are_named(arguments, words):
    run = CliRunner().invoke(app, ["check", *arguments])
    assert words in str(run.exception)


def test_what_is_not_there_can_not_measure(monkeypatch, tmp_path):
    monkeypatch.setattr(measure, "FIRMWARE", tmp_path / "firmware.uf2")
    with pytest.raises(measure.MeasureError, match="run `outpost firmware` first"):
        measure.Pico()
    with pytest.raises(measure.MeasureError, match="no emulated machine here .* for xtensawin"):
        measure.Counter("xtensawin")


def test_what_has_no_trees_is_explained_too(nothing_to_measure_on, tmp_path):
    text = recipe.find("motion").read_text()
    before, after = text[:text.index("[forest]")], text[text.index("[post]"):]
    (tmp_path / "model.toml").write_text(
        f'{before}[estimator]\nkind = "GaussianNB"\n{after[:after.index("[contract]")]}'
        "[contract]\nbytes = 1900\nlatency_us = 1\n")
    found = check.check(str(tmp_path), "rp2040")
    bound = next(line for line in found.lines if line.name == "latency_bound_us")
    pre = found.board.stage_us("pre", **check.costs.feature_work(found.what))
    assert bound.got > pre + 25  # four classes of twelve figures, and not nothing
    told = "\n".join(explain.remedies(found))
    assert "bytes: a smaller GaussianNB, or fewer features" in told and "trees" not in told[:60]


def test_a_life_whose_records_are_lost_decides_nothing(monkeypatch):
    plan = SimpleNamespace(folder="build/x")
    lost = SimpleNamespace(told={"ok": False}, plan=plan)
    monkeypatch.setattr("outpost.simulate.live", lambda *_: [lost])
    with pytest.raises(check.CheckError, match="motion in factory: records don't add up"):
        check._lived("motion", boards.load("esp32"), "factory", check.BATTERY, 1)


def test_answers_that_differ_are_no_measurement(nothing_to_measure_on):
    what = recipe.load(recipe.find("motion"))
    fitted = build.fit(what)
    found = fitted.forest.answer(fitted.x_test)
    given = (fitted, fitted.x_test)
    check._same(what, "a machine", fitted.x_test, found.chosen, found.votes, *given)
    found.votes[3, 0] += 1
    found.chosen[5] ^= 1
    with pytest.raises(check.CheckError, match="on a machine 2 of 120 windows"):
        check._same(what, "a machine", fitted.x_test, found.chosen, found.votes, *given)


def test_rows_without_time_have_no_wake(nothing_to_measure_on, tmp_path):
    from test_build import table

    found = check.check(str(table(tmp_path / "iris", "iris")), "rp2040")
    assert {line.name for line in found.lines} == {"accuracy", "worst_class", "bytes",
                                                   "latency_bound_us"}
    assert boards.load("rp2040").architecture in found.lines[2].where


def test_a_world_decides_life_and_joules(nothing_to_measure_on, monkeypatch, tmp_path):
    monkeypatch.setattr("outpost.paths.BUILD", tmp_path)
    found = check.check("motion", "esp32", world="factory", days=0.1)
    lines = {line.name: line for line in found.lines}
    for name in ("life_days", "joules_per_day", "awake_p99_ms"):
        assert "of factory on esp32" in lines[name].how
        assert lines[name].demanded == found.what.contract[name]["esp32"]
    assert len([line for line in found.lines if line.name == "life_days"]) == 1
