"""Frames, byte for byte: golden vectors, every refusal, every size, and inputs without end."""

import os
import random

from node import downlink, frame, heartbeat
from node.batch import Batch
from node.frame import FrameError, Seal, identify, read_varint, varint, varint_size
from ram import outbox
from vectors import FRAMES, KEY, NODE

SEAL = Seal(KEY)
GOLDEN = {name: bytes.fromhex(text) for name, text in FRAMES}


def refused(call, *arguments):
    try:
        call(*arguments)
    except FrameError as error:
        return str(error)
    raise AssertionError("%s took %s" % (call, arguments))


# --- the seal: RFC 4231, test cases 1 and 2 ---

assert Seal(b"\x0b" * 20).tag(b"Hi There") == bytes.fromhex("b0344c61d8db3853")
assert Seal(b"Jefe").tag(b"what do ya want for nothing?") == bytes.fromhex("5bdcc146bf60754e")

# --- what the node writes ---

buf = bytearray(250)
batch = Batch(buf, NODE, SEAL)
batch.begin(2, 0xCAFE0001, 299, True)
assert batch.add(300, 2, 1767600000, b"\x01\xff\x01")
assert batch.add(303, 3, 1767600300, b"")
assert batch.add(304, 4, 1767600299, bytes(range(20)))
assert bytes(buf[:batch.end()]) == GOLDEN["records"]

batch = Batch(bytearray(41), NODE, SEAL)
record = (8, 5, 1767600000, bytes(200))
batch.begin(3, 0xCAFE0001, 7, False)
assert batch.part((8, 5, 1767600000, bytes(range(200))), 24) == 36
assert bytes(batch.buf[:batch.end()]) == GOLDEN["part"]

beat = heartbeat.Heartbeat(buf, NODE, SEAL, 0xCAFE0001, 12, 345)


class Ring:
    acked = dropped = 0

    def __init__(self, waiting):
        self.next_seq = waiting + 1

    def troubled(self):
        return 0

    def worn(self):
        return 3 if self.next_seq > 1 else 0


class Node:
    """Board, settings, state and outbox in one."""

    cause, misses, faults, unlinked, version, problem = 1, 2, 32, 4, 4, None
    causes, rows, longest_us = [1, 300, 0, 0, 0], bytearray(8 * 48), [0] * 7 + [4000000]
    day_bytes, spent, held = 50000, 12000, 700
    mode, reason, since_s, pace_s = 1, 1, 1767600000 - 7200, 300
    today = [5000000999, 0, 0, 0, 0, 0, 1000, 999, 0, 0]
    lanes = [Ring(0), Ring(0), Ring(1000), Ring(0)]

    def battery_mv(self):
        return 3900

    def temperature_c(self):
        return -7

    def soc(self):
        return 81

    def days_left(self):
        return 412

    def now_s(self):
        return 1767600000


node = Node()
node.energy = node.modes = node.latency = node
node.rows[6 * 48 + 20:6 * 48 + 22] = b"\x03\x01"
items = list(heartbeat.condition(node, node, node, node))
items.append(heartbeat.ask(0xDEADBEEF, 1767600000, 0x11111111, 0x22222222, 1024, 9))
assert [bytes(buf[:size]) for size in beat.frames(items)] == [GOLDEN["heartbeat"]]

# --- what the node reads ---

BODIES = {
    "ack": (frame.ACK, ((0, 0xCAFE0000, 17), (2, 0xCAFE0001, 303))),
    "settings": (frame.SETTINGS, (0xDEADBEEF, 0xABCDEF01, 19, 2, b'"version": 3')),
    "package": (frame.PACKAGE, (0x10203040, 70000, 65536, bytes(range(16)))),
    "time": (frame.TIME, (0xDEADBEEF, 1767600001)),
    "command": (frame.COMMAND, (0xDEADBEEF, 10, 1, b"now")),
    "offer": (frame.OFFER, (0xDEADBEEF, 0x10203040, 70000, 1)),
}
for name, (kind, body) in BODIES.items():
    good = GOLDEN[name]
    assert identify(good) == (kind, NODE), name
    SEAL.open(good)
    assert downlink.read(kind, good) == body, name

# --- refusals ---

good = GOLDEN["ack"]
for size in range(len(good)):
    assert "bytes" in refused(identify, good[:size]) or "CRC" in refused(identify, good[:size])
