# ESP32 and its family on stock MicroPython: RTC memory, wake-up pins, partitions, Wi-Fi.
# Checked against the port's stubs and run against a fake of it; what no chip has run yet is listed
# in docs/hardware.md.

import json
import os
import sys
import time

import esp32
import machine
from micropython import const

from node.board import BROWNOUT, COLD, EVENT, TIMER, WATCHDOG, Common, Timed

_SECTOR = const(4096)
_EPOCH_S = 946684800 if time.gmtime(0)[0] == 2000 else 0  # the port's, in seconds since 1970
_WATCHDOG_MS = const(120000)  # no stage takes longer
_PATIENCE_MS = const(86400000)  # what the watchdog grants a person at the REPL
_WINDOW_MS = const(3000)  # after a reset: time for a Ctrl-C
_NAP_MS = const(5)  # shorter waits aren't worth falling asleep
_THRESHOLD = const(8)  # motion: 8/256 of 4 g, 125 mg between two samples
_CAUSE_REGISTER = const(0x3FF48034)  # ESP32's RTC_CNTL_RESET_STATE_REG; bits 0..5 are core 0's
_POWERON_RESET = const(1)


class Board(Common):
    def __init__(self):
        super().__init__()
        with open("board.json") as file:
            given = json.loads(file.read())
        self._pins, self._lanes = given["pins"], given["lanes"]
        self.power, self.battery = given.get("power", {}), given.get("battery", {})
        self.phases = [machine.Pin(pin, machine.Pin.OUT, value=0)
                       for pin in given.get("phase", ())]
        self.cause = _cause(given["chip"])
        self._began_us = time.ticks_us()
        if self.cause == TIMER or self.cause == EVENT:
            # The port's clock begins with its own code; this wake did so before.
            self._began_us = -self.power.get("boot_us", 0)
        self._retained = b""
        if self.cause == WATCHDOG:
            self._count_reset()
        self._watchdog = self._sensor = self._radio_since_us = None
        if "hold" in self._pins:  # the sensor's supply, on and kept on
            pin = self._pins["hold"]
            # the stubs lack `hold`; ports/esp32/machine_pin.c has it
            machine.Pin(pin, machine.Pin.OUT, value=1, hold=True)  # type: ignore[call-arg]

    def unique_id(self):
        return machine.unique_id()

    # --- time ---

    def now_s(self):
        return int(time.time()) + _EPOCH_S

    def set_clock(self, by_s):
        year, month, day, hour, minute, second, weekday, _ = time.gmtime(
            int(time.time()) + by_s)
        machine.RTC().datetime((year, month, day, weekday, hour, minute, second, 0))

    def ticks_us(self):
        return time.ticks_diff(time.ticks_us(), self._began_us)

    def lap(self, stage):
        return self.ticks_us()

    def feed(self):
        if self._watchdog is None:
            self._watchdog = machine.WDT(timeout=_WATCHDOG_MS)
        self._watchdog.feed()

    # --- a person ---

    def held(self):
        """Whether a person wants in: the pin is low, or Ctrl-C comes soon after a reset."""
        if "awake" in self._pins:
            if not machine.Pin(self._pins["awake"], machine.Pin.IN, machine.Pin.PULL_UP).value():
                return True
        if self.cause != TIMER and self.cause != EVENT:
            try:
                time.sleep_ms(_WINDOW_MS)
            except KeyboardInterrupt:
                return True
        return False

    def stay(self):
        """The REPL is open: a watchdog that runs already must not end it."""
        if self._watchdog is not None:
            self._watchdog = machine.WDT(timeout=_PATIENCE_MS)

    # --- memory ---

    # The last byte of RTC memory is the board's own: resets by the watchdog since the last sleep.

    def _count_reset(self):
        memory = machine.RTC().memory()
        if memory:
            self.resets = min(memory[-1] + 1, 255)
            machine.RTC().memory(memory[:-1] + bytes((self.resets,)))

    def retained(self):
        return machine.RTC().memory()[:-1]

    def retain(self, blob):
        self._retained = blob

    def flash(self):
        ring = esp32.Partition.find(esp32.Partition.TYPE_DATA, label="ring")[0]
        timed = Timed(ring, self, time.ticks_us, time.ticks_diff)
        return timed, 0, ring.ioctl(4, 0), 1

    def lanes(self):
        return self._lanes

    def random32(self):
        return int.from_bytes(os.urandom(4), "little")

    # --- surroundings ---

    def battery_mv(self):
        # Behind a divider by two; read_uv() applies the calibration burnt into the chip.
        adc = machine.ADC(machine.Pin(self._pins["battery"]))
        adc.atten(machine.ADC.ATTN_11DB)
        return sum(adc.read_uv() for _ in range(8)) // 4000

    def temperature_c(self):
        if hasattr(esp32, "mcu_temperature"):
            return esp32.mcu_temperature()
        return (esp32.raw_temperature() - 32) * 5 // 9

    def sensor(self, settings):
        from node.sensor.lsm6dsox import LSM6DSOX

        bus = machine.I2C(0, freq=400000, scl=machine.Pin(self._pins["scl"]),
                          sda=machine.Pin(self._pins["sda"]))
        sensor = LSM6DSOX(bus, self.doze_ms)
        sensor.start(settings.period_us)
        if settings.listen:
            sensor.wake_on_motion(_THRESHOLD)
        self._sensor = sensor
        return sensor

    def doze_ms(self, ms):
        """Wait in light sleep, which keeps RAM; not beyond the deadline."""
        self.hurry()
        if self.limit_us:
            ms = min(ms, (self.limit_us - self.ticks_us()) // 1000 + 1)
        begin_us = time.ticks_us()
        if ms < _NAP_MS:
            time.sleep_ms(ms)
            return
        machine.lightsleep(ms)
        self.doze_us += time.ticks_diff(time.ticks_us(), begin_us)

    def link(self):
        """A way to the gateway that network.json names, or None where there is none."""
        try:
            with open("network.json") as file:
                where = json.loads(file.read())
        except OSError:
            return None
        from node.board import wifi

        self._radio_since_us = self.ticks_us()
        try:
            if "bridge" in where:
                from node.uplink.espnow import Espnow

                return Espnow(wifi.espnow(where["channel"]), bytes.fromhex(where["bridge"]))
            if not wifi.join(where, self.hurry):
                self.radio_off()
                return None
            return wifi.dial(self, where)
        except BaseException:
            self.radio_off()
            raise

    def radio_off(self):
        """Off, whoever put it on."""
        _radio_off()
        if self._radio_since_us is not None:
            self.radio_us += self.ticks_us() - self._radio_since_us
            self._radio_since_us = None

    def sleep(self, ms, event=True):
        self.radio_off()
        machine.RTC().memory(bytes(self._retained) + b"\0")
        if event and self._quiet():
            pin = machine.Pin(self._pins["event"], machine.Pin.IN)
            esp32.wake_on_ext1((pin,), esp32.WAKEUP_ANY_HIGH)
        machine.deepsleep(ms)

    def _quiet(self):
        # A pin that stays high, because its sensor can't be asked, would wake the chip at once.
        if not hasattr(machine, "EXT1_WAKE"):
            return False
        try:
            if self._sensor:
                self._sensor.motion()
        except OSError:
            pass
        return not machine.Pin(self._pins["event"], machine.Pin.IN).value()


def _cause(chip):
    reset = machine.reset_cause()
    if reset == machine.DEEPSLEEP_RESET:
        return TIMER if machine.wake_reason() == machine.TIMER_WAKE else EVENT
    if reset == machine.WDT_RESET:
        return WATCHDOG
    if reset == machine.PWRON_RESET and _after_brownout(chip):
        return BROWNOUT
    return COLD


def _after_brownout(chip):
    # The port calls a brown-out a power-on; the ESP32's own register knows better. On its
    # successors, whose registers lie elsewhere, a brown-out counts as a cold boot.
    return chip == "ESP32" and machine.mem32[_CAUSE_REGISTER] & 63 != _POWERON_RESET


def _radio_off():
    # Left on, it draws 1.4 mA through deep sleep where 6 uA would do (micropython#5418).
    if "espnow" in sys.modules:
        sys.modules["espnow"].ESPNow().active(False)
    if "network" in sys.modules:
        wlan = sys.modules["network"].WLAN
        for interface in (wlan.IF_STA, wlan.IF_AP):
            wlan(interface).active(False)
