"""A board on the desk: virtual time, flash in RAM, and a sensor, a link and faults as a test says.

`wake(board)` lives one wake of the real cycle; what it retained is on the board afterwards.
"""

import json
import os
import sys

from node import record
from node.board import COLD, TIMER, WATCHDOG, Common, Late
from node.cycle import _live_once
from node.frame import (
    ACK,
    DOCUMENT,
    HEAD,
    HEARTBEAT,
    PART,
    TAIL,
    TIME,
    Seal,
    identify,
    read_varint,
)
from node.outbox import Outbox
from node.ring import Ring
from node.settings import forget
from node.state import State

SECTOR = 4096
LANES = (4, 4, 8, 4)
POWER = {"boot_uw": 117384, "active_uw": 132051, "doze_uw": 2984, "radio_uw": 495051,
         "sensor_uw": 2006, "flash_uw": 73333, "sleep_nw": 87267, "listen_nw": 84333,
         "leak_nw": 330184, "boot_us": 0}
BATTERY = {"capacity_mj": 43416000, "curve": [
    [0, 2502], [10, 3146], [20, 3372], [30, 3449], [40, 3532], [50, 3602], [60, 3680],
    [70, 3764], [80, 3842], [90, 3936], [100, 4032]]}
STAGE_US = (400000, 35000, 400, 30, 500, 3000, 0)
MODEL = {"name": "fake", "crc32": 0, "abi": 1, "window": 64, "channels": 6, "features": 2,
         "classes": 3}
SETTINGS = {"window": 64, "channels": 6, "period_us": 80000, "model": MODEL, "wake_s": 60,
            "uplink_s": 600, "uplink_most_s": 7200, "dwell_s": 0}
KEY = b"k" * 32
SEAL = Seal(KEY)


FOLDER = "/tmp/outpost-desk-" + "".join(["%02x" % byte for byte in os.urandom(6)])
os.mkdir(FOLDER)
os.chdir(FOLDER)


class Slept(BaseException):
    pass


class Fake:
    """A model whose votes are a test's; `asked` counts."""

    ABI, WINDOW, CHANNELS, FEATURES, CLASSES = 1, 64, 6, 2, 3

    def __init__(self, votes):
        self.votes, self.asked = votes, 0

    def features(self, window, out):
        if len(window) != self.WINDOW * self.CHANNELS:
            raise ValueError("window")
        out[0], out[1] = window[0], len(window)

    def predict(self, features, votes):
        self.asked += 1
        votes[:] = bytes(self.votes)
        return self.votes.index(max(self.votes))


