# The port's `esp32`: partitions as the table in flash says, wake-up pins, the temperature sensor.

import os
from struct import unpack_from

import machine

WAKEUP_ALL_LOW, WAKEUP_ANY_HIGH = False, True
RTC_PINS = (0, 2, 4, 12, 13, 14, 15, 25, 26, 27, 32, 33, 34, 35, 36, 37, 38, 39)
SECTOR = 4096
ext1 = None
_flash = open(os.getcwd() + "/flash.bin", "r+b")


def wake_on_ext1(pins, level):
    global ext1
    for pin in pins:
        if pin.number not in RTC_PINS:
            raise ValueError("invalid pin")
    ext1 = [[pin.number for pin in pins], level]


def raw_temperature():
    return machine.state.get("raw_temperature", 127)


class Partition:
    TYPE_APP, TYPE_DATA = 0, 1

    def __init__(self, entry):
        self._info = entry

    @classmethod
    def find(cls, type=0, subtype=0xFF, label=None, block_size=SECTOR):
        found = []
        _flash.seek(0x8000)
        table = _flash.read(0xC00)
        for at in range(0, len(table), 32):
            if table[at:at + 2] != b"\xaa\x50":
                break
            kind, sub, offset, size = unpack_from("<BBII", table, at + 2)
            name = table[at + 12:at + 28].rstrip(b"\0").decode()
            if kind == type and subtype in (0xFF, sub) and label in (None, name):
                found.append(cls((kind, sub, offset, size, name, False)))
        return found

    def info(self):
        return self._info

    def _seek(self, block, offset, size):
        at = block * SECTOR + offset
        if at < 0 or at + size > self._info[3]:
            raise OSError(-258)  # ESP_ERR_INVALID_ARG
        _flash.seek(self._info[2] + at)

    def readblocks(self, block, buf, offset=0):
        self._seek(block, offset, len(buf))
        _flash.readinto(buf)

    def writeblocks(self, block, buf, offset=None):
        if offset is None:
            for i in range((len(buf) + SECTOR - 1) // SECTOR):
                self.ioctl(6, block + i)
        self._seek(block, offset or 0, len(buf))
        old = _flash.read(len(buf))
        self._seek(block, offset or 0, len(buf))
        _flash.write(bytes(a & b for a, b in zip(old, buf)))
        _flash.flush()

    def ioctl(self, operation, argument):
        if operation == 4:
            return self._info[3] // SECTOR
        if operation == 5:
            return SECTOR
        if operation == 6:
            self._seek(argument, 0, SECTOR)
            _flash.write(b"\xff" * SECTOR)
            _flash.flush()
        return 0
