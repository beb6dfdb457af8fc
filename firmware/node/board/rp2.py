# RP2040 boards: what the node asks of a Raspberry Pi Pico with an LSM6DSOX and a serial uplink.
# Sleep returns here, so RAM is retained memory; a reset loses it and keeps 16 bytes of scratch.

import gc
import json
import os
import select
import time

import machine
import rp2
from machine import ADC, I2C, UART, WDT, Pin, mem32
from micropython import const

from node.board import COLD, EVENT, TIMER, WATCHDOG, Common, Timed
from node.sensor.lsm6dsox import LSM6DSOX

# Pins and flash map: boards/rp2040.toml. The ring is counted from the start of rp2.Flash().
UART_PINS = (0, 1)
I2C_PINS = (4, 5)  # SDA, SCL
# 1 MHz, fast mode plus (LSM6DSOX datasheet DS12814, 4.4), with 2.2 kOhm to pull it up: the port
# counts 14 cycles of 200 less for a bit than the controller takes.
_I2C_HZ = const(1075000)
EVENT_PIN = const(6)
AWAKE_PIN = const(22)
VBUS_PIN = const(24)
VSYS_PIN = const(29)
RING_START = const(0x40000)
RING_SIZE = const(0x120000)
LANES = (16, 48, 208, 16)
_PROGRAM = const(256)

# GPIO can't end lightsleep on this port, so the event pin is looked at every so often. A look
# costs 1.5 ms awake (measured on the emulator), two thirds of it at 12 MHz while the core's
# voltage rises: at 1 s 0.15 % of the time. The sensor's interrupt is latched and waits for it.
_LOOK_MS = const(1000)
_BACK_MS = const(1)  # light sleep comes back later than it is told to: voltage, clocks
_DOZE_MS = const(6000)  # at once; the watchdog waits for two seconds more
_BAUD = const(115200)
_BYTE_MS = const(500)  # for room in the buffer
_WINDOW_MS = const(3000)  # after a reset, with USB plugged in: time for a Ctrl-C
_WATCHDOG_MS = const(8000)
_WATCHDOG_CLEAR = const(0x4005B000)  # clears bits of the watchdog's control register
_THRESHOLD = const(8)  # motion: 8/256 of 4 g, 125 mg between two samples

# Watchdog scratch 0..3 survive every reset but power-on: magic, clock, least free heap, resets by
# the watchdog since the last sleep.
_SCRATCH = const(0x4005800C)
_MAGIC = const(0x0F757470)  # a small integer


