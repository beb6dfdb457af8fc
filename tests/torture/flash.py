"""NOR flash that tears, wavers and goes bad. Runs under CPython and MicroPython.

Programming clears bits, erasing sets those of a sector. An operation that is cut short leaves bits
*weak*: they read one way now and another later, until they are programmed to 0 (then they are
solid) or the sector is erased completely. How weak bits read is the `mood` of a power-up.
"""

ZEROS, ONES, RANDOM, SETTLED = 0, 1, 2, 3  # moods; SETTLED: random, the same until power goes


class Broken(Exception):
    """A promise was broken: `sort` is lost, phantom, mount, hang or rule."""

    def __init__(self, sort, text):
        super().__init__(text)
        self.sort = sort
        self.text = text


class Dice:
    """A small generator that gives the same numbers under both interpreters."""

    def __init__(self, seed):
        self.state = seed & 0xFFFFFFFF or 1
        for _ in range(4):
            self.below(256)

    def below(self, limit):
        self.state = (self.state * 1664525 + 1013904223) & 0xFFFFFFFF
        return (self.state >> 8) * limit >> 24

    def bits(self):
        """Return 32 random bits."""
        return self.below(65536) << 16 | self.below(65536)

    def choice(self, options):
        return options[self.below(len(options))]

    def bytes(self, size):
        return bytes([self.below(256) for _ in range(size)])


class Flash:
    """MicroPython's extended block protocol over sectors of bytes.

    `hook(operation, sector, offset, data)` is called before each program (data) and erase (None).
    `bad` maps a sector to how it fails: see BAD.
    """

    def __init__(self, sectors, size, dice):
        self.size = size
        self.data = [b"\xff" * size] * sectors
        self.weak = [None] * sectors  # a mask of weak bits a sector, or None
        self.bad = {}
        self.mood = RANDOM
        self.dice = dice
        self.hook = None
        self.programs = self.erases = self.reads = self.programmed = 0
        self.patience = 0  # a step that reads more often than this hangs
        self.wear = [0] * sectors

    def fork(self):
        other = Flash(0, self.size, Dice(self.dice.bits()))
        other.data = self.data[:]
        other.weak = self.weak[:]
        other.bad = self.bad.copy()
        other.wear = self.wear[:]
        return other

    def power_up(self, mood):
        self.mood = mood
        self.salt = self.dice.bits()

    # --- block protocol ---

    def readblocks(self, sector, buf, offset=0):
        self.reads += 1
        if self.reads > self.patience > 0:
            raise Broken("hang", f"{self.reads} reads and no end")
        size = len(buf)
        assert offset >= 0 and offset + size <= self.size
        how = self.bad.get(sector)
        if how == "dead":
            raise OSError(5)
        if how == "noise":
            buf[:] = self.dice.bytes(size)
            return
        buf[:] = self.data[sector][offset:offset + size]
        weak = self.weak[sector]
        if weak:
            for i in range(size):
                mask = weak[offset + i]
                if mask:
                    buf[i] = buf[i] & ~mask & 255 | self._waver(sector, offset + i) & mask

    def writeblocks(self, sector, buf, offset=0):
        data = bytes(buf)
        assert offset >= 0 and offset + len(data) <= self.size
        if self.hook:
            self.hook("program", sector, offset, data)
        self.programs += 1
        how = self.bad.get(sector)
        if how == "dead":
            raise OSError(5)
        if how == "error":
            self.put(sector, offset, data[:self.dice.below(len(data) + 1)])
            raise OSError(5)
        if how == "stuck":  # says all is well
            data = bytes([byte | self.dice.below(256) for byte in data])
        self.put(sector, offset, data)

    def ioctl(self, operation, sector):
        if operation == 4:
            return len(self.data)
        if operation == 5:
            return self.size
        assert operation == 6, operation
        if self.hook:
            self.hook("erase", sector, 0, None)
        self.erases += 1
        self.wear[sector] += 1
        how = self.bad.get(sector)
        if how == "dead" or how == "error":
            raise OSError(5)
        if how == "stuck":
            return 0
        self.data[sector] = b"\xff" * self.size
        self.weak[sector] = None
        return 0

    # --- what operations and cuts do to bits ---

    def put(self, sector, offset, data):
        """Clear bits for good."""
        self.programmed += len(data)
        old = self.data[sector]
        end = offset + len(data)
        new = int.from_bytes(old[offset:end], "little") & int.from_bytes(data, "little")
        self.data[sector] = old[:offset] + new.to_bytes(len(data), "little") + old[end:]
        weak = self.weak[sector]
        if weak:
            mask = int.from_bytes(weak[offset:end], "little") & int.from_bytes(data, "little")
            self.weak[sector] = weak[:offset] + mask.to_bytes(len(data), "little") + weak[end:]

    def waver(self, sector, offset, masks):
        """Make bits weak; `masks` are ORed to what is weak already."""
        weak = bytearray(self.weak[sector] or bytes(self.size))
        for i in range(len(masks)):
            weak[offset + i] |= masks[i]
        self.weak[sector] = bytes(weak)

    def replace(self, sector, data):
        """Put in content that no operation has written."""
        self.data[sector] = bytes(data)
        self.weak[sector] = None

    def _waver(self, sector, offset):
        if self.mood == ZEROS:
            return 0
        if self.mood == ONES:
            return 255
        if self.mood == RANDOM:
            return self.dice.below(256)
        return (self.salt ^ (sector * 4096 + offset) * 2654435761) * 40503 >> 13 & 255


