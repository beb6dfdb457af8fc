"""A fleet: real nodes, a real gateway and broker, all of them killed; and that its check sees."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from outpost import boards
from outpost.cli import app
from outpost.fleet import run
from outpost.fleet.plan import prepare
from outpost.world import scenario
from outpost.world.scenario import Faults, Link

CALM = replace(scenario.load("fleet"), faults=Faults(), link=Link(up_h=1000))
ROUGH = replace(scenario.load("fleet"), link=Link(up_h=10, down_h=1),
                faults=Faults(cuts=2, brownouts=1, asleep=1, uplinks=1, hangs=1))

# A gateway that acknowledges what of node 1 it never commits, and stores node 2's under two names.
ERRS = """
from dataclasses import replace
from outpost.cli import main
from outpost.gateway import intake
from outpost.gateway.wire import Records
real = intake.store
def errs(db, batch):
    heads = real(db, [*batch, *(replace(one, epoch=one.epoch + 1) for one in batch
                                if isinstance(one, Records) and one.node == 2)])
    if any(isinstance(one, Records) and one.node == 1 for one in batch):
        db.exec_driver_sql("ROLLBACK")
        db.exec_driver_sql("BEGIN IMMEDIATE")
    return heads
intake.store = errs
main()
"""


def fleet(folder: Path, world, nodes: int, days: float, kills: float = 0, **more):
    plan = prepare(folder, "motion", boards.load("esp32"), world, nodes, days, 1, kills)
    try:
        return run.live(plan, **more)
    finally:
        plan.lock.close()


def records(folder: Path) -> list:
    with sqlite3.connect(folder / "gateway.db") as db:
        return db.execute("SELECT node, lane, seq, kind, time_s, payload FROM records "
                          "ORDER BY node, lane, seq").fetchall()


def test_everything_is_killed_and_each_record_stored_once(tmp_path):
    told = fleet(tmp_path / "fleet", ROUGH, 5, 1, kills=2)
    assert told["ok"], told
    assert told["lost"] == told["duplicates"] == told["waiting"] == told["crashes"] == 0
    assert told["acknowledged"] == told["stored"] == told["appended"] > 5 * 144 / 2
    killed = told["killed"]
    assert killed["gateway"] and killed["broker"]
    assert all(killed[kind] for kind in ("cut", "brownout", "uplink", "hang", "asleep")), killed
    assert told["boots"] >= 5 * 144 - sum(killed.values()) and told["doubled_frames"]


def test_a_gateway_that_errs_is_found(tmp_path):
    (tmp_path / "gateway.py").write_text(ERRS)
    told = fleet(tmp_path / "fleet", CALM, 2, 0.5,
                 gateway=[sys.executable, str(tmp_path / "gateway.py"), "gateway"])
    assert not told["ok"] and told["lost"] and told["duplicates"] and told["phantoms"], told


def test_the_verb_lives_one_life_by_a_seed_and_fails_when_the_check_does(tmp_path, monkeypatch):
    lives = []
    for name in ("once", "again"):
        options = ["fleet", "--nodes", "2", "--days", "0.25", "--kills", "0", "--json",
                   "--out", str(tmp_path / name)]
        done = CliRunner().invoke(app, options)
        assert done.exit_code == 0, done.output
        told = json.loads(done.stdout.splitlines()[-1])
        assert told == json.loads((tmp_path / name / "summary.json").read_text())
        assert {"acknowledged", "stored", "duplicates", "lost", "wall_s"} <= told.keys()
        lives.append(records(tmp_path / name))
    assert lives[0] == lives[1] and len(lives[0]) == told["stored"] > 0
    monkeypatch.setattr(run, "live", lambda plan, show: told | {"ok": False, "lost": 3})
    done = CliRunner().invoke(app, options)
    assert done.exit_code == 1 and isinstance(done.exception, run.FleetError)
    assert "3 lost" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_fleet_that_is_ended_leaves_nobody_behind(tmp_path, number):
    code = ("import signal\nfrom outpost import cli\n"
            "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"  # though we may ignore it
            "cli.main()")
    with subprocess.Popen(
            [sys.executable, "-c", code, "fleet", "--nodes", "3", "--days", "1000", "--out",
             str(tmp_path / "fleet")], start_new_session=True, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        for line in process.stderr:
            if line.startswith("day 1:"):
                break
        mine = ["pgrep", "-c", "-s", str(process.pid)]
        assert int(subprocess.run(mine, capture_output=True, text=True).stdout) > 5
        process.send_signal(number)
        process.communicate(timeout=60)
    assert process.returncode == 128 + number
    for _ in range(100):  # nodes end when they find their world gone
        left = subprocess.run(mine, capture_output=True, text=True).stdout.strip()
        if left == "0":
            break
        time.sleep(0.1)
    assert left == "0"


def test_a_worker_that_ends_is_told_with_its_words(tmp_path):
    plan = prepare(tmp_path / "fleet", "motion", boards.load("esp32"), CALM, 1, 0.1, 1, 0)
    (plan.folder / "node-0001/flash.img").unlink()
    with pytest.raises(run.FleetError, match="flash.img"):
        run.live(plan)
    left = subprocess.run(["pgrep", "-f", os.fspath(plan.folder)], capture_output=True, text=True)
    assert not left.stdout
