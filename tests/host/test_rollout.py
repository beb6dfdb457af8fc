"""Models by radio: real firmware on the unix port, its own mqtt.py, and a real gateway."""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import packages
import pytest
from gateways import enrolled, gateway
from packages import SIGNER, STRANGER
from sqlalchemy import Connection

from node import record
from node.outbox import EVENT
from outpost import boards, build, package
from outpost.gateway import documents, rollouts, schema, store
from outpost.world import scenario
from outpost.world.run import Plan, prepare
from outpost.world.world import World

LIB = Path(__file__).parents[1] / "device/lib"

# A node on littlefs in memory (tests/device/lib/cuts.py) and a gateway that offers it a package.
# Its power goes in any operation of the flash, and before any frame that comes.
CUTS = """
import json
from struct import pack, unpack_from
import cuts
from cuts import copy, cut_in, mount, state, torture, unmount
from disk import blank
from node import fetch, update, verdict
from node.board import Common
from node.frame import ACK, HEAD, HEARTBEAT, OFFER, PACKAGE, RECORDS, TAIL, TIME, WANT, Seal
from node.settings import Settings
from node.state import State
from node.uplink.session import Session
from ram import outbox

KEY, NUMBER = bytes(32), 77
with open({source} + "/good.pkg", "rb") as file:
    CONTENT = file.read()

class Board(Common):
    cause, node_id, key = 1, 1, KEY
    def __init__(self):
        super().__init__()
        self.limit_us = 20000000
    def ticks_us(self): return 0
    def now_s(self): return 1767600000
    def random32(self): return 5
    def battery_mv(self): return 3900
    def temperature_c(self): return 20
    def feed(self): pass

class Link:
    size, window, ahead, patience_ms, tries, carried = 400, 3, 3, 500, 2, 0
    asked, frames, cut = [], 0, -1
    def __init__(self):
        self.answers, self.seal = [], Seal(KEY)
    def answer(self, kind, body):
        frame = bytearray(HEAD + len(body) + TAIL)
        self.seal.begin(frame, kind, 1)
        frame[HEAD:HEAD + len(body)] = body
        self.seal.close(frame, HEAD + len(body))
        self.answers.append(frame)
    def send(self, frame):
        kind = frame[0] & 15
        if kind == HEARTBEAT and len(self.answers) == 0:
            self.answer(OFFER, pack("<IIIB", 5, NUMBER, len(CONTENT), 0))
            self.answer(TIME, pack("<II", 5, 0))
        elif kind == WANT:
            number, at, size, count = unpack_from("<IIHB", frame, HEAD)
            assert number == NUMBER
            Link.asked.append(at)
            for _ in range(count):
                piece = CONTENT[at:at + size]
                if piece:
                    self.answer(PACKAGE, pack("<III", number, len(CONTENT), at) + piece)
                at += size
    def receive(self, buf, ms):
        if not self.answers:
            return 0
        if Link.frames == Link.cut:
            cuts.disk.cut()
        Link.frames += 1
        frame = self.answers.pop(0)
        buf[:len(frame)] = frame
        return len(frame)

class Wake:
    def __init__(self, state):
        self.state, self.settings = state, Settings("settings.json")
    def tell(self, lane, kind, payload):
        if not cuts.disk.dead:  # nobody hears what is said after that
            said.append(unpack_from("<BBI", payload, 1))

def live():
    for _ in range(9):
        wake = Wake(State())
        if wake.settings.trial:
            return
        Session(Board(), wake.settings, wake.state, outbox(), Link()).hold()
        if wake.state.package:
            fetch.install(wake)
    raise AssertionError("it does not come to an end")

said = []
start = blank(48)
mount(start)
copy({source}, {files})
unmount()
old, new = ("motion", 0), ("slot_a", update.TRIAL)

# before each frame
frame = 0
while True:
    Link.asked, Link.frames, Link.cut = [], 0, frame
    data, cut = cut_in(start, live)
    Link.cut = -1
    mount(data)
    found, asked = state(), len(Link.asked)
    assert found == (old if cut else new), (frame, found)
    if cut:
        live()
        assert state() == new
        # what had been flushed is not asked for again
        assert asked < 2 or Link.asked[asked] == Link.asked[asked - 1], Link.asked
    unmount()
    if not cut:
        break
    frame += 1
print("frames", frame, len(Link.asked))

# in each operation
_, count = torture(start, live, old, new)
print("operations", count)
assert set(said) == {{(verdict.ON_TRIAL, 2, NUMBER)}}, set(said)
"""

X64 = 2  # as in the header of a .mpy
KEYS = {node: bytes([node] * 32) for node in (1, 2, 3)}


@pytest.fixture(scope="module")
def motion() -> build.Result:
    return build.build("motion", ["x64", "armv6m"])


