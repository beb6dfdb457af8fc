"""Both ends of the wire: what nodes write the gateway reads, and nothing else that comes."""

import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node import frame, heartbeat
from node.batch import Batch
from node.frame import FrameError, Seal
from outpost.gateway import wire
from outpost.paths import FIRMWARE

DEVICE = Path(__file__).parents[1] / "device"
sys.path.insert(0, str(DEVICE / "lib"))

from vectors import FRAMES, KEY, NODE  # noqa: E402

SEAL = Seal(KEY)
GOLDEN = {name: bytes.fromhex(text) for name, text in FRAMES}


def read(data: bytes) -> wire.Message:
    kind, node = frame.identify(data)
    SEAL.open(data)
    return wire.read(kind, data)


def test_golden_frames_are_read():
    assert read(GOLDEN["records"]) == wire.Records(NODE, 2, 0xCAFE0001, 299, True, [
        (300, 2, 1767600000, b"\x01\xff\x01"), (303, 3, 1767600300, b""),
        (304, 4, 1767600299, bytes(range(20)))])
    assert read(GOLDEN["part"]) == wire.Part(
        wire.Records(NODE, 3, 0xCAFE0001, 7, False, [(8, 5, 1767600000, b"")]),
        wire.Piece(NODE, (3, 0xCAFE0001, 8), 200, 24, bytes(range(24, 36))))
    assert read(GOLDEN["document"]) == wire.Document(
        wire.Piece(NODE, (0xABCDEF01,), 300, 256, bytes(range(44))))
    beat = read(GOLDEN["heartbeat"])
    assert beat == wire.Heartbeat(NODE, 0xCAFE0001, 12, 345, 0, {
        "cause": 1, "wakes_by_cause": {"0": 1, "1": 300}, "misses": 2, "battery_mv": 3900,
        "temperature_c": -7, "soc": 81, "days_left": 412, "pace_s": 300, "mode": 1,
        "mode_reason": 1, "mode_age_s": 7200, "today_uj": {"0": 5000000, "6": 1}, "faults": 32,
        "waiting": {"2": 1000}, "latency": {"6": {"20": 3, "21": 1}}, "longest_us": {"7": 4000000},
        "unlinked": 3, "bytes_spent": 12000, "bytes_left": 38000, "held_back": 700,
        "worn": {"2": 3}, "settings": 4, "settings_problem": 255, "clock_s": 1767600000,
        "document": 0x11111111, "refused": 0x22222222, "order": 9},
        wire.Ask(0xDEADBEEF, 1767600000, 0x11111111, 0x22222222, 1024, 9))


    assert read(GOLDEN["want"]) == wire.Want(NODE, 0x10203040, 65536, 997, 8)


def test_golden_frames_are_written():
    assert list(wire.acknowledgements(SEAL, NODE, [(0, 0xCAFE0000, 17), (2, 0xCAFE0001, 303)])
                ) == [GOLDEN["ack"]]
    assert wire.settings_piece(SEAL, NODE, 0xDEADBEEF, 0xABCDEF01, 19, 2, b'"version": 3'
                               ) == GOLDEN["settings"]
    assert wire.command(SEAL, NODE, 0xDEADBEEF, 10, 1, b"now") == GOLDEN["command"]
    assert wire.time(SEAL, NODE, 0xDEADBEEF, 1767600001) == GOLDEN["time"]
    assert wire.offer(SEAL, NODE, 0xDEADBEEF, 0x10203040, 70000, True) == GOLDEN["offer"]
    assert wire.package(SEAL, NODE, 0x10203040, 70000, 65536, bytes(range(16))
                        ) == GOLDEN["package"]


def test_what_goes_down_is_not_read_as_if_it_came_up():
    for name in ("ack", "settings", "package", "time", "command", "offer"):
        with pytest.raises(FrameError, match="no business here"):
            read(GOLDEN[name])


some_records = st.lists(st.tuples(
    st.integers(1, 5000), st.integers(1, 15), st.integers(0, 0xFFFFFFFF), st.binary(max_size=246)),
    min_size=1, max_size=30)


@settings(deadline=None)
@given(records=some_records, after=st.integers(0, 0xFFFF0000), size=st.integers(51, 1024),
       lane=st.integers(0, 3), epoch=st.integers(0, 0xFFFFFFFF), floor=st.booleans())
