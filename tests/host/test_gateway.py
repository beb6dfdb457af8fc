"""The gateway has each record once, acknowledges only those, and believes nobody without a key."""

import asyncio
import contextlib
import json
import logging
import os
import select
import sqlite3
import struct
import subprocess
import sys
import tty
from pathlib import Path

import pytest
from gateways import enrolled, gateway
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import event
from typer.testing import CliRunner

from node import document, downlink, frame, heartbeat
from node.batch import Batch
from node.frame import Seal
from outpost import provision
from outpost.cli import app
from outpost.gateway import intake, main, schema, store, streams
from outpost.gateway.desk import Desk
from outpost.gateway.keys import AGAIN_S, KEPT_S, Keys, enrol

DOCS = Path(__file__).parents[2] / "docs"
NODE, LANE, EPOCH = 7, 2, 0xFFFFFFFE
KEY = bytes(range(7, 39))
SEAL = Seal(KEY)


def batch(after, seqs, floor=True, epoch=EPOCH, lane=LANE, seal=SEAL, node=NODE, size=1024):
    """A frame with records of these sequences; their payload tells them apart."""
    made = Batch(bytearray(size), node, seal)
    made.begin(lane, epoch, after, floor)
    for seq in seqs:
        assert made.add(seq, 1, 1_700_000_000 + seq, b"record %d" % seq)
    return bytes(made.buf[:made.end()])


def parts(after, seq, payload, size=51, floor=True):
    """The frames of one record that goes in parts."""
    made, offset, frames = Batch(bytearray(size), NODE, SEAL), 0, []
    while True:
        made.begin(LANE, EPOCH, after, floor)
        offset = made.part((seq, 5, 1_700_000_000, payload), offset)
        frames.append(bytes(made.buf[:made.end()]))
        if offset == 0:
            return frames


def beat(seq, wakes, epoch=EPOCH, items=((heartbeat.MISSES, b"\x05\x00"),), size=1024, nonce=None):
    """The frames of a heartbeat."""
    buf = bytearray(size)
    made = heartbeat.Heartbeat(buf, NODE, SEAL, epoch, seq, wakes)
    asked = [] if nonce is None else [heartbeat.ask(nonce, 1_700_000_000, document.crc({}),
                                                         0, size, 0)]
    return [bytes(buf[:length]) for length in made.frames([*items, *asked])]


def open_desk(where):
    engine = store.connect(where)
    with engine.begin() as db:
        enrol(db, NODE, KEY)
    return Desk(engine, clock=None), engine


@pytest.fixture
def engine(engine):
    with engine.begin() as db:
        enrol(db, NODE, KEY)
    return engine


@pytest.fixture
def desk(engine):
    return Desk(engine, clock=None)


def stored(engine, epoch=EPOCH):
    with engine.connect() as db:
        return [row.seq for row in intake.lane_records(db, NODE, LANE, epoch)]


def read(answer, seal=SEAL):
    kind, node = frame.identify(answer)
    seal.open(answer)
    return kind, downlink.read(kind, answer)


def heads(answers, seal=SEAL):
    """{(lane, epoch): head} of what a desk answers."""
    found = {}
    for _, answer in answers:
        kind, body = read(answer, seal)
        if kind == frame.ACK:
            found |= {(lane, epoch): seq for lane, epoch, seq in body}
    return found


def head(desk, *frames):
    return heads(desk.take(frames))[LANE, EPOCH]


def everything(engine):
    """All there is in the database."""
    with engine.connect() as db:
        return {table.name: sorted(db.execute(table.select()).all())
                for table in schema.metadata.sorted_tables}


# --- each once, and nothing missing ---


def test_each_record_is_stored_once_however_often_it_comes(desk, engine):
    first = batch(0, [1, 2, 3])
    assert head(desk, first) == 3
    assert head(desk, first, first) == 3
    assert head(desk, batch(1, [2, 3, 4])) == 4
    assert stored(engine) == [1, 2, 3, 4]
    with engine.connect() as db:
        for row in intake.lane_records(db, NODE, LANE, EPOCH):
            assert (row.kind, row.time_s) == (1, 1_700_000_000 + row.seq)
            assert row.payload == b"record %d" % row.seq


def test_what_is_missing_is_never_acknowledged(desk, engine):
    assert head(desk, batch(5, [6, 7], floor=False)) == 0
    assert head(desk, batch(0, [1, 2])) == 2
    assert head(desk, batch(2, [3, 4, 5])) == 7  # and now 6, 7 follow
    assert stored(engine) == [1, 2, 3, 4, 5, 6, 7]


