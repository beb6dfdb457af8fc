"""What is missing and what was dropped is seen: `outpost nodes`, and the gateway's own screen."""

import asyncio
import io
import json
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from node import heartbeat
from node.batch import Batch
from node.frame import Seal
from node.heartbeat import Heartbeat
from outpost.cli import app
from outpost.gateway import main, screen, views
from outpost.gateway.desk import Desk
from outpost.gateway.keys import enrol
from outpost.gateway.mqtt import Where
from outpost.gateway.service import Service
from outpost.gateway.store import StoreError

EPOCH = 0xCAFE
KEYS = {node: bytes([node]) * 32 for node in (7, 8, 9)}


def batch(node, after, seqs, lane=2, floor=False):
    made = Batch(bytearray(1024), node, Seal(KEYS[node]))
    made.begin(lane, EPOCH, after, floor)
    for seq in seqs:
        assert made.add(seq, 1, 1_767_600_000 + seq, b"x")
    return bytes(made.buf[:made.end()])


def beat(node, *items):
    buf = bytearray(1024)
    made = Heartbeat(buf, node, Seal(KEYS[node]), EPOCH, 1, 1)
    return [bytes(buf[:length]) for length in made.frames(items)]


@pytest.fixture
def fleet(database, engine):
    """Node 7 with gaps and drops, 8 without, 9 that has never been heard."""
    with engine.begin() as db:
        for node, key in KEYS.items():
            enrol(db, node, key)
    desk = Desk(engine, clock=None)
    desk.take([
        batch(7, 0, [1, 2]), batch(7, 2, [6]),  # 3…5 never existed, or were overwritten
        batch(7, 9, [10, 11]), batch(7, 20, [21]),  # 7…9 and 12…20 are on their way
        batch(7, 0, [1], lane=0),
        *beat(7, *heartbeat.pairs(heartbeat.DROPPED, [0, 0, 66, 4], 20),
              *heartbeat.pairs(heartbeat.WAITING, [1, 0, 12, 0], 20)),
        batch(8, 0, [1, 2, 3]), *beat(8, (heartbeat.MISSES, b"\0\0"))])
    return str(database), desk, engine


def told(where, *arguments):
    done = CliRunner().invoke(app, ["nodes", *arguments, "--database", where, "--json"])
    assert done.exit_code == 0, done.exception
    return json.loads(done.stdout.splitlines()[-1])


def test_the_fleet_as_numbers(fleet):
    found = {one["node"]: one for one in told(fleet[0])["nodes"]}
    assert set(found) == {7, 8, 9}
    assert [found[7][name] for name in ("awaited", "dropped", "waiting")] == [12, 70, 13]
    assert [found[8][name] for name in ("awaited", "dropped", "waiting")] == [0, 0, 0]
    assert found[9]["heard_at"] is None and found[7]["heard_at"] > 1.7e9


def test_each_gap_of_a_node_and_whether_it_can_still_close(fleet):
    where, desk, _ = fleet
    one = told(where, "7")
    assert [(gap["lane"], gap["first"], gap["last"], gap["gone"]) for gap in one["gaps"]] == [
        (2, 3, 5, True), (2, 7, 9, False), (2, 12, 20, False)]
    assert {(lane["number"], lane["head"], lane["reach"]) for lane in one["lanes"]} == {
        (0, 1, 1), (2, 6, 21)}
    desk.take([batch(7, 6, [7, 8, 9])])
    one = told(where, "7")
    assert one["awaited"] == 9 and one["gaps"][-1]["first"] == 12
    desk.take([batch(7, 20, [21], floor=True)])  # the node says: there is nothing before it
    one = told(where, "7")
    assert one["awaited"] == 0 and all(gap["gone"] for gap in one["gaps"])


def test_tables_for_people(fleet, monkeypatch):
    where, _, _ = fleet
    monkeypatch.setenv("COLUMNS", "150")
    for arguments, words in ((["nodes"], ["7", "12", "70", "never heard of"]),
                             (["nodes", "7"], ["telemetry", "12…20", "awaited", "gone at the"]),
                             (["nodes", "8"], ["no gaps"])):
        done = CliRunner().invoke(app, [*arguments, "--database", where])
        assert done.exit_code == 0 and all(word in done.stdout for word in words), done.stdout
    done = CliRunner().invoke(app, ["nodes", "99", "--database", where])
    assert isinstance(done.exception, StoreError) and "99" in str(done.exception)


def test_a_database_that_is_not_there(tmp_path):
    done = CliRunner().invoke(app, ["nodes", "--database", str(tmp_path / "none.db")])
    assert isinstance(done.exception, StoreError) and not list(tmp_path.iterdir())


@pytest.mark.parametrize(("width", "height"), [(60, 12), (80, 24), (200, 60)])
def test_the_gateway_at_work_fits_its_terminal(fleet, width, height, monkeypatch):
    where, desk, engine = fleet
    with engine.begin() as db:
        for node in range(100, 200):
            enrol(db, node, bytes(32))
    desk.take([b"noise", b"NOISE"])
    out = io.StringIO()
    monkeypatch.setattr(screen, "console", Console(
        file=out, force_terminal=True, width=width, height=height, color_system=None))
    one = screen.Screen(Service(desk), Where("127.0.0.1", 1883), views.Reader(
        where if "://" in where else Path(where)))

    one._look()
    screen.console.print(one._picture())
    one._reader.engine.dispose()
    lines = out.getvalue().splitlines()
    assert len(lines) <= height and all(len(line) <= width for line in lines)
    assert " 10 r" in lines[0] and lines[1].startswith("refused 2: ")
    assert "more, which fare no worse" in out.getvalue()


def test_it_is_drawn_while_the_gateway_works_and_gone_when_it_ends(tmp_path, monkeypatch):
    out = io.StringIO()
    monkeypatch.setattr(screen, "console", Console(
        file=out, force_terminal=True, width=90, height=20, color_system=None))
    stop = asyncio.Event()

    async def watch(service, broker) -> None:
        asyncio.get_running_loop().call_later(0.1, stop.set)
        await screen.Screen(service, broker, views.Reader(tmp_path / "gateway.db")).run()

    options = main.Options(tmp_path / "gateway.db", listen=("127.0.0.1", 0), provisioned=False)
    asyncio.run(asyncio.wait_for(main.run(options, lambda _: None, stop, watch), 60))
    assert "0 frames" in out.getvalue() and out.getvalue().endswith("\x1b[2K")
