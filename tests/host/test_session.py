"""A node's own session code against the gateway's own desk, over links that fail in every way."""

import errno
import json
import random
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from node import record
from node.board import Common, Late
from node.frame import PART, RECORDS, Seal
from node.outbox import DIAGNOSTIC
from node.state import State
from node.uplink.session import Session
from outpost.gateway import schema, store
from outpost.gateway.desk import Desk
from outpost.gateway.keys import enrol

sys.path.insert(0, str(Path(__file__).parents[1] / "device" / "lib"))

from ram import Flash, outbox  # noqa: E402

NODE, KEY = 7, bytes(range(7, 39))
START_S = 1_767_600_000


class Board(Common):
    """A node's board whose clock only moves while it waits."""

    cause, node_id, key = 1, NODE, KEY

    def __init__(self):
        super().__init__()
        self.us = self.fed = self.radio_us = 0
        self.limit_us = 20_000_000

    def ticks_us(self):
        return self.us

    def now_s(self):
        return START_S + self.us // 1_000_000

    def random32(self):
        return random.getrandbits(32)

    def battery_mv(self):
        return 3900

    def temperature_c(self):
        return -7

    def feed(self):
        self.fed += 1


class Link:
    """Frames to a desk and back; `lose(frame, up)` says what does not get through."""

    def __init__(self, board, desk, size=1024, window=4, lose=lambda frame, up: False):
        self.board, self.desk, self.size, self.window, self.lose = board, desk, size, window, lose
        self.patience_ms, self.tries = 500, 2
        self.sent, self.back, self.carried = [], [], 0

    def send(self, frame):
        frame = bytes(frame)
        assert len(frame) <= self.size
        self.sent.append(frame)
        self.board.us += 1000
        if not self.lose(frame, True):
            self.back += [answer for _, answer in self.desk.take([frame])
                          if not self.lose(answer, False)]

    def receive(self, buf, ms):
        assert 0 < ms <= self.patience_ms
        if not self.back:
            self.board.us += ms * 1000
            return 0
        self.board.us += 1000
        frame = self.back.pop(0)
        buf[:len(frame)] = frame
        return len(frame)


def state(wakes=1):
    made = State()
    made.wakes, made.causes[0] = wakes, 1
    return made


@pytest.fixture
def gateway():
    engine = store.connect("sqlite://")
    with engine.begin() as db:
        enrol(db, NODE, KEY)
    yield Desk(engine, clock=None), engine
    engine.dispose()


def fill(box, count=60, longest=240):
    for i in range(count):
        box.put(i % 4, 1 + i % 6, START_S + 61 * i, bytes([i]) * (i * 7 % longest))


def hold(box, link, board, frame=1024, awake_ms=20_000, wakes=1):
    """One session; return None or the error it ended with."""
    board.limit_us = awake_ms * 1000
    try:
        Session(board, SimpleNamespace(frame=frame, version=1, problem=None, uplink_s=1800,
                                       model=None, trial=0, changes={}, day_bytes=0),
                state(wakes), box, link).hold()
    except OSError as error:
        return error.args[0]
    except Late:
        return "late"
    return None


def stored(engine):
    with engine.connect() as db:
        return [tuple(row) for row in db.execute(
            schema.records.select().with_only_columns(
                schema.records.c.lane, schema.records.c.seq, schema.records.c.kind,
                schema.records.c.time_s, schema.records.c.payload))]


def recorded(box):
    return sorted((lane, seq, kind, time_s, bytes(payload)) for lane, ring in enumerate(box.lanes)
                  for seq, kind, time_s, payload in ring.records())


@pytest.mark.parametrize("size", [51, 60, 250, 1024])
@pytest.mark.parametrize("window", [1, 4, 8])
def test_all_of_it_arrives_in_frames_of_any_size(gateway, size, window):
    desk, engine = gateway
    box, board = outbox(), Board()
    fill(box)
    link = Link(board, desk, size, window)
    assert hold(box, link, board) is None
    assert box.depth() == 0 and sorted(stored(engine)) == recorded(box)
    assert board.us < 3_000_000  # nothing was waited for
    sent = len(link.sent)
    again = Link(board, desk, size, window)
    assert hold(box, again, board, wakes=2) is None
    assert len(again.sent) < sent / 3  # a heartbeat, and no record twice
    with engine.connect() as db:
        row = db.execute(schema.status.select()).one()
    items = json.loads(row.items)
    assert row.wakes == 2 and items["battery_mv"] == 3900 and "waiting" not in items
    assert (items["mode"], items["mode_age_s"]) == (0, 0)  # it has never changed


