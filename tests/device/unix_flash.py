"""The unix board's flash is NOR: programs clear bits, erases set them, misuse ends the node."""

import os
import sys

from node.board.unix import Flash, FlashMisuse

SECTOR = 4096
PATH = "flash-test.img"
COSTS = {"program_us": 800, "program_byte_ns": 300, "erase_us": 70000}


files = []


class PowerLost(BaseException):
    pass


class Board:
    def __init__(self):
        self.us = self.flash_us = 0

    def spend_us(self, us):
        self.us += us

    def lanes(self):
        return 2, 1

    def power_lost(self):
        raise PowerLost


def misused(call, *arguments):
    try:
        call(*arguments)
    except FlashMisuse as error:
        assert not isinstance(error, Exception)  # `except Exception` must not swallow it
        return str(error)
    raise AssertionError((call, arguments))


def content():
    with open(PATH, "rb") as file:
        return file.read()


def flash(cut=0):
    file = open(PATH, "r+b")
    files.append(file)  # the descriptor must live
    board = Board()
    return Flash(file.fileno(), board, COSTS, cut), board


try:
    with open(PATH, "wb") as file:
        file.write(b"\xff" * SECTOR * 3)
    device, board = flash()
    assert device.ioctl(4, 0) == 3 and device.ioctl(5, 0) == SECTOR

    device.writeblocks(1, b"\xf0\x0f", 10)
    assert board.us == 800 + 0 and device.programmed == 2  # 2 bytes of 300 ns are 0 whole us
    device.writeblocks(1, b"\x00\x0f", 10)  # only clears
    buf = bytearray(4)
    device.readblocks(1, buf, 9)
    assert bytes(buf) == b"\xff\x00\x0f\xff"
    assert content()[SECTOR + 9:SECTOR + 13] == bytes(buf)

    before = content()
    assert "sector 1" in misused(device.writeblocks, 1, b"\x01", 10)
    misused(device.writeblocks, 1, b"\x00\x1f", 10)
    assert content() == before  # nothing of it is written

    board.us = 0
    device.ioctl(6, 1)
    assert board.us == 70000 and device.erases == 1 and content() == b"\xff" * SECTOR * 3
    board.us = 0
    device.writeblocks(0, bytes(300), 200)  # two pages
    assert board.us == 2 * 800 + 90
    assert board.flash_us == 2 * 800 + 70000 + board.us

    for sector, offset, size in ((3, 0, 1), (-1, 0, 1), (0, 4095, 2), (0, -1, 1)):
        misused(device.writeblocks, sector, bytes(size), offset)
        misused(device.readblocks, sector, bytearray(size), offset)
    misused(device.ioctl, 6, 3)

    # power goes in the third operation, half of which happens
    device, board = flash(cut=3)
    device.writeblocks(2, b"\x11\x11", 0)
    device.writeblocks(2, b"\x22\x22", 2)
    try:
        device.writeblocks(2, b"\x33\x33", 4)
        raise AssertionError()
    except PowerLost:
        pass
    assert content()[2 * SECTOR:2 * SECTOR + 6] == b"\x11\x11\x22\x22\x33\xff"
    device, board = flash(cut=1)
    try:
        device.ioctl(6, 2)
        raise AssertionError()
    except PowerLost:
        pass
    assert content()[2 * SECTOR:2 * SECTOR + 6] == b"\xff" * 6  # the first half is erased
finally:
    os.remove(PATH)
sys.stdout.write("OK\n")
