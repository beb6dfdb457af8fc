# What survives sleep: one packed, versioned, checked block in retained memory.
# Believed whole only after a sleep: see cycle.py. Bytes: docs/wake.md.

from binascii import crc32
from struct import calcsize, pack, pack_into, unpack, unpack_from

from micropython import const

from node import energy, latency, outbox, post
from node.modes import Modes
from node.record import NO_CLASS

_VERSION = const(0x4F05)  # 'O' and the layout's number
_NUMBERS = "<HH5IIIIIHBBBB15sIBBHIBBBBHIBBBIHBIIIHH"
_LATENCY = calcsize(_NUMBERS)
_ENERGY = _LATENCY + latency.SIZE
_OUTBOX = _ENERGY + energy.SIZE
_CRC = _OUTBOX + outbox.SAVED
SIZE = _CRC + 4

_REMAINS = "<HBHI"  # kept when the rest can't be: failed passes, the last command obeyed
_REMAINS_SIZE = const(9)


class State:
    def __init__(self):
        self.causes = [0] * 5  # wakes by cause since retained memory was lost
        self.wakes = 0
        self.uplink_s = 0  # when to try the next uplink
        self.state_s = 0  # when to record the next STATE
        self.timer_s = 0  # when the timer's next wake is due
        self.depth = 0  # records waiting
        self.faults = 0  # bit by reason of an event: what is known to be broken
        self.misses = 0  # deadlines missed
        self.decision = NO_CLASS
        self.share = 0
        self.smoothed = NO_CLASS
        self.verified = 0  # whose file has been checked against settings: a bit by BY_*
        self.history = bytearray(bytes((NO_CLASS,)) * post.SIZE)
        self.unlinked = 0  # uplinks failed in a row
        self.unflashed = 0  # wakes in a row with a failed flash operation
        self.failed = 0  # passes failed in a row
        self.windows = 0  # sent up or waiting to be since the last uplink
        self.motions = 0  # counted in CRITICAL
        self.counted_s = 0  # since when
        self.package = 0  # 1: one has come by radio and waits to be installed: node/fetch.py
        self.trial = 0  # good wakes of settings on trial: node/update.py
        self.order = 0  # number of the last command obeyed
        self.safe = 0  # 1: the gateway wants it SAFE
        self.set_s = 0  # when the clock was last set, in its own time
        self.spent = 0  # bytes of today's that went over the link
        self.carried = 0  # of them in this wake
        self.hello = 1000  # what a session takes before the first record
        self.held = 0  # records held back for want of bytes
        self.reset = False  # instead of sleeping; of this wake only
        self.refused = 0  # CRC-32 of the document of settings that was refused last
        self.modes = Modes()
        self.latency = latency.Latency()
        self.energy = energy.Energy()

    def load(self, blob):
        """Take over what save() gave; False, and nothing else changed, if it isn't that."""
        if len(blob) == _REMAINS_SIZE:
            version, failed, order, crc = unpack(_REMAINS, blob)
            if version == _VERSION and crc == crc32(blob[:5]):
                self.failed, self.order = failed, order
            return False
        if len(blob) != SIZE or unpack_from("<I", blob, _CRC)[0] != crc32(blob[:_CRC]):
            return False
        numbers = unpack_from(_NUMBERS, blob)
        if numbers[0] != _VERSION:
            return False
        self.misses = numbers[1]
        self.causes = list(numbers[2:7])
        modes = self.modes
        (self.wakes, self.uplink_s, self.state_s, self.depth, self.faults, self.decision,
         self.share, self.smoothed, self.verified, self.history[:], self.timer_s, modes.mode,
         modes.reason, modes.on, modes.since_s, modes.ended, self.unlinked, self.unflashed,
         self.failed, self.motions, self.counted_s, self.windows,
         self.trial, self.package, self.refused, self.order, self.safe,
         self.set_s, self.spent, self.carried, self.hello, self.held) = numbers[7:]
        self.latency.load(memoryview(blob)[_LATENCY:_ENERGY])
        self.energy.load(memoryview(blob)[_ENERGY:_OUTBOX])
        return True

    def outbox(self, blob):
        """The outbox's part of a block that load() accepted."""
        return memoryview(blob)[_OUTBOX:_CRC]

    def save(self, box):
        """This state and the outbox's, as bytes for retained memory."""
        blob = bytearray(SIZE)
        view, modes = memoryview(blob), self.modes
        pack_into(_NUMBERS, blob, 0, _VERSION, self.misses, *self.causes, self.wakes,
                  self.uplink_s, self.state_s, self.depth, self.faults, self.decision,
                  self.share, self.smoothed, self.verified, self.history, self.timer_s,
                  modes.mode, modes.reason, modes.on, modes.since_s, modes.ended, self.unlinked,
                  self.unflashed, self.failed, self.motions, self.counted_s, self.windows,
                  self.trial, self.package, self.refused, self.order, self.safe, self.set_s,
                  self.spent, self.carried, self.hello, self.held)
        self.latency.save(view[_LATENCY:_ENERGY])
        self.energy.save(view[_ENERGY:_OUTBOX])
        box.save(view[_OUTBOX:_CRC])
        pack_into("<I", blob, _CRC, crc32(view[:_CRC]))
        return blob

    def remains(self):
        """What to keep when the rest can't be believed any more."""
        head = pack("<HBH", _VERSION, self.failed, self.order)
        return head + pack("<I", crc32(head))

    def clock_set(self, by_s):
        """The node's clock was put forward by so much: so is all that is told in its time."""
        for name in ("uplink_s", "state_s", "timer_s", "counted_s"):
            setattr(self, name, max(0, getattr(self, name) + by_s))
        self.modes.since_s = max(0, self.modes.since_s + by_s)
        self.energy.clock_set(by_s)
