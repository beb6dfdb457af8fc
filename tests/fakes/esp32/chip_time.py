# The chip's clock: a pause takes its time here, but hardly any on the PC; Ctrl-C ends a long one.

import select
import sys
import time as real

import machine

ticks_diff, ticks_add = real.ticks_diff, real.ticks_add
_slept_ms = 0
_began_us = real.ticks_us()  # the port's clock begins with its own code


def time():
    return machine.state["time_s"] + _slept_ms // 1000


def gmtime(s):
    return real.gmtime(s + EPOCH_S)


EPOCH_S = 946684800  # the port counts from 2000 on
_keys = select.poll()
_keys.register(sys.stdin, select.POLLIN)


def ticks_ms():
    return real.ticks_add(real.ticks_ms(), _slept_ms)


def ticks_us():
    return real.ticks_diff(real.ticks_us(), _began_us) + _slept_ms * 1000


def sleep_ms(ms):
    global _slept_ms
    _slept_ms += ms
    if ms < 1000:
        return
    while _keys.poll(500):
        byte = sys.stdin.buffer.read(1)
        if byte == b"\x03":
            raise KeyboardInterrupt
        if not byte:
            return


def sleep(s):
    sleep_ms(int(s * 1000))
