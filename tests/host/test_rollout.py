"""Models by radio: real firmware on the unix port, its own mqtt.py, and a real gateway."""

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import packages
import pytest
from gateways import enrolled, gateway
from packages import SIGNER

from node import record
from node.outbox import EVENT
from outpost import boards, build, package
from outpost.gateway import rollouts, store
from outpost.world import scenario
from outpost.world.run import Plan, prepare
from outpost.world.world import World

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
def opened(database: Path) -> Iterator[store.Connection]:
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
def radio(flashed: Plan, tmp_path: Path, database: Path, count: int = 1, **more
          ) -> Iterator[list[Node]]:
    """Nodes 1… and a gateway that they report to."""
    with gateway(database) as broker, ExitStack() as stack:
        nodes = [Node(flashed, tmp_path / f"node{number}", number, broker.port, **more)
                 for number in range(1, count + 1)]
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
        rows = db.execute(store.records.select().where(
            store.records.c.node == node, store.records.c.lane == EVENT)
            .order_by(store.records.c.seq)).all()
    return [row.payload[1] for row in rows
            if row.kind == record.EVENT and row.payload[0] == record.UPDATE]


def live(node: Node, until, most: int = 60) -> int:
    """Wake after wake; return how many it took."""
    for count in range(1, most + 1):
        node.wake()
        if until():
            return count
    raise AssertionError(f"not after {most} wakes: {node.settings()}")


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