@pytest.fixture(scope="module")
def flashed(tmp_path_factory) -> Plan:
    """A node that has just been flashed, with motion 1, and the world around it."""
    plan = prepare(tmp_path_factory.mktemp("flashed") / "run", "motion", boards.load("esp32"),
                   scenario.load("wearer"), 1, 3,
                   changes={"gate": None, "listen": 0, "uplink_s": 10, "wake_s": 60})
    (plan.folder / "node/verify.mpy").write_bytes(package.verifier("x64"))
    return plan


@pytest.fixture
def database(tmp_path) -> Path:
    return Path(enrolled(tmp_path / "gateway.db", KEYS))


@contextmanager
def opened(database: Path) -> Iterator[Connection]:
    engine = store.connect(database)
    try:
        with engine.begin() as db:
            yield db
    finally:
        engine.dispose()


class Node:
    """A node with its world: no faults, always a link, always something to decide."""

    def __init__(self, flashed: Plan, folder: Path, number: int, port: int,
                 trust: bytes = SIGNER.public, **changes) -> None:
        shutil.copytree(flashed.folder, folder)
        self.folder, self.number = folder, number
        (folder / "node/identity.json").write_text(json.dumps(
            {"node": number, "key": KEYS[number].hex(), "trust": trust.hex()}))
        config = json.loads((folder / "run.json").read_text())
        (folder / "run.json").write_text(json.dumps(config | {"port": port}))
        self.change(**changes)
        self.world = World(folder)
        schedule = self.world.schedule
        schedule.faults.clear()
        schedule.silences.clear()
        schedule.motions.clear()
        schedule.link_up = lambda now_s: True
        schedule.label = lambda now_s: schedule.classes[0]

    def change(self, **changes) -> None:
        path = self.folder / "node/settings.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    def wake(self) -> str:
        return self.world.wake()["ended"]

    def settings(self) -> dict:
        return json.loads((self.folder / "node/settings.json").read_text())

    def model(self) -> tuple[int, int]:
        """(version, good wakes its trial takes, 0 once it is kept)."""
        given = self.settings()
        return given["model"]["version"], given.get("trial", 0)

    def files(self) -> set[str]:
        return {path.name for path in (self.folder / "node/models").iterdir()}


@contextmanager
def radio(flashed: Plan, tmp_path: Path, database: Path, count: int = 1,
          trust: bytes = SIGNER.public, **more) -> Iterator[list[Node]]:
    """Nodes 1… and a gateway that they report to."""
    with gateway(database) as broker, ExitStack() as stack:
        nodes = [Node(flashed, tmp_path / f"node{number}", number, broker.port, trust,
                      **more) for number in range(1, count + 1)]
        for node in nodes:
            stack.enter_context(closing(node.world))
        yield nodes


def begin(database: Path, content: bytes, nodes=(1,), mpy: int = X64, **more) -> int:
    with opened(database) as db:
        return rollouts.begin(db, "motion", 2, {mpy: content}, nodes, **more)


def summary(database: Path, rollout: int) -> dict:
    with opened(database) as db:
        return rollouts.summary(db, rollout)


def state(database: Path, rollout: int, node: int = 1) -> tuple[str, str]:
    one, = (one for one in summary(database, rollout)["nodes"] if one["node"] == node)
    return one["state"], one["reason"]


def updates(database: Path, node: int = 1) -> list[int]:
    """What the node's records tell of packages, in order."""
    with opened(database) as db:
        rows = db.execute(schema.records.select().where(
            schema.records.c.node == node, schema.records.c.lane == EVENT)
            .order_by(schema.records.c.seq)).all()
    return [row.payload[1] for row in rows
            if row.kind == record.EVENT and row.payload[0] == record.UPDATE]


def live(node: Node, until, most: int = 60) -> int:
    """Wake after wake; return how many it took."""
    for count in range(1, most + 1):
        node.wake()
        if until():
            return count
    raise AssertionError(f"not after {most} wakes: {node.settings()}")


def together(nodes: list[Node], until, most: int = 40) -> None:
    """The same with many, in turn."""
    for _ in range(most):
        for node in nodes:
            node.wake()
        if until():
            return
    raise AssertionError(f"not after {most} wakes: {[node.settings() for node in nodes]}")


def test_a_model_comes_by_radio_and_is_kept(motion, flashed, tmp_path, database):
    with radio(flashed, tmp_path, database) as (node,):
        node.wake()
        rollout = begin(database, packages.make(motion))
        assert state(database, rollout) == ("waiting", "")
        live(node, lambda: state(database, rollout)[0] == "kept")
        assert node.model() == (2, 0) and updates(database) == [15, 0]
        assert node.files() == {"slot_a.mpy", "slot_a.golden", "offer"}
        told = summary(database, rollout)
        assert told["state"] == "done" and told["kept"] == 1
        assert told["nodes"][0]["have"] == told["nodes"][0]["bytes"] > 9000
        for _ in range(3):
            node.wake()
        assert node.model() == (2, 0) and updates(database) == [15, 0]