def test_any_records_arrive_as_they_were_in_frames_of_any_size(records, after, size, lane, epoch,
                                                               floor):
    batch = Batch(bytearray(size), NODE, SEAL)
    sent, came = [], []
    seq = before = after
    for step, kind, time_s, payload in records:
        seq += step
        sent.append((seq, kind, time_s, payload))
    waiting = list(sent)
    while waiting:
        batch.begin(lane, epoch, before, floor)
        while waiting and batch.add(*waiting[0]):
            before = waiting.pop(0)[0]
        if batch.count:
            length = batch.end()
            assert length <= size
            found = read(bytes(batch.buf[:length]))
            assert (found.node, found.lane, found.epoch, found.floor) == (NODE, lane, epoch, floor)
            came += found.records
            continue
        offset, payload = 0, b""
        while True:
            offset = batch.part(waiting[0], offset)
            length = batch.end()
            assert length <= size
            part = read(bytes(batch.buf[:length]))
            assert part.piece.offset == len(payload) and part.whole.after == before
            payload += part.piece.data
            if offset == 0:
                break
        assert part.piece.total == len(payload)
        came.append((*part.whole.records[0][:3], payload))
        before = waiting.pop(0)[0]
    assert came == sent


@settings(deadline=None)
@given(size=st.integers(51, 400), values=st.lists(st.integers(0, 0xFFFFFFFF), max_size=40),
       rows=st.binary(min_size=384, max_size=384))
def test_a_heartbeat_of_many_frames_says_the_same_as_one(size, values, rows):
    heard = []
    for room in (size, 1024):
        buf = bytearray(room)
        beat = heartbeat.Heartbeat(buf, NODE, SEAL, 1, 2, 3)
        items = [*heartbeat.pairs(heartbeat.WAITING, values, heartbeat.MOST),
                 *heartbeat.latency(rows, heartbeat.MOST)]
        said: dict = {}
        for part, length in enumerate(beat.frames(iter(items))):
            found = read(bytes(buf[:length]))
            assert found.part == part and length <= room
            for name, value in found.items.items():
                for key, inner in value.items():
                    said.setdefault(name, {}).setdefault(key, {} if name == "latency" else inner)
                    if name == "latency":
                        said[name][key].update(inner)
        heard.append(said)
    assert heard[0] == heard[1]
    assert heard[0].get("waiting", {}) == {str(i): v for i, v in enumerate(values) if v}
    counts = {(int(stage), int(bucket)): count
              for stage, row in heard[0].get("latency", {}).items()
              for bucket, count in row.items()}
    assert counts == {(i // 48, i % 48): n for i, n in enumerate(rows) if n}


def fuzz(count: int, seed: int) -> int:
    """Throw `count` inputs at the gateway's reader; return how many it could read."""
    rng = random.Random(seed)
    names = list(GOLDEN)
    understood = 0
    for _ in range(count):
        data = bytearray(GOLDEN[rng.choice(names)])
        match rng.randrange(4):
            case 0:
                data = bytearray(rng.randbytes(rng.randrange(120)))
            case 1:
                for _ in range(rng.randint(1, 4)):
                    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            case 2:
                del data[rng.randrange(len(data)):]
            case 3:  # whoever has the key sends nonsense
                body = bytearray(data[5:-10])
                for _ in range(rng.randint(0, 4)):
                    body[rng.randrange(len(body))] = rng.choice((0, 1, 127, 128, 255))
                cut = rng.randrange(len(body) + 1) if rng.random() < 0.3 else len(body)
                data = bytearray(wire.write(SEAL, rng.randrange(1, 6), NODE, bytes(body[:cut])))
        try:
            found = read(bytes(data))
        except FrameError:
            continue
        understood += 1
        if isinstance(found, wire.Records):
            assert found.records and all(0 < kind < 16 and 0 <= time_s < 1 << 32
                                         for _, kind, time_s, _ in found.records)
            assert [r[0] for r in found.records] == sorted({r[0] for r in found.records})
    return understood


def test_whatever_comes_is_read_or_refused():
    assert fuzz(10_000, 20260105) > 100


@pytest.mark.long
def test_a_million_inputs(micropython):
    """A million for the gateway, and for the node under each of both interpreters."""
    assert fuzz(1_000_000, 1) > 10_000
    script = str(DEVICE / "pure" / "frame.py")
    folders = f"{FIRMWARE}:{DEVICE / 'lib'}:.frozen"
    for command in ([micropython, script],
                    [sys.executable, "-c", "import sys, runpy, outpost.device\n"
                     "runpy.run_path(sys.argv[1], run_name='__main__')", script]):
        done = subprocess.run(command, text=True, capture_output=True, check=False,
                              env={"MICROPYPATH": folders, "PYTHONPATH": folders,
                                   "FUZZ": "1000000", "SEED": "1"})
        assert done.stdout.splitlines()[-1:] == ["OK"], done.stdout + done.stderr
