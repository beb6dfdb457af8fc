# Frames of records, as the node lays them out. Bytes: docs/frame-format.md

from struct import pack_into

from micropython import const

from node.frame import PART, RECORDS, TAIL, varint, varint_size

_FLOOR = const(0x80)  # in the lane's byte
_LONG = const(15)  # from this length on, the payload's length has a byte of its own
_PART = const(3)  # a part's kind, length of the whole payload, and offset in it


class Batch:
    """Records of one lane, gathered into `buf` until they no longer fit."""

    def __init__(self, buf, node, seal):
        self.buf = buf
        self.view = memoryview(buf)
        self.count = 0
        self._node, self._seal = node, seal
        self._end = len(buf) - TAIL

    def begin(self, lane, epoch, after, floor):
        """`after`: no sequence between it and the first record exists at the node.

        `floor`: all up to `after` is acknowledged or gone, so nobody need wait for it.
        """
        self._kind, self._lane, self._epoch = RECORDS, lane | (floor and _FLOOR), epoch
        self._head(after)

    def _head(self, after):
        buf = self.buf
        at = self._seal.begin(buf, self._kind, self._node)
        pack_into("<BI", buf, at, self._lane, self._epoch)
        at = varint(buf, at + 5, after)
        self._size = at + 4
        self._time_at = at
        self._after = self._seq = after
        self.count = 0

    def add(self, seq, kind, time_s, payload):
        """Add a record; False if it does not fit."""
        if self.count == 0:
            self._time = time_s
            pack_into("<I", self.buf, self._time_at, time_s)
        buf, at, size = self.buf, self._size, len(payload)
        step, delta = seq - self._seq, time_s - self._time
        delta = delta << 1 if delta >= 0 else (-delta << 1) - 1
        if at + varint_size(step) + varint_size(delta) + 1 + (size >= _LONG) + size > self._end:
            return False
        at = varint(buf, varint(buf, at, step), delta)
        buf[at] = kind << 4 | min(size, _LONG)
        at += 1
        if size >= _LONG:
            buf[at] = size - _LONG
            at += 1
        self.view[at:at + size] = payload
        self._size = at + size
        self._seq, self._time = seq, time_s
        self.count += 1
        return True

    def part(self, record, offset):
        """Instead of add(), for a record that fits no frame: its payload from `offset` on.

        Returns the offset of the part after this one, 0 after the last.
        """
        seq, kind, time_s, payload = record
        buf, size = self.buf, len(payload)
        self._kind = PART
        self._head(self._after)
        pack_into("<I", buf, self._time_at, time_s)
        at = varint(buf, self._size, seq - self._seq)
        buf[at], buf[at + 1], buf[at + 2] = kind, size, offset
        at += _PART
        stop = min(size, offset + self._end - at)
        self.view[at:at + stop - offset] = payload[offset:stop]
        self._size = at + stop - offset
        return stop if stop < size else 0

    def end(self):
        """Seal the frame; return its length."""
        return self._seal.close(self.buf, self._size)
