# How long each stage of a wake takes: a stopwatch, and histograms that fit retained memory.
# Two counters an octave: docs/wake.md. A full row is halved and goes on; the longest is kept.

from array import array

from micropython import const

# Stages
BOOT = const(0)
CAPTURE = const(1)
PRE = const(2)
INFER = const(3)
POST = const(4)
STORE = const(5)
UPLINK = const(6)
AWAKE = const(7)  # the whole wake

COUNTERS = const(48)  # a row
_ROWS = const(8)
_LONGEST = const(0x3FFFFFFF)
SIZE = const(416)  # rows, and the longest of each


class Latency:
    def __init__(self):
        self.rows = bytearray(_ROWS * COUNTERS)
        self.longest_us = array("I", bytes(4 * _ROWS))
        self._since_us = 0

    def lap(self, stage, now_us):
        """A stage ended at `now_us` after the wake began; return how long it took."""
        took_us = now_us - self._since_us
        self._count(stage, took_us)
        self._since_us = now_us
        return took_us

    def end(self):
        """The wake ends with the last lap; return how long it took."""
        took_us = self._since_us
        self._count(AWAKE, took_us)
        self._since_us = 0
        return took_us

    def _count(self, stage, us):
        if us > self.longest_us[stage]:
            self.longest_us[stage] = min(us, _LONGEST)
        counter = 0
        if us >= 16:
            counter = 1
            while us >= 64:
                us >>= 2
                counter += 4
            if us >= 32:
                us >>= 1
                counter += 2
            counter = min(counter + (us >> 3 & 1), COUNTERS - 1)
        first = stage * COUNTERS
        if self.rows[first + counter] == 255:
            for i in range(first, first + COUNTERS):
                self.rows[i] >>= 1
        self.rows[first + counter] += 1

    def counter(self, stage, percent):
        """The counter in which the `percent` shortest durations end; 0 if there is none."""
        row = memoryview(self.rows)[stage * COUNTERS:(stage + 1) * COUNTERS]
        left = sum(row) * percent
        for counter in range(COUNTERS):
            left -= row[counter] * 100
            if left <= 0:
                return counter
        return COUNTERS - 1

    # --- retained memory ---

    def save(self, buf):
        buf[:_ROWS * COUNTERS] = self.rows
        buf[_ROWS * COUNTERS:SIZE] = bytes(self.longest_us)

    def load(self, buf):
        self.rows[:] = buf[:_ROWS * COUNTERS]
        self.longest_us = array("I", bytes(buf[_ROWS * COUNTERS:SIZE]))


def edge_us(counter):
    """The durations of a counter are shorter than this, and not shorter than the one before's."""
    return (2 + (counter & 1)) << (counter // 2 + 3)
