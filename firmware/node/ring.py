# A ring of records on raw NOR flash: what append() has returned for survives a power cut anywhere.
# Bytes, invariants and what recovery does for each torn state: docs/ring-format.md.

from binascii import crc32
from struct import pack_into, unpack_from

from micropython import const

_MAGIC = const(0x52)
_VERSION = const(1)
_MARK = const(8)  # erase mark: ordinal, CRC
_HEAD = const(36)  # erase mark and sector header; records begin here
_TROUBLE = const(11)  # the header byte that may be cleared later
_OVER = const(9)  # a record around its payload: length, tag, time (4), CRC (3)
_PAGE = const(256)  # largest program, and the grid on which writing resumes after a cut
_UNIT = const(256)  # largest program unit
_BASE = const(292)  # where records are laid out in _out: room for padding and a header before

_BLANK = const(-1)
_ERASED = const(-2)
_JUNK = const(-3)

# Shared by all rings: a ring leaves nothing here between two calls.
_out = bytearray(_UNIT + _HEAD + _PAGE + _UNIT)
_in = bytearray(1024)
_out_view = memoryview(_out)
_in_view = memoryview(_in)
_ff = bytes(b"\xff" * 256)
_ff_view = memoryview(_ff)


class Ring:
    SAVED = const(8)  # numbers in save()

    def __init__(self, device, first, sectors, tag=0, unit=1, random32=None,
                 sector_size=4096, page=_PAGE):
        if sectors < 3 or page > _PAGE or unit > _UNIT:
            raise ValueError("ring needs >= 3 sectors, page and unit <= 256")
        self.device = device
        self.first = first
        self.sectors = sectors
        self.tag = tag
        self.unit = unit
        self.sector_size = sector_size
        self.page = page
        self.random32 = random32
        self.epoch = 0
        self.next_seq = 1
        self.acked = 0  # last acknowledged sequence
        self.dropped = 0  # unacknowledged records that had to make room
        self._ordinal = -1  # sectors opened before the active one; its index is ordinal % sectors
        self._first_seq = 1
        self._seed = 0
        self._tail = sector_size
        self._last = 0
        self._next = 0  # the ordinal to open next
        self._ready = False  # its sector is erased and marked
        self._troubled = 0  # openings that still carry the trouble flag
        self._cursor_seq = -1  # where records() got to
        self._cursor_ordinal = self._cursor_pos = 0

    # --- mount ---

    def mount(self, saved=None):
        """Find the tail; with what save() gave before a clean sleep in two reads."""
        self._cursor_seq = -1
        if saved is None or not self._warm(saved):
            self._cold()

    def save(self):
        return (self.epoch, self._ordinal & 0xFFFFFFFF, self.next_seq, self.acked, self.dropped,
                self._tail, self._last, self._next << 1 | self._ready)

    def _warm(self, saved):
        epoch, ordinal, next_seq, acked, dropped, tail, last, ready = saved
        if ordinal == 0xFFFFFFFF or self._load(ordinal % self.sectors) != ordinal:
            return False
        head = unpack_from("<IIIIII", _in, 12)
        if head[0] != epoch or not _HEAD <= last < tail:
            return False
        self._troubled = 0 if _in[_TROUBLE] == 0xFF else self.sectors
        start = last if tail - last <= _PAGE else tail
        stop = min(tail + 16, self.sector_size)
        if not self._read(ordinal % self.sectors, start, stop - start):
            return False
        if _in_view[tail - start:stop - start] != _ff_view[:stop - tail]:
            return False
        kind = _in[1] & 15
        if start == last and self._valid(0, tail - last, head[5], next_seq - (kind > 0)) < 0:
            return False
        self._adopt(ordinal, head, next_seq, acked, dropped, tail, last)
        self._next, self._ready = ready >> 1, bool(ready & 1)
        return True

    def _cold(self):
        ordinal = self._search()
        if ordinal < 0:
            self.epoch = self.random32() if self.random32 else 1
            self.next_seq, self.acked, self.dropped = 1, 0, 0
            self._ordinal, self._next, self._ready = -1, 0, False
            self._first_seq, self._tail, self._last = 1, self.sector_size, 0
            return
        self._load(ordinal % self.sectors)
        header = bytes(_in_view[:_HEAD])
        head = unpack_from("<IIIIII", header, 12)
        self._adopt(ordinal, head, head[2], head[3], head[4], _HEAD, 0)
        held = 0  # the last page of valid records, as they were when their CRC was checked
        for seq, kind, at, pos, size in self._walk(ordinal, head[5], head[2], _HEAD):
            if kind:
                self.next_seq = seq + 1
            else:
                self.acked = max(self.acked, unpack_from("<I", _in, at + 6)[0])
            if pos != self._tail:
                held = 0
            cut = max(0, held + size - self.page)
            if cut:
                held -= cut
                _out_view[_BASE:_BASE + held] = _out_view[_BASE + cut:_BASE + cut + held]
            _out_view[_BASE + held:_BASE + held + size] = _in_view[at:at + size]
            held += size
            self._last, self._tail = pos, pos + size
        self._recover(header, held)

    def _adopt(self, ordinal, head, next_seq, acked, dropped, tail, last):
        self._ordinal = ordinal
        self.epoch, self._first_seq, self._seed = head[0], head[2], head[5]
        self.next_seq, self.acked, self.dropped = next_seq, acked, dropped
        self._tail, self._last = tail, last
        self._next, self._ready = ordinal + 1, False

    def _search(self):
        # Sector i of the current lap has ordinal base + i; later sectors are a lap behind.
        n = self.sectors
        low, high, base = 0, n, self._load(0)
        sure = base >= 0
        if base == _ERASED:  # the lap is full and sector 0 waits for the next
            base = unpack_from("<I", _in)[0] - n
            low = n - 1
            sure = base >= 0 and self._load(low) == base + low
        troubled = _in[_TROUBLE] != 0xFF
        while sure and high - low > 1:
            middle = (low + high) // 2
            found = self._load(middle)
            if found == base + middle:
                low, troubled = middle, _in[_TROUBLE] != 0xFF
            else:
                high = middle
                sure = found == base + middle - n or found == _ERASED or (
                    found == _BLANK and base == 0)
        return base + low if sure and not troubled else self._scan()

    def _scan(self):
        best = -1
        for index in range(self.sectors):
            ordinal = self._load(index)
            if ordinal > best:
                best = ordinal
            if ordinal >= 0 and _in[_TROUBLE] != 0xFF:
                self._troubled = self.sectors
        return best

    def _recover(self, header, held):
        # The last operation may have been cut: what it left can read one way now and another
        # later. Program again what counts, clear what does not, and write on the next grid line.
        index, tail = self._ordinal % self.sectors, self._tail
        solid = self._program(index, tail - held, _BASE, held)
        _out_view[_BASE:_BASE + _HEAD] = header
        solid &= self._program(index, 0, _BASE, _HEAD)
        while solid and tail + _OVER <= self.sector_size:
            void = self._read(index, tail, 2) and _in[0] == 0 and _in[1] == 0
            _out[_BASE] = _out[_BASE + 1] = 0
            solid = self._program(index, tail, _BASE, 2)
            tail = self._grid(tail)
            if not void:
                break
        self._tail = min(tail, self.sector_size) if solid else self.sector_size

    # --- write ---

    def append(self, kind, time_s, payload):
        """Return the record's sequence once it is on flash; at most one erase and one program."""
        self.extend(((kind, time_s, payload),))
        return self.next_seq - 1

    def extend(self, records):
        """Append (kind, time_s, payload) records in order, a page at a program."""
        count = size = 0
        for kind, time_s, payload in records:
            need = len(payload) + _OVER
            if not 0 < kind < 16 or need > self.page or need + _HEAD > self.sector_size:
                raise ValueError("kind is 1..15, payload <= %d bytes" % (self.page - _OVER))
            if count and (size + need > self.page or self._room(size) < need):
                self._commit(size, count)
                count = size = 0
            self._lay(_BASE + size, kind, self.next_seq + count, time_s, payload)
            size += need
            count += 1
        if count:
            self._commit(size, count)

    def acknowledge(self, seq):
        """Everything up to `seq` has arrived elsewhere and may go. Durable."""
        if self.acked < seq < self.next_seq:
            self._lay(_BASE, 0, self.next_seq, 0, seq.to_bytes(4, "little"))
            self.acked = seq
            self._commit(_OVER + 4, 0)

    def prepare(self):
        """While idle: erase the next sector, so that append() need not. True if it did."""
        if self._ready:
            return False
        for _ in range(self.sectors - 1):
            if self._erase(self._next):
                pack_into("<II", _out, _BASE, self._next, self._mark_crc(self._next))
                if self._program(self._next % self.sectors, 0, _BASE, _MARK):
                    self._ready = True
                    return True
            self._skip()
        return False

    def _room(self, size):
        room = self.sector_size - self._tail - size
        return room if room >= 0 else self.sector_size - _HEAD - size

    def _lay(self, at, kind, seq, time_s, payload):
        size = len(payload)
        _out[at] = size
        _out[at + 1] = (seq & 15) << 4 | kind
        pack_into("<I", _out, at + 2, time_s)
        _out_view[at + 6:at + 6 + size] = payload

    def _commit(self, size, count):
        for _ in range(self.sectors + 1):
            opening = self._tail + size > self.sector_size
            if not opening:
                index, start, at = self._ordinal % self.sectors, self._tail, self._tail
                seed = self._seed
            else:
                index, at = self._next % self.sectors, _HEAD
                start = _MARK if self._ready else 0
                if not self._ready and not self._erase(self._next):
                    self._skip()
                    continue
                seed = self._lay_header()
            last = at + self._seal(size, seed)
            if self._program(index, start, _BASE - at + start, at - start + size):
                if opening:
                    self._opened(seed)
                self.next_seq += count
                self._tail, self._last = at + size, last
                return
            if opening:
                self._skip()
            else:
                self._tail = self.sector_size
        raise OSError(5)

    def _lay_header(self):
        at = _BASE - _HEAD
        pack_into("<II", _out, at, self._next, self._mark_crc(self._next))
        trouble = 0 if self._troubled else 0xFF
        pack_into("<BBBBIIIII", _out, at + _MARK, _MAGIC, _VERSION, self.tag, trouble,
                  self.epoch, self._next, self.next_seq, self.acked, self.dropped)
        seed = self._header_crc(_out_view[at:_BASE])
        pack_into("<I", _out, at + 32, seed)
        return seed

    def _opened(self, seed):
        self._ordinal, self._seed, self._first_seq = self._next, seed, self.next_seq
        self._next, self._ready = self._next + 1, False
        if self._troubled:
            self._troubled -= 1

    def _seal(self, size, seed):
        # A record's CRC begins with its sector's header and its sequence: it is valid there only.
        at, seq = 0, self.next_seq
        while True:
            last = at
            at += _out[_BASE + at] + _OVER
            crc = crc32(_out_view[_BASE + last:_BASE + at - 3], seed ^ seq)
            _out[_BASE + at - 3] = crc & 0xFF
            _out[_BASE + at - 2] = crc >> 8 & 0xFF
            _out[_BASE + at - 1] = crc >> 16 & 0xFF
            seq += 1
            if at >= size:
                return last

    def _skip(self):
        # A mount that finds the flag looks at every sector instead of searching.
        self._troubled = self.sectors
        if self._ordinal >= 0:
            _out[_TROUBLE] = 0  # below what _commit() may have laid out
            self._program(self._ordinal % self.sectors, _TROUBLE, _TROUBLE, 1)
        self._next, self._ready = self._next + 1, False
        if self._next % self.sectors == self._ordinal % self.sectors and self._ordinal >= 0:
            self._next += 1

    # --- read ---

    def records(self, seq=1):
        """Yield (seq, kind, time_s, payload) from `seq` on; payload lasts until the next step."""
        if self._ordinal < 0:
            return
        pos = _HEAD
        if seq == self._cursor_seq:
            ordinal, pos = self._cursor_ordinal, self._cursor_pos
        else:
            ordinal = self._find(seq)
        while ordinal <= self._ordinal:
            if self._load(ordinal % self.sectors) == ordinal:
                head = unpack_from("<IIIIII", _in, 12)
                start = max(seq, head[2]) if pos > _HEAD else head[2]
                if head[0] == self.epoch:
                    for found, kind, at, place, size in self._walk(ordinal, head[5], start, pos):
                        if kind and found >= seq:
                            seq = found + 1
                            self._cursor_seq, self._cursor_ordinal = seq, ordinal
                            self._cursor_pos = place + size
                            yield (found, kind, unpack_from("<I", _in, at + 2)[0],
                                   _in_view[at + 6:at + size - 3])
            ordinal += 1
            pos = _HEAD

    def _find(self, seq):
        low, high = max(0, self._ordinal - self.sectors + 1), self._ordinal
        if seq >= self._first_seq:
            return high
        while low < high:
            probe = middle = (low + high + 1) // 2
            while probe <= high and self._load(probe % self.sectors) != probe:
                probe += 1
            if probe <= high and unpack_from("<I", _in, 20)[0] <= seq:
                low = probe
            else:
                high = middle - 1
        return low

    def _walk(self, ordinal, seed, seq, pos):
        # Yields (seq, kind, at, pos, size) of each valid record from pos on, its bytes at _in[at:].
        index = ordinal % self.sectors
        base = stop = pos
        lost = -1
        while pos + _OVER <= self.sector_size:
            if stop < self.sector_size and pos + self.page > stop:
                keep = max(0, stop - pos)
                _in_view[:keep] = _in_view[pos - base:pos - base + keep]
                size = min(len(_in) - keep, self.sector_size - pos - keep)
                if not self._read(index, pos + keep, size, keep):
                    return
                base, stop = pos, pos + keep + size
            at = pos - base
            size = _in[at] + _OVER
            found = -1
            if size <= self.page and pos + size <= self.sector_size:
                found = self._valid(at, size, seed, seq)
            if found >= 0:
                kind = _in[at + 1] & 15
                seq = found + (kind > 0)
                yield found, kind, at, pos, size
                pos += size
                lost = -1
            elif (lost < 0 and size <= self.page and (_in[at] or _in[at + 1])
                  and pos + size + _OVER <= self.sector_size):
                lost, pos = pos, pos + size  # perhaps only this record is bad
            else:
                pos = self._grid(pos if lost < 0 else lost)
                lost = -1

    def _grid(self, pos):
        # Where writing resumes when an operation may have been cut at pos.
        return (pos + 2 * self.page - 1) // self.page * self.page

    def _valid(self, at, size, seed, seq):
        tag = _in[at + 1]
        if _in[at] + _OVER != size or tag & 15 == 0 and size != _OVER + 4:
            return -1
        seq += (tag >> 4) - seq & 15
        end = at + size - 3
        crc = crc32(_in_view[at:end], seed ^ seq)
        if (_in[end] == crc & 0xFF and _in[end + 1] == crc >> 8 & 0xFF
                and _in[end + 2] == crc >> 16 & 0xFF):
            return seq
        return -1

    # --- flash ---

    def _load(self, index):
        # Read a sector's head; return its ordinal or what else is there.
        if not self._read(index, 0, _HEAD):
            return _JUNK
        blank = _in_view[_MARK:_HEAD] == _ff_view[:_HEAD - _MARK]
        mark, mark_crc = unpack_from("<II", _in)
        if blank and mark_crc == self._mark_crc(mark):
            return _ERASED if mark % self.sectors == index else _JUNK
        if blank and _in_view[:_MARK] == _ff_view[:_MARK]:
            return _BLANK
        ordinal, crc = unpack_from("<I", _in, 16)[0], unpack_from("<I", _in, 32)[0]
        if (_in[8] != _MAGIC or _in[9] != _VERSION or _in[10] != self.tag
                or ordinal % self.sectors != index or crc != self._header_crc(_in_view)):
            return _JUNK
        return ordinal

    def _mark_crc(self, ordinal):
        return crc32(ordinal.to_bytes(4, "little"), self.tag + 1)

    def _header_crc(self, head):
        return crc32(head[12:32], crc32(head[8:11]))

    def _read(self, index, offset, size, at=0):
        try:
            self.device.readblocks(self.first + index, _in_view[at:at + size], offset)
            return True
        except OSError:
            return False

    def _program(self, index, start, at, size):
        # Program _out[at:at+size]; whole units are written, the rest of them left as it is.
        before = start % self.unit
        after = -(start + size) % self.unit
        _out_view[at - before:at] = _ff_view[:before]
        _out_view[at + size:at + size + after] = _ff_view[:after]
        try:
            self.device.writeblocks(self.first + index, _out_view[at - before:at + size + after],
                                    start - before)
        except OSError:
            return False
        return (self._read(index, start, size)
                and _in_view[:size] == _out_view[at:at + size])

    def _erase(self, ordinal):
        index = ordinal % self.sectors
        self._count_dropped(ordinal)
        try:
            self.device.ioctl(6, self.first + index)
        except OSError:
            return False
        for offset in range(0, self.sector_size, 256):
            size = min(256, self.sector_size - offset)
            if not self._read(index, offset, size) or _in_view[:size] != _ff_view[:size]:
                return False
        return True

    def _count_dropped(self, ordinal):
        old = self._load(ordinal % self.sectors)
        if old < 0 or old != ordinal - self.sectors or unpack_from("<I", _in, 12)[0] != self.epoch:
            return
        start = max(self.acked + 1, unpack_from("<I", _in, 20)[0])
        while old < self._ordinal:
            old += 1
            if self._load(old % self.sectors) == old:
                self.dropped += max(0, unpack_from("<I", _in, 20)[0] - start)
                return
