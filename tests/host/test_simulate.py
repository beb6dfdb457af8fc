"""Simulations: scenarios, the battery, the firmware living in them, the budget it is held to."""

import json
import sqlite3
import struct
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from node import modes
from node.board import unix as wire
from node.latency import BOOT, CAPTURE, STORE, UPLINK
from outpost import boards, cascade, simulate, simulation_report
from outpost.errors import OutpostError
from outpost.world import battery, figures, scenario
from outpost.world.battery import Drain, voltage_mv
from outpost.world.schedule import DAY_S, Schedule

LABELS = ["rest", "walk", "run"]
CALM = {"wake_s": 300, "uplink_s": 3600, "life_days": 0}


def case(world: str, **settings) -> simulate.Case:
    return simulate.Case(world, "motion", boards.load("esp32"), scenario.load(world), None,
                         CALM | settings)


def live(folder, one: simulate.Case, days: float, isolation: str = "rewind") -> simulate.Outcome:
    outcome, = simulate.live([one], folder, days, 1, isolation)
    assert outcome.told["ok"], outcome.told
    outcome.plan.lock.close()
    return outcome


# --- scenarios ---


@pytest.mark.parametrize("name", scenario.names())
def test_every_world_can_be_told_and_told_back(name):
    world = scenario.load(name)
    assert scenario.restore(json.loads(json.dumps(world.dump()))) == world
    assert world.battery in boards.batteries()
    schedule = Schedule(world, 1, 100, LABELS, "rest")
    assert {label for _, label in schedule.activities} == set(LABELS)
    assert -40 < schedule.temperature_c(world.start_s + 50 * DAY_S) < 80


@pytest.mark.parametrize(("text", "words"), [
    ("", "world: is missing"),
    ('[world]\nstart = "yesterday"', "start.*yesterday.*2026-01-05"),
    ('[world]\nstart = "2026-01-05"\nend = 3', "end: is not known.*start"),
    ('[activity]\nhours = [[1, 0.5]]', "hours.*begin at hour 0"),
    ('[activity]\nhours = [[0, 1.5]]', "hours.*1.5.*each must be 2 numbers"),
    ('[activity]\nhours = [[0, 1]]\nstretch_min = [5, 1]', "stretch_min.*rising"),
    ('[activity]\nhours = [[0, 1]]\nrest_days = [7]', "rest_days.*Monday"),
    ("[link]\nup_h = -1", "up_h: is -1"),
    ("[solar]\nlatitude = 50", "noon_mw: is missing"),
    ("[faults]\ncut = 1", "cut: is not known.*did you mean 'cuts'"),
])
def test_what_is_wrong_with_a_world_is_told(tmp_path, text, words):
    parts = {"world": '[world]\nstart = "2026-01-05"\n', "supply": '[supply]\nbattery = "x"\n',
             "activity": "[activity]\nhours = [[0, 0.5]]\nstretch_min = [5, 9]\n"}
    parts = {} if not text else {name: part for name, part in parts.items()
                                 if f"[{name}]" not in text}
    file = tmp_path / "bad.toml"
    file.write_text("".join(parts.values()) + text)
    with pytest.raises(scenario.ScenarioError, match=words) as error:
        scenario.load(str(file))
    assert "bad.toml" in str(error.value)


def test_an_unknown_world_is_told_with_those_there_are():
    with pytest.raises(scenario.ScenarioError, match="'facory'.*did you mean 'factory'"):
        scenario.load("facory")


def test_links_come_and_go_and_are_gone():
    world = scenario.load("turbine")
    schedule = Schedule(world, 3, 80, LABELS, "rest")
    up = [schedule.link_up(world.start_s + 600 * i) for i in range(80 * 144)]
    assert 0 < sum(up) < 0.05 * len(up)  # minutes a day
    assert not any(up[12 * 144:19 * 144]) and not any(up[45 * 144:60 * 144])
    factory = Schedule(scenario.load("factory"), 3, 80, LABELS, "rest")
    share = np.mean([factory.link_up(factory.start_s + 600 * i) for i in range(80 * 144)])
    assert 0.95 < share < 1