assert "1025 bytes" in refused(identify, bytes(1025))
for version in range(16):
    other = bytes((version << 4 | 8,)) + good[1:]
    if version != frame.VERSION:
        assert refused(identify, other) == "frame version %d, this is version 2" % version
for at in range(len(good)):
    for bit in range(8):
        bad = bytearray(good)
        bad[at] ^= 1 << bit
        assert refused(identify, bad)


def resealed(kind, body, seal=SEAL):
    """A frame that is whole in every way but its content."""
    made = bytearray(frame.HEAD + len(body) + frame.TAIL)
    at = seal.begin(made, kind, NODE)
    made[at:at + len(body)] = body
    assert seal.close(made, at + len(body)) == len(made)
    return bytes(made)


for kind in range(16):
    known = kind in (1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 13)
    made = resealed(kind, b"x")
    if known:
        assert identify(made) == (kind, NODE)
    else:
        assert refused(identify, made) == "frame type %d is unknown" % kind
forged = resealed(frame.ACK, good[5:-10], Seal(b"\x01" + KEY[1:]))
identify(forged)
assert refused(SEAL.open, forged) == "frame was not made with this node's key"
for at in range(5, len(good) - 2):  # repaired CRC, broken proof
    bad = bytearray(good)
    bad[at] ^= 1
    bad[-2:] = (frame.crc32(bytes(bad[:-2])) & 0xFFFF).to_bytes(2, "little")
    identify(bad)
    refused(SEAL.open, bad)
for kind, body in ((8, b""), (8, bytes(8)), (8, bytes(10)), (9, bytes(12)), (9, bytes(13)),
                   (10, bytes(12)), (10, bytes(13)), (11, bytes(7)), (11, bytes(9)),
                   (12, bytes(8)), (13, bytes(12)), (1, bytes(30)), (3, bytes(30))):
    refused(downlink.read, kind, resealed(kind, body))

# --- numbers ---

for value in (0, 1, 127, 128, 300, 16383, 16384, (1 << 28) - 1, (1 << 32) - 1, (1 << 34) + 5):
    room = bytearray(8)
    end = varint(room, 0, value)
    assert end == varint_size(value) and read_varint(room, 0, 8) == (value, end)
    assert refused(read_varint, room, 0, end - 1)
refused(read_varint, b"\xff" * 9, 0, 9)

# --- any size: every frame fits, and all records are in them ---

box = outbox()
for i in range(60):
    box.put(i % 4, 1 + i % 6, 1767600000 + 61 * i, bytes(i * 4 % 240))
for size in (51, 60, 100, 250, 1024):
    box.rewind()
    batch = Batch(bytearray(size), NODE, SEAL)
    frames = parts = 0
    while True:
        length, lane, seq = box.batch(batch)
        if length == 0:
            break
        frames += 1
        assert length <= size and identify(batch.view[:length])[1] == NODE
        parts += batch.buf[0] & 15 == frame.PART
    assert box.sent == [15, 15, 15, 15]
    assert (parts > 0) == (size < 1024) and frames > 6, (size, frames, parts)
    beat = heartbeat.Heartbeat(batch.buf, NODE, SEAL, 1, (1 << 28) - 1, (1 << 28) - 1)
    longest = [(heartbeat.LATENCY, bytes(heartbeat.MOST))] * 3
    assert all(length <= size for length in beat.frames(longest))

# --- inputs without end: refused, or read, and nothing else ---

random.seed(int(os.getenv("SEED") or 20260105))


def noise(size):
    return bytes([random.getrandbits(8) for _ in range(size)])


def try_out(data):
    """What a node does with a frame; True if it got through."""
    try:
        kind, _ = identify(data)
        SEAL.open(data)
        downlink.read(kind, data)
        return True
    except FrameError:
        return False


read = 0
for _ in range(int(os.getenv("FUZZ") or 4000)):
    name = random.choice(FRAMES)[0]
    data = bytearray(GOLDEN[name])
    choice = random.getrandbits(2)
    if choice == 0:
        data = noise(random.getrandbits(7))
    elif choice == 1:
        for _ in range(1 + random.getrandbits(2)):
            data[random.randrange(len(data))] ^= 1 << random.getrandbits(3)
    elif choice == 2:
        data = data[:random.randrange(len(data))]
    else:  # whoever has the key sends nonsense
        data = resealed(random.getrandbits(4), noise(random.getrandbits(6)))
    read += try_out(data)
assert read > 100, read
print("OK")
