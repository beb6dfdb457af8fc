# Four lanes of records waiting for a link, each a ring with its own share of the flash.
# Identity of a record: (node, lane, epoch, sequence). What may be lost when: docs/ring-format.md

from struct import pack_into, unpack_from

from micropython import const

from node.frame import Batch
from node.ring import Ring

ALERT = const(0)
EVENT = const(1)
TELEMETRY = const(2)
DIAGNOSTIC = const(3)
LANES = const(4)

_FAIR = const(4)  # of so many batches one goes to the lane that has waited longest
_PAGE = const(256)  # telemetry gathered in retained memory
_LANE = const(40)  # Ring.SAVED numbers of four bytes
_GATHERED = const(168)  # in save(): after the lanes, and sequence and length of what is gathered
_FRAME = const(288)  # the longest record must fit

SAVED = const(424)  # bytes of save()


class Outbox:
    """`flash` is (device, first sector, sectors, unit); `shares` are sectors a lane, >= 3 each."""

    def __init__(self, flash, random32, shares):
        device, first, sectors, unit = flash
        if len(shares) != LANES or sum(shares) > sectors:
            raise ValueError("%d sectors for lanes of %s" % (sectors, shares))
        self.lanes = []
        for lane in range(LANES):
            self.lanes.append(Ring(device, first, shares[lane], lane, unit, random32))
            first += shares[lane]
        self._page = bytearray(_PAGE)
        self._fill = self._waiting = 0
        self._turn = 0

    def mount(self, saved=None, clean=False):
        """`saved` is what save() left in retained memory; `clean` if nothing happened since."""
        for lane in range(LANES):
            numbers = None
            if saved and clean:
                numbers = unpack_from("<10I", saved, lane * _LANE)
            self.lanes[lane].mount(numbers)
        if saved:
            self._regather(saved)

    def save(self, buf):
        for lane in range(LANES):
            pack_into("<10I", buf, lane * _LANE, *self.lanes[lane].save())
        pack_into("<II", buf, LANES * _LANE, self.lanes[TELEMETRY].next_seq, self._fill)
        buf[_GATHERED:_GATHERED + _PAGE] = self._page

    def _regather(self, saved):
        # What had reached the ring before the node went down must not be appended twice.
        first, fill = unpack_from("<II", saved, LANES * _LANE)
        ring = self.lanes[TELEMETRY]
        if fill > _PAGE:
            return
        flushed = 0
        if unpack_from("<I", saved, TELEMETRY * _LANE)[0] == ring.epoch:
            flushed = ring.next_seq - first
        self._page[:] = saved[_GATHERED:_GATHERED + _PAGE]
        self._fill = fill
        for kind, time_s, payload in list(self.gathered()):
            if flushed > 0:
                at = len(payload) + 6
                self._fill -= at
                self._page[:self._fill] = self._page[at:at + self._fill]
                flushed -= 1
            else:
                self._waiting += 1

    # --- in ---

    def put(self, lane, kind, time_s, payload):
        """On flash when this returns."""
        if lane == TELEMETRY:
            self.flush()
        self.lanes[lane].append(kind, time_s, payload)

    def gather(self, kind, time_s, payload):
        """Telemetry that may wait in retained memory until a page of it is worth a program."""
        size = len(payload) + 6
        if self._fill + size + 3 * self._waiting + 3 > _PAGE:
            self.flush()
        at = self._fill
        self._page[at] = kind
        self._page[at + 1] = len(payload)
        pack_into("<I", self._page, at + 2, time_s)
        self._page[at + 6:at + size] = payload
        self._fill += size
        self._waiting += 1

    def flush(self):
        """Program what is gathered."""
        if self._fill:
            self.lanes[TELEMETRY].extend(self.gathered())
            self._fill = self._waiting = 0

    def gathered(self):
        """Yield (kind, time_s, payload) of what waits in retained memory."""
        at, page = 0, memoryview(self._page)
        while at < self._fill:
            end = at + 6 + page[at + 1]
            yield page[at], unpack_from("<I", page, at + 2)[0], page[at + 6:end]
            at = end

    def prepare(self):
        """While idle: erase ahead, so that no put() has to."""
        for ring in self.lanes:
            ring.prepare()

    # --- out ---

    def batch(self, node, buf):
        """Lay the next batch into `buf`; return its length, 0 if nothing waits."""
        if len(buf) < _FRAME:
            raise ValueError("frame buffer of %d bytes, at least %d" % (len(buf), _FRAME))
        lane = self._choose()
        if lane < 0:
            return 0
        ring = self.lanes[lane]
        frame = Batch(buf)
        frame.begin(node, lane, ring.epoch, ring.acked, True)
        for record in ring.records(ring.acked + 1):
            if not frame.add(*record):
                break
        if frame.count == 0:  # what waited is no longer readable
            ring.acknowledge(ring.next_seq - 1)
            return self.batch(node, buf)
        return frame.end()

    def _choose(self):
        # By priority, but every fourth batch from the lowest lane that waits.
        self._turn += 1
        lanes = range(LANES)
        if self._turn % _FAIR == 0:
            lanes = range(LANES - 1, -1, -1)
        for lane in lanes:
            if self.lanes[lane].acked + 1 < self.lanes[lane].next_seq:
                return lane
        return -1

    def acknowledge(self, lane, epoch, seq):
        ring = self.lanes[lane]
        if epoch == ring.epoch:
            ring.acknowledge(min(seq, ring.next_seq - 1))

    def depth(self):
        """Records that wait."""
        depth = self._waiting
        for ring in self.lanes:
            depth += ring.next_seq - 1 - ring.acked
        return depth

    def dropped(self):
        return sum(ring.dropped for ring in self.lanes)
