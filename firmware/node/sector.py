# Sectors of raw NOR flash as a ring uses them: what a head and a record look like, and how to be
# sure of what was programmed. Every byte, and why: docs/ring-format.md

from binascii import crc32
from struct import pack_into, unpack_from

from micropython import const

MARK = const(16)  # of a sector erased in advance: ordinal, dropped, next sequence, CRC
HEAD = const(36)  # mark and header; records begin here
JUMPS = const(18)  # two header bytes that may be cleared later
TROUBLE = const(19)
OVER = const(9)  # a record around its payload: length, tag, time (4), CRC (3)
PAGE = const(256)  # records in one program
BASE = const(292)  # where records are laid out in `out`: the largest unit and a head before them
WARM = const(16)  # blank bytes that show a tail

# what load() finds instead of an ordinal; no ordinal less one lap is as low
BLANK = const(-10000)
ERASED = const(-10001)
JUNK = const(-10002)

_MAGIC = const(0x51)  # and the version of what is described here
_UNIT = const(256)
_SEEN = const(1024)

# Shared by all rings: a ring leaves nothing here between two calls.
out = bytearray(BASE + PAGE + _UNIT)
seen = bytearray(_SEEN)
out_view = memoryview(out)
seen_view = memoryview(seen)
_ff = memoryview(b"\xff" * _SEEN)
_reads = 0