class Board(Common):
    def __init__(self):
        super().__init__()
        self._begin_us = time.ticks_us()
        self._retained = b""
        try:
            with open("board.json") as file:
                given = json.loads(file.read())
            self.power, self.battery = given["power"], given["battery"]
            self.phases = [Pin(pin, Pin.OUT, value=0) for pin in given.get("phase", ())]
        except (OSError, ValueError, KeyError):
            pass  # it lives without figures of power
        reset = machine.reset_cause() == machine.WDT_RESET
        self.cause = WATCHDOG if reset else COLD
        kept = reset and mem32[_SCRATCH] == _MAGIC
        self._clock_s = mem32[_SCRATCH + 4] if kept else 0
        self.resets = mem32[_SCRATCH + 12] = mem32[_SCRATCH + 12] + 1 if kept else 0
        self._clock_ms = 0
        self._clock_at = time.ticks_ms()
        self._event = Pin(EVENT_PIN, Pin.IN, Pin.PULL_DOWN)
        self._vsys = ADC(Pin(VSYS_PIN, Pin.IN))
        self._diode = ADC(ADC.CORE_TEMP)
        self._i2c = I2C(0, sda=Pin(I2C_PINS[0]), scl=Pin(I2C_PINS[1]), freq=_I2C_HZ)
        self._sensor = self._stream = self._flash = None
        self._least_free = 1 << 29  # bytes of heap, after a collection
        self._sleeps = 0
        # With USB plugged in somebody is at the desk: no watchdog that ends the prompt.
        self._watchdog = None if Pin(VBUS_PIN, Pin.IN)() else WDT(timeout=_WATCHDOG_MS)
        self.feed()

    def unique_id(self):
        return machine.unique_id()

    # --- time ---

    def now_s(self):
        # Counted in small integers: time.time() would allocate.
        now = time.ticks_ms()
        self._clock_ms += time.ticks_diff(now, self._clock_at)
        self._clock_at = now
        self._clock_s += self._clock_ms // 1000
        self._clock_ms %= 1000
        return self._clock_s

    def set_clock(self, by_s):
        self._clock_s += by_s

    def ticks_us(self):
        return time.ticks_diff(time.ticks_us(), self._begin_us)

    def lap(self, stage):
        return self.ticks_us()

    def feed(self):
        """Content the watchdog, and note the time for the wake after a reset."""
        if self._watchdog:
            self._watchdog.feed()
        mem32[_SCRATCH + 4] = self.now_s()
        mem32[_SCRATCH] = _MAGIC

    # --- a person ---

    def held(self):
        """Whether a person wants in: the pin is low, or Ctrl-C comes soon after a reset."""
        if not Pin(AWAKE_PIN, Pin.IN, Pin.PULL_UP)():
            return True
        if self._watchdog is None:
            try:
                time.sleep_ms(_WINDOW_MS)
            except KeyboardInterrupt:
                return True
        return False

    def stay(self):
        """The REPL is open: a watchdog that runs already must not end it."""
        mem32[_WATCHDOG_CLEAR] = 1 << 30
        self._watchdog = None

    # --- memory ---

    def retained(self):
        return self._retained

    def retain(self, blob):
        self._retained = blob

    def flash(self):
        if self._flash is None:
            device = rp2.Flash(start=RING_START, len=RING_SIZE)
            self._flash = Timed(device, self, time.ticks_us, time.ticks_diff)
        return self._flash, 0, RING_SIZE // 4096, _PROGRAM

    def lanes(self):
        return LANES

    def random32(self):
        return int.from_bytes(os.urandom(4), "little")

    # --- surroundings ---

    def battery_mv(self):
        return self._vsys.read_u16() * 9900 // 65535  # VSYS / 3 of 3.3 V

    def temperature_c(self):
        mv = self._diode.read_u16() * 3300 // 65535
        return 27 - (mv - 706) * 1000 // 1721

    def sensor(self, settings):
        if self._sensor is None:
            sensor = LSM6DSOX(self._i2c, self.doze_ms)
            sensor.start(settings.period_us)
            if settings.listen:
                sensor.wake_on_motion(_THRESHOLD)
            self._sensor = sensor
        return self

    def capture(self, buf, rows=0, enough=None):
        """A sensor that failed is set up from scratch the next time."""
        sensor, self._sensor = self._sensor, None
        rows = sensor.capture(buf, rows, enough)
        self._sensor = sensor
        return rows

    def link(self):
        if self._stream is None:
            self._stream = Stream(self)
        self._stream.open()
        from node.uplink.serial import Serial

        return Serial(self._stream, self.ticks_us)

    # --- sleep ---

    def doze_ms(self, ms):
        """Wait asleep, content the watchdog on the way; the event pin is not looked at."""
        while ms > 0:
            self.hurry()
            begin = time.ticks_us()
            step = min(ms, _DOZE_MS)
            if self.limit_us:
                step = min(step, self.left_ms())
            machine.lightsleep(step - _BACK_MS if step > 2 * _BACK_MS else step)
            self.doze_us += time.ticks_diff(time.ticks_us(), begin)
            self.feed()
            ms -= step

    def sleep(self, ms, event=True):
        # Collected here, where nobody waits, so that no wake has to.
        gc.collect()
        if self._sleeps & 15 == 0:  # counting takes 7 ms
            free = gc.mem_free()
            if free < self._least_free:
                self._least_free = mem32[_SCRATCH + 8] = free
        self._sleeps += 1
        if self._stream:
            self._stream.close()
        if self._sensor and event:
            self._sensor.motion()  # what the node was awake for is no news
        begin = time.ticks_ms()
        self.cause = TIMER
        while True:
            left = ms - time.ticks_diff(time.ticks_ms(), begin)
            if left <= 0:
                break
            machine.lightsleep(min(left, _LOOK_MS))
            self.feed()
            if event and self._event():
                self.cause = EVENT
                break
        self.resets = mem32[_SCRATCH + 12] = 0
        self.doze_us = self.flash_us = self.radio_us = 0
        self._begin_us = time.ticks_us()


class Stream:
    """The UART as a byte stream with a deadline; the other side is there or it isn't."""

    def __init__(self, board):
        self._board = board
        self._open = False
        self._uart = UART(0, _BAUD, tx=Pin(UART_PINS[0]), rx=Pin(UART_PINS[1]), rxbuf=1280,
                          txbuf=1280, timeout=_BYTE_MS, timeout_char=_BYTE_MS)
        self._poll = select.poll()
        self._poll.register(self._uart, select.POLLIN)

    def open(self):
        self._open, self._since_us = True, time.ticks_us()

    def write(self, buf):
        self._board.hurry()
        self._uart.write(buf)

    def readinto(self, buf, ms):
        self._board.hurry()
        return (self._uart.readinto(buf) or 0) if self._poll.poll(ms) else 0

    def close(self):
        if not self._open:
            return
        self._open = False
        self._uart.flush()
        while self._uart.any():  # an answer that came too late
            self._uart.read()
        self._board.radio_us += time.ticks_diff(time.ticks_us(), self._since_us)
