# A second ESP32, on a cable at the gateway: what nodes say by ESP-NOW goes out on its serial port,
# and answers back to who they are for. It has no keys; it drops what is torn, and nothing else.
# How to put it there: docs/gateway.md

import select
import sys

import micropython

from node.frame import LONGEST, FrameError, identify
from node.uplink.serial import decode, encode

_CODED = micropython.const(LONGEST + LONGEST // 254 + 2)
_PEERS = micropython.const(20)  # that ESP-NOW knows at a time
_NODES = micropython.const(500)  # that are remembered
_LISTEN_MS = micropython.const(20)


class Bridge:
    """`radio` is an active espnow.ESPNow(); `stream` has write(buf), and read() -> what came."""

    def __init__(self, radio, stream):
        self._radio, self._stream = radio, stream
        self._where = {}  # address by node, the one heard last at the end
        self._peers = []  # addresses ESP-NOW knows, the one used last at the end
        self._line, self._coded = bytearray(), bytearray(_CODED)
        self._noise = False
        self.dropped = 0  # frames, torn or for nobody

    def step(self):
        """What has come through the air goes out, and what has come by cable back."""
        sender, data = self._radio.recv(_LISTEN_MS)
        while sender is not None:
            self._up(bytes(sender), data)
            sender, data = self._radio.recv(0)
        for byte in self._stream.read():
            if byte:
                self._noise = self._noise or len(self._line) >= _CODED
                if not self._noise:
                    self._line.append(byte)
                continue
            if self._line and not self._noise:
                self._down()
            self._line, self._noise = bytearray(), False

    def _up(self, sender, data):
        try:
            _, node = identify(data)
        except FrameError:
            self.dropped += 1
            return
        if node not in self._where and len(self._where) >= _NODES:
            self._where.pop(next(iter(self._where)))
        self._where[node] = sender
        size = encode(data, len(data), self._coded)
        self._stream.write(memoryview(self._coded)[:size])

    def _down(self):
        try:
            size = decode(self._line, len(self._line))
            frame = bytes(self._line[:size])
            sender = self._where[identify(frame)[1]]
            self._befriend(sender)
            self._radio.send(sender, frame, False)
        except (FrameError, ValueError, KeyError, OSError):
            self.dropped += 1  # it asks again

    def _befriend(self, address):
        if address in self._peers:
            self._peers.remove(address)
        else:
            if len(self._peers) >= _PEERS:
                self._radio.del_peer(self._peers.pop(0))
            self._radio.add_peer(address)
        self._peers.append(address)


class Cable:
    """The port's own serial line, byte for byte."""

    def __init__(self):
        micropython.kbd_intr(-1)  # a 3 is a byte like any other
        self._poll = select.poll()
        self._poll.register(sys.stdin, select.POLLIN)

    def write(self, data):
        sys.stdout.buffer.write(data)

    def read(self):
        data = bytearray()
        while self._poll.poll(0):
            data += sys.stdin.buffer.read(1)
        return data


def run(channel):
    """Bridge for ever, on the channel that nodes' network.json has."""
    import espnow
    import network

    wlan = network.WLAN(network.WLAN.IF_STA)
    wlan.active(True)
    wlan.config(channel=channel, pm=wlan.PM_NONE)
    radio = espnow.ESPNow()
    radio.active(True)
    bridge = Bridge(radio, Cable())
    while True:
        bridge.step()
