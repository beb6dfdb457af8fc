# Frames over any byte stream, each in COBS and ended by a zero byte; one is on its way at a time.
# A stream has write(buf) and readinto(buf), which returns 0 when nothing came before its deadline.

import errno

from micropython import const

from node import frame

_FRAME = const(1024)
_CODED = const(_FRAME + _FRAME // 254 + 2)
_ACK = const(32)


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
    def __init__(self, stream):
        self._stream = stream
        self._frame = bytearray(_FRAME)
        self._coded = bytearray(_CODED)
        self._ack = bytearray(_ACK)
        self._byte = bytearray(1)

    def drain(self, outbox, node, late):
        """Send what waits in `outbox` until it is empty or `late()`.

        Raises OSError when the other side is gone or acknowledges nothing.
        """
        while not late():
            size = outbox.batch(node, self._frame)
            if size == 0:
                return
            size = encode(self._frame, size, self._coded)
            self._stream.write(memoryview(self._coded)[:size])
            waiting = outbox.depth()
            _, lane, epoch, seq = self._receive(node, late)
            outbox.acknowledge(lane, epoch, seq)
            if outbox.depth() >= waiting:
                raise OSError(errno.EIO)

    def _receive(self, node, late):
        # The next acknowledgement for this node; noise on the line is passed over.
        while True:
            size = self._line(late)
            try:
                ack = frame.decode_ack(memoryview(self._ack)[:decode(self._ack, size)])
                if ack[0] == node:
                    return ack
            except ValueError:
                pass

    def _line(self, late):
        # Bytes up to the next zero, into _ack; a longer line is no acknowledgement.
        size = 0
        while not late() and self._stream.readinto(self._byte):
            if self._byte[0]:
                if size < _ACK:
                    self._ack[size] = self._byte[0]
                size += 1
            elif 0 < size <= _ACK:
                return size
            else:
                size = 0
        raise OSError(errno.ETIMEDOUT)