def test_records_of_a_lane_that_somebody_has_deleted_are_left_as_they_are(desk, engine):
    """They are beyond all that should be there, so they are believed to be new."""
    head(desk, batch(0, [1, 2, 3]))
    with engine.begin() as db:
        db.execute(schema.lanes.delete())
    assert head(desk, batch(0, [1, 2, 3, 4]), batch(4, [5])) == 5
    assert stored(engine) == [1, 2, 3, 4, 5]


def test_a_gap_at_the_node_is_no_gap_here(desk):
    assert head(desk, batch(0, [1, 2])) == 2
    assert head(desk, batch(2, [10, 11, 15])) == 15
    assert head(desk, batch(15, [16])) == 16


def test_records_that_another_gateway_has_are_not_waited_for(desk):
    assert head(desk, batch(1000, [1001])) == 1001
    # not so without the floor: then they are still on their way
    assert heads(desk.take([batch(1000, [1001], floor=False, epoch=3)])) == {(LANE, 3): 0}


def test_epochs_and_lanes_are_apart(desk, engine):
    answers = desk.take([batch(0, [1, 2]), batch(0, [1], epoch=5), batch(0, [1], lane=0)])
    assert heads(answers) == {(LANE, EPOCH): 2, (LANE, 5): 1, (0, EPOCH): 1}
    assert len(answers) == 1  # one frame for all lanes
    assert stored(engine) == [1, 2] and stored(engine, 5) == [1]


@pytest.mark.parametrize("waiting", [1, 99, 100, 101, 2500])
def test_a_long_chain_that_waited_for_its_first_link(desk, waiting):
    frames = [batch(seq, [seq + 1], floor=False) for seq in range(1, waiting + 1)]
    assert head(desk, *frames) == 0
    assert head(desk, batch(0, [1])) == waiting + 1


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_order_any_repetition(data):
    """Whatever comes in whatever order: what is acknowledged is stored, and stored once."""
    existing = sorted(data.draw(st.sets(st.integers(1, 40), min_size=1), "records at the node"))
    cuts = data.draw(st.lists(st.tuples(st.integers(0, len(existing) - 1), st.integers(1, 6)),
                              min_size=1, max_size=25), "batches")
    cuts += [(i, 1) for i in data.draw(st.permutations(range(len(existing))), "the rest")]
    together = data.draw(st.integers(1, 4), "frames in one transaction")
    desk, engine = open_desk("sqlite://")
    before = 0
    seen = set()
    for first in range(0, len(cuts), together):
        frames = []
        for start, count in cuts[first:first + together]:
            seqs = existing[start:start + count]
            seen.update(seqs)
            frames.append(batch(existing[start - 1] if start else 0, seqs, floor=False))
        acked = head(desk, *frames)
        assert {seq for seq in existing if seq <= acked} <= seen
        assert acked >= before
        before = acked
    assert before == existing[-1]
    assert stored(engine) == existing
    engine.dispose()


def test_a_record_in_parts_is_whole_or_not_there(desk, engine):
    payload = os.urandom(240)
    frames = parts(0, 1, payload)
    assert len(frames) > 10
    for one in frames[::-1][:-1]:
        assert head(desk, one) == 0 and stored(engine) == []
    assert head(desk, frames[0]) == 1
    with engine.connect() as db:
        assert [row.payload for row in intake.lane_records(db, NODE, LANE, EPOCH)] == [payload]
    assert head(desk, *frames) == 1  # and again
    assert head(desk, frames[3], batch(1, [2])) == 2
    assert everything(engine)["pieces"] == [] and stored(engine) == [1, 2]


