# ESP-NOW: frames of up to 250 bytes through the air to a bridge (firmware/bridge.py), without an
# access point to join or an address to ask for. `radio` is an espnow.ESPNow() that is active.

import errno

from micropython import const

_AROUND = const(43)  # bytes of an action frame around what it carries


class Espnow:
    size = 250
    window = 2
    patience_ms = 400
    tries = 3

    def __init__(self, radio, bridge):
        """`bridge` is its address, six bytes."""
        self._radio, self._bridge = radio, bridge
        self.carried = 0
        radio.add_peer(bridge)

    def send(self, frame):
        # The bridge's radio confirms each; one that it does not have is as good as no link.
        self.carried += len(frame) + _AROUND
        if not self._radio.send(self._bridge, frame, True):
            raise OSError(errno.ETIMEDOUT)

    def receive(self, buf, ms):
        sender, data = self._radio.recv(ms)
        while sender is not None and (sender != self._bridge or len(data) > len(buf)):
            sender, data = self._radio.recv(0)  # somebody else's
        if sender is None:
            return 0
        buf[:len(data)] = data
        self.carried += len(data) + _AROUND
        return len(data)

    def close(self):
        self._radio.active(False)
