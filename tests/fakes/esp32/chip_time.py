# The chip's clock: it counts what was slept, and long pauses are short ones.

import time as real

import machine

ticks_us, ticks_ms = real.ticks_us, real.ticks_ms
ticks_diff, ticks_add = real.ticks_diff, real.ticks_add
sleep_us = real.sleep_us


def time():
    return machine.state["time_s"]


def sleep_ms(ms):
    real.sleep_ms(min(ms, 300))


def sleep(s):
    sleep_ms(int(s * 1000))
