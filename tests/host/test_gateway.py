"""The store has each record once and acknowledges only those; the ingest lives through noise."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select

from node import frame
from node.uplink import serial
from outpost.gateway import ingest, store

NODE, LANE, EPOCH = 7, 2, 0xFFFFFFFE


def batch(after, seqs, floor=True, epoch=EPOCH, lane=LANE):
    """A frame with records of these sequences; their payload tells them apart."""
    made = frame.Batch(bytearray(4096))
    made.begin(NODE, lane, epoch, after, floor)
    for seq in seqs:
        assert made.add(seq, 1, 1_700_000_000 + seq, b"record %d" % seq)
    return bytes(made.buf[:made.end()])


def coded(plain):
    out = bytearray(len(plain) + len(plain) // 254 + 2)
    return bytes(out[:serial.encode(plain, len(plain), out)])


@pytest.fixture
def engine(tmp_path):
    made = store.connect(tmp_path / "gateway.db")
    yield made
    made.dispose()


def stored(engine, epoch=EPOCH):
    with engine.connect() as db:
        return [row.seq for row in store.lane_records(db, NODE, LANE, epoch)]


def head(answer):
    assert answer[:3] == (NODE, LANE, EPOCH)
    return answer[3]


def test_each_record_is_stored_once_however_often_it_comes(engine):
    first = batch(0, [1, 2, 3])
    assert head(store.store(engine, first)) == 3
    assert head(store.store(engine, first)) == 3
    assert head(store.store(engine, batch(1, [2, 3, 4]))) == 4
    assert stored(engine) == [1, 2, 3, 4]
    with engine.connect() as db:
        for row in store.lane_records(db, NODE, LANE, EPOCH):
            assert (row.kind, row.time_s) == (1, 1_700_000_000 + row.seq)
            assert row.payload == b"record %d" % row.seq


def test_what_is_missing_is_never_acknowledged(engine):
    assert head(store.store(engine, batch(5, [6, 7], floor=False))) == 0
    assert head(store.store(engine, batch(0, [1, 2]))) == 2
    assert head(store.store(engine, batch(2, [3, 4, 5]))) == 7  # and now 6, 7 follow
    assert stored(engine) == [1, 2, 3, 4, 5, 6, 7]


def test_a_gap_at_the_node_is_no_gap_here(engine):
    assert head(store.store(engine, batch(0, [1, 2]))) == 2
    assert head(store.store(engine, batch(2, [10, 11, 15]))) == 15
    assert head(store.store(engine, batch(15, [16]))) == 16


def test_records_that_another_gateway_has_are_not_waited_for(engine):
    assert head(store.store(engine, batch(1000, [1001]))) == 1001
    # not so without the floor: then they are still on their way
    assert store.store(engine, batch(1000, [1001], floor=False, epoch=3))[3] == 0


def test_epochs_and_lanes_are_apart(engine):
    store.store(engine, batch(0, [1, 2]))
    assert store.store(engine, batch(0, [1], epoch=5))[3] == 1
    assert store.store(engine, batch(0, [1], lane=0)) == (NODE, 0, EPOCH, 1)
    assert stored(engine) == [1, 2] and stored(engine, 5) == [1]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_order_any_repetition(data):
    """Whatever comes in whatever order: what is acknowledged is stored, and stored once."""
    existing = sorted(data.draw(st.sets(st.integers(1, 40), min_size=1), "records at the node"))
    cuts = data.draw(st.lists(st.tuples(st.integers(0, len(existing) - 1), st.integers(1, 6)),
                              min_size=1, max_size=25), "batches")
    cuts += [(i, 1) for i in data.draw(st.permutations(range(len(existing))), "the rest")]
    engine = store.connect("sqlite://")
    before = 0
    seen = set()
    for start, count in cuts:
        seqs = existing[start:start + count]
        seen.update(seqs)
        after = existing[start - 1] if start else 0
        acked = head(store.store(engine, batch(after, seqs, floor=False)))
        assert {seq for seq in existing if seq <= acked} <= seen
        assert acked >= before
        before = acked
    assert before == existing[-1]
    assert stored(engine) == existing
    engine.dispose()


def test_damage_is_refused_whole(engine):
    good = batch(0, [1, 2, 3])
    for at in range(len(good)):
        bad = bytearray(good)
        bad[at] ^= 1 << at % 8
        with pytest.raises(frame.FrameError):
            store.store(engine, bytes(bad))
    assert stored(engine) == []


def test_noise_is_answered_with_silence(engine, capsys):
    for noise in (b"", b"\x01", b"\x05ab", os.urandom(50).replace(b"\0", b"x")):
        assert ingest.answer(engine, bytearray(noise)) == b""
    ack = bytearray(40)
    frame.encode_ack(ack, 1, 1, 1, 1)
    assert ingest.answer(engine, bytearray(coded(bytes(ack[:18]))[:-1])) == b""
    assert "passed over" in capsys.readouterr().err


def acknowledged(reader_bytes):
    line = bytearray(reader_bytes.rstrip(b"\0"))
    return frame.decode_ack(bytes(line[:serial.decode(line, len(line))]))


def test_a_session_with_noise_and_pieces(engine):
    """One connection: noise, an overlong line, frames in pieces and several at once."""
    async def talk():
        server = await ingest.serve(engine, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"\0\0garbage\0" + b"\x55" * 3 * ingest.MAX_LINE + b"\0")
        for byte in coded(batch(0, [1, 2])):
            writer.write(bytes([byte]))
            await writer.drain()
        one = acknowledged(await reader.readuntil(b"\0"))
        writer.write(coded(batch(2, [3])) + coded(batch(3, [4])))
        two = acknowledged(await reader.readuntil(b"\0"))
        three = acknowledged(await reader.readuntil(b"\0"))
        writer.write(coded(batch(4, [5]))[:-3])  # torn by the end of the connection
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()
        return one, two, three

    answers = asyncio.run(asyncio.wait_for(talk(), 20))
    assert [head(answer) for answer in answers] == [2, 3, 4]
    assert stored(engine) == [1, 2, 3, 4]


def test_killed_at_any_moment_it_has_what_it_acknowledged(tmp_path):
    """kill -9 in the middle of a stream of frames, again and again."""
    database, acked, sent = tmp_path / "gateway.db", 0, 0
    for round_ in range(4):
        process = subprocess.Popen(
            [sys.executable, "-m", "outpost.gateway.ingest", "--database", str(database)],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        try:
            port = int(process.stdout.readline())
            with contextlib.suppress(OSError), \
                    socket.create_connection(("127.0.0.1", port), 20) as line:
                answers = line.makefile("rb")
                for i in range(30):
                    sent = max(sent, acked + 3)
                    line.sendall(coded(batch(acked, [acked + 1, acked + 2, acked + 3])))
                    if i == 10 + round_:
                        process.send_signal(signal.SIGKILL)
                    answer = b""
                    while not answer.endswith(b"\0"):
                        byte = answers.read(1)
                        if not byte:
                            raise OSError
                        answer += byte
                    acked = head(acknowledged(answer))
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
    engine = store.connect(database)
    found = stored(engine)
    assert acked >= 30 and found[:acked] == list(range(1, acked + 1)) and len(found) <= sent
    with engine.connect() as db:
        assert db.execute(select(func.count()).select_from(store.records)).scalar() == len(found)
    engine.dispose()
