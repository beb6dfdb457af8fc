"""Settings of a node that is out, changed at both ends over links that fail; both databases."""

import contextlib
import json
import random
from pathlib import Path

import pytest
from gateways import enrolled
from test_session import KEY, NODE, Board, Link, outbox, state

from node import document, frame, record, update
from node.settings import Settings
from node.uplink.session import Session
from outpost.cli import app
from outpost.gateway import documents, intake, schema
from outpost.gateway.desk import Desk
from outpost.gateway.keys import enrol

FILE = Path("settings.json")
FLASHED = {"version": 1, "wake_s": 60, "uplink_s": 600}


@pytest.fixture
def engine(engine):
    with engine.begin() as db:
        enrol(db, NODE, KEY)
    return engine


@pytest.fixture
def node(engine, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "settings.json").write_text(json.dumps(FLASHED))
    return Node(Desk(engine, clock=None))


class Node:
    """A node's session and settings, a wake at a time; `sent` and `heard` are of the last."""

    def __init__(self, desk):
        self.desk, self.box, self.state, self.board = desk, outbox(), state(), Board()

    @property
    def has(self):
        return Settings("settings.json")

    def change(self, **values):
        """As node.change() at the REPL."""
        now = self.has
        stamp = document.stamp(now.version, document.NODE)
        update.change({"changes": now.changes | {k: [stamp, v] for k, v in values.items()}})

    def wake(self, size=1024, lose=lambda frame, up: False):
        self.board.us, self.state.wakes = 0, self.state.wakes + 1
        self.heard = []
        link = Link(self.board, self.desk, size, lose=lambda data, up: lose(data, up) or (
            not up and self.heard.append(data)))
        with contextlib.suppress(OSError):
            Session(self.board, self.has, self.state, self.box, link).hold()
        self.sent = [data[0] & 15 for data in link.sent]

    def told(self):
        """What it has told of changes: (what, which, stamp, value)."""
        return [(*record_head(payload), bytes(payload[6:])) for _, kind, _, payload
                in self.box.lanes[1].records() if kind == record.SETTING]

    def kinds(self):
        return [data[0] & 15 for data in self.heard]


def record_head(payload):
    return payload[0], payload[1], int.from_bytes(bytes(payload[2:6]), "little")


def shall(engine, node=NODE):
    with engine.connect() as db:
        return documents.load(db, [node])[node]


@pytest.mark.parametrize("size", [51, 1024])
def test_a_change_here_is_what_the_node_does_from_its_next_wake_on(node, engine, size):
    node.wake()
    assert node.kinds() == [frame.TIME]
    documents.change(engine, NODE, {"uplink_s": 1200, "post": [3, 2, 1]})
    before = node.has
    node.wake(size)
    assert frame.SETTINGS in node.kinds() and node.kinds()[-1] == frame.TIME
    assert (before.uplink_s, node.has.uplink_s, node.has.post) == (600, 1200, [3, 2, 1])
    assert node.has.wake_s == 60 and node.has.version == 2 and node.has.problem is None
    with engine.connect() as db:
        assert documents.told(db, NODE) == "it will have them when it reports"
    node.wake(size)
    assert node.kinds() == [frame.TIME] and frame.DOCUMENT not in node.sent
    with engine.connect() as db:
        assert documents.told(db, NODE) == "it tries them out"
    documents.change(engine, NODE, {}, ["uplink_s"])
    node.wake(size)
    assert node.has.uplink_s == 600 and node.has.post == [3, 2, 1]
    assert node.told() == []


def test_changes_at_both_ends_to_different_settings_both_survive(node, engine):
    node.change(wake_s=30)
    documents.change(engine, NODE, {"uplink_s": 1200})
    node.wake()
    assert frame.DOCUMENT in node.sent
    assert (node.has.wake_s, node.has.uplink_s) == (30, 1200)
    assert shall(engine) == {"wake_s": [3, 30], "uplink_s": [2, 1200]} and node.told() == []
    node.wake()
    assert node.kinds() == [frame.TIME]


