"""Roll-outs at the gateway's desk: who is offered what and when, on both databases."""

import struct
import time

import pytest
from gateways import gateway

from node import downlink, frame, heartbeat, modes, record, verdict
from node.batch import Batch
from node.frame import Seal
from node.outbox import EVENT
from outpost.gateway import intake, main, rollouts, schema, store
from outpost.gateway.desk import Desk
from outpost.gateway.keys import enrol

X64 = 2
CONTENT = bytes(range(256)) * 20
HEALTHY_S = 100.0


class Clock:
    now = 1_000_000.0

    def time(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    for module in (rollouts, intake):
        monkeypatch.setattr(module.time, "time", made.time)
    return made


@pytest.fixture
def engine(clock, engine):
    return engine


class Node:
    """What a node says, frame by frame, and what it is answered."""

    def __init__(self, engine, number):
        self.engine, self.number, self.wakes, self.seq = engine, number, 0, 0
        key = bytes([number] * 32)
        self.desk, self.seal = Desk(engine, clock=None), Seal(key)
        with engine.begin() as db:
            enrol(db, number, key)

    def hear(self, *frames):
        """The desk's answers to frames, as (type, body)."""
        found = []
        for node, answer in self.desk.take(frames):
            assert node == self.number
            kind, _ = frame.identify(answer)
            self.seal.open(answer)
            found.append((kind, downlink.read(kind, answer)))
        return found

    def beat(self, mode=modes.FULL, faults=0, mpy=X64):
        self.wakes += 1
        buf = bytearray(1024)
        made = heartbeat.Heartbeat(buf, self.number, self.seal, 1, 1, self.wakes)
        size, = made.frames([
            (heartbeat.MODE, struct.pack("<BBI", mode, 0, 0)),
            (heartbeat.FAULTS, struct.pack("<H", faults)), heartbeat.model(mpy, None, 0),
            heartbeat.ask(99, 0, 0, 0, 1024, 0)])
        return bytes(buf[:size])

    def offered(self, **more):
        """The number of the package it is offered, None if there is none."""
        found = [body for kind, body in self.hear(self.beat(**more)) if kind == frame.OFFER]
        if not found:
            return None
        (nonce, number, total, _), = found
        assert nonce == 99 and total == len(CONTENT)
        return number

    def want(self, number, offset, count=3, size=100):
        buf = bytearray(26)
        at = self.seal.begin(buf, frame.WANT, self.number)
        struct.pack_into("<IIHB", buf, at, number, offset, size, count)
        self.seal.close(buf, at + 11)
        return bytes(buf)

    def says(self, number, what):
        """A frame with a record of what became of a package."""
        made = Batch(bytearray(1024), self.number, self.seal)
        made.begin(EVENT, 1, self.seq, True)
        self.seq += 1
        made.add(self.seq, record.EVENT, 0, struct.pack(
            record.UPDATE_FORMAT, record.UPDATE, what, 2, number))
        return bytes(made.buf[:made.end()])


@pytest.fixture
def nodes(engine):
    return [Node(engine, number) for number in (1, 2, 3)]


def begin(engine, nodes=(1, 2, 3), **more):
    with engine.begin() as db:
        return rollouts.begin(db, "motion", 2, {X64: CONTENT}, nodes,
                              **{"healthy_s": HEALTHY_S} | more)


def told(engine, rollout):
    with engine.connect() as db:
        found = rollouts.summary(db, rollout)
    return found["state"], found["reason"], [one["state"] for one in found["nodes"]]


def keep(node):
    number = node.offered()
    node.hear(node.says(number, verdict.ON_TRIAL))
    node.hear(node.says(number, verdict.KEPT))


def test_canaries_first_and_the_rest_when_they_have_been_well_long_enough(engine, nodes, clock):
    rollout = begin(engine, canary=2)
    assert nodes[2].offered() is None
    keep(nodes[0])
    keep(nodes[1])
    assert told(engine, rollout) == ("canary", "", ["kept", "kept", "waiting"])
    nodes[0].offered()
    clock.now += HEALTHY_S + 1
    assert nodes[2].offered() is None  # nobody has heard of them since
    nodes[0].hear(nodes[0].beat())
    assert nodes[2].offered() is None
    nodes[1].hear(nodes[1].beat())
    keep(nodes[2])
    assert told(engine, rollout) == ("done", "", ["kept"] * 3)
    assert nodes[2].offered() is None


@pytest.mark.parametrize("ill", [{"mode": modes.SAFE}, {"faults": 1 << record.STAGE_FAILED},
                                 {"faults": 1 << record.MODEL_REFUSED}])
def test_a_canary_that_is_not_well_afterwards_stops_it(engine, nodes, clock, ill):
    rollout = begin(engine, canary=1)
    keep(nodes[0])
    clock.now += 10
    nodes[0].hear(nodes[0].beat(**ill))
    assert told(engine, rollout) == ("stopped", "node 1: kept it, and is not well",
                                     ["kept", "withdrawn", "withdrawn"])
    clock.now += 2 * HEALTHY_S
    nodes[0].hear(nodes[0].beat())
    assert [node.offered() for node in nodes] == [None] * 3


def refuse(node, why):
    node.hear(node.says(node.offered(), why))


def test_so_many_of_the_rest_may_fail_and_with_one_more_it_stops(engine, nodes, clock):
    rollout = begin(engine, most_failed=2 / 3)
    refuse(nodes[0], verdict.TOO_SLOW)
    assert told(engine, rollout) == ("rest", "", ["refused", "waiting", "waiting"])
    keep(nodes[1])
    number = nodes[2].offered()
    nodes[2].hear(nodes[2].says(number, verdict.ON_TRIAL))
    nodes[2].hear(nodes[2].says(number, verdict.FAILED))
    assert told(engine, rollout) == ("done", "", ["refused", "kept", "undone"])

    rollout = begin(engine, most_failed=1 / 3)
    keep(nodes[0])
    clock.now += 1
    refuse(nodes[1], verdict.TOO_SLOW)
    assert told(engine, rollout) == ("rest", "", ["kept", "refused", "waiting"])
    clock.now += 10
    nodes[0].hear(nodes[0].beat(mode=modes.SAFE))  # it had kept it
    assert told(engine, rollout)[:2] == (
        "stopped", "2 of 3 nodes failed, and 33.3333 % may; node 2: too slow")
    assert nodes[2].offered() is None

    rollout = begin(engine, canary=1)  # by default a tenth may: of two nodes, none
    nodes[0].hear(nodes[0].beat())
    keep(nodes[0])
    clock.now += HEALTHY_S + 1
    nodes[0].hear(nodes[0].beat())
    refuse(nodes[1], verdict.OLDER)  # which says nothing against it
    assert told(engine, rollout) == ("rest", "", ["kept", "refused", "waiting"])
    refuse(nodes[2], verdict.CRASHED)
    assert told(engine, rollout)[:2] == (
        "stopped", "1 of 2 nodes failed, and 10 % may; node 3: crashes")


def test_canaries_that_do_not_show_in_time_that_they_are_well_stop_it(engine, nodes, clock):
    """None asks for it; one has fetched some; all keep it, and one is not heard of again."""
    for do, reason in (
            (lambda: None, "node 1 has not asked for it, node 2 has not asked for it"),
            (lambda: nodes[0].hear(nodes[0].want(nodes[0].offered(), 0)),
             "node 1 is fetching it, node 2 has not asked for it"),
            (lambda: [keep(nodes[0]), keep(nodes[1])],
             "node 2 has not told since that it is well")):
        rollout = begin(engine, canary=2, deadline_s=86400)
        do()
        clock.now += 86399
        nodes[0].hear(nodes[0].beat())
        assert told(engine, rollout)[0] == "canary"
        with engine.connect() as db:
            assert rollouts.summary(db, rollout)["deadline_at"] == clock.now + 1
        clock.now += 1
        assert nodes[2].offered() is None
        assert told(engine, rollout)[:2] == ("stopped", f"after 24 h {reason}")

    rollout = begin(engine, canary=3, deadline_s=86400)
    clock.now += 86400
    rollouts.tick(engine)  # though nobody reports
    assert told(engine, rollout)[0] == "stopped"
    rollout = begin(engine, deadline_s=86400)  # without canaries there is no deadline
    clock.now += 86400
    rollouts.tick(engine)
    assert told(engine, rollout)[0] == "rest"


def test_a_gateway_lets_deadlines_pass_though_nobody_reports(tmp_path, monkeypatch):
    monkeypatch.setattr(main, "TICK_S", 0.02)
    database = tmp_path / "gateway.db"
    engine = store.connect(database)
    rollout = begin(engine, canary=1, healthy_s=0.1, deadline_s=0.2)
    with gateway(database):
        until = time.monotonic() + 60
        while told(engine, rollout)[0] == "canary" and time.monotonic() < until:
            time.sleep(0.02)
    assert told(engine, rollout)[:2] == ("stopped", "after 0 min node 1 has not asked for it")
    engine.dispose()


def test_pieces_are_those_that_were_asked_for_by_whom_they_are_for(engine, nodes, clock):
    rollout = begin(engine, (1, 2), canary=1)
    number = nodes[0].offered()
    assert nodes[0].hear(nodes[0].want(number, 4900)) == [
        (frame.PACKAGE, (number, len(CONTENT), at, CONTENT[at:at + 100]))
        for at in (4900, 5000, 5100)]
    assert told(engine, rollout)[2] == ["fetching", "waiting"]
    assert [body[2] for _, body in nodes[0].hear(nodes[0].want(number, 5100))] == [5100]
    assert nodes[0].hear(nodes[0].want(number, len(CONTENT))) == []
    assert nodes[0].hear(nodes[0].want(number + 1, 0)) == []
    assert nodes[1].hear(nodes[1].want(number, 0)) == []  # it is not its turn
    assert nodes[2].hear(nodes[2].want(number, 0)) == []
    with engine.begin() as db:
        rollouts.stop(db, rollout, "by hand")
    assert nodes[0].hear(nodes[0].want(number, 0)) == []


def test_what_is_said_again_changes_nothing(engine, nodes, clock):
    begin(engine, (1,))
    node = nodes[0]
    number = node.offered()
    said = [node.want(number, 0), node.says(number, verdict.ON_TRIAL),
            node.says(number, verdict.KEPT)]
    for one in said:
        node.hear(one)
    with engine.connect() as db:
        before = [db.execute(table.select()).all() for table in (schema.targets, schema.rollouts)]
    clock.now += 5
    for one in said * 2:
        assert [kind for kind, _ in node.hear(one)] in ([], [frame.ACK])
    with engine.connect() as db:
        assert before == [db.execute(table.select()).all()
                          for table in (schema.targets, schema.rollouts)]


def test_a_later_roll_out_overtakes(engine, nodes, clock):
    first = begin(engine, (1, 2))
    keep(nodes[0])
    second = begin(engine, (1, 2, 3))
    assert told(engine, first) == ("done", "", ["kept", "withdrawn"])
    for node in nodes:
        keep(node)
    assert told(engine, second) == ("done", "", ["kept"] * 3)


def test_a_processor_that_nothing_was_built_for(engine, nodes, clock):
    rollout = begin(engine, (1, 2), canary=1)
    assert nodes[0].offered(mpy=10) is None
    nodes[0].hear(nodes[0].beat())
    assert told(engine, rollout) == ("stopped", "node 1: for another processor",
                                     ["refused", "withdrawn"])


def test_roll_outs_that_make_no_sense(engine):
    for more in ({"nodes": ()}, {"nodes": (1, 1)}, {"canary": 4}, {"canary": -1},
                 {"canary": 1, "deadline_s": HEALTHY_S}, {"most_failed": 1.1},
                 {"most_failed": -0.1}):
        with pytest.raises(rollouts.RolloutError):
            begin(engine, **more)
    with engine.connect() as db, pytest.raises(rollouts.RolloutError, match="no roll-out 5"):
        rollouts.summary(db, 5)
