# The chip's clock stands still within a wake; a long pause is a short one that a Ctrl-C ends.

import select
import sys
import time as real

import machine

ticks_us, ticks_ms = real.ticks_us, real.ticks_ms
ticks_diff, ticks_add = real.ticks_diff, real.ticks_add
sleep_us = real.sleep_us


def time():
    return machine.state["time_s"]


_keys = select.poll()
_keys.register(sys.stdin, select.POLLIN)


def sleep_ms(ms):
    if ms < 1000:
        real.sleep_ms(min(ms, 10))
        return
    while _keys.poll(500):
        byte = sys.stdin.buffer.read(1)
        if byte == b"\x03":
            raise KeyboardInterrupt
        if not byte:
            return


def sleep(s):
    sleep_ms(int(s * 1000))
