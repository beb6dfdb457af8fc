# The wire codec, the same file on the node and on the host: records upward, acknowledgements down.
# Bytes and reasons: docs/frame-format.md

from binascii import crc32
from struct import pack_into, unpack_from

from micropython import const

VERSION = const(1)
RECORDS = const(1)
ACK = const(2)

_HEAD = const(18)
_ACK_SIZE = const(18)
_CRC = const(4)


class FrameError(ValueError):
    pass


class Batch:
    """Records of one lane, gathered into `buf` until they no longer fit."""

    def __init__(self, buf):
        self.buf = buf
        self.view = memoryview(buf)
        self.count = 0

    def begin(self, node, lane, epoch, after, floor):
        # `after`: no sequence between it and the first record exists at the node.
        # `floor`: all up to `after` is acknowledged or gone, so nobody need wait for it.
        pack_into("<BIBII", self.buf, 0, VERSION << 4 | RECORDS, node, lane | (floor and 0x80),
                  epoch, after)
        self._seq = after
        self._size = _HEAD
        self.count = 0

    def add(self, seq, kind, time_s, payload):
        """Add a record; False if it does not fit."""
        if self.count == 0:
            self._time = time_s
            pack_into("<I", self.buf, 14, time_s)
        size = len(payload)
        if self._size + size + 12 + _CRC > len(self.buf):
            return False
        at = self._varint(self._size, seq - self._seq)
        delta = time_s - self._time
        at = self._varint(at, delta << 1 if delta >= 0 else (-delta << 1) - 1)
        self.buf[at] = kind
        self.buf[at + 1] = size
        self.view[at + 2:at + 2 + size] = payload
        self._size = at + 2 + size
        self._seq, self._time = seq, time_s
        self.count += 1
        return True

    def end(self):
        """Seal the frame; return its length."""
        return _seal(self.buf, self.view, self._size)

    def _varint(self, at, value):
        while value > 127:
            self.buf[at] = value & 127 | 128
            value >>= 7
            at += 1
        self.buf[at] = value
        return at + 1


def encode_ack(buf, node, lane, epoch, seq):
    pack_into("<BIBII", buf, 0, VERSION << 4 | ACK, node, lane, epoch, seq)
    return _seal(buf, memoryview(buf), _ACK_SIZE - _CRC)


def _seal(buf, view, size):
    pack_into("<I", buf, size, crc32(view[:size]))
    return size + _CRC


def kind_of(frame):
    """Check version and CRC; return RECORDS or ACK."""
    size = len(frame)
    if size < _ACK_SIZE:
        raise FrameError("frame of %d bytes is too short" % size)
    if frame[0] >> 4 != VERSION:
        raise FrameError("frame version %d, this is version %d" % (frame[0] >> 4, VERSION))
    if unpack_from("<I", frame, size - _CRC)[0] != crc32(memoryview(frame)[:size - _CRC]):
        raise FrameError("frame CRC is wrong")
    kind = frame[0] & 15
    if kind != RECORDS and kind != ACK:
        raise FrameError("frame type %d is unknown" % kind)
    return kind


def decode_ack(frame):
    """Return (node, lane, epoch, seq)."""
    if kind_of(frame) != ACK or len(frame) != _ACK_SIZE:
        raise FrameError("not an acknowledgement")
    return unpack_from("<IBII", frame, 1)


def decode_records(frame):
    """Return (node, lane, epoch, after, floor, [(seq, kind, time_s, payload)])."""
    if kind_of(frame) != RECORDS or len(frame) < _HEAD + _CRC:
        raise FrameError("not a batch of records")
    node, lane, epoch, after, time_s = unpack_from("<IBIII", frame, 1)
    records = []
    seq, at, end = after, _HEAD, len(frame) - _CRC
    while at < end:
        step, at = _read_varint(frame, at, end)
        delta, at = _read_varint(frame, at, end)
        if step == 0 or at + 2 > end or at + 2 + frame[at + 1] > end:
            raise FrameError("record at byte %d is malformed" % at)
        seq += step
        time_s += -(delta + 1 >> 1) if delta & 1 else delta >> 1
        if seq >> 32 or not 0 <= time_s < 1 << 32:
            raise FrameError("record at byte %d is out of range" % at)
        start = at + 2
        at = start + frame[at + 1]
        records.append((seq, frame[start - 2], time_s, bytes(frame[start:at])))
    return node, lane & 0x7F, epoch, after, bool(lane & 0x80), records


def _read_varint(frame, at, end):
    value = shift = 0
    while at < end and shift < 35:
        byte = frame[at]
        value |= (byte & 127) << shift
        at += 1
        if byte < 128:
            return value, at
        shift += 7
    raise FrameError("number at byte %d is malformed" % at)