def test_a_setting_makes_frames_shorter_than_the_link_could_take(gateway):
    box, board = outbox(), Board()
    fill(box)
    link = Link(board, gateway[0])
    assert hold(box, link, board, frame=100) is None
    assert max(map(len, link.sent)) <= 100 and box.depth() == 0


def test_what_matters_most_goes_first(gateway):
    box, board = outbox(), Board()
    for i in range(200):
        box.put(2, record.READING, START_S + i, bytes(30))
    box.put(0, record.EVENT, START_S, b"\x03\x00\x01")
    link = Link(board, gateway[0])
    hold(box, link, board)
    lanes = [frame[5] & 0x7F for frame in link.sent if frame[0] & 15 in (RECORDS, PART)]
    assert lanes[0] == 0 and set(lanes[1:]) == {2}


def test_acknowledgements_cost_one_program_a_lane(gateway):
    flash, board = Flash(12), Board()
    box = outbox(flash)
    fill(box)
    before = flash.programs
    assert hold(box, Link(board, gateway[0], 51), board) is None
    assert flash.programs - before <= 4
    again = outbox(flash)
    assert again.depth() == 0  # it is on flash


@pytest.mark.parametrize("size", [51, 1024])
@pytest.mark.parametrize("seed", range(8))
def test_a_link_that_loses_frames_delays_and_loses_nothing(gateway, size, seed):
    desk, engine = gateway
    rng = random.Random(seed)
    box, board = outbox(), Board()
    fill(box)
    sessions = 0
    while box.depth():
        sessions += 1
        assert sessions < 200
        started = board.us = 0
        error = hold(box, Link(board, desk, size, 4, lambda *_: rng.random() < 0.1), board,
                     wakes=sessions)
        assert error in (None, errno.ETIMEDOUT)
        assert board.us - started <= 20_000_000
        assert {one[:2] for one in stored(engine)} >= {
            (lane, seq) for lane in range(4) for seq in range(1, box.lanes[lane].acked + 1)}
    assert sorted(stored(engine)) == recorded(box)


def test_a_gateway_that_is_gone_costs_two_tries(gateway):
    box, board = outbox(), Board()
    fill(box)
    assert hold(box, Link(board, gateway[0], lose=lambda *_: True), board) == errno.ETIMEDOUT
    assert board.us < 2 * 500_000 + 50_000 and box.depth() == 60


def test_nobody_hears_of_a_node_without_a_key(gateway):
    box, board = outbox(), Board()
    board.key = b""
    link = Link(board, gateway[0])
    assert hold(box, link, board) == errno.EACCES and link.sent == []


@pytest.mark.parametrize("awake_ms", [1, 5, 10, 40, 100])
def test_the_deadline_ends_it_wherever_it_stands(gateway, awake_ms):
    desk, engine = gateway
    box, board = outbox(), Board()
    fill(box)
    assert hold(box, Link(board, desk, 51), board, awake_ms=awake_ms) == "late"
    # one more heartbeat or window of frames at most
    assert board.us <= awake_ms * 1000 + 40_000
    assert box.depth() > 0
    board.us = 0
    assert hold(box, Link(board, desk), board, wakes=2) is None
    assert sorted(stored(engine)) == recorded(box)


def test_forged_and_replayed_answers_neither_acknowledge_nor_keep_it_awake(gateway):
    desk, engine = gateway
    box, board = outbox(), Board()
    fill(box, 40)
    recording = Link(board, desk)
    heard = []
    recording.lose = lambda frame, up: not up and heard.append(frame)
    hold(box, recording, board)
    fill(box, 40)
    depth = box.depth()

    class Replay(Link):
        """Answers everything with what it has once recorded, and with forgeries."""

        def receive(self, buf, ms):
            self.board.us += 1000
            frame = bytearray(heard[len(self.sent) % len(heard)])
            if random.random() < 0.5:
                seal = Seal(bytes(32))
                seal.close(frame, len(frame) - 10)
            self.sent.append(frame)
            buf[:len(frame)] = frame
            return len(frame)

    board.us = 0
    link = Replay(board, desk, lose=lambda *_: True)
    assert hold(box, link, board) == errno.ETIMEDOUT
    assert box.depth() == depth and board.us < 1_000_000


def test_records_that_can_no_longer_be_read_hold_nothing_up(gateway):
    desk, engine = gateway
    flash, board = Flash(12), Board()
    box = outbox(flash)
    fill(box, 20, 30)
    tail = box.lanes[1].save()[6]
    flash.data[3 * 4096 + 50:3 * 4096 + tail] = bytes(tail - 50)  # all there is of lane 1
    assert hold(box, Link(board, desk), board) is None
    assert box.depth() == 0
    assert {lane for lane, *_ in stored(engine)} >= {0, 2, DIAGNOSTIC}
