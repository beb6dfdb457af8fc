# The envelope of every frame, the same file on the node and on the host: who, what, and its proof.
# What is inside: batch.py and heartbeat.py upward, downlink.py downward. Bytes and reasons:
# docs/frame-format.md

from binascii import crc32
from hashlib import sha256
from struct import pack_into, unpack_from

from micropython import const

VERSION = const(2)

# Types, upward
RECORDS = const(1)
PART = const(2)  # of one record that is too long for a frame
HEARTBEAT = const(3)
DOCUMENT = const(4)  # a piece of the node's own settings
WANT = const(5)  # pieces of a model package that the node lacks
# and downward
ACK = const(8)
SETTINGS = const(9)
PACKAGE = const(10)
TIME = const(11)
COMMAND = const(12)
OFFER = const(13)  # of a model package

HEAD = const(5)  # before the body
TAIL = const(10)  # after it
TAG = const(8)  # of these the tag; a CRC follows
SHORTEST = const(51)  # the smallest frame a link may ask for
LONGEST = const(1024)
_KNOWN = const(0b11111100111110)  # types, a bit each
_BLOCK = const(64)  # of SHA-256


class FrameError(ValueError):
    """What is wrong with a frame; never with any of its content, and never with a key."""


def identify(frame):
    """Check length, version, type and CRC; return (type, node). Proves nothing: see Seal.open."""
    size = len(frame)
    if size < HEAD + TAIL or size > LONGEST:
        raise FrameError("frame of %d bytes" % size)
    if frame[0] >> 4 != VERSION:
        raise FrameError("frame version %d, this is version %d" % (frame[0] >> 4, VERSION))
    if unpack_from("<H", frame, size - 2)[0] != crc32(memoryview(frame)[:size - 2]) & 0xFFFF:
        raise FrameError("frame CRC is wrong")
    kind = frame[0] & 15
    if not _KNOWN >> kind & 1:
        raise FrameError("frame type %d is unknown" % kind)
    return kind, unpack_from("<I", frame, 1)[0]


class Seal:
    """A node's key: HMAC-SHA256 (RFC 2104) cut to 8 bytes proves that who has it made a frame."""

    def __init__(self, key):
        if len(key) > _BLOCK:
            raise ValueError("a key of %d bytes" % len(key))
        key = key + bytes(_BLOCK - len(key))
        self._inner = bytes([byte ^ 0x36 for byte in key])
        self._outer = bytes([byte ^ 0x5C for byte in key])

    def tag(self, data):
        inner, outer = sha256(self._inner), sha256(self._outer)
        inner.update(data)
        outer.update(inner.digest())
        return outer.digest()[:TAG]

    def begin(self, buf, kind, node):
        """Write what comes before the body; return where that begins."""
        pack_into("<BI", buf, 0, VERSION << 4 | kind, node)
        return HEAD

    def close(self, buf, size):
        """Seal the frame whose body ends at `size`; return its length."""
        view = memoryview(buf)
        view[size:size + TAG] = self.tag(view[:size])
        pack_into("<H", buf, size + TAG, crc32(view[:size + TAG]) & 0xFFFF)
        return size + TAIL

    def open(self, frame):
        """Raise FrameError unless the frame was made with this key."""
        end = len(frame) - TAIL
        view = memoryview(frame)
        wrong = 0
        for ours, theirs in zip(self.tag(view[:end]), view[end:end + TAG]):
            wrong |= ours ^ theirs  # all of them: time tells nothing
        if wrong:
            raise FrameError("frame was not made with this node's key")


def varint(buf, at, value):
    """Write `value`, seven bits a byte; return where it ends."""
    while value > 127:
        buf[at] = value & 127 | 128
        value >>= 7
        at += 1
    buf[at] = value
    return at + 1


def varint_size(value):
    size = 1
    while value > 127:
        value >>= 7
        size += 1
    return size


def read_varint(frame, at, end):
    """Return (value, where it ends); at most 35 bits."""
    value = shift = 0
    while at < end and shift < 35:
        byte = frame[at]
        value |= (byte & 127) << shift
        at += 1
        if byte < 128:
            return value, at
        shift += 7
    raise FrameError("number at byte %d is malformed" % at)
