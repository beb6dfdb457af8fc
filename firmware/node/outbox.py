# Four lanes of records waiting for a link, each a ring with its own share of the flash.
# Identity of a record: (node, lane, epoch, sequence). What may be lost when: docs/ring-format.md

from struct import pack_into, unpack_from

from micropython import const

from node.ring import Ring

ALERT = const(0)
EVENT = const(1)
TELEMETRY = const(2)
DIAGNOSTIC = const(3)
LANES = const(4)

_FAIR = const(4)  # of so many batches one goes to the lower lanes in turn
_LOW = const(3)  # lanes below alert
_PAGE = const(256)  # telemetry gathered in retained memory
_LANE = const(40)  # Ring.SAVED numbers of four bytes
_GATHERED = const(168)  # in save(): after the lanes, sequence and length gathered, turn, again

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
        self._turn = self._lane = 0
        self._again = 0  # lanes on their way once more, a bit each
        self.offset = 0  # how far a record that goes in parts has got
        self.sent = [0] * LANES  # last sequence handed out since rewind()
        self.acked = [0] * LANES  # last one known to have arrived

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
        first = self.lanes[TELEMETRY].next_seq
        pack_into("<IHBB", buf, LANES * _LANE, first, self._fill, self._turn, self._again)
        buf[_GATHERED:_GATHERED + _PAGE] = self._page

    def _regather(self, saved):
        # What had reached the ring before the node went down must not be appended twice.
        first, fill, self._turn, self._again = unpack_from("<IHBB", saved, LANES * _LANE)
        ring = self.lanes[TELEMETRY]
        if fill > _PAGE:
            return
        flushed = 0
        if unpack_from("<I", saved, TELEMETRY * _LANE)[0] == ring.epoch and ring.next_seq > first:
            for _ in ring.records(first):  # not by numbers: those may have jumped
                flushed += 1
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

    def rewind(self):
        """A new attempt: all that is not acknowledged is to be sent."""
        for lane in range(LANES):
            self.acked[lane] = max(self.acked[lane], self.lanes[lane].acked)
            self.sent[lane] = self.acked[lane]
        self.offset = 0

    def batch(self, frame):
        """Lay what is to be sent next into a Batch; return (length, lane, last sequence).

        The length is 0 when all has been sent.
        """
        lane = self._choose()
        if lane < 0:
            return 0, lane, 0
        ring, sent = self.lanes[lane], self.sent[lane]
        frame.begin(lane, ring.epoch, sent, sent == self.acked[lane])
        for record in ring.records(sent + 1):
            if frame.add(*record):
                self.sent[lane] = record[0]
                continue
            if frame.count == 0:  # too long for any frame
                self.offset = frame.part(record, self.offset)
                if self.offset == 0:
                    self.sent[lane] = record[0]
                return frame.end(), lane, record[0]
            break
        if frame.count == 0:  # what waited is no longer readable
            self.sent[lane] = ring.next_seq - 1
            if sent == self.acked[lane]:
                self.acked[lane] = ring.next_seq - 1
            return self.batch(frame)
        return frame.end(), lane, self.sent[lane]

    def _choose(self):
        # By priority, but every fourth batch to the lower lanes in turn: none starves, though a
        # link may never last for more than one batch. A record that goes in parts is finished
        # first.
        if self.offset:
            return self._lane
        self._turn = (self._turn + 1) % (_FAIR * _LOW)
        first = 0 if self._turn % _FAIR else LANES - 1 - (self._turn // _FAIR - 1) % _LOW
        for step in range(LANES):
            lane = (first + step) % LANES
            if self.sent[lane] + 1 < self.lanes[lane].next_seq:
                self._lane = lane
                return lane
        return -1

    def acknowledge(self, lane, epoch, seq):
        """Everything up to `seq` has arrived; settle() makes a note of it."""
        if lane < LANES and epoch == self.lanes[lane].epoch:
            last = self.lanes[lane].next_seq - 1
            if self._again >> lane & 1:  # the gateway may think it has what is still to come
                last = self.sent[lane]
            seq = min(seq, last)
            self.acked[lane] = max(self.acked[lane], seq)
            self.sent[lane] = max(self.sent[lane], seq)
            if seq + 1 == self.lanes[lane].next_seq:
                self._again &= ~(1 << lane)

    def resend(self, lane, seq):
        """As if nothing from `seq` on had arrived; a reset before it has is the end of it."""
        ring, before = self.lanes[lane], max(0, seq - 1)
        self._again |= 1 << lane
        ring.acked = min(ring.acked, before)
        self.acked[lane] = min(self.acked[lane], before)
        self.sent[lane] = min(self.sent[lane], before)

    def settle(self):
        """On flash, one note a lane for all that was acknowledged."""
        for lane in range(LANES):
            self.lanes[lane].acknowledge(self.acked[lane])

    def depth(self):
        """Records that wait."""
        depth = self._waiting
        for ring in self.lanes:
            depth += ring.next_seq - 1 - ring.acked
        return depth

    def waits(self, lane):
        """Whether anything of this lane waits on flash."""
        ring = self.lanes[lane]
        return ring.acked + 1 < ring.next_seq

    def dropped(self):
        return sum(ring.dropped for ring in self.lanes)
