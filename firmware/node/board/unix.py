# A board whose world is a process on the PC: sensors, battery, link and time come over a socket.
# Deep sleep ends this process, as on a chip; virtual time never depends on the PC's speed.
# The protocol: docs/world.md. Started as `micropython -m main <socket fd> <flash fd>`.

import json
import socket
import sys
from struct import pack, unpack

from micropython import const

from node.sensor.replay import Replay

_SECTOR = const(4096)
_ACK_S = const(5)  # real seconds; only a dead gateway lets them pass
_ERASE = const(6)


class FlashMisuse(BaseException):
    """A bug in what writes to flash; nobody may catch it, the node dies of it in sight."""


class Board:
    def __init__(self):
        self._world = World(int(sys.argv[-2]))
        wake, self._retained = self._world.receive()
        self.cause = wake["cause"]
        self.node_id = wake["node"]
        self._clock_us = wake["clock_us"]
        self._battery_mv = wake["battery_mv"]
        self._temperature_c = wake["temperature_c"]
        self._stage_us = wake["stage_us"]
        self._uplink = wake["uplink"]
        self._us = 0
        self._lanes = wake["lanes"]
        self._random = wake["random"]
        self._flash = Flash(int(sys.argv[-1]), self, wake)
        self._laps = []

    # --- time ---

    def now_s(self):
        return (self._clock_us + self._us) // 1000000

    def ticks_us(self):
        return self._us

    def lap(self, stage):
        self.spend_us(self._stage_us[stage])
        self._laps.append((stage, self._us))
        return self._us

    def spend_us(self, us):
        self._us += us

    def feed(self):
        pass  # the world itself watches that the node goes on

    # --- a person ---

    def held(self):
        return False  # nobody is at this node's desk

    def stay(self):
        pass

    # --- memory ---

    def retained(self):
        return self._retained

    def retain(self, blob):
        self._retained = blob

    def flash(self):
        return self._flash, 0, sum(self._lanes), 1

    def lanes(self):
        return self._lanes

    def random32(self):
        self._random = (self._random * 1664525 + 1013904223) & 0xFFFFFFFF
        return self._random

    # --- surroundings ---

    def battery_mv(self):
        return self._battery_mv

    def temperature_c(self):
        return self._temperature_c

    def sensor(self, settings):
        def fetch(buf):
            self._world.send({"do": "capture", "at_us": self._us, "samples": settings.window})
            self.spend_us(settings.window * settings.period_us)
            return self._world.receive_into(buf)

        return Replay(fetch)

    def link(self):
        self._world.send({"do": "link", "at_us": self._us})
        reply, _ = self._world.receive()
        if not reply["up"]:
            self.spend_us(self._uplink["failed_us"])
            return None
        self.spend_us(self._uplink["session_us"])
        stream = socket.socket()
        try:
            stream.settimeout(_ACK_S)
            stream.connect(socket.getaddrinfo(reply["host"], reply["port"])[0][-1])
        except OSError:
            stream.close()
            raise
        return Link(stream, self, self._uplink["byte_ns"])

    def power_lost(self):
        self._world.send({"do": "power_lost", "at_us": self._us})
        self._world.receive()  # which never comes: the world ends this process

    def sleep(self, ms, event=True):
        done = {"do": "sleep", "ms": ms, "event": event, "laps": self._laps,
                "programmed": self._flash.programmed, "erases": self._flash.erases,
                "operations": self._flash.operations}
        self._world.send(done, self._retained)
        sys.exit()


class World:
    """Messages both ways: u16 length of a JSON object, u16 length of bytes after it, both."""

    def __init__(self, fd):
        self._stream = open(fd, "r+b")

    def send(self, message, blob=b""):
        text = json.dumps(message).encode()
        self._stream.write(pack("<HH", len(text), len(blob)) + text + blob)

    def receive(self):
        text, blob = self._head()
        return json.loads(self._read(text)), self._read(blob)

    def receive_into(self, buf):
        text, blob = self._head()
        self._read(text)
        return self._stream.readinto(buf) if blob else 0

    def _head(self):
        return unpack("<HH", self._read(4))

    def _read(self, size):
        data = self._stream.read(size)
        if len(data) != size:
            sys.exit(1)  # the world is gone, and this node with it
        return data


class Flash:
    """NOR flash in a file: programs clear bits, only erase sets them; both take time."""

    def __init__(self, fd, board, wake):
        self._file = open(fd, "r+b")
        self._board = board
        self._sectors = sum(wake["lanes"])
        self._cost = wake["flash"]
        self._cut = wake["cut"]  # power goes in this program or erase; 0 never
        self.operations = self.programmed = self.erases = 0

    def readblocks(self, sector, buf, offset=0):
        self._seek(sector, offset, len(buf))
        self._file.readinto(buf)

    def writeblocks(self, sector, buf, offset=0):
        size = len(buf)
        self._seek(sector, offset, size)
        old = int.from_bytes(self._file.read(size), "little")
        if old & int.from_bytes(buf, "little") != int.from_bytes(buf, "little"):
            raise FlashMisuse("program sets bits: sector %d, byte %d" % (sector, offset))
        self._seek(sector, offset, size)
        self._operate(buf, size)
        self.programmed += size
        pages = (offset % 256 + size + 255) // 256
        self._board.spend_us(pages * self._cost["program_us"]
                             + size * self._cost["program_byte_ns"] // 1000)

    def ioctl(self, operation, argument):
        if operation == 4:
            return self._sectors
        if operation == 5:
            return _SECTOR
        if operation == _ERASE:
            self._seek(argument, 0, _SECTOR)
            self._operate(b"\xff" * _SECTOR, _SECTOR)
            self.erases += 1
            self._board.spend_us(self._cost["erase_us"])
        return 0

    def _seek(self, sector, offset, size):
        if not (0 <= sector < self._sectors and 0 <= offset <= _SECTOR - size):
            raise FlashMisuse("sector %d, byte %d, %d long" % (sector, offset, size))
        self._file.seek(sector * _SECTOR + offset)

    def _operate(self, data, size):
        # A write or erase that the cut falls into gets half way.
        self.operations += 1
        if self.operations == self._cut:
            self._file.write(memoryview(data)[:size // 2])
            self._board.power_lost()
        self._file.write(data)


class Link:
    """A TCP connection as a byte stream with a deadline, charged by the byte."""

    def __init__(self, stream, board, byte_ns):
        self._stream = stream
        self._board = board
        self._byte_ns = byte_ns

    def write(self, data):
        self._board.spend_us(len(data) * self._byte_ns // 1000)
        self._stream.write(data)

    def readinto(self, buf):
        self._board.spend_us(len(buf) * self._byte_ns // 1000)
        try:
            return self._stream.readinto(buf) or 0
        except OSError:
            return 0

    def close(self):
        self._stream.close()