def test_to_the_same_setting_the_higher_version_wins_and_the_loser_is_told(node, engine):
    documents.change(engine, NODE, {"wake_s": 100})  # 2
    node.change(wake_s=30)  # 3
    node.wake()
    assert node.has.wake_s == 30 and shall(engine)["wake_s"] == [3, 30]
    assert node.told() == [(record.GATEWAY_LOST, 2, 2, b"100")]
    documents.change(engine, NODE, {"wake_s": 200})  # 4
    node.wake()
    assert node.has.wake_s == 200
    assert node.told()[1:] == [(record.NODE_LOST, 2, 3, b"30")]
    node.wake()
    with engine.connect() as db:  # and that has come up as well
        rows = intake.lane_records(db, NODE, 1, node.box.lanes[1].epoch)
        assert [row.payload[0] for row in rows] == [record.GATEWAY_LOST, record.NODE_LOST]
        assert [said for _, said in documents.outcomes(db, NODE)] == [
            "wake_s = 30 lost to a later change of the gateway",
            "wake_s = 100 of the gateway lost to a later change here"]


def test_what_breaks_a_rule_is_refused_with_a_reason_and_not_sent_again(node, engine, monkeypatch):
    with pytest.raises(documents.SettingError, match=r"wake_s = 1 is not allowed: 5…86400 is"):
        documents.change(engine, NODE, {"wake_s": 1, "uplink_s": 1200})
    assert shall(engine) == {}
    with monkeypatch.context() as later:  # a gateway of another version
        later.setattr("node.settings.allowed", lambda *_: True)
        documents.change(engine, NODE, {"wake_s": 1, "uplink_s": 1200})
    text = FILE.read_text()
    for _ in range(3):
        node.wake()
        assert FILE.read_text() == text
    assert node.told() == [(record.REFUSED, 2, 2, b"1")] and node.kinds() == [frame.TIME]
    with engine.connect() as db:
        assert documents.told(db, NODE) == "it has refused them"
    documents.change(engine, NODE, {"wake_s": 90})
    node.wake()
    assert (node.has.wake_s, node.has.uplink_s) == (90, 1200)


@pytest.mark.parametrize("name", ["model", "large", "version", "trial", "changes", "wake"])
def test_what_comes_with_a_package_or_by_cable_is_not_changed_like_this(engine, name):
    with pytest.raises(documents.SettingError, match="can't be set"):
        documents.change(engine, NODE, {name: None})


@pytest.mark.parametrize("text", [
    b"[]", b"5", b"{", b'{"wake_s":5}', b'{"wake_s":[]}', b'{"wake_s":["a",1]}',
    b'{"wake_s":[0,60]}', b'{"changes":5}', b'{"model":[2,null]}', b'{"wake_s":[2,60,1]}',
    b'{"wake_s":[2,' + b"[" * 60 + b"]" * 60 + b"]}", b"\xff\xfe"])
def test_a_document_that_is_none_changes_nothing(node, text):
    from node import sync

    before = FILE.read_text()
    assert not sync.take(text, 7, node.has, node.state, node.box, 0)
    assert FILE.read_text() == before and node.state.refused == 7
    assert [told[0] for told in node.told()] == [record.REFUSED]


def test_settings_on_trial_come_first(node, engine):
    update.begin({"wake_s": 50}, 3)
    documents.change(engine, NODE, {"uplink_s": 1200})
    node.wake()
    assert node.has.uplink_s == 600 and node.told() == [] and node.state.refused == 0
    update.change({"trial": 0})
    node.wake()
    assert (node.has.wake_s, node.has.uplink_s) == (50, 1200)