def test_refused_with_a_reason_that_reaches_the_gateway(motion, flashed, tmp_path, database):
    """One node, one bad package after the other; it goes on with the model it has."""
    good = packages.make(motion)
    cases = [
        (packages.make(motion, by=STRANGER), "not signed by the key this node trusts"),
        (packages.make(motion, arch="armv6m"), "for another processor"),
        (packages.make(motion, spec={"abi": 9}), "does not load, or has another shape"),
        (packages.make(motion, module=b"C\6\0\x1f"), "does not load, or has another shape"),
        (good[:-1], "cut short"),
        (good[:-1] + b"?", "not on flash as it was signed"),
        (b"OPK9" + good[4:], "not a package of this version"),
        (packages.make(motion, version=1), "not newer than what is there"),
        (packages.make(motion, heap=1 << 28), "no room"),
        (packages.make(motion, module=packages.wrong(motion)),
         "wrong answer to a golden window"),
        (packages.make(motion, module=packages.slow(motion), us=1), "too slow"),
        (packages.make(motion, module=packages.crash(motion)), "crashes"),
        (packages.make(motion, settings={"wake_s": 1}), "its settings break a rule"),
    ]
    with radio(flashed, tmp_path, database) as (node,):
        node.wake()
        before, files = node.settings(), node.files()
        for count, (content, reason) in enumerate(cases, 1):
            rollout = begin(database, content, most_failed=1)
            live(node, lambda at=rollout: state(database, at)[0] not in rollouts.OPEN)
            assert state(database, rollout) == ("refused", reason)
            told, = summary(database, rollout)["nodes"]
            assert told["have"] == told["bytes"] == len(content)
            assert node.settings() == before and node.files() == files | {"offer"}
            assert len(updates(database)) == count
            assert summary(database, rollout)["state"] == "done"
        # a processor that nothing was built for: the gateway sees that by itself
        rollout = begin(database, good, mpy=4)
        live(node, lambda: state(database, rollout)[0] == "refused")
        assert state(database, rollout)[1] == "for another processor"
        # an older one by force, and after all that a good one
        rollout = begin(database, packages.make(motion, version=1), forced=True)
        live(node, lambda: state(database, rollout)[0] == "kept")
        rollout = begin(database, packages.make(motion, version=3))
        live(node, lambda: state(database, rollout)[0] == "kept")
        assert node.model() == (3, 0)


@pytest.mark.parametrize("trust", [b"", STRANGER.public])
def test_nothing_runs_on_a_node_that_does_not_trust_who_signed(trust, motion, flashed, tmp_path,
                                                               database):
    with radio(flashed, tmp_path, database, trust=trust) as (node,):
        rollout = begin(database, packages.make(motion))
        live(node, lambda: state(database, rollout)[0] == "refused")
        assert "trusts" in state(database, rollout)[1] and node.model() == (1, 0)


def test_a_canary_that_fails_stops_it_and_every_node_has_a_model_that_works(
        motion, flashed, tmp_path, database):
    """The model crashes on what one of three nodes senses, and passes every self-test."""
    always = {"gate": None}  # the model itself decides
    bad = packages.make(motion, module=packages.crash_on(motion, 0), settings=always)
    with radio(flashed, tmp_path, database, count=3) as nodes:
        nodes[1].world.schedule.label = lambda now_s: "Standing"  # class 0
        for node in nodes:
            node.wake()
        rollout = begin(database, bad, (1, 2, 3), canary=2, healthy_s=0)
        together(nodes, lambda: summary(database, rollout)["state"] == "stopped")
        together(nodes, lambda: nodes[0].model() == (2, 0))
        for node in 2 * nodes:
            node.wake()
        told = summary(database, rollout)
        assert (told["state"], told["reason"]) == ("stopped", "node 2: crashes")
        assert [one["state"] for one in told["nodes"]] == ["kept", "undone", "withdrawn"]
        assert [node.model() for node in nodes] == [(2, 0), (1, 0), (1, 0)]
        assert updates(database, 2) == [15, 13] and updates(database, 3) == []
        # a better one: both canaries keep it and are well, and only then the third has it
        rollout = begin(database, packages.make(motion, version=3, settings=always), (1, 2, 3),
                        canary=2, healthy_s=0.05)
        together(nodes, lambda: summary(database, rollout)["state"] == "rest")
        assert [node.model()[0] for node in nodes] == [3, 3, 1]
        together(nodes, lambda: summary(database, rollout)["kept"] == 3)
        assert summary(database, rollout)["state"] == "done"
        assert [node.model() for node in nodes] == [(3, 0)] * 3