def test_the_sun_shines_by_day_more_in_summer_and_not_through_snow():
    world = scenario.load("winter")
    clear = replace(world, solar=replace(world.solar, overcast=0, fails=()))
    year = Schedule(clear, 1, 365, LABELS, "rest")
    day = [year.harvest_mj(year.start_s + i * DAY_S, year.start_s + (i + 1) * DAY_S)
           for i in range(365)]
    december, june = day[50], day[230]  # it starts in November
    assert 0.05 * june < december < 0.3 * june
    assert year.sun_mw(year.start_s) == 0  # at midnight
    assert max(year.sun_mw(year.start_s + 232 * DAY_S + 600 * i) for i in range(144)) == (
        pytest.approx(clear.solar.noon_mw, rel=0.01))
    parts = sum(year.harvest_mj(year.start_s + t, year.start_s + t + 60)
                for t in range(0, DAY_S, 60))
    assert parts == pytest.approx(day[0], rel=0.01)
    snowed = Schedule(world, 1, 92, LABELS, "rest")
    assert snowed.harvest_mj(snowed.start_s + 6 * DAY_S, snowed.start_s + 40 * DAY_S) == 0


def test_temperature_follows_year_and_day():
    year = Schedule(replace(scenario.load("winter"), temperature=scenario.Temperature(10, 8, 5)),
                    1, 365, LABELS, "rest")
    noon = [year.temperature_c(year.start_s + (i + 0.625) * DAY_S) for i in range(365)]
    assert min(noon) == pytest.approx(10 - 8 + 5, abs=0.1)
    assert noon.index(min(noon)) in (74, 75, 76)
    assert max(noon) == pytest.approx(10 + 8 + 5, abs=0.1)


def test_faults_come_as_often_as_they_should():
    world = replace(scenario.load("wearer"), faults=scenario.Faults(
        cuts=0.25, brownouts=2, asleep=0.1, silences=0.5, silence_min=(5, 6)))
    schedule = Schedule(world, 5, 100, LABELS, "rest")
    kinds = [fault.kind for fault in schedule.faults]
    assert (kinds.count("cut"), kinds.count("brownout"), kinds.count("asleep")) == (25, 200, 10)
    assert len(schedule.silences) == 50
    assert all(300 <= end - start <= 360 for start, end in schedule.silences)


# --- the battery ---


def test_a_pass_is_charged_by_hand():
    drain = Drain(rest=1, boot=100, active=40, doze=3, radio=400, sleep=0.04, sampling=2,
                  programming=60, listening=0.1, leak=0.05, boot_us=500_000)
    laps = b"".join(struct.pack(wire.LAP, *lap) for lap in (
        (BOOT, 600_000, 0, 50_000, 0), (CAPTURE, 5_600_000, 4_900_000, 50_000, 0),
        (STORE, 5_700_000, 4_900_000, 80_000, 0), (UPLINK, 6_500_000, 4_900_000, 80_000, 750_000)))
    spent = drain.awake(laps)
    assert spent[BOOT] == pytest.approx(0.6 * 1 + 0.5 * 100 + 0.1 * 40 + 0.05 * 60)
    assert spent[CAPTURE] == pytest.approx(5 * 1 + 4.9 * 3 + 0.1 * 40 + 5 * 2)
    assert spent[STORE] == pytest.approx(0.1 * 41 + 0.03 * 60)
    assert spent[UPLINK] == pytest.approx(0.8 * 1 + 0.75 * 400 + 0.05 * 40)
    assert sum(spent) == pytest.approx(spent[BOOT] + spent[CAPTURE] + spent[STORE] + spent[UPLINK])
    assert drain.broken_off(700_000) == pytest.approx(0.7 + 50 + 0.2 * 40)
    assert drain.asleep(10_000_000, True) == pytest.approx((10.4, 1.0))
    assert drain.asleep(10_000_000, False)[1] == 0


def test_currents_become_powers_through_the_converter():
    board, cell = boards.load("esp32"), boards.batteries()["li-ion-18650"]
    drain = Drain.of(board, cell, "wifi")
    assert drain.active == pytest.approx(36 * 3.3 / 0.9)
    assert drain.rest == pytest.approx(0.011 * 3.6 + 0.003 * 3.3 / 0.9)
    assert drain.leak == pytest.approx(3350 * 3.6 * 3600 * 0.24 / battery.YEAR_S)
    assert battery.capacity_mj(cell) == pytest.approx(3350 * 3.6 * 3600)


def test_a_cells_voltage_lies_on_its_curve():
    curve = [[0, 3000], [50, 3600], [100, 4000]]
    assert [voltage_mv(curve, percent) for percent in (-1, 0, 25, 50, 75, 100, 120)] == [
        3000, 3000, 3300, 3600, 3800, 4000, 4000]


