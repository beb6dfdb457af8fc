# A ring of records on raw NOR flash: what append() has returned for survives a power cut anywhere.
# Invariants, and the life of a sector: docs/ring-format.md

from struct import unpack_from

from micropython import const

from node.mount import NEVER, SHAKY, Mount
from node.sector import (
    BASE,
    ERASED,
    HEAD,
    MARK,
    OVER,
    TROUBLE,
    out,
    out_view,
    seen,
    seen_view,
)

_TRIES = const(8)  # sectors in a row that may turn out bad in one append


class Ring(Mount):
    SAVED = const(10)  # numbers of 32 bits in save()

    def mount(self, saved=None):
        """Find the tail; with what save() gave before a clean sleep in two reads."""
        self._forget(0)
        if (saved is None or not self._warm(saved)) and self._cold() == SHAKY:
            self._abandon()
            try:  # number on, once and for all
                self._note(self.acked)
            except OSError:
                pass

    # --- write ---

    def append(self, kind, time_s, payload):
        """Return the record's sequence once it is on flash; at most one erase and one program."""
        self.extend(((kind, time_s, payload),))
        return self.next_seq - 1

    def extend(self, records):
        """Append (kind, time_s, payload) records in order, a page at a program."""
        count = size = 0
        for kind, time_s, payload in records:
            need = len(payload) + OVER
            if not 0 < kind < 16 or need > self.page or need + HEAD > self.sector_size:
                raise ValueError("kind is 1..15, payload <= %d bytes" % (self.page - OVER))
            if count and (size + need > self.page or self._room() < size + need):
                self._commit(size, count)
                count = size = 0
            self.lay(size, kind, self.next_seq + count, time_s, payload)
            size += need
            count += 1
        if count:
            self._commit(size, count)

    def _room(self):
        # for records that begin together: in this sector, or else in the next
        room = self.sector_size - self._tail
        return room if room >= out[BASE] + OVER else self.sector_size - HEAD

    def acknowledge(self, seq):
        """Everything up to `seq` has arrived elsewhere and may go. Durable."""
        if self.acked < seq < self.next_seq:
            self.acked = seq
            self._note(seq)

    def _note(self, acked):
        self.lay(0, 0, self.next_seq, 0, acked.to_bytes(4, "little"))
        self._commit(OVER + 4, 0)

    def prepare(self):
        """While idle: erase the next sector, so that append() need not. True if it did."""
        if self._ready or not self._clear():
            return False
        self.lay_mark(self._next, self.dropped, self.next_seq)
        self._ready = self.program(self._next % self.sectors, 0, BASE - HEAD, MARK)
        if not self._ready:
            self._skip()
        return self._ready

    def _commit(self, size, count):
        for _ in range(min(_TRIES, self.sectors) + 1):
            opening = self._tail + size > self.sector_size
            if not opening:
                index, at, seed = self._ordinal % self.sectors, self._tail, self._seed
                start = at
            else:
                if not self._ready and not self._clear():
                    continue
                if self._next > self._ordinal + 1:
                    self._leave()
                seed = self.lay_head(self._next, self.dropped, self._troubled, self.epoch,
                                     self.next_seq, self.acked)
                index, at = self._next % self.sectors, HEAD
                start = MARK if self._ready else 0
            last = at + self.seal(size, seed, self.next_seq)
            if self.program(index, start, BASE - at + start, at - start + size):
                if opening:
                    self._opened(seed)
                self._tail, self._last = at + size, last
                self._last_seq = self.next_seq + max(0, count - 1)
                self.next_seq += count
                return
            if opening:
                self._skip()
            else:
                self._abandon()
        self.next_seq += count  # who knows what of them can be read one day
        self._tail = self.sector_size
        raise OSError(5)

    def _opened(self, seed):
        self._ordinal, self._seed = self._next, seed
        self._next, self._ready = self._next + 1, False
        if self._troubled:
            self._troubled -= 1

    def _clear(self):
        # Erase the next sector; what it still held has to make room.
        old = self.load(self._next % self.sectors)
        epoch, first_seq = unpack_from("<II", seen, 20)
        if 0 <= old == self._next - self.sectors and epoch == self.epoch:
            first_seq = max(self.acked + 1, first_seq)
            while old < self._ordinal:
                old += 1
                if self.load(old % self.sectors) == old:
                    self.dropped += max(0, unpack_from("<I", seen, 24)[0] - first_seq)
                    break
        if self.erase(self._next % self.sectors):
            return True
        self._skip()
        return False

    def _abandon(self):
        # The active sector fails though it has room: no mark may be trusted after the next cut.
        self._tail = self.sector_size
        if self.load(self._next % self.sectors) == ERASED:
            out_view[:MARK] = bytes(MARK)
            self.program(self._next % self.sectors, 0, 0, MARK)
        self._ready = False

    def _skip(self):
        # A mount that finds the flag where each search comes by looks at every sector instead.
        self._troubled = self.sectors
        if self._ordinal >= 0:
            for index in (self._ordinal % self.sectors, 0, self.sectors // 2):
                if self.load(index) >= 0:
                    out[TROUBLE] = 0  # below what _commit() may have laid out
                    self.program(index, TROUBLE, TROUBLE, 1)
        self._next, self._ready = self._next + 1, False
        if self._next % self.sectors == self._ordinal % self.sectors and self._ordinal >= 0:
            self._next += 1

    # --- read ---

    def troubled(self):
        """How many sectors are still to be opened until the last one that failed is forgotten."""
        return self._troubled

    def worn(self):
        """How often each of its sectors was erased."""
        return (self._next + self.sectors - 1) // self.sectors

    def records(self, seq=1):
        """Yield (seq, kind, time_s, payload) from `seq` on; payload lasts until the next step."""
        if self._ordinal < 0:
            return
        pos = HEAD
        if seq == self._cursor_seq:
            ordinal, pos = self._cursor_ordinal, self._cursor_pos
        else:
            ordinal = self._find(seq)
        wanted = ordinal
        ordinal, first_seq, seed = self._opened_from(wanted)
        if ordinal != wanted:
            pos = HEAD
        while ordinal <= self._ordinal:
            # What a later head gives out again was cut short here, and never promised.
            following, until, next_seed = self._opened_from(ordinal + 1)
            start = max(seq, first_seq) if pos > HEAD else first_seq
            for found, kind, at, place, size, _ in self.walk(
                    ordinal % self.sectors, seed, start, pos):
                if found >= until:
                    break
                if kind and found >= seq:
                    seq = found + 1
                    self._cursor_seq, self._cursor_ordinal = seq, ordinal
                    self._cursor_pos = place + size
                    yield (found, kind, unpack_from("<I", seen, at + 2)[0],
                           seen_view[at + 6:at + size - 3])
            ordinal, first_seq, seed = following, until, next_seed
            pos = HEAD

    def _opened_from(self, ordinal):
        # The first sector from `ordinal` on that holds records: its ordinal, sequence and seed.
        while ordinal <= self._ordinal:
            if self.load(ordinal % self.sectors) == ordinal:
                epoch, first_seq, _, seed = unpack_from("<IIII", seen, 20)
                if epoch == self.epoch:
                    return ordinal, first_seq, seed
            ordinal += 1
        return ordinal, NEVER, 0

    def _find(self, seq):
        low, high = max(0, self._ordinal - self.sectors + 1), self._ordinal
        middle = high
        while low < high:
            probe = middle
            while probe <= high and self.load(probe % self.sectors) != probe:
                probe += 1
            if probe <= high and unpack_from("<I", seen, 24)[0] <= seq:
                low = probe
            else:
                high = middle - 1
            middle = (low + high + 1) // 2
        return low