def test_power_goes_in_each_operation_and_before_each_frame(motion, flashed, tmp_path,
                                                            on_micropython):
    shutil.copytree(flashed.folder / "node", tmp_path / "files")
    (tmp_path / "files/models/motion.golden").write_bytes(
        package.image.model_files(motion.folder, "x64")["models/motion.golden"])
    (tmp_path / "files/identity.json").write_text(json.dumps(
        {"node": 1, "key": "00" * 32, "trust": SIGNER.public.hex()}))
    names = sorted((str(path.relative_to(tmp_path / "files"))
                    for path in (tmp_path / "files").rglob("*") if path.is_file()), reverse=True)
    (tmp_path / "files/good.pkg").write_bytes(packages.make(motion, golden=1))
    said = on_micropython(CUTS.format(source=repr(str(tmp_path / "files")), files=names), [LIB],
                          timeout_s=300)
    found = dict(line.split(maxsplit=1) for line in said.splitlines()
                 if line.startswith(("frames", "operations")))
    assert int(found["frames"].split()[0]) > 8 and int(found["operations"]) > 200, said


def test_a_node_that_is_killed_while_it_fetches_goes_on_where_it_was(
        motion, flashed, tmp_path, database, monkeypatch):
    """kill -9 as it waits for every third answer. What has come is not sent again."""
    asked: list[tuple[int, int]] = []
    killed = 0
    answer = rollouts.pieces
    content = packages.make(motion)

    def pieces(db, want):
        nonlocal killed
        asked.append((want.offset, want.size * want.count))
        if len(asked) % 3 == 0:
            killed += 1
            os.kill(process.pid, signal.SIGKILL)
        return answer(db, want)

    monkeypatch.setattr(rollouts, "pieces", pieces)
    with radio(flashed, tmp_path, database, frame=120) as (node,):
        boot = node.world._boot

        def booted():
            nonlocal process
            started = boot()
            process = started.process
            return started

        process = None
        monkeypatch.setattr(node.world, "_boot", booted)
        rollout = begin(database, content)
        live(node, lambda: state(database, rollout)[0] == "kept")
        assert node.model() == (2, 0)
    assert killed > 3
    for (before, size), (after, _) in itertools.pairwise(asked):
        assert before <= after <= before + size
    assert len(asked) == -(-len(content) // asked[0][1]) + killed  # one window is lost in each


def test_settings_are_tried_out_and_kept_or_undone(flashed, tmp_path, database):
    def told() -> str:
        with opened(database) as db:
            return documents.told(db, 1)

    def change(**values) -> None:
        engine = store.connect(database)
        documents.change(engine, 1, values)
        engine.dispose()

    with radio(flashed, tmp_path, database) as (node,):
        node.wake()
        before = node.settings()
        change(window=32)  # not what the model was trained on
        node.wake()
        assert node.settings()["trial"] == 5
        live(node, lambda: told() == "it has refused them")
        assert node.settings() == before
        for _ in range(3):
            node.wake()
        assert node.settings() == before  # it is not tried again
        change(window=64, wake_s=120)
        live(node, lambda: told() == "it has them")
        assert node.settings() == before | {"changes": {"window": [4, 64], "wake_s": [4, 120]}}


def outpost(*words: str) -> dict:
    done = subprocess.run([sys.executable, "-m", "outpost", *words, "--json"], text=True,
                          capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_pushed_to_nodes_as_a_person_does(flashed, tmp_path, database, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("OUTPOST_DATABASE", str(database))
    done = subprocess.run([sys.executable, "-m", "outpost", "push", "motion", "--nodes", "1,2"],
                          text=True, capture_output=True, check=False)
    assert done.returncode == 1 and "not heard of yet: 1, 2" in done.stderr
    with radio(flashed, tmp_path, database, 2, package.signer().public) as nodes:
        for node in nodes:
            node.wake()
        assert outpost("rollout") == {"rollouts": []}
        number = outpost("push", "motion", "--nodes", "all")["rollout"]
        together(nodes, lambda: summary(database, number)["state"] == "done")
        told = outpost("rollout", str(number))
        assert [(one["state"], one["reason"]) for one in told["nodes"]] == [
            ("refused", "not newer than what is there")] * 2
        number = outpost("push", "motion", "--nodes", "1,2", "--canary", "1", "--force")["rollout"]
        live(nodes[0], lambda: state(database, number)[0] == "kept")
        nodes[1].wake()
        assert state(database, number, 2)[0] == "waiting"  # for an hour, by default
        told = outpost("rollout", str(number), "--stop")
        assert (told["state"], told["reason"], told["kept"], told["withdrawn"]) == (
            "stopped", "by hand", 1, 1)
        assert [one["rollout"] for one in outpost("rollout")["rollouts"]] == [number, number - 1]