def test_a_recording_changes_nothing_and_keeps_nobody_awake(node, engine):
    documents.change(engine, NODE, {"wake_s": 100})
    node.wake()
    old = [data for data in node.heard if data[0] & 15 == frame.SETTINGS]
    documents.change(engine, NODE, {"wake_s": 200})
    node.wake()
    text, told = FILE.read_text(), node.told()

    class Replay(Link):
        def receive(self, buf, ms):
            self.board.us += 1000
            buf[:len(old[0])] = old[0]
            return len(old[0])

    node.board.us = 0
    with pytest.raises(OSError):
        Session(node.board, node.has, node.state, node.box,
                Replay(node.board, node.desk, lose=lambda *_: True)).hold()
    assert node.board.us < 1_000_000
    assert FILE.read_text() == text and node.told() == told


def test_what_a_node_told_is_known_when_it_is_told_again(node, engine):
    node.change(post=[1] * 15, reading=list(range(16)))
    sent = []
    node.wake(60, lambda data, up: up and data[0] & 15 == frame.DOCUMENT and sent.append(data))
    assert len(sent) > 2 and shall(engine)["post"] == [3, [1] * 15]
    node.change(post=[2])
    node.wake()
    with engine.connect() as db:
        before = {table.name: db.execute(table.select()).all()
                  for table in (schema.documents, schema.status, schema.pieces)}
    for one in sent:
        node.desk.take([one])
    with engine.connect() as db:
        for table in (schema.documents, schema.status, schema.pieces):
            assert db.execute(table.select()).all() == before[table.name]


@pytest.mark.parametrize("seed", range(6))
def test_over_links_that_fail_both_ends_come_to_the_same(node, engine, seed):
    rng = random.Random(seed)
    names = ("wake_s", "uplink_s", "state_s")
    for _ in range(25):
        choice = rng.random()
        if choice < 0.3:
            node.change(**{rng.choice(names): rng.randint(60, 600)})
        elif choice < 0.6:
            documents.change(engine, rng.choice((NODE, documents.ALL)),
                             {rng.choice(names): rng.randint(60, 600)})
        node.wake(rng.choice((51, 60, 1024)), lambda *_: rng.random() < 0.2)
    for _ in range(3):
        node.wake()
    assert node.has.changes == shall(engine)
    assert node.kinds() == [frame.TIME] and node.has.problem is None


def test_one_nodes_settings_hold_against_those_for_all(node, engine):
    documents.change(engine, documents.ALL, {"wake_s": 100, "uplink_s": 1000})
    documents.change(engine, NODE, {"wake_s": 30})
    node.wake()
    assert (node.has.wake_s, node.has.uplink_s) == (30, 1000)
    documents.change(engine, documents.ALL, {"wake_s": 200, "uplink_s": 2000})
    node.wake()
    assert (node.has.wake_s, node.has.uplink_s) == (30, 2000)
    documents.change(engine, NODE, {}, ["wake_s"])
    node.wake()
    assert node.has.wake_s == 200
    documents.change(engine, documents.ALL, {"wake_s": 300}, ["uplink_s"])
    node.wake()
    assert (node.has.wake_s, node.has.uplink_s) == (300, 600)
    node.wake()
    assert node.kinds() == [frame.TIME] and node.told() == []


def test_the_command_line(tmp_path):
    from typer.testing import CliRunner

    database = str(tmp_path / "gateway.db")
    enrolled(tmp_path / "gateway.db", {7: bytes(32)})

    def said(*words):
        done = CliRunner().invoke(app, ["settings", *words, "--database", database, "--json"])
        return json.loads(done.output.splitlines()[-1]) if done.exit_code == 0 else done

    assert said("all", "uplink_s=3600")["changes"] == {"uplink_s": [2, 3600]}
    told = said("7", "wake_s=60", "post=[2, 1]")
    assert told == {"node": 7, "state": "it has not reported yet", "lost": [], "changes": {
        "uplink_s": [2, 3600], "wake_s": [4, 60], "post": [4, [2, 1]]}}
    assert said("7", "wake_s=")["changes"]["wake_s"] == [6]
    assert said("7", "wake_s=soon").exit_code == 2
    assert isinstance(said("7", "model=null").exception, documents.SettingError)
    assert said("0").exit_code == 2 and said("x").exit_code == 2
