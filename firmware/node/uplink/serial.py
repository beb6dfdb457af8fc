# Frames over any byte stream, each in COBS and ended by a zero byte.
# A stream has write(buf) and readinto(buf, ms), which returns 0 when nothing came within ms.

from node.frame import LONGEST

_CODED = LONGEST + LONGEST // 254 + 2


def encode(data, size, out):
    """COBS-encode data[:size] into `out` with the closing zero; return the length."""
    mark, at, run = 0, 1, 1
    for i in range(size):
        byte = data[i]
        if byte:
            out[at] = byte
            at += 1
            run += 1
        if not byte or run == 255:
            out[mark] = run
            mark, run = at, 1
            at += 1
    out[mark] = run
    out[at] = 0
    return at + 1


def decode(data, size):
    """Decode COBS data[:size] (without its zero) in place; return the length. ValueError."""
    at = out = 0
    while at < size:
        run = data[at]
        end = at + run
        if run == 0 or end > size:
            raise ValueError("COBS run of %d at byte %d of %d" % (run, at, size))
        for i in range(at + 1, end):
            data[out] = data[i]
            out += 1
        at = end
        if run < 255 and at < size:
            data[out] = 0
            out += 1
    return out


class Serial:
    size = LONGEST
    window = 4
    ahead = 1  # a byte that comes while flash is erased is lost
    patience_ms = 500
    tries = 2

    def __init__(self, stream, ticks_us):
        self._stream, self._ticks_us = stream, ticks_us
        self._coded = bytearray(_CODED)
        self._byte = bytearray(1)
        self.carried = 0

    def send(self, frame):
        size = encode(frame, len(frame), self._coded)
        self._stream.write(memoryview(self._coded)[:size])
        self.carried += size

    def receive(self, buf, ms):
        """Fill `buf` with the next frame; noise on the line is passed over."""
        size, until_us = 0, self._ticks_us() + ms * 1000
        while self._stream.readinto(self._byte, ms):
            self.carried += 1
            ms = (until_us - self._ticks_us()) // 1000
            if ms <= 0:
                return 0
            if self._byte[0]:
                if size < _CODED:
                    self._coded[size] = self._byte[0]
                size += 1
                continue
            if 0 < size <= _CODED:
                try:
                    size = decode(self._coded, size)
                except ValueError:
                    size = 0
                if 0 < size <= len(buf):
                    buf[:size] = memoryview(self._coded)[:size]
                    return size
            size = 0
        return 0

    def close(self):
        self._stream.close()
