# How long each stage of a wake takes: a stopwatch, and histograms that fit retained memory.
# Bucket n counts durations of n bits (2^(n-1) .. 2^n - 1 us); a full row is halved and goes on.

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

_BUCKETS = const(26)
SIZE = const(208)  # 8 rows


class Latency:
    def __init__(self):
        self.rows = bytearray(SIZE)
        self._since_us = 0

    def lap(self, stage, now_us):
        """A stage ended at `now_us` after the wake began."""
        self._count(stage, now_us - self._since_us)
        self._since_us = now_us

    def end(self):
        """The wake ends with the last lap."""
        self._count(AWAKE, self._since_us)
        self._since_us = 0

    def _count(self, stage, us):
        bits = 0
        while us > 0 and bits < _BUCKETS - 1:
            us >>= 1
            bits += 1
        first = stage * _BUCKETS
        if self.rows[first + bits] == 255:
            for i in range(first, first + _BUCKETS):
                self.rows[i] >>= 1
        self.rows[first + bits] += 1

    def bits(self, stage, percent):
        """Bucket below whose upper end `percent` of the durations lie."""
        row = memoryview(self.rows)[stage * _BUCKETS:(stage + 1) * _BUCKETS]
        left = sum(row) * percent
        for bits in range(_BUCKETS):
            left -= row[bits] * 100
            if left <= 0:
                return bits
        return _BUCKETS - 1
