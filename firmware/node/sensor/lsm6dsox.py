# ST LSM6DSOX: accelerometer and gyroscope on I2C, read through its FIFO, waking on motion.
# Registers: ST DS12814; procedures: ST AN5272. Checked against the emulated part: tests/boards.

import time
from array import array

from micropython import const

from node.sensor.fifo import WORD, place

_ADDRESS = const(0x6A)
_IDENTITY = const(0x6C)

_FIFO_CTRL3 = const(0x09)  # batch rates: gyroscope in the high half, accelerometer in the low
_FIFO_CTRL4 = const(0x0A)  # mode
_WHO_AM_I = const(0x0F)
_CTRL1_XL = const(0x10)
_CTRL2_G = const(0x11)
_CTRL3_C = const(0x12)
_CTRL5_C = const(0x14)  # self-test
_CTRL6_C = const(0x15)
_CTRL7_G = const(0x16)
_WAKE_UP_SRC = const(0x1B)
_OUT_G = const(0x22)
_OUT_XL = const(0x28)
_FIFO_STATUS1 = const(0x3A)
_TAP_CFG0 = const(0x56)
_TAP_CFG2 = const(0x58)
_WAKE_UP_THS = const(0x5B)
_WAKE_UP_DUR = const(0x5C)
_MD1_CFG = const(0x5E)
_FIFO_TAG = const(0x78)

_ENODEV = const(19)
_EIO = const(5)
_ETIMEDOUT = const(110)

_SW_RESET = const(0x01)
_IF_INC = const(0x04)  # register address counts up
_BDU = const(0x40)  # both halves of a value belong together
_BYPASS = const(0)
_CONTINUOUS = const(6)
_XL_LOW_POWER = const(0x10)
_G_LOW_POWER = const(0x80)
_OVERRUN = const(0x40)
_LATCHED = const(0x01)  # INT1 stays until WAKE_UP_SRC is read
_CLEAR_ON_READ = const(0x40)
_INTERRUPTS = const(0x80)
_INT1_WAKE_UP = const(0x20)
_FINE_THRESHOLD = const(0x10)  # threshold in 1/256 of the range instead of 1/64
_SLICE = const(64)  # words read at once at most; a power of two
_BATCH = const(128)  # samples that gather in the FIFO, which holds twice as many
_LAST = const(8)  # samples left for the end: what is read then keeps the decision waiting
_EMPTY = const(4)  # patience: waits without a single new word
_RESET_READS = const(10)  # of CTRL3_C until a reset is over, which takes 50 us

# Tenths of hertz of the codes 1, 2, … in CTRL1_XL and CTRL2_G. An array, because the numbers of a
# frozen tuple are big integers, and calculating with those allocates.
_RATES_DHZ = array("H", (125, 260, 520, 1040, 2080, 4160, 8330))
_RANGES_G = {2: 0, 4: 2, 8: 3, 16: 1}
_RANGES_DPS = {125: 1, 250: 0, 500: 2, 1000: 4, 2000: 6}

# Self-test deflection, DS12814 table 3: mg at +-4 g, and dps at +-2000 dps
_TEST_XL_MG = (50, 1700)
_TEST_G_DPS = (150, 700)


