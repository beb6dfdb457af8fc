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
_LANE = const(40)  # Ring.SAVED numbers of four bytes, these among them
_NEXT_SEQ = const(2)
_ACKED = const(3)
_DROPPED = const(4)
_FLAGS = const(9)
_GATHERED = const(168)  # in save(): after the lanes, sequence and length gathered, turn, again

SAVED = const(424)  # bytes of save()


class Outbox:
    """`flash` is (device, first sector, sectors, unit); `shares` are sectors a lane, >= 3 each.

    A lane is mounted when it is first asked for: most wakes write to one and read none.
    """

    def __init__(self, flash, random32, shares):
        _, _, sectors, _ = flash
        if len(shares) != LANES or sum(shares) > sectors:
            raise ValueError("%d sectors for lanes of %s" % (sectors, shares))
        self._flash, self._random32, self._shares = flash, random32, shares
        self._page = bytearray(_PAGE)
        self._turn = self._lane = 0
        self._again = 0  # lanes on their way once more, a bit each
        self.barred = 0  # lanes, a bit each, of which nothing is to be sent now
        self.offset = 0  # how far a record that goes in parts has got
        self.sent = [0] * LANES  # last sequence handed out since rewind()
        self.acked = [0] * LANES  # last one known to have arrived
        self._begin(None)

    def _begin(self, known):
        self._rings = [None] * LANES
        self._known = known  # what save() gave, while nothing has happened since
        self._fill = self._waiting = 0

    def mount(self, saved=None, clean=False):
        """`saved` is what save() left in retained memory; `clean` if nothing happened since."""
        self._begin(saved if clean else None)
        if saved:
            self._regather(saved)

    def ring(self, lane):
        """A lane's ring, mounted."""
        ring = self._rings[lane]
        if ring is None:
            device, first, _, unit = self._flash
            ring = Ring(device, first + sum(self._shares[:lane]), self._shares[lane], lane, unit,
                        self._random32)
            try:
                ring.mount(self._numbers(lane) if self._known else None)
            except Exception:  # what was retained misled it; the flash itself never does
                ring.mount()
            self._rings[lane] = ring
        return ring

    @property
    def lanes(self):
        """All rings, mounted."""
        return [self.ring(lane) for lane in range(LANES)]

    def _numbers(self, lane):
        # Ring.save()'s, as they were left if the lane has not been asked for since.
        if self._rings[lane] is None and self._known:
            return unpack_from("<10I", self._known, lane * _LANE)
        return self.ring(lane).save()

    def save(self, buf):
        for lane in range(LANES):
            pack_into("<10I", buf, lane * _LANE, *self._numbers(lane))
        first = self._numbers(TELEMETRY)[_NEXT_SEQ]
        pack_into("<IHBB", buf, LANES * _LANE, first, self._fill, self._turn, self._again)
        buf[_GATHERED:_GATHERED + _PAGE] = self._page

    def _regather(self, saved):
        # What had reached the ring before the node went down must not be appended twice.
        first, fill, self._turn, self._again = unpack_from("<IHBB", saved, LANES * _LANE)
        if fill > _PAGE:
            return
        flushed = 0 if self._known else self._flushed(saved, first)
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

    def _flushed(self, saved, first):
        ring, count = self.ring(TELEMETRY), 0
        if unpack_from("<I", saved, TELEMETRY * _LANE)[0] == ring.epoch and ring.next_seq > first:
            for _ in ring.records(first):  # not by numbers: those may have jumped
                count += 1
        return count

    # --- in ---

    def put(self, lane, kind, time_s, payload):
        """On flash when this returns."""
        if lane == TELEMETRY:
            self.flush()
        self.ring(lane).append(kind, time_s, payload)

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
            self.ring(TELEMETRY).extend(self.gathered())
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
        for lane in range(LANES):
            if not self._numbers(lane)[_FLAGS] & 1:
                self.ring(lane).prepare()

    # --- out ---

    def rewind(self):
        """A new attempt: all that is not acknowledged is to be sent."""
        for lane in range(LANES):
            self.acked[lane] = max(self.acked[lane], self._numbers(lane)[_ACKED])
            self.sent[lane] = self.acked[lane]
        self.offset = 0

    def batch(self, frame):
        """Lay what is to be sent next into a Batch; return (length, lane, last sequence).

        The length is 0 when all has been sent.
        """
        lane = self._choose()
        if lane < 0:
            return 0, lane, 0
        ring, sent = self.ring(lane), self.sent[lane]
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
            if self.barred >> lane & 1:
                continue
            if self.sent[lane] + 1 < self._numbers(lane)[_NEXT_SEQ]:
                self._lane = lane
                return lane
        return -1

    def acknowledge(self, lane, epoch, seq):
        """Everything up to `seq` has arrived; settle() makes a note of it."""
        if lane < LANES and epoch == self.ring(lane).epoch:
            last = self.ring(lane).next_seq - 1
            if self._again >> lane & 1:  # the gateway may think it has what is still to come
                last = self.sent[lane]
            seq = min(seq, last)
            self.acked[lane] = max(self.acked[lane], seq)
            self.sent[lane] = max(self.sent[lane], seq)
            if seq + 1 == self.ring(lane).next_seq:
                self._again &= ~(1 << lane)

    def resend(self, lane, seq):
        """As if nothing from `seq` on had arrived; a reset before it has is the end of it."""
        ring, before = self.ring(lane), max(0, seq - 1)
        self._again |= 1 << lane
        ring.acked = min(ring.acked, before)
        self.acked[lane] = min(self.acked[lane], before)
        self.sent[lane] = min(self.sent[lane], before)

    def settle(self):
        """On flash, one note a lane for all that was acknowledged."""
        for lane in range(LANES):
            if self.acked[lane] > self._numbers(lane)[_ACKED]:
                self.ring(lane).acknowledge(self.acked[lane])

    def depth(self):
        """Records that wait."""
        depth = self._waiting
        for lane in range(LANES):
            numbers = self._numbers(lane)
            depth += numbers[_NEXT_SEQ] - 1 - numbers[_ACKED]
        return depth

    def waits(self, lane):
        """Whether anything of this lane waits on flash."""
        numbers = self._numbers(lane)
        return numbers[_ACKED] + 1 < numbers[_NEXT_SEQ]

    def since_s(self, lane):
        """Of what time the oldest record is that waits on flash; None if none does."""
        ring = self.ring(lane)
        for _, _, time_s, _ in ring.records(ring.acked + 1):
            return time_s
        return None

    def dropped(self):
        return sum(self._numbers(lane)[_DROPPED] for lane in range(LANES))