# --- lives ---


@pytest.fixture(scope="module")
def vehicle(tmp_path_factory):
    """A day and a half in the van, which has some of everything."""
    return live(tmp_path_factory.mktemp("vehicle") / "run", case("vehicle"), 1.5)


def test_what_a_simulation_tells(vehicle):
    told = vehicle.told
    assert {"wakes", "days", "average_current_ua", "life_days", "energy_mj", "latency_us", "modes",
            "appended", "stored", "lost", "wall_s"} <= told.keys()
    assert told["wakes"] > 400 and 1.5 <= told["days"] < 1.51 and told["lost"] == 0
    assert set(told["energy_mj"]) == set(battery.PHASES)
    assert set(told["latency_us"]["awake"]) == {"p50", "p99", "max"}
    assert told["latency_us"]["capture"]["p50"] > 5_120_000  # a window takes as long as it takes
    assert sum(told["modes"].values()) == pytest.approx(told["days"] * DAY_S, rel=1e-3)
    assert told["appended"] == told["stored"] + told["waiting"] + told["dropped"]
    # what went out of the battery is what the phases took
    capacity = battery.capacity_mj(vehicle.plan.battery)
    gone = capacity - vehicle.life.battery_mj[-1]
    assert gone == pytest.approx(sum(told["energy_mj"].values()), rel=1e-6)
    assert json.loads((vehicle.plan.folder / "summary.json").read_text()) == told


def test_current_and_life_follow_from_the_joules(vehicle):
    told, cell = vehicle.told, vehicle.plan.battery
    joules = sum(told["energy_mj"].values()) / 1e3
    seconds = told["days"] * DAY_S
    assert told["average_current_ua"] == pytest.approx(joules / seconds / 3.6 * 1e6, rel=1e-3)
    hours = cell.capacity.to("mAh") * 1e3 / told["average_current_ua"]
    assert told["life_days"] == pytest.approx(hours / 24, rel=1e-3)


def test_the_nodes_ledger_and_the_worlds_drain_agree(vehicle):
    """Within 1 %; over a month in bench/simulate.py."""
    life = vehicle.life
    with sqlite3.connect(vehicle.plan.folder / "world.db") as db:
        spent = np.array([row[0] for row in db.execute("SELECT spent_mj FROM wakes ORDER BY n")],
                         float)
    # from one wake to another between which retained memory was never lost
    firsts = np.flatnonzero(np.isnan(spent) | (np.diff(spent, prepend=0) < 0))
    edges = [0, *firsts, len(spent)]
    begin, end = max(zip(edges, edges[1:], strict=False), key=lambda pair: pair[1] - pair[0])
    begin, end = begin + 2, end - 2
    assert end - begin > 60
    drained = life.drained_mj[begin + 1:end + 1].sum()
    drained += life.drained_mj[begin, 7:10].sum() - life.drained_mj[end, 7:10].sum()
    assert spent[end] - spent[begin] == pytest.approx(drained, rel=0.01)


def test_the_same_seed_gives_the_same_life_to_the_byte_however_it_is_isolated(vehicle, tmp_path):
    again = live(tmp_path / "again", case("vehicle"), 1.5, "process")
    assert [again.told | {"wall_s": 0}, again.audit] == [vehicle.told | {"wall_s": 0},
                                                         vehicle.audit]
    assert ((again.plan.folder / "flash.img").read_bytes()
            == (vehicle.plan.folder / "flash.img").read_bytes())
    tables = []
    for outcome in (vehicle, again):
        with sqlite3.connect(outcome.plan.folder / "world.db") as db:
            tables.append([db.execute(f"SELECT * FROM {name} ORDER BY 1").fetchall()
                           for name in ("wakes", "captures", "state")])
    assert tables[0] == tables[1]


