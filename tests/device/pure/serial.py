"""COBS, and frames over a line that fails in every way a line can."""

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

GOOD, OTHER = b"a\0good\0frame", bytes(range(256)) * 4


class Line:
    """Gives what it was given, a byte a millisecond; then it is silent."""

    def __init__(self, data):
        self.data, self.sent, self.us = data, b"", 0

    def ticks_us(self):
        return self.us

    def write(self, data):
        self.sent += bytes(data)

    def readinto(self, buf, ms):
        assert ms > 0
        if not self.data:
            self.us += ms * 1000
            return 0
        self.us += 1000
        buf[0], self.data = self.data[0], self.data[1:]
        return 1


def line(data):
    coded = bytearray(len(data) + len(data) // 254 + 2)
    return bytes(coded[:encode(data, len(data), coded)])


def heard(data, ms=3000, room=1024):
    """Frames received, until none comes within `ms`."""
    stream = Line(data)
    link, buf, found = Serial(stream, stream.ticks_us), bytearray(room), []
    while True:
        start_us = stream.us
        size = link.receive(buf, ms)
        assert stream.us - start_us <= ms * 1000 + 1000  # whatever came, it gave up in time
        if size == 0:
            return found
        found.append(bytes(buf[:size]))


stream = Line(b"")
link = Serial(stream, stream.ticks_us)
for frame in (GOOD, OTHER):
    link.send(memoryview(frame))
assert stream.sent == line(GOOD) + line(OTHER)
assert heard(stream.sent) == [GOOD, OTHER]
assert heard(b"") == heard(b"\0\0\0") == heard(b"never ends") == []
# noise around it is passed over: zeros, a broken line, a long one, half of a frame
noise = b"\0\0\x05hello\0" + b"\x40" * 2000 + b"\0" + line(OTHER)[500:]
assert heard(noise + line(GOOD) + b"\0" + line(GOOD)[:-1], 9000)[-1] == GOOD
assert heard(line(OTHER) + line(GOOD), room=100) == [GOOD]  # too long for the buffer
assert heard(b"\x55" * 100000, 1500) == []  # a line that never stops talking
print("OK")