class Board(Common):
    key = KEY
    size, window, ahead, patience_ms, tries = 512, 1, 1, 5000, 1  # of the link that it is, too
    carried = 0

    def __init__(self, **settings):
        super().__init__()
        with open("settings.json", "w") as file:
            json.dump(dict(SETTINGS, **settings), file)
        self.data = bytearray(b"\xff" * SECTOR * sum(LANES))
        self.power, self.battery = POWER, BATTERY
        self.cause, self.node_id = COLD, 1
        self.clock_us = 1000 * 1000000
        self.us = 0
        self.mv, self.celsius = 4032, 20
        self.kept = b""
        self.value = 0  # what all samples are, or a function of the row
        self.silent = self.hangs = self.flash_fails = False
        self.linked = True  # a function of the clock (s), or a bool
        self.receives = True  # and somebody acknowledges
        self.down = []  # (type, body after the nonce) of what the gateway has for it
        self.tells_s = 0  # what time it is there
        self.sent_kinds, self.heard = [], {}  # types, and frames of records by lane
        self.attempts = []  # when a link was asked for, s
        self.laps, self.slept_ms, self.listened = [], 0, False
        self.radio = False
        self.random = 1
        sys.modules["fake"] = self.model = Fake([8, 1, 1])
        sys.modules["fake_large"] = self.large = Fake([1, 8, 1])

    # --- the board's side ---

    def now_s(self):
        return (self.clock_us + self.us) // 1000000

    def set_clock(self, by_s):
        self.clock_us += by_s * 1000000

    def ticks_us(self):
        return self.us

    def lap(self, stage):
        self.us += STAGE_US[stage]
        self.laps.append(stage)
        return self.us

    def feed(self):
        pass

    def wait(self, us):
        late = self.limit_us and self.us + us >= self.limit_us
        if late:
            us = max(0, self.limit_us - self.us)
        self.us += us
        return us, late

    def retained(self):
        return self.kept

    def retain(self, blob):
        self.next = bytes(blob)

    def flash(self):
        return self, 0, sum(LANES), 1

    def lanes(self):
        return LANES

    def random32(self):
        self.random = (self.random * 1664525 + 1013904223) & 0xFFFFFFFF
        return self.random

    def battery_mv(self):
        return self.mv

    def temperature_c(self):
        return self.celsius

    def sensor(self, settings):
        self.period_us, self.channels = settings.period_us, settings.channels
        return self

    def capture(self, buf, first=0, enough=None):
        if self.hangs:
            raise KeyboardInterrupt  # nothing else ends it
        if self.silent:
            raise OSError(19)
        rows = len(buf) // self.channels
        for row in range(rows):
            value = self.value(row) if callable(self.value) else self.value
            for channel in range(self.channels):
                buf[row * self.channels + channel] = value
        if enough:
            self.doze(first)
            if enough():
                return first
            rows -= first
        self.doze(rows)
        return len(buf) // self.channels

    def doze(self, rows):
        us, late = self.wait(rows * self.period_us)
        self.doze_us += us
        if late:
            raise Late

    def transmit(self, us):
        us, late = self.wait(us)
        self.radio_us += us
        if late:
            raise Late

    def link(self):
        self.attempts.append(self.now_s())
        up = self.linked(self.now_s()) if callable(self.linked) else self.linked
        if not up:
            self.transmit(1600000)
            return None
        self.radio, self.answers, self.carried = True, [], 0
        self.transmit(704000)
        return self

    def send(self, data):
        """Everything is acknowledged, if anybody is there."""
        self.transmit(len(data) * 8)
        self.carried += len(data)
        data = bytes(data)
        kind, node = identify(data)
        self.sent_kinds.append(kind)
        if not self.receives:
            return
        if kind == HEARTBEAT:  # its last item asks for the time
            nonce = data[len(data) - TAIL - 20:len(data) - TAIL - 16]
            for what, body in self.down:
                self.answer(what, nonce + body)
            self.answer(TIME, nonce + self.tells_s.to_bytes(4, "little"))
        elif kind != DOCUMENT:
            self.heard[data[HEAD] & 127] = self.heard.get(data[HEAD] & 127, 0) + 1
            lane = bytes((data[HEAD] & 127,))
            seq = last(kind, data).to_bytes(4, "little")
            self.answer(ACK, lane + data[HEAD + 1:HEAD + 5] + seq)

    def answer(self, kind, body):
        frame = bytearray(HEAD + len(body) + TAIL)
        SEAL.begin(frame, kind, self.node_id)
        frame[HEAD:HEAD + len(body)] = body
        SEAL.close(frame, HEAD + len(body))
        self.answers.append(frame)

    def receive(self, buf, ms):
        if not self.answers:
            self.transmit(ms * 1000)
            return 0
        frame = self.answers.pop(0)
        buf[:len(frame)] = frame
        self.carried += len(frame)
        return len(frame)

    def close(self):
        self.radio = False

    def sleep(self, ms, event=True):
        self.slept_ms, self.listened = ms, event
        self.close()
        raise Slept

    # --- flash ---

    def readblocks(self, sector, buf, offset=0):
        at = sector * SECTOR + offset
        buf[:] = self.data[at:at + len(buf)]

    def writeblocks(self, sector, buf, offset=0):
        if self.flash_fails:
            raise OSError(5)
        at = sector * SECTOR + offset
        for i in range(len(buf)):
            self.data[at + i] &= buf[i]
        self.us += 1000
        self.flash_us += 1000

    def ioctl(self, operation, argument):
        if operation == 6:
            if self.flash_fails:
                raise OSError(5)
            at = argument * SECTOR
            self.data[at:at + SECTOR] = b"\xff" * SECTOR
            self.us += 70000
            self.flash_us += 70000
        return 0

    # --- what a test asks ---

    def records(self, lane=None):
        """(lane, time, kind, payload) of all on flash."""
        found, first = [], 0
        for number, sectors in enumerate(LANES):
            ring = Ring(Copy(self.data), first, sectors, number, 1)
            ring.mount()
            if lane is None or lane == number:
                found += [(number, time_s, kind, bytes(payload))
                          for _, kind, time_s, payload in ring.records()]
            first += sectors
        return found

    def sent(self, kind):
        """Whether a frame of this type was sent in the last wake."""
        return kind in self.sent_kinds

    def events(self, *reasons):
        """(reason, detail, value) of the events on flash, of these reasons or of all."""
        return [tuple(payload) for _, _, kind, payload in sorted(
            self.records(), key=lambda found: found[1])
                if kind == record.EVENT and (not reasons or payload[0] in reasons)]

    def state(self):
        state = State()
        assert state.load(self.kept)
        state.energy.power, state.energy.battery = self.power, self.battery
        return state

    def decisions(self):
        """Payloads of decisions, from flash and from what is gathered."""
        outbox = Outbox((Copy(self.data), 0, sum(LANES), 1), None, LANES)
        state = State()
        state.load(self.kept)
        outbox.mount(state.outbox(self.kept), True)
        outbox.flush()
        return [bytes(payload) for _, kind, _, payload in outbox.lanes[2].records()
                if kind == record.DECISION]