def test_the_clock_that_drifts(tmp_path):
    world = replace(scenario.load("factory"), faults=scenario.Faults(),
                    clock=scenario.Clock(drift_ppm=20000))
    one = replace(case("factory", listen=0), world=world)
    outcome = live(tmp_path / "run", one, 0.5)
    # the node counts 300 s while 294 pass
    assert np.median(outcome.life.length_s) == pytest.approx(300 / 1.02, abs=0.5)
    assert outcome.audit.decisions == outcome.told["wakes"]  # found again by its own clock


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A battery that is empty within a day, and a sun that comes back the next."""
    world = replace(scenario.load("factory"), charge_pct=0.4,
                    solar=scenario.Solar(noon_mw=60, latitude=0, fails=((0, 1),)),
                    faults=scenario.Faults())
    one = replace(case("factory", wake_s=20, wake_most_s=20, listen=0), world=world,
                  battery="alkaline-2aa")
    return live(tmp_path_factory.mktemp("tiny") / "run", one, 1.6)


def test_an_empty_battery_ends_a_life_cleanly_and_the_sun_begins_another(tiny):
    told = tiny.told
    assert told["flat_s"] > 3600 and told["life_days"] < 1 and told["lost"] == 0
    assert told["wakes"] > 500 and tiny.life.clock_s[-1] > tiny.life.flat[0][1]
    assert len(tiny.life.flat) == 1 and tiny.life.battery_mj.min() == 0
    after = np.argmax(tiny.life.clock_s >= tiny.life.flat[0][1])
    assert tiny.life.cause[after] == 0  # power on


def test_a_node_degrades_in_order_and_comes_back_and_tells_why(tmp_path):
    """No link for some hours, a battery just above critical_pct, and sun the next day."""
    world = replace(scenario.load("factory"), charge_pct=21.06, faults=scenario.Faults(),
                    link=scenario.Link(up_h=1e4, gone=((0, 0.2),)),
                    solar=scenario.Solar(noon_mw=5000, latitude=0, fails=((0, 1),)))
    one = replace(case("factory", wake_s=20, uplink_s=600, listen=0), world=world)
    outcome = live(tmp_path / "run", one, 1.6)
    told = [(change.before, change.after, change.reason) for change in outcome.audit.changes]
    assert told == [
        (modes.FULL, modes.DEGRADED, modes.LINK_LOST),
        (modes.DEGRADED, modes.CRITICAL, modes.BATTERY_LOW),
        (modes.CRITICAL, modes.FULL, modes.BATTERY_LOW | modes.OVER)]
    times = [change.time_s - outcome.plan.schedule.start_s for change in outcome.audit.changes]
    assert times[0] < times[1] < 0.2 * DAY_S and DAY_S < times[2] < 1.5 * DAY_S
    critical = outcome.life.mode == modes.CRITICAL
    assert np.isnan(outcome.life.took_us[critical][:, CAPTURE]).sum() >= critical.sum() - 1
    assert np.median(outcome.life.length_s[critical]) == pytest.approx(3600, abs=1)
    assert outcome.told["decisions"] > 100 and not outcome.life.flat


def test_radio_at_each_wake_is_caught_by_the_budget(tmp_path):
    wasteful = live(tmp_path / "run", case("factory", uplink_s=10), 0.2)
    lines = {line.name: line for line in simulate.budget(wasteful)}
    assert not lines["joules_per_day"].ok and not lines["life_days"].ok
    assert "too many" in lines["joules_per_day"].broken
    thrifty = live(tmp_path / "again", case("factory"), 0.2)
    assert all(line.ok for line in simulate.budget(thrifty))
    assert wasteful.told["joules_per_day"] > 2 * thrifty.told["joules_per_day"]


def test_a_case_is_told_in_a_word():
    base = case("factory")
    varied = simulate.vary(base, "winter,board=rp2040,battery=alkaline-2aa,uplink_s=60,post=[1]")
    assert (varied.world.name, varied.board.name, varied.battery) == ("winter", "rp2040",
                                                                      "alkaline-2aa")
    assert varied.settings == CALM | {"uplink_s": 60, "post": [1]}
    assert simulate.vary(base, ",wake_s=60").world == base.world
    with pytest.raises(simulate.SimulateError, match="'uplink_s'"):
        simulate.vary(base, "winter,uplink_s")


@pytest.mark.parametrize(("settings", "words"), [
    ({"wake_z": 5}, "no setting 'wake_z'.*did you mean 'wake_s'"),
    ({"wake_s": 1}, "refuses wake_s = 1"),
])
def test_settings_that_the_node_would_not_take_are_told(tmp_path, settings, words):
    with pytest.raises(OutpostError, match=words):
        simulate.live([case("factory", **settings)], tmp_path / "run", 1, 1)


def test_an_unknown_battery_is_told(tmp_path):
    with pytest.raises(OutpostError, match="no battery 'potato'.*li-ion-18650"):
        simulate.live([replace(case("factory"), battery="potato")], tmp_path / "run", 1, 1)


def test_the_report_shows_it_all_without_a_network(vehicle, tiny, tmp_path):
    path = simulation_report.write([vehicle, tiny], tmp_path)
    text = path.read_text()
    for tag in ("<script src", "<link", "cdn.plot.ly/plotly"):
        assert tag not in text
    for words in ("Side by side", "Battery", "Joules by phase", "The budget of a wake", "Latency",
                  "Records by lane", "changes of mode", "deep_sleep", "glenn20", "flat after"):
        assert words in text, words


def test_a_battery_too_weak_for_the_radio_is_told(tmp_path):
    weak = live(tmp_path / "run", replace(case("factory"), battery="lisocl2-er14505"), 0.1)
    warning, = weak.told["warnings"]
    assert "wifi peaks at 386 mA where Li-SOCl2, one ER14505 gives 90 mA" in warning


# --- the tiers ---


def test_what_each_tier_did_is_held_against_main(vehicle):
    told = cascade.shares(vehicle.life, vehicle.audit)
    assert sum(share.windows for share in told if share.tier != "heavy") == vehicle.audit.decisions
    gate = [share for share in told if share.tier == "gate"]
    main, *_ = (share for share in told if share.tier == "main")
    assert gate and all(share.mj < main.mj for share in gate)  # a quarter of the window's samples
    for share in gate:
        assert share.spared_mj == pytest.approx((main.mj - share.mj) * share.windows)
        assert share.right > 0.9 and share.main_right > 0.9
    assert main.spared_mj == 0 and main.right == main.main_right


def test_windows_that_main_is_unsure_of_are_answered_by_heavy(tmp_path):
    busy = replace(scenario.load("factory"), activity=scenario.Activity(hours=((0, 1.0),)))
    unsure = live(tmp_path / "run", replace(
        case("factory", unsure=255, gate=None, uplink_s=900), world=busy), 0.15)
    heavy, = (share for share in cascade.shares(unsure.life, unsure.audit)
              if share.tier == "heavy")
    assert 0 < heavy.windows < unsure.told["decisions"]  # all trees agree on most
    assert heavy.right > 0.5 and heavy.main_right > 0.5
    assert heavy.mj > 0 and heavy.spared_mj == -heavy.mj * heavy.windows
    text = simulation_report.write([unsure], tmp_path).read_text()
    assert "<td>heavy" in text


# --- the command ---


def outpost(*arguments):
    return subprocess.run(
        [sys.executable, "-c", "from outpost.cli import main; main()", "simulate", "motion",
         *map(str, arguments)], capture_output=True, text=True, timeout=120)


def test_two_cases_side_by_side(tmp_path):
    done = outpost("--days", 0.2, "--compare", "factory", "factory,wake_s=600,board=rp2040",
                   "--json", "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    one, other = json.loads(done.stdout)["compare"]
    assert (one["board"], other["board"]) == ("esp32", "rp2040")
    assert other["wakes"] < one["wakes"] and one["world"] == other["world"] == "factory"
    assert (tmp_path / "run/report.html").exists()
    assert "factory,wake_s=600,board=rp2040" in done.stderr


def test_the_budget_gate_fails_a_radio_at_each_wake(tmp_path):
    good = outpost("--days", 0.2, "--budget-check", "--json", "--out", tmp_path / "good")
    assert good.returncode == 0, good.stderr
    assert {line["name"] for line in json.loads(good.stdout)["budget"]} == {
        "life_days", "joules_per_day", "awake_p99_ms"}
    bad = outpost("--days", 0.2, "--set", "uplink_s=10", "--set", "life_days=0",  # no pacing
                  "--budget-check", "--out", tmp_path / "bad")
    assert bad.returncode == 1
    assert "over budget: " in bad.stderr and "joules_per_day" in bad.stderr


def test_percentiles_are_of_the_wakes_that_reached_a_stage(vehicle):
    life = vehicle.life
    found = figures.percentiles(life)
    took = np.sort(life.took_us[~np.isnan(life.took_us[:, UPLINK]), UPLINK])
    assert found["uplink"]["max"] == took[-1]
    assert found["uplink"]["p50"] in took and 0 < len(took) < len(life.clock_s)