BAD = {
    "error": "program and erase raise, a program after a part of it",
    "stuck": "program misses bits and erase does nothing; both say all is well",
    "dead": "everything raises",
    "noise": "reads are random",
}


# --- a cut: (name, position, mask dice) applied in the middle of an operation ---

def program_cuts(flash, sector, offset, data, dice, every):
    """Return the ways to cut a program; `every`: at each byte, else at a few."""
    first = 0
    while first < len(data) and data[first] == 255:
        first += 1
    last = len(data)
    while last > first and data[last - 1] == 255:
        last -= 1
    places = range(first, last)
    if not every:
        places = [first + dice.below(last - first) for _ in range(4)] if last > first else []
    cuts = [("nothing", 0), ("done", 0), ("some", 0), ("most", 0), ("weak", first), ("waver", 0),
            ("quiet", 0)]
    for place in places:
        cuts.append(("prefix", place))
        cuts.append(("bits", place))
        cuts.append(("weak", place))
    return cuts


def erase_cuts(flash, dice, every):
    size = flash.size
    places = range(1, size) if every else [1 + dice.below(size - 1) for _ in range(4)]
    cuts = [("nothing", 0), ("done", 0), ("some", 0), ("most", 0), ("zeros", 0), ("weak", 0),
            ("weak zeros", 0), ("waver", 0)]
    for place in places:
        cuts.append(("prefix", place))
        cuts.append(("suffix", place))
    return cuts


MODELS = {  # fault model: the cuts that belong to it
    "atomic": ("nothing", "done"),
    "prefix": ("prefix", "suffix"),
    "some bits": ("bits", "some"),
    "most bits": ("most",),
    "partial erase": ("zeros",),
    "metastable": ("weak", "waver", "quiet", "weak zeros"),
}


def cut_program(flash, cut, sector, offset, data, dice):
    how, place = cut
    if how == "nothing" or flash.bad.get(sector) == "dead":
        return
    size = len(data)
    before = flash.data[sector][offset:offset + size]
    if how == "done":
        flash.put(sector, offset, data)
    elif how == "prefix":
        flash.put(sector, offset, data[:place])
    elif how == "bits":
        flash.put(sector, offset, data[:place] + bytes([data[place] | dice.below(256)]))
    elif how == "some":
        flash.put(sector, offset, bytes([byte | dice.below(256) for byte in data]))
    elif how == "most":
        most = bytearray(data)
        for _ in range(1 + dice.below(2)):
            at = dice.below(size)
            most[at] |= 1 << dice.below(8)
        flash.put(sector, offset, bytes(most))
    elif how == "weak":  # a prefix, and the rest in doubt
        flash.put(sector, offset, data[:place])
        flash.waver(sector, offset, bytes(place) + bytes(
            [before[i] & ~data[i] & 255 for i in range(place, size)]))
    elif how == "waver":  # any bit may be done, not done or in doubt
        doubt = dice.bytes(size)
        flash.put(sector, offset, bytes([byte | dice.below(256) for byte in data]))
        after = flash.data[sector][offset:offset + size]
        flash.waver(sector, offset, bytes(
            [after[i] & ~data[i] & doubt[i] for i in range(size)]))
    elif how == "quiet":  # all but done: one bit in doubt
        at = dice.below(size)
        for i in range(size):
            mask = before[(at + i) % size] & ~data[(at + i) % size] & 255
            if mask:
                at = (at + i) % size
                mask = mask & -mask if dice.below(2) else mask
                break
        else:
            return
        keep = bytearray(data)
        keep[at] |= mask
        flash.put(sector, offset, bytes(keep))
        flash.waver(sector, offset, bytes(at) + bytes([mask]))


def cut_erase(flash, cut, sector, dice):
    how, place = cut
    if how == "nothing" or flash.bad.get(sector) in ("dead", "error", "stuck"):
        return
    size, old = flash.size, flash.data[sector]
    ones, none = b"\xff" * size, bytes(size)
    weak, doubt = flash.weak[sector] or none, None
    if how == "done":
        new = ones
    elif how == "prefix":
        new, doubt = ones[:place] + old[place:], none[:place] + weak[place:]
    elif how == "suffix":
        new, doubt = old[:place] + ones[place:], weak[:place] + none[place:]
    elif how == "zeros":
        new = none
    elif how == "some":
        new, doubt = bytes([byte | dice.below(256) for byte in old]), weak
    elif how == "most":
        new = bytearray(ones)
        at = dice.below(size)
        new[at] = old[at]
        new = bytes(new)
    elif how == "weak":
        new, doubt = old, bytes([~byte & 255 for byte in old])
    elif how == "weak zeros":
        new, doubt = none, ones
    else:
        new, doubt = bytes([byte | dice.below(256) for byte in old]), dice.bytes(size)
    flash.replace(sector, new)
    if doubt:
        flash.waver(sector, 0, doubt)
