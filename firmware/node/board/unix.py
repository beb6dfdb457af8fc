# A board whose world is a process on the PC: sensors, battery, link and time come over a socket.
# Deep sleep ends this process, as on a chip; virtual time never depends on the PC's speed.
# The protocol: docs/world.md. Started as `micropython -m main <socket fd> <flash fd>`.

import json
import sys
from struct import calcsize, pack, unpack

from micropython import const

from node import identity
from node.board import EVENT, TIMER, Common, Late
from node.sensor.replay import Replay
from node.uplink.mqtt import Mqtt
from node.uplink.tcp import Tcp

# What world and node say to each other, also for the host.
WAKE = "<QIIHbBBH"  # clock_us, random, cut, battery_mv, temperature_c, cause, resets, retained
ASK = "<BIH"  # what, at_us, and samples of CAPTURE or bytes of laps of SLEEP
REPLY = "<BI"  # yes or no, and bytes of the window or the gateway's port
SLEEP_MORE = "<IBIHHH"  # ms, event, programmed, erases, operations, bytes retained
LAP = "<BIIII"  # stage, and of the wake so far: us in all, doze_us, flash_us, radio_us

CAPTURE = const(1)
LINK = const(2)
POWER_LOST = const(3)
SLEEP = const(4)

_WAKE = const(23)
_SECTOR = const(4096)
_ERASE = const(6)
_BACK = const(160)  # bytes that answer a packet: three segments, a PUBACK, an acknowledgement


class FlashMisuse(BaseException):
    """A bug in what writes to flash; nobody may catch it, the node dies of it in sight."""


def given():
    """What the board is and who: read once in the life of this process."""
    global _given
    if _given is None:
        with open("board.json") as file:  # read() first: load() reads a byte at a time
            _given = json.loads(file.read()), identity.load()
    return _given


_given = None


class Board(Common):
    def __init__(self):
        super().__init__()
        self._world = World(int(sys.argv[-2]))
        board, (self.node_id, self.key) = given()
        (self._clock_us, self._random, cut, self._battery_mv, self._temperature_c, self.cause,
         self.resets, retained) = unpack(WAKE, self._world.read(_WAKE))
        self._retained = self._world.read(retained)
        self._lanes = board["lanes"]
        self._stage_us = board["stage_us"]
        self._uplink = board["uplink"]
        self.power = board["power"]
        self.battery = board["battery"]
        self._sample_us = board["sample_us"]
        # RAM that outlives sleep has all loaded; what a reset costs, that of other boards, too
        self._us = 0 if self.cause == TIMER or self.cause == EVENT else board["reset_us"]
        self._laps = bytearray()
        self._link = None
        self._flash = Flash(int(sys.argv[-1]), self, board["flash"], cut)

    # --- time ---

    def now_s(self):
        return (self._clock_us + self._us) // 1000000

    def set_clock(self, by_s):
        pass  # nobody tells the time here: the gateway's is not the world's

    def ticks_us(self):
        return self._us

    def lap(self, stage):
        self.spend_us(self._stage_us[stage])
        self._laps += pack(LAP, stage, self._us, self.doze_us, self.flash_us, self.radio_us)
        return self._us

    def spend_us(self, us):
        self._us += us

    def wait_us(self, us):
        """Let time pass, not beyond the deadline; return how much, and whether it is there."""
        late = self.limit_us and self._us + us >= self.limit_us
        if late:
            us = max(0, self.limit_us - self._us)
        self._us += us
        return us, late

    def doze(self, us):
        us, late = self.wait_us(us)
        self.doze_us += us
        if late:
            raise Late

    def transmit(self, us):
        us, late = self.wait_us(us)
        self.radio_us += us
        if late:
            raise Late

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
            came, size = self._ask(CAPTURE, settings.window)
            return self._world.readinto(buf) if came and size == 2 * len(buf) else 0

        def wait(rows):
            self.spend_us(rows * self._sample_us)
            self.doze(rows * settings.period_us)

        return Replay(fetch, wait, settings.channels)

    def link(self):
        up, port = self._ask(LINK)
        if not up:
            self.transmit(self._uplink["failed_us"])
            return None
        self.transmit(self._uplink["session_us"])
        self._link = Mqtt(Stream(self, port, self._uplink), self.node_id)
        return self._link

    def power_lost(self):
        self._ask(POWER_LOST)  # no answer ever comes: the world ends this process

    def sleep(self, ms, event=True):
        if self._link:
            self._link.close()
        flash = self._flash
        self._world.write(
            pack(ASK, SLEEP, self._us, len(self._laps))
            + pack(SLEEP_MORE, ms, event, flash.programmed, flash.erases, flash.operations,
                   len(self._retained))
            + self._laps + self._retained)
        sys.exit()

    def _ask(self, what, detail=0):
        self._world.write(pack(ASK, what, self._us, detail))
        return unpack(REPLY, self._world.read(calcsize(REPLY)))


class World:
    def __init__(self, fd):
        self._stream = open(fd, "r+b")
        self.write = self._stream.write
        self.readinto = self._stream.readinto

    def read(self, size):
        data = self._stream.read(size)
        if len(data) != size:
            sys.exit(1)  # the world is gone, and this node with it
        return data


class Flash:
    """NOR flash in a file: programs clear bits, only erase sets them; both take time."""

    def __init__(self, fd, board, cost, cut):
        self._file = open(fd, "r+b")
        self._board = board
        self._sectors = sum(board.lanes())
        self._cost = cost
        self._cut = cut  # power goes in this program or erase; 0 never
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
        self._spend_us(pages * self._cost["program_us"]
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
            self._spend_us(self._cost["erase_us"])
        return 0

    def _spend_us(self, us):
        self._board.flash_us += us
        self._board.spend_us(us)

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


class Stream(Tcp):
    """A TCP connection, charged by the byte that is sent, and for waiting in vain.

    What comes back is charged `_BACK` bytes and no time: how the gateway puts its answers
    together, and when, depends on the PC's speed. So does patience in real time, which is
    `patience_pct` of the node's own.
    """

    def __init__(self, board, port, cost):
        self._board, self._cost = board, cost
        super().__init__("127.0.0.1", port, self._real(min(Mqtt.patience_ms, board.left_ms())))

    def _real(self, ms):
        return ms * self._cost["patience_pct"] // 100

    def read(self, view, ms):
        carried = self.carried
        got = super().read(view, self._real(ms))
        self.carried = carried
        if got < len(view):
            self._board.transmit(ms * 1000)
        return got

    def write(self, view, ms):
        self._board.transmit(len(view) * self._cost["byte_ns"] // 1000)
        super().write(view, self._real(ms))
        self.carried += _BACK
