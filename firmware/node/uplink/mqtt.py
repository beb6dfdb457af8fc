# MQTT 3.1.1 as far as a node needs it: connect, subscribe, publish at QoS 1, hear, disconnect.
# A stream is as tcp.py has it. What the broker has is not yet stored: frames have their own
# acknowledgements, so its PUBACKs are only counted.

import errno
from struct import pack_into, unpack_from

from micropython import const

from node.frame import LONGEST

_CONNECT = const(0x10)
_CONNACK = const(0x20)
_PUBLISH = const(0x30)
_PUBACK = const(0x40)
_SUBSCRIBE = const(0x82)
_SUBACK = const(0x90)
_DISCONNECT = b"\xe0\x00"
_QOS1 = const(2)
_KEEPALIVE_S = const(60)
_MOST = const(64)  # packets in a row that hold nothing for us
_BODY = const(3)  # where a packet's body begins in _out: its head is laid before it
_ROOM = LONGEST + 128  # a frame, its topic, and what is around them


class Mqtt:
    size = LONGEST
    window = ahead = 8
    patience_ms = 3000
    tries = 1  # what TCP has lost does not come the second time

    def __init__(self, stream, node, login=None, prefix="outpost"):
        """Say hello to the broker; `login` is (user, password)."""
        self._stream = stream
        self._out, self._in = bytearray(_ROOM), bytearray(_ROOM)
        self._out_view, self._in_view = memoryview(self._out), memoryview(self._in)
        self._number = 1
        self.flying = 0  # publications the broker has not confirmed
        self._up = ("%s/%d/up" % (prefix, node)).encode()
        self._down = ("%s/%d/down" % (prefix, node)).encode()
        try:
            self._connect(b"outpost-%d" % node, login)
            self._subscribe()
        except BaseException:
            stream.close()
            raise

    @property
    def carried(self):
        return self._stream.carried

    def _connect(self, name, login):
        at = self._text(_BODY, b"MQTT")
        flags = 0xC2 if login else 0x02  # a clean session: nothing is kept for who sleeps
        pack_into(">BBH", self._out, at, 4, flags, _KEEPALIVE_S)
        at = self._text(at + 4, name)
        for word in login or ():
            at = self._text(at, word.encode())
        self._send(_CONNECT, at)
        code = self._answer(_CONNACK, 2)[1]
        if code:
            raise OSError(errno.EACCES if code >= 4 else errno.ECONNREFUSED)

    def _subscribe(self):
        pack_into(">H", self._out, _BODY, self._number)
        at = self._text(_BODY + 2, self._down)
        self._out[at] = 0  # QoS 0: who misses an answer asks again
        self._send(_SUBSCRIBE, at + 1)
        if self._answer(_SUBACK, 3)[2] & 0x80:
            raise OSError(errno.EACCES)

    def _answer(self, kind, size):
        found, length = self._packet(self.patience_ms)
        if found is None:
            raise OSError(errno.ETIMEDOUT)
        if found & 0xF0 != kind or length != size:
            raise OSError(errno.EIO)
        return self._in_view[:length]

    # --- a link: node/uplink/__init__.py ---

    def send(self, frame):
        self._number = self._number % 0xFFFF + 1
        at = self._text(_BODY, self._up)
        pack_into(">H", self._out, at, self._number)
        self._out_view[at + 2:at + 2 + len(frame)] = frame
        self._send(_PUBLISH | _QOS1, at + 2 + len(frame))
        self.flying += 1

    def receive(self, buf, ms):
        for _ in range(_MOST):
            kind, size = self._packet(ms)
            if kind is None:
                break
            if kind & 0xF0 == _PUBACK:
                self.flying -= 1
            if kind & 0xF0 != _PUBLISH or size > _ROOM or size < 2:
                continue
            at = 2 + unpack_from(">H", self._in, 0)[0]
            if kind & 6:
                if at + 2 > size:
                    raise OSError(errno.EIO)
                self._confirm(self._in_view[at:at + 2])
                at += 2
            if 0 < size - at <= len(buf) and self._in_view[2:2 + len(self._down)] == self._down:
                buf[:size - at] = self._in_view[at:size]
                return size - at
        return 0

    def close(self):
        try:
            self._stream.write(_DISCONNECT, self.patience_ms)
        except OSError:
            pass
        self._stream.close()

    # --- packets ---

    def _text(self, at, text):
        """Lay a string out; return where it ends."""
        pack_into(">H", self._out, at, len(text))
        at += 2
        self._out_view[at:at + len(text)] = text
        return at + len(text)

    def _send(self, kind, end):
        """Send what is laid out up to `end`, in one piece with its head."""
        size = end - _BODY
        start = _BODY - 2
        if size > 127:
            start -= 1
            self._out[_BODY - 1] = size >> 7
            size = size & 127 | 128
        self._out[start], self._out[start + 1] = kind, size
        self._stream.write(self._out_view[start:end], self.patience_ms)

    def _confirm(self, number):
        self._stream.write(b"\x40\x02" + bytes(number), self.patience_ms)

    def _packet(self, ms):
        """Read a packet into _in; return (type and flags, length), (None, 0) if none begins."""
        byte = self._in_view[:1]
        if not self._stream.read(byte, ms):
            return None, 0
        kind = byte[0]
        size = shift = 0
        while True:
            self._must(byte)
            size |= (byte[0] & 127) << shift
            if byte[0] < 128:
                break
            shift += 7
            if shift > 21:
                raise OSError(errno.EIO)
        left = size
        while left > _ROOM:  # for somebody with more room
            self._must(self._in_view[:min(left - _ROOM, _ROOM)])
            left -= min(left - _ROOM, _ROOM)
        self._must(self._in_view[:left])
        return kind, size

    def _must(self, view):
        # In the middle of a packet there is no going back.
        if self._stream.read(view, self.patience_ms) < len(view):
            raise OSError(errno.ETIMEDOUT)
