# What survives sleep: one packed, versioned, checked block in retained memory.
# Believed whole only after a sleep: see cycle.py. Bytes: docs/wake.md.

from binascii import crc32
from struct import calcsize, pack_into, unpack_from

from micropython import const

from node import latency, outbox, post
from node.record import NO_CLASS

_VERSION = const(0x4F01)  # 'O' and the layout's number
_NUMBERS = "<HH5IIIIIHBBBB15s"
_LATENCY = calcsize(_NUMBERS)
_OUTBOX = _LATENCY + latency.SIZE
_CRC = _OUTBOX + outbox.SAVED
SIZE = _CRC + 4


class State:
    def __init__(self):
        self.causes = [0] * 5  # wakes by cause since retained memory was lost
        self.wakes = 0
        self.uplink_s = 0  # when to try the next uplink
        self.state_s = 0  # when to record the next STATE
        self.depth = 0  # records waiting
        self.faults = 0  # bit by reason of an event: what is known to be broken
        self.misses = 0  # deadlines missed
        self.decision = NO_CLASS
        self.share = 0
        self.smoothed = NO_CLASS
        self.verified = 0  # the model's file has been checked against settings
        self.history = bytearray(bytes((NO_CLASS,)) * post.SIZE)
        self.latency = latency.Latency()

    def load(self, blob):
        """Take over what save() gave; False, and nothing changed, if it isn't that."""
        if len(blob) != SIZE or unpack_from("<I", blob, _CRC)[0] != crc32(blob[:_CRC]):
            return False
        numbers = unpack_from(_NUMBERS, blob)
        if numbers[0] != _VERSION:
            return False
        self.misses = numbers[1]
        self.causes = list(numbers[2:7])
        (self.wakes, self.uplink_s, self.state_s, self.depth, self.faults, self.decision,
         self.share, self.smoothed, self.verified) = numbers[7:16]
        self.history[:] = numbers[16]
        self.latency.rows[:] = blob[_LATENCY:_OUTBOX]
        return True

    def outbox(self, blob):
        """The outbox's part of a block that load() accepted."""
        return memoryview(blob)[_OUTBOX:_CRC]

    def save(self, box):
        """This state and the outbox's, as bytes for retained memory."""
        blob = bytearray(SIZE)
        pack_into(_NUMBERS, blob, 0, _VERSION, self.misses, *self.causes, self.wakes,
                  self.uplink_s, self.state_s, self.depth, self.faults, self.decision,
                  self.share, self.smoothed, self.verified, self.history)
        blob[_LATENCY:_OUTBOX] = self.latency.rows
        box.save(memoryview(blob)[_OUTBOX:_CRC])
        pack_into("<I", blob, _CRC, crc32(memoryview(blob)[:_CRC]))
        return blob