class LSM6DSOX:
    """`pause_ms(ms)` waits, asleep if it likes; `i2c` is a machine.I2C."""

    def __init__(self, i2c, pause_ms):
        self.i2c = i2c
        self.pause_ms = pause_ms
        self._raw = bytearray(_SLICE * WORD)
        self._views = []  # of 1, 2, 4, … words
        words = 1
        while words <= _SLICE:
            self._views.append(memoryview(self._raw)[:words * WORD])
            words *= 2
        self._status = bytearray(2)
        self._byte = bytearray(1)
        self._g = self._xl = self._period_us = 0
        self._placed = array("H", (0, 0))  # rows read so far by capture(): rotation, acceleration

    def start(self, period_us, range_g=4, range_dps=2000):
        """Check who answers, then set rate and ranges. OSError if it is not an LSM6DSOX."""
        if self._read(_WHO_AM_I) != _IDENTITY:
            raise OSError(_ENODEV)
        code = 1
        for rate in _RATES_DHZ:
            period = 10000000 // rate
            if abs(period - period_us) * 50 < period:
                break
            code += 1
        else:
            raise ValueError("no data rate with %d us between samples" % period_us)
        self._write(_CTRL3_C, _SW_RESET)
        for _ in range(_RESET_READS):
            if not self._read(_CTRL3_C) & _SW_RESET:
                break
        self._write(_CTRL3_C, _IF_INC | _BDU)
        self._write(_CTRL6_C, _XL_LOW_POWER)
        self._write(_CTRL7_G, _G_LOW_POWER)
        self._period_us = period
        self._xl = code << 4 | _RANGES_G[range_g] << 2
        self._g = code << 4 | _RANGES_DPS[range_dps] << 1
        self._write(_CTRL1_XL, self._xl)
        self._write(_FIFO_CTRL3, code << 4 | code)

    def capture(self, buf, first=0, enough=None):
        """Fill `buf`, array('h') of rows of six (acceleration, rotation), with new samples.

        After `first` rows `enough()` is asked whether these will do. Returns the rows there are.
        Sleeps while the FIFO fills, seldom and for long; allocates nothing.
        """
        rows = len(buf) // 6
        self._placed[0] = self._placed[1] = 0
        self._write(_CTRL2_G, self._g)
        self._write(_FIFO_CTRL4, _BYPASS)
        self._write(_FIFO_CTRL4, _CONTINUOUS)
        try:
            if enough:
                self._read_up_to(first, buf, rows)
                if enough():
                    return first
            self._read_up_to(rows, buf, rows)
        finally:
            self._write(_FIFO_CTRL4, _BYPASS)
            self._write(_CTRL2_G, 0)  # the gyroscope takes twenty times what the rest does
        return rows

    def _read_up_to(self, goal, buf, rows):
        empty, placed = 0, self._placed
        counted = time.ticks_ms() + 1  # the FIFO may have been started a moment before
        while placed[0] < goal or placed[1] < goal:
            left = goal - min(placed[0], placed[1])
            if left > _LAST:
                left = min(left - _LAST, _BATCH)
            reading = time.ticks_diff(time.ticks_ms(), counted)
            self.pause_ms(max(1, left * self._period_us // 1000 - reading))
            counted = time.ticks_ms()
            words = self._waiting()
            if words == 0:
                empty += 1
                if empty == _EMPTY:
                    raise OSError(_ETIMEDOUT)
            at, size = len(self._views) - 1, _SLICE
            while words > 0:
                while size > words:
                    at, size = at - 1, size // 2
                self.i2c.readfrom_mem_into(_ADDRESS, _FIFO_TAG, self._views[at])
                place(self._raw, size, buf, rows, placed)
                words -= size

    def _waiting(self):
        # Words in the FIFO. An overrun means that somebody slept too long: samples are missing.
        self.i2c.readfrom_mem_into(_ADDRESS, _FIFO_STATUS1, self._status)
        if self._status[1] & _OVERRUN:
            raise OSError(_EIO)
        return self._status[0] | (self._status[1] & 3) << 8

    # --- waking the node ---

    def wake_on_motion(self, threshold, samples=0):
        """Raise INT1 when the slope of an axis exceeds threshold / 256 of the range.

        It has to for more than `samples` (0..3) samples in a row. INT1 stays up until motion().
        """
        self._write(_WAKE_UP_THS, threshold)
        self._write(_WAKE_UP_DUR, samples << 5 | _FINE_THRESHOLD)
        self._write(_TAP_CFG0, _CLEAR_ON_READ | _LATCHED)
        self._write(_TAP_CFG2, _INTERRUPTS)
        self._write(_MD1_CFG, _INT1_WAKE_UP)

    def motion(self):
        """Whether there was motion since the last call (bits 0x04 x, 0x02 y, 0x01 z); re-arms."""
        return self._read(_WAKE_UP_SRC) & 0x0F

    # --- self-test ---

    def self_test(self):
        """Deflect the masses electrically, compare (AN5272, 7). OSError names the part that fails.

        Must lie still; takes 0.7 s, and start() is needed afterwards.
        """
        self._write(_CTRL1_XL, 0x38)  # 52 Hz, 4 g
        self._write(_CTRL2_G, 0x3C)  # 52 Hz, 2000 dps
        self.pause_ms(200)
        quiet_xl, quiet_g = self._average(_OUT_XL), self._average(_OUT_G)
        self._write(_CTRL5_C, 0x05)  # positive, both
        self.pause_ms(200)
        self._average(_OUT_XL)  # the first of them still settles
        moved_xl, moved_g = self._average(_OUT_XL), self._average(_OUT_G)
        self._write(_CTRL5_C, 0)
        for axis in range(3):
            mg = abs(moved_xl[axis] - quiet_xl[axis]) * 122 // 1000
            if not _TEST_XL_MG[0] <= mg <= _TEST_XL_MG[1]:
                raise OSError(_EIO, "self-test: acceleration axis %d moved %d mg" % (axis, mg))
            dps = abs(moved_g[axis] - quiet_g[axis]) * 70 // 1000
            if not _TEST_G_DPS[0] <= dps <= _TEST_G_DPS[1]:
                raise OSError(_EIO, "self-test: rotation axis %d moved %d dps" % (axis, dps))

    def _average(self, register):
        sums = [0, 0, 0]
        for _ in range(5):
            self.pause_ms(20)
            raw = self.i2c.readfrom_mem(_ADDRESS, register, 6)
            for axis in range(3):
                value = raw[2 * axis] | raw[2 * axis + 1] << 8
                sums[axis] += value - 65536 if value > 32767 else value
        return [total // 5 for total in sums]

    # --- registers ---

    def _read(self, register):
        self.i2c.readfrom_mem_into(_ADDRESS, register, self._byte)
        return self._byte[0]

    def _write(self, register, value):
        self._byte[0] = value
        self.i2c.writeto_mem(_ADDRESS, register, self._byte)
