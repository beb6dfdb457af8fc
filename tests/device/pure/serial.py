"""COBS, and draining an outbox over a line that fails in every way a line can."""

import errno

from node import frame
from node.uplink.serial import Serial, decode, encode

# --- COBS: the examples of Cheshire and Baker, Consistent Overhead Byte Stuffing, and more ---

for plain, coded in (
        (b"\0", b"\1\1\0"), (b"\0\0", b"\1\1\1\0"), (b"\x11\x22\0\x33", b"\3\x11\x22\2\x33\0"),
        (b"\x11\x22\x33\x44", b"\5\x11\x22\x33\x44\0"), (b"", b"\1\0"),
        (bytes(range(1, 254)), b"\xfe" + bytes(range(1, 254)) + b"\0")):
    out = bytearray(len(plain) + 10)
    assert bytes(out[:encode(plain, len(plain), out)]) == coded, plain

for length in (0, 1, 2, 253, 254, 255, 256, 507, 508, 509, 600, 1024):
    for fill in (0, 1, 255, None):
        plain = bytes((i * 7 % 251) if fill is None else fill for i in range(length))
        out = bytearray(length + length // 254 + 2)
        size = encode(plain, length, out)
        assert bytes(out[:size]).find(b"\0") == size - 1
        assert bytes(out[:decode(out, size - 1)]) == plain, (length, fill)

for bad in (b"\5\1\2", b"\2", b"\0\1", b"\xff\1"):
    try:
        decode(bytearray(bad), len(bad))
    except ValueError:
        continue
    raise AssertionError(bad)

# --- the line ---


class Outbox:
    """Records 1..count, three a batch."""

    def __init__(self, count):
        self.count, self.acked = count, 0

    def depth(self):
        return self.count - self.acked

    def batch(self, node, buf):
        if not self.depth():
            return 0
        batch = frame.Batch(buf)
        batch.begin(node, 2, 99, self.acked, True)
        for seq in range(self.acked + 1, min(self.acked + 4, self.count + 1)):
            batch.add(seq, 1, 1000 + seq, bytes(seq))
        return batch.end()

    def acknowledge(self, lane, epoch, seq):
        assert (lane, epoch) == (2, 99)
        self.acked = max(self.acked, seq)


class Line:
    """The other side: stores what comes; `answer` makes its answer of a good acknowledgement."""

    def __init__(self, answer):
        self.answer, self.stored, self.back = answer, [], b""

    def write(self, data):
        line = bytearray(data)
        assert bytes(line).find(b"\0") == len(line) - 1
        size = decode(line, len(line) - 1)
        node, lane, epoch, after, _, records = frame.decode_records(bytes(line[:size]))
        assert after == len(self.stored) or self.stored
        for record in records:
            if record[0] == len(self.stored) + 1:
                self.stored.append(record[0])
        self.back += self.answer(ack(node, lane, epoch, self.stored[-1]))

    def readinto(self, buf):
        if not self.back:
            return 0
        buf[0], self.back = self.back[0], self.back[1:]
        return 1


def ack(node, lane, epoch, seq):
    plain, coded = bytearray(32), bytearray(48)
    return bytes(coded[:encode(plain, frame.encode_ack(plain, node, lane, epoch, seq), coded)])


def drain(answer, late=lambda: False, count=20):
    outbox, line = Outbox(count), Line(answer)
    try:
        Serial(line).drain(outbox, 7, late)
        problem = 0
    except OSError as error:
        problem = error.args[0]
    assert outbox.acked <= len(line.stored)  # never more than the other side has
    return problem, outbox.acked


assert drain(lambda good: good) == (0, 20)
assert drain(lambda good: good, count=0) == (0, 0)
# noise around the answer is passed over: zeros, a broken frame, a long line, somebody else's
noise = b"\0\0hello\0" + b"\x40" * 100 + b"\0" + ack(8, 2, 99, 20)
assert drain(lambda good: noise + good + b"\0") == (0, 20)
for at in range(20):
    broken = drain(lambda good, at=at: good[:at] + bytes((good[at] ^ 16,)) + good[at + 1:])
    assert broken == (errno.ETIMEDOUT, 0), (at, broken)
# no answer, half an answer, one that acknowledges nothing
assert drain(lambda good: b"") == (errno.ETIMEDOUT, 0)
assert drain(lambda good: good[:-4]) == (errno.ETIMEDOUT, 0)
assert drain(lambda good: ack(7, 2, 99, 0)) == (errno.EIO, 0)
# too late before the first, and after some
assert drain(lambda good: good, lambda: True) == (0, 0)
left = [40]


def late():
    left[0] -= 1
    return left[0] < 0


problem, acked = drain(lambda good: good, late)
assert 0 < acked < 20, acked
# a line that never stops talking ends with the deadline
left = [5000]
assert drain(lambda good: b"\x55" * 10000, late)[0] == errno.ETIMEDOUT
print("OK")
