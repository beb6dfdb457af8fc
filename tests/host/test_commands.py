"""Commands: kept for a node until it asks, obeyed once, answered; both databases."""

import json

import pytest
from gateways import enrolled
from test_session import KEY, NODE
from test_settings import Node, engine, node  # noqa: F401  # fixtures
from typer.testing import CliRunner

from node import downlink, frame, orders, record
from node.frame import Seal
from outpost.cli import app
from outpost.gateway import commands

SEAL = Seal(KEY)


def results(engine):  # noqa: F811
    with engine.connect() as db:
        return [(row.number, row.result, row.text) for row in commands.history(db, NODE)][::-1]


def test_a_command_is_obeyed_once_and_what_came_of_it_is_known(node, engine):  # noqa: F811
    node.wake()
    assert commands.ask(engine, NODE, orders.IDENTIFY) == 1
    assert commands.ask(engine, NODE, orders.REPORT) == 2
    assert results(engine) == [(1, None, ""), (2, None, "")]
    node.wake()
    assert node.kinds().count(frame.COMMAND) == 2 and node.state.order == 2
    (_, first, text), (_, second, _) = results(engine)
    assert (first, second) == (orders.FAILED, orders.DONE)  # what is not well is told:
    assert text.startswith("ImportError")  # CPython's time has no ticks_us()
    node.wake()
    assert node.kinds() == [frame.TIME]
    kinds = [kind for _, kind, _, _ in node.box.lanes[3].records()]
    assert kinds == [record.STATE]


def test_an_answer_that_is_lost_leaves_it_open_and_it_is_not_obeyed_again(node, engine):  # noqa: F811
    commands.ask(engine, NODE, orders.REPORT)
    node.wake(lose=lambda data, up: up and data[0] & 15 == frame.RECORDS)
    assert node.state.order == 1 and results(engine) == [(1, None, "")]
    node.wake()
    assert frame.COMMAND not in node.kinds() and results(engine) == [(1, orders.DONE, "")]


def test_what_a_node_forgot_is_not_obeyed_twice(node, engine):  # noqa: F811
    commands.ask(engine, NODE, orders.SAFE)
    node.wake()
    node.state.order = node.state.safe = 0  # its power was off
    node.wake()
    assert frame.COMMAND not in node.kinds() and node.state.safe == 0
    commands.ask(engine, NODE, orders.RESUME)
    node.wake()
    assert results(engine)[-1] == (2, orders.DONE, "")


def test_a_recording_of_a_command_is_worth_nothing(node, engine):  # noqa: F811
    commands.ask(engine, NODE, orders.SAFE)
    node.wake()
    recorded = [data for data in node.heard if data[0] & 15 == frame.COMMAND]
    assert len(recorded) == 1 and downlink.read(frame.COMMAND, recorded[0])[1:] == (1, 3, b"")
    node.state.order = node.state.safe = 0
    taken = node.desk.take
    node.desk.take = lambda frames: [(NODE, recorded[0]), *taken(frames)]
    node.wake()
    assert recorded[0] in node.heard and node.state.safe == 0 and node.state.order == 0


def test_another_nodes_word_is_not_taken_for_an_answer(node, engine):  # noqa: F811
    commands.ask(engine, 8, orders.REPORT)
    node.box.put(1, record.RESULT, 0, b"\x01\x00\x01\x00")
    node.box.put(1, record.RESULT, 0, b"\x01")
    node.wake()
    with engine.connect() as db:
        assert [row.result for row in commands.history(db, 8)] == [None]


def test_frames_are_as_short_as_the_nodes(node, engine):  # noqa: F811
    commands.ask(engine, NODE, *commands.encode("resend", ["telemetry", "1"]))
    node.wake(51)
    assert max(map(len, node.heard)) <= 51 and results(engine) == [(1, orders.DONE, "")]


@pytest.mark.parametrize("words", [
    ["resett"], ["reset", "now"], ["resend"], ["resend", "gossip", "1"], ["resend", "event", "x"]])
def test_what_no_node_knows_is_refused_here(words):
    with pytest.raises(commands.CommandError):
        commands.encode(words[0], words[1:])


def test_the_command_line(tmp_path):
    database = str(tmp_path / "gateway.db")
    enrolled(tmp_path / "gateway.db", {7: bytes(32), 8: bytes(32)})

    def said(*words):
        done = CliRunner().invoke(app, ["command", *words, "--database", database, "--json"])
        assert done.exit_code == 0, done.output
        return json.loads(done.output.splitlines()[-1])

    assert said("7", "report") == {"node": 7, "commands": [
        {"number": 1, "command": "report", "result": None, "text": ""}]}
    assert said("7", "resend", "alert", "5")["commands"][0]["number"] == 2
    assert [one["command"] for one in said("7")["commands"]] == ["resend", "report"]
    assert said("8") == {"node": 8, "commands": []}
