# Analogue sensors on ADC channels, sampled at a steady pace.
# Counts are centred, 12 bits of them worth 16 bits: -32768 is 0 V, 32767 the reference.

import time

from micropython import const

_EIO = const(5)


class Analog:
    """`channels` are machine.ADC-like objects (read_u16()); a sample is one reading of all."""

    def __init__(self, channels, period_us):
        self.channels = channels
        self.period_us = period_us
        self.late_us = 0  # how much the worst sample of the last capture was late

    def capture(self, buf, first=0, enough=None):
        """Fill `buf`, array('h') of rows of one value a channel; allocates nothing.

        After `first` rows `enough()` is asked whether these will do. Returns the rows there are.

        Every sample waits for its own moment counted from the first, so delays don't add up.
        OSError if the pace could not be kept: a sample was a whole period late.
        """
        channels = self.channels
        count = len(channels)
        rows = len(buf) // count
        start = time.ticks_us()
        self.late_us = 0
        for row in range(rows):
            if enough and row == first and enough():
                return first
            early_us = row * self.period_us - time.ticks_diff(time.ticks_us(), start)
            if early_us > 0:
                time.sleep_us(early_us)
            elif -early_us > self.late_us:
                self.late_us = -early_us
            at = row * count
            for channel in channels:
                buf[at] = channel.read_u16() - 32768
                at += 1
        if self.late_us >= self.period_us:
            raise OSError(_EIO)
        return rows