class Sectors:
    def __init__(self, device, first, sectors, tag, unit, sector_size, page):
        if not 3 <= sectors <= 4096 or page > PAGE or unit > _UNIT:
            raise ValueError("ring needs 3..4096 sectors, page and unit <= 256")
        self.device = device
        self.first = first
        self.sectors = sectors
        self.tag = tag
        self.unit = unit
        self.sector_size = sector_size
        self.page = page

    # --- head ---

    def load(self, index):
        """Read a sector's head into `seen`; return its ordinal or what else is there."""
        if not self.read(index, 0, HEAD):
            return JUNK
        unopened = seen_view[MARK:HEAD] == _ff[:HEAD - MARK]
        if unopened and seen_view[:MARK] == _ff[:MARK]:
            return BLANK
        ordinal, _, _, mark = unpack_from("<IIII", seen)
        if ordinal % self.sectors != index:
            return JUNK
        if unopened:
            return ERASED if mark == self._mark_crc(seen_view) else JUNK
        if (seen[MARK] == _MAGIC and seen[MARK + 1] == self.tag
                and unpack_from("<I", seen, HEAD - 4)[0] == self._head_crc(seen_view)):
            return ordinal
        return JUNK

    def lay_mark(self, ordinal, dropped, next_seq):
        at = BASE - HEAD
        pack_into("<III", out, at, ordinal, dropped, next_seq)
        pack_into("<I", out, at + 12, self._mark_crc(out_view[at:]))

    def lay_head(self, ordinal, dropped, trouble, epoch, first_seq, acked):
        """Lay out a head; return its CRC, the seed of its records'."""
        # It adds no mark: a sector that is opened right after its erase must not look like one
        # that was prepared when this program is torn.
        at = BASE - HEAD
        pack_into("<IIII", out, at, ordinal, dropped, 0xFFFFFFFF, 0xFFFFFFFF)
        pack_into("<BBBBIII", out, at + MARK, _MAGIC, self.tag, 0xFF, 0 if trouble else 0xFF,
                  epoch, first_seq, acked)
        seed = self._head_crc(out_view[at:])
        pack_into("<I", out, at + HEAD - 4, seed)
        return seed

    def _mark_crc(self, head):
        return crc32(head[:12], self.tag + 1)

    def _head_crc(self, head):
        return crc32(head[20:32], crc32(head[MARK:JUMPS], crc32(head[:8])))

    # --- records ---

    def lay(self, at, kind, seq, time_s, payload):
        at += BASE
        size = len(payload)
        out[at] = size
        out[at + 1] = (seq & 15) << 4 | kind
        pack_into("<I", out, at + 2, time_s)
        out_view[at + 6:at + 6 + size] = payload

    def seal(self, size, seed, seq):
        """Put a CRC to each record that is laid out; return where the last begins."""
        # It starts from the sector's header and the sequence: a record is valid there only.
        at = BASE
        while True:
            last = at
            at += out[at] + OVER
            crc = crc32(out_view[last:at - 3], seed ^ seq)
            out[at - 3] = crc & 0xFF
            out[at - 2] = crc >> 8 & 0xFF
            out[at - 1] = crc >> 16 & 0xFF
            seq += 1
            if at - BASE >= size:
                return last - BASE

    def valid(self, at, seed, seq):
        """Return the sequence, at least `seq`, of the record at seen[at], or -1."""
        tag = seen[at + 1]
        if tag & 15 == 0 and seen[at] != 4:
            return -1
        seq += (tag >> 4) - seq & 15
        end = at + seen[at] + OVER - 3
        crc = crc32(seen_view[at:end], seed ^ seq)
        if (seen[end] == crc & 0xFF and seen[end + 1] == crc >> 8 & 0xFF
                and seen[end + 2] == crc >> 16 & 0xFF):
            return seq
        return -1

    def walk(self, index, seed, seq, pos):
        """Yield (seq, kind, at, pos, size, bad) of each record from `pos` on.

        Its bytes are at seen[at]; `bad` is where a bad record before it begins, or 0.
        """
        base = stop = pos
        bad = 0
        while pos + OVER <= self.sector_size:
            if stop < self.sector_size and pos + self.page > stop:
                keep = max(0, stop - pos)
                seen_view[:keep] = seen_view[pos - base:pos - base + keep]
                size = min(len(seen) - keep, self.sector_size - pos - keep)
                if not self.read(index, pos + keep, size, keep):
                    return
                base, stop = pos, pos + keep + size
            at = pos - base
            size = seen[at] + OVER
            found = -1
            if size <= self.page and pos + size <= self.sector_size:
                found = self.valid(at, seed, seq)
            if found >= 0:
                if bad and found > seq + 1:
                    return
                kind = seen[at + 1] & 15
                seq = found + (kind > 0)
                reads = _reads
                yield found, kind, at, pos, size, bad
                pos += size
                bad = 0
                if reads != _reads:  # somebody used `seen` meanwhile
                    base = stop = pos
            elif bad or size > self.page:
                return
            elif seen[at] == 0 and seen[at + 1] == 0:
                pos = self.grid(pos)  # a void: writing went on there
            else:
                bad, pos = pos, pos + size  # perhaps only this record is bad

    def grid(self, pos):
        """Where writing resumes when a program may have been cut at `pos`."""
        return (pos + 2 * self.page - 1) // self.page * self.page

    # --- flash ---

    def read(self, index, offset, size, at=0):
        global _reads
        _reads += 1
        try:
            self.device.readblocks(self.first + index, seen_view[at:at + size], offset)
            return True
        except OSError:
            return False

    def program(self, index, start, at, size):
        """Program out[at:at + size] and read it back; what else is in its units stays."""
        before = start % self.unit
        after = -(start + size) % self.unit
        out_view[at - before:at] = _ff[:before]
        out_view[at + size:at + size + after] = _ff[:after]
        try:
            self.device.writeblocks(self.first + index, out_view[at - before:at + size + after],
                                    start - before)
        except OSError:
            return False
        return self.read(index, start, size) and seen_view[:size] == out_view[at:at + size]

    def erase(self, index):
        try:
            self.device.ioctl(6, self.first + index)
        except OSError:
            return False
        return self.blank(index, 0)

    def blank(self, index, offset):
        """Is a sector blank from `offset` on?"""
        while offset < self.sector_size:
            size = min(_SEEN, self.sector_size - offset)
            if not self.read(index, offset, size) or not self.is_blank(0, size):
                return False
            offset += size
        return True

    def is_blank(self, start, stop):
        return seen_view[start:stop] == _ff[:stop - start]
