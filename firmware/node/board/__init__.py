# Boards, one a file: all that a node asks of the world outside it. Only these import machine & co.
# What a Board offers: docs/wake.md.

import sys

from micropython import const

# Causes of a wake. Retained memory is whole after TIMER and EVENT only: those follow a sleep.
COLD = const(0)
TIMER = const(1)
EVENT = const(2)
WATCHDOG = const(3)
BROWNOUT = const(4)
CAUSES = const(5)


class Late(Exception):
    """The awake deadline passed in the middle of a stage."""


class Common:
    """What all boards count, and the deadline that ends their waiting."""

    def __init__(self):
        self.power, self.battery = {}, {}  # figures of board.json: docs/power.md
        self.resets = 0  # by the watchdog in a row, this wake's included
        self.limit_us = 0  # where waiting ends; 0: nowhere
        self.doze_us = self.flash_us = self.radio_us = 0
        self.phases = []  # a pin for each stage, if a power profiler is to see them

    def __getattr__(self, name):
        # Who this is stands in a file, and only an uplink asks.
        if name != "node_id" and name != "key":
            raise AttributeError(name)
        from node import identity

        self.node_id, self.key = identity.load(self.unique_id())
        return getattr(self, name)

    def phase(self, stage, level):
        """A stage begins (1) or is over (0)."""
        if self.phases:
            self.phases[stage].value(level)

    def hurry(self):
        """Called wherever time passes that need not: raises Late after the deadline."""
        if self.limit_us and self.ticks_us() >= self.limit_us:
            raise Late

    def left_ms(self):
        """Until then, and not a moment less."""
        return (self.limit_us - self.ticks_us() + 999) // 1000


class Timed:
    """A flash device that tells its board how long it was programmed and erased."""

    def __init__(self, device, board, ticks_us, ticks_diff):
        self._device, self._board = device, board
        self._ticks_us, self._ticks_diff = ticks_us, ticks_diff
        self.readblocks = device.readblocks

    def writeblocks(self, sector, buf, offset):
        begin = self._ticks_us()
        self._device.writeblocks(sector, buf, offset)
        self._board.flash_us += self._ticks_diff(self._ticks_us(), begin)

    def ioctl(self, operation, argument):
        begin = self._ticks_us()
        result = self._device.ioctl(operation, argument)
        self._board.flash_us += self._ticks_diff(self._ticks_us(), begin)
        return result


def here():
    """The board this runs on."""
    name = "unix" if sys.platform in ("linux", "darwin") else sys.platform
    return __import__("node.board." + name, None, None, ("Board",)).Board()