@pytest.mark.parametrize("came", [1, 5])
def test_parts_of_other_lengths_still_fit_together(desk, engine, came):
    payload = os.urandom(240)
    desk.take(parts(0, 1, payload, 51)[:came])
    assert head(desk, *parts(0, 1, payload, 100)[came // 5:]) == 1
    with engine.connect() as db:
        assert [row.payload for row in intake.lane_records(db, NODE, LANE, EPOCH)] == [payload]


def test_postgresql_may_keep_records_in_partitions(postgres):
    """As docs/scale.md has it: made before the gateway comes, which finds its table there."""
    from sqlalchemy import create_engine

    where = postgres.database()
    sql = (DOCS / "scale.md").read_text().split("```sql\n")[1].split("```")[0]
    made = create_engine(where)
    with made.begin() as db:
        db.exec_driver_sql(sql.replace("%", "%%"))
    made.dispose()
    desk, engine = open_desk(where)
    first = batch(0, [1, 2, 3])
    assert head(desk, first) == 3 and head(desk, first, batch(3, [4])) == 4
    assert stored(engine) == [1, 2, 3, 4]
    with engine.connect() as db:
        parts = [row[0] for row in db.exec_driver_sql(
            "SELECT inhrelid::regclass::text FROM pg_inherits "
            "WHERE inhparent = 'records'::regclass")]
        used = [name for name in parts
                if db.exec_driver_sql(f"SELECT count(*) FROM {name}").scalar()]
    engine.dispose()
    assert len(parts) == 16 and len(used) == 1


# --- who is believed ---


def test_damage_is_refused_whole(desk, engine):
    good = batch(0, [1, 2, 3])
    before = everything(engine)
    for at in range(len(good)):
        bad = bytearray(good)
        bad[at] ^= 1 << at % 8
        assert desk.take([bytes(bad)]) == []
    assert everything(engine) == before
    assert sum(desk.refused.values()) == len(good)


@pytest.mark.parametrize("forger", [Seal(b""), Seal(bytes(32)), Seal(KEY[::-1]), Seal(KEY[:-1])])
def test_a_forged_frame_changes_nothing(desk, engine, forger):
    before = everything(engine)
    assert desk.take([batch(0, [1], seal=forger), batch(10**9, [10**9 + 1], seal=forger)]) == []
    assert everything(engine) == before
    assert desk.refused == {"frame was not made with this node's key": 2}


def test_one_node_cannot_speak_for_another(desk, engine):
    with engine.begin() as db:
        enrol(db, 8, KEY[::-1])
    other = batch(0, [1], node=8, seal=SEAL)
    assert desk.take([other]) == [] and stored(engine) == []
    stolen = bytearray(batch(0, [1]))
    stolen[1:5] = struct.pack("<I", 8)
    stolen[-2:] = struct.pack("<H", frame.crc32(bytes(stolen[:-2])) & 0xFFFF)
    assert desk.take([bytes(stolen)]) == []


def test_a_node_nobody_has_provisioned_is_refused(desk, engine):
    assert desk.take([batch(0, [1], node=99, seal=Seal(b""))]) == []
    assert desk.refused == {"frame of a node that was never provisioned": 1}


def test_other_versions_are_refused_with_a_reason(desk):
    later = bytearray(batch(0, [1]))
    later[0] = 3 << 4 | 1
    desk.take([bytes(later)])
    assert desk.refused == {"frame version 3, this is version 2": 1}


def test_a_replayed_frame_changes_nothing(desk, engine):
    frames = [batch(0, [1, 2, 3]), batch(3, [4]), *beat(9, 100), *parts(4, 5, bytes(200))]
    desk.take(frames)
    desk.take([batch(5, [6, 7]), *beat(10, 101, items=[(heartbeat.MISSES, b"\x06\x00")])])
    before = everything(engine)
    for one in frames * 2:
        desk.take([one])
    assert everything(engine) == before
    assert head(desk, frames[0]) == 7  # it is answered with what is true now


def test_a_replayed_heartbeat_does_not_speak_for_its_node(desk, engine):
    old, new, other = beat(9, 100), beat(9, 101), beat(3, 1, epoch=5)
    items = ((heartbeat.MISSES, b"\x07\x00"),)
    for frames in (old, new, other, old, new, beat(9, 102, items=items), other):
        desk.take(frames)
    (row,) = everything(engine)["status"]
    assert (row.epoch, row.seq, row.wakes) == (5, 3, 1)  # the epoch that began last
    assert len(everything(engine)["heartbeats"]) == 4  # but all of them are kept, once


def test_a_heartbeat_in_many_frames_is_put_together(desk, engine):
    items = [*heartbeat.pairs(heartbeat.WAITING, range(1, 33), 4), (heartbeat.MISSES, b"\x05\x00")]
    frames = beat(1, 1, items=items, size=51)
    assert len(frames) > 2
    for one in frames[::-1]:
        desk.take([one])
    (row,) = everything(engine)["status"]
    assert json.loads(row.items) == {"waiting": {str(i): i + 1 for i in range(32)},
                                           "misses": 5}
    desk.take(beat(1, 2, items=[(heartbeat.MISSES, b"\x00\x00")]))
    (row,) = everything(engine)["status"]
    assert json.loads(row.items) == {"misses": 0}  # nothing is left of the one before


def test_who_asks_is_told_the_time_last(engine):
    desk = Desk(engine, clock=lambda: 1_800_000_000.9)
    answers = desk.take([batch(0, [1]), *beat(1, 1, nonce=0xABCD1234)])
    assert [read(answer) for _, answer in answers] == [
        (frame.ACK, ((LANE, EPOCH, 1),)), (frame.TIME, (0xABCD1234, 1_800_000_000))]
    (_, quiet), = Desk(engine, clock=None).take(beat(1, 2, nonce=1))
    assert read(quiet) == (frame.TIME, (1, 0))


def test_a_full_disk_costs_nothing_but_time(tmp_path):
    desk, engine = open_desk(tmp_path / "gateway.db")
    frames = [batch(20 * n, range(20 * n + 1, 20 * n + 21)) for n in range(40)]
    with engine.begin() as db:
        here = db.exec_driver_sql("PRAGMA page_count").scalar()
    event.listen(engine, "checkout", lambda connection, *_: connection.execute(
        f"PRAGMA max_page_count = {limit}"))
    limit = here + 4
    with pytest.raises((store.StoreError, sqlite3.Error), match="database or disk is full"):
        desk.take(frames)
    assert stored(engine) == []
    limit = here + 4000
    assert head(desk, *frames) == 800 and stored(engine) == list(range(1, 801))
    engine.dispose()


# --- the end ---


def test_it_ends_though_a_task_misses_that_it_was_cancelled():
    """As aiomqtt's does, when it is cancelled in the moment in which its subscription is done."""
    async def deaf():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        await asyncio.sleep(60)

    async def end():
        tasks = {asyncio.create_task(deaf()), asyncio.create_task(asyncio.sleep(60))}
        await asyncio.sleep(0)
        await main._cancel(tasks)
        return all(task.cancelled() for task in tasks)

    assert asyncio.run(asyncio.wait_for(end(), 20))


# --- keys ---


def test_keys_are_taken_from_the_persons_store_and_renewed(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    clock, other = [100.0], Seal(KEY[::-1])
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    engine = store.connect(tmp_path / "gateway.db")
    desk = Desk(engine, Keys(engine, provision.folder()), clock=None)
    assert desk.take([batch(0, [1])]) == []
    provision.save(provision.Node(NODE, KEY, "esp32"))
    clock[0] += AGAIN_S + 1
    assert head(desk, batch(0, [1])) == 1
    provision.save(provision.Node(NODE, KEY[::-1], "esp32"))  # flashed again with another key
    clock[0] += AGAIN_S + 1
    assert heads(desk.take([batch(1, [2], seal=other)]), other) == {(LANE, EPOCH): 2}
    assert desk.take([batch(2, [3])]) == []  # the old one is worth nothing now
    # a worker elsewhere reads the key from the database
    assert heads(Desk(engine, clock=None).take([batch(2, [3], seal=other)]), other)
    engine.dispose()


def test_a_node_that_is_forgotten_is_refused_by_gateways_that_knew_it(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    clock = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    engine = store.connect(tmp_path / "gateway.db")
    provision.save(provision.Node(NODE, KEY, "esp32", "a chip"))
    near = Desk(engine, Keys(engine, provision.folder()), clock=None)
    far = Desk(engine, clock=None)
    assert head(near, batch(0, [1])) == 1 and head(far, batch(1, [2])) == 2
    clock[0] += KEPT_S + 1
    assert head(near, batch(2, [3])) == 3 and head(far, batch(3, [4])) == 4
    done = CliRunner().invoke(app, ["nodes", str(NODE), "--forget",
                                    "--database", str(tmp_path / "gateway.db")])
    assert done.exit_code == 0, done.exception
    clock[0] += KEPT_S + 1
    assert near.take([batch(4, [5])]) == far.take([batch(4, [5])]) == []
    assert len(stored(engine)) == 4
    assert provision.choose("esp32", "a chip").key != KEY  # it would be another
    engine.dispose()


def test_a_database_with_keys_is_its_owners_alone(tmp_path):
    before = os.umask(0o022)
    try:
        engine = store.connect(tmp_path / "gateway.db")
        with engine.begin() as db:
            enrol(db, NODE, KEY)
            files = list(tmp_path.iterdir())  # its WAL as well
            assert len(files) == 3 and {file.stat().st_mode & 0o777 for file in files} == {0o600}
    finally:
        os.umask(before)
    engine.dispose()


def test_keys_are_never_told(tmp_path, caplog, capsys):
    caplog.set_level(logging.DEBUG)
    desk, engine = open_desk(tmp_path / "gateway.db")
    desk.take([batch(0, [1]), batch(0, [1], seal=Seal(b"x")), b"noise", *beat(1, 1, nonce=3),
               batch(0, [1], node=99)])
    said = caplog.text + "".join(capsys.readouterr()) + repr(desk.__dict__) + repr(SEAL)
    assert "not made with this node's key" in caplog.text
    for secret in (KEY.hex(), repr(KEY), repr(KEY)[2:-1], KEY.hex().upper()):
        assert secret not in said
    engine.dispose()


def test_nothing_at_all_is_stored(engine):
    with engine.begin() as db:
        assert intake.store(db, []) == {}


# --- frames over byte streams ---


def test_noise_on_a_line_is_passed_over_and_answered_with_silence(desk):
    for noise in (b"\0", b"\x01\0", b"\x05ab\0", os.urandom(50).replace(b"\0", b"x") + b"\0"):
        assert streams.answer(desk, noise) == b""
    (_, ack), = desk.take([batch(0, [1])])
    assert streams.answer(desk, streams.coded(ack)) == b""
    assert any("no business here" in reason for reason in desk.refused)


@pytest.mark.parametrize("size", [1, 2, 7, 100, 100_000])
def test_frames_in_pieces_of_any_size(desk, size):
    lines = streams.Lines()
    sent = (b"\0\0garbage\0" + b"\x55" * 3 * streams.MOST + b"\0"
            + b"".join(streams.coded(batch(seq, [seq + 1])) for seq in range(9))
            + streams.coded(batch(9, [10]))[:-3])  # torn
    found = [frame for at in range(0, len(sent), size) for frame in lines.feed(sent[at:at + size])]
    assert head(desk, *found) == 9


def acknowledged(line):
    frame, = streams.Lines().feed(line)
    return heads([(NODE, frame)])[LANE, EPOCH]


def test_a_cable_that_is_pulled_out_and_put_back(tmp_path):
    """A pseudo-terminal as the serial port of a real gateway; its node writes as nodes do."""
    database = enrolled(tmp_path / "gateway.db", {NODE: KEY})
    ours, theirs = os.openpty()
    link = tmp_path / "tty"
    link.symlink_to(os.ttyname(theirs))
    tty.setraw(theirs)
    with gateway(database, serial=[str(link)]):
        for seq in range(3):
            os.write(ours, b"noise\0" + streams.coded(batch(seq, [seq + 1])))
            assert acknowledged(until_zero(ours)) == seq + 1
        link.unlink()
        os.close(theirs)
        os.close(ours)
        ours, theirs = os.openpty()
        tty.setraw(theirs)
        link.symlink_to(os.ttyname(theirs))
        answer = b""
        for _ in range(100):  # until it is open again, what is sent may be lost
            os.write(ours, streams.coded(batch(3, [4])))
            if select.select([ours], [], [], 0.3)[0]:
                answer = until_zero(ours)
                break
        assert acknowledged(answer) == 4
    os.close(theirs)
    os.close(ours)


def until_zero(fd):
    line = b""
    while not line.endswith(b"\0"):
        assert select.select([fd], [], [], 30)[0], "no answer"
        line += os.read(fd, 1)
    return line


def test_who_opens_a_database_once_more_leaves_it_locked_for_those_who_have_it_open(tmp_path):
    """POSIX: a process that closes a file loses its locks on it, and SQLite would rely on them."""
    file = tmp_path / "gateway.db"
    one = store.connect(file)
    with one.connect() as db:
        db.execute(schema.keys.select()).all()
    store.connect(file).dispose()
    code = ("import sqlite3, sys; db = sqlite3.connect(sys.argv[1], timeout=0); "
            "print(*db.execute('PRAGMA journal_mode = DELETE').fetchone())")
    taken = subprocess.run([sys.executable, "-c", code, str(file)], text=True,
                           capture_output=True, check=False)
    one.dispose()
    assert "database is locked" in taken.stderr and not taken.stdout