def last(kind, data):
    """The sequence of a frame's last record."""
    end = len(data) - TAIL
    seq, at = read_varint(data, HEAD + 5, end)
    at += 4
    while at < end:
        step, at = read_varint(data, at, end)
        seq += step
        if kind == PART:
            break
        _, at = read_varint(data, at, end)
        size = data[at] & 15
        at += 1
        if size == 15:
            size += data[at]
            at += 1
        at += size
    return seq


class Copy:
    """Flash that forgets what is programmed."""

    def __init__(self, data):
        self.data = bytearray(data)

    def readblocks(self, sector, buf, offset=0):
        at = sector * SECTOR + offset
        buf[:] = self.data[at:at + len(buf)]

    def writeblocks(self, sector, buf, offset=0):
        at = sector * SECTOR + offset
        self.data[at:at + len(buf)] = buf

    def ioctl(self, operation, argument):
        return 0


def wake(board, cause=None):
    """Live one wake, and sleep until the next. Returns the seconds slept."""
    forget()  # as on chips that boot for each wake
    board.us, board.laps, board.next = 0, [], None
    board.sent_kinds, board.heard = [], {}
    board.doze_us = board.flash_us = board.radio_us = 0
    if cause is not None:
        board.cause = cause
    try:
        _live_once(board)
    except Slept:
        pass
    assert not board.radio
    board.clock_us += board.us + board.slept_ms * 1000
    board.kept, board.cause, board.resets = board.next, TIMER, 0
    return board.slept_ms // 1000


def hang(board):
    """A wake that only the watchdog ends."""
    board.us, board.laps = 0, []
    board.doze_us = board.flash_us = board.radio_us = 0
    try:
        _live_once(board)
        raise AssertionError("it did not hang")
    except KeyboardInterrupt:
        pass
    board.clock_us += 120000000
    board.cause = WATCHDOG
    board.resets += 1


def done():
    os.remove("settings.json")
    os.chdir("/")
    os.rmdir(FOLDER)
    print("OK")
