# Finding a ring again: in two reads with what was saved, or by a search, and then mending whatever
# a power cut has left. What for each torn state, and why: docs/ring-format.md

from struct import unpack_from

from micropython import const

from node.sector import (
    BASE,
    BLANK,
    ERASED,
    HEAD,
    JUMPS,
    JUNK,
    MARK,
    OVER,
    PAGE,
    TROUBLE,
    WARM,
    Sectors,
    out,
    out_view,
    seen,
    seen_view,
)

NEVER = const(0xFFFFFFFF)  # an ordinal or sequence that is not reached
SHAKY = const(4)  # of _cold(): what is read now may read otherwise at the next mount

_PERHAPS = const(1)  # a sector newer than the newest found may be lost
_LOST = const(2)  # the same, though every sector has been looked at
_AGAIN = const(3)  # so look at every sector
_GONE = const(16)  # sectors whose sequences a jump passes over

_head = bytearray(HEAD)  # of the sector a search believes to be the active one


class Mount(Sectors):
    def __init__(self, device, first, sectors, tag=0, unit=1, random32=None,
                 sector_size=4096, page=PAGE):
        super().__init__(device, first, sectors, tag, unit, sector_size, page)
        self.random32 = random32
        self._forget(0)

    def _forget(self, epoch):
        self.epoch = epoch
        self.next_seq = 1
        self.acked = 0  # last acknowledged sequence
        self.dropped = 0  # sequences that had to make room unacknowledged
        self._ordinal = -1  # sectors opened before the active one; its index is ordinal % sectors
        self._seed = 0
        self._tail = self.sector_size
        self._last = self._last_seq = 0  # where the last record begins
        self._next = 0  # the ordinal to open next
        self._ready = False  # its sector is erased and marked
        self._mark = (-1, 0, 1)  # of a sector found prepared: ordinal, dropped, next sequence
        self._troubled = 0  # openings that still carry the trouble flag
        self._cursor_seq = -1  # where records() got to
        self._cursor_ordinal = self._cursor_pos = 0

    def save(self):
        flags = self._next << 2 | (self._troubled > 0) << 1 | self._ready
        return (self.epoch, self._ordinal & NEVER, self.next_seq, self.acked, self.dropped,
                self._seed, self._tail, self._last, self._last_seq, flags)

    def _warm(self, saved):
        epoch, ordinal, next_seq, acked, dropped, seed, tail, last, last_seq, flags = saved
        following = flags >> 2
        found = self.load(following % self.sectors)
        marked = found == ERASED and unpack_from("<I", seen)[0] == following
        if found >= following or (found == ERASED or flags & 1) and not marked:
            return False  # it has been opened since
        near = ordinal == NEVER or tail + self.page > self.sector_size
        if near and (found == JUNK or found == BLANK and following >= self.sectors):
            return False  # or that may be
        index = ordinal % self.sectors
        if ordinal == NEVER:
            if found >= 0 or self.load((following + 1) % self.sectors) != BLANK:
                return False
            ordinal = -1
        elif tail == self.sector_size:
            if (self.load(index) != ordinal or unpack_from("<I", seen, HEAD - 4)[0] != seed
                    or seen[JUMPS] != 0xFF or seen[TROUBLE] != 0xFF):
                return False
        else:
            size = min(tail + WARM, self.sector_size) - last
            if not last or size > len(seen) or not self.read(index, last, size):
                return False
            if self.valid(0, seed, last_seq) != last_seq or not self.is_blank(tail - last, size):
                return False
        self.epoch, self.next_seq, self.acked, self.dropped = epoch, next_seq, acked, dropped
        self._ordinal, self._seed = ordinal, seed
        self._tail, self._last, self._last_seq = tail, last, last_seq
        self._next, self._ready = following, bool(flags & 1)
        self._troubled = self.sectors if flags & 2 else 0
        return True

    def _cold(self, thorough=False):
        ordinal, lost = self._scan() if thorough else self._search()
        if ordinal < 0:
            self._forget(self.random32() if self.random32 else 1)
            return 0
        (self._ordinal, self.dropped, _, _, _, self.epoch, self.next_seq, self.acked,
         self._seed) = unpack_from("<IIIIIIIII", _head)
        self._tail, self._next = HEAD, ordinal + 1
        self._last = self._last_seq = 0
        held = 0  # the last page of records, kept as they were when their CRC was checked
        doubts = []  # (position, size) of bad records that others follow
        for seq, kind, at, pos, size, bad in self.walk(ordinal % self.sectors, self._seed,
                                                       self.next_seq, HEAD):
            if kind:
                self.next_seq = seq + 1
            else:
                self.acked = max(self.acked, unpack_from("<I", seen, at + 6)[0])
            if pos != self._tail:
                held = 0
            if bad:
                doubts.append((bad, pos - bad))
            cut = max(0, held + size - self.page)
            if cut:
                held -= cut
                out_view[BASE:BASE + held] = out_view[BASE + cut:BASE + cut + held]
            out_view[BASE + held:BASE + held + size] = seen_view[at:at + size]
            held += size
            self._last, self._last_seq, self._tail = pos, seq, pos + size
        found = self._recover(held, doubts, lost)
        return self._cold(True) if found == _AGAIN else found

    # --- the newest sector ---

    def _search(self):
        # Sector i of the current lap has ordinal base + i; later sectors are a lap behind.
        # Return the newest ordinal, its head in _head, and whether a newer one may be lost.
        n = self.sectors
        low, high, base = 0, n, self._look(0)
        if base == ERASED:  # the lap is full and sector 0 waits for the next
            base = unpack_from("<I", seen)[0] - n
            low = n - 1
            sure = base >= 0 and self._look(low) == base + low
        else:
            sure = base >= 0
        _head[:] = seen_view[:HEAD]
        beyond = ERASED
        while sure and high - low > 1:
            middle = (low + high) // 2
            found = self._look(middle)
            if found == base + middle:
                low = middle
                _head[:] = seen_view[:HEAD]
            else:
                high, beyond = middle, found
                sure = (found == base + middle - n or found == BLANK and base == 0
                        or found == ERASED and unpack_from("<I", seen)[0] == base + middle)
        if sure and not self._troubled:
            return base + low, beyond == BLANK and _PERHAPS
        return self._scan()

    def _scan(self):
        # The same by a look at every sector.
        best = -1
        for index in range(self.sectors):
            found = self._look(index)
            if found > best:
                best = found
                _head[:] = seen_view[:HEAD]
        beyond = self._look((best + 1) % self.sectors)
        return best, (self._troubled or beyond == JUNK or beyond == BLANK) and _LOST

    def _look(self, index):
        found = self.load(index)
        if found >= 0 and seen[TROUBLE] != 0xFF:
            self._troubled = self.sectors
        if found == ERASED:
            self._mark = unpack_from("<III", seen)
        return found

    # --- its tail ---

    def _recover(self, held, doubts, lost):
        # The last operation may have been cut: what it left can read one way now and another
        # later. Program again what counts, clear what does not, and write on the next grid line.
        index, spot = self._ordinal % self.sectors, self._tail
        solid = held == 0 or self.program(index, spot - held, BASE, held)
        out_view[BASE:BASE + HEAD] = _head
        solid = self.program(index, 0, BASE, HEAD) and solid
        for pos, size in doubts:  # keep them bad, and the way over them
            if pos + size + self.page > spot:
                out_view[BASE:BASE + size] = b"\xff" * (size - 3) + b"\0\0\0"
                out[BASE] = size - OVER
                self.program(index, pos, BASE, size)
        resume = spot
        while solid and spot + OVER <= self.sector_size:
            void = self.read(index, spot, 2) and seen[0] == 0 and seen[1] == 0
            out[BASE] = out[BASE + 1] = 0
            solid = self.program(index, spot, BASE, 2)
            resume = self.grid(spot)
            if not void:
                break
            spot = resume
        near = spot + self.page > self.sector_size
        if lost == _PERHAPS and (near or not solid) and not self._first_lap():
            return _AGAIN
        if not solid or not self.blank(index, spot + self.page):
            lost = near = _LOST
        if lost and near:
            self._skip_sequences()
            self._leave()
            resume = self.sector_size
        self._tail = min(resume, self.sector_size)
        marked, dropped, next_seq = self._mark
        if marked == self._next:
            self.dropped, self.next_seq = dropped, max(self.next_seq, next_seq)
            if not near:  # room for any record: no opening was under way, it is still blank
                self.lay_mark(*self._mark)
                self._ready = self.program(marked % self.sectors, 0, BASE - HEAD, MARK)
        return 0 if solid else SHAKY

    def _first_lap(self):
        # Else the next sector is blank because its erase was cut, and this one is not the newest.
        before, ahead, last = self._ordinal - 1, self._ordinal + 2, self.sectors - 1
        found = self._look(ahead % self.sectors)
        return ((found == BLANK or found == ahead - self.sectors)
                and (before < 0 or self._look(before % self.sectors) == before)
                and (self._ordinal >= last or self._look(last) == BLANK))

    def _skip_sequences(self):
        # Records may be hidden behind damage or gone with a sector: their sequences are not given
        # out again, nor those after earlier jumps from here or from a sector that is gone.
        marks, jumps = _head[JUMPS] ^ 0xFF, 1
        while marks & 1:
            marks >>= 1
            jumps += 1
        self.next_seq += self.sector_size // OVER * _GONE * jumps
        for ordinal in (self._ordinal, self._ordinal - 1):
            if self.load(ordinal % self.sectors) == ordinal:
                out[JUMPS] = seen[JUMPS] & seen[JUMPS] - 1
                self.program(ordinal % self.sectors, JUMPS, JUMPS, 1)

    def _leave(self):
        # Nothing more comes here: what save() gave before must not find a blank tail.
        spot = self._tail % self.unit
        if self._ordinal >= 0 and self._tail < self.sector_size:
            out[spot] = 0
            self.program(self._ordinal % self.sectors, self._tail, spot, 1)
