"""A ring that lives through a workload, is cut at every step, and what it has promised meanwhile.

A cut is tried by forking flash and promises in the middle of the operation: the fork is torn,
booted, checked, used and booted again, then the original goes on as if nothing had happened. So
each cut costs a recovery and not the workload before it. Runs under CPython and MicroPython.
"""

from struct import pack

from flash import (
    MODELS,
    ONES,
    RANDOM,
    SETTLED,
    ZEROS,
    Broken,
    Dice,
    Flash,
    cut_erase,
    cut_program,
    erase_cuts,
    program_cuts,
)

from node import mount as mount_module
from node import sector as sector_module
from node.ring import Ring

BUFFERS = [sector_module.out, sector_module.seen, mount_module._head]
BOOTS = ((ZEROS, ONES), (ONES, ZEROS), (RANDOM, RANDOM), (SETTLED, SETTLED), (SETTLED, RANDOM),
         (ZEROS, SETTLED))
MODEL_OF = {cut: model for model in MODELS for cut in MODELS[model]}


class Tally:
    def __init__(self):
        self.cuts = self.nested = 0
        self.models = {}


class Promise:
    """What the flash owes."""

    def __init__(self):
        self.held = {}  # seq: sectors with a copy; must be readable
        self.known = {}  # seq: content that was promised or has been seen
        self.flight = {}  # seq: contents that operations cut short may have left
        self.released = set()  # may be readable or not
        self.acked = self.acked_at_most = 0
        self.epoch = None

    def fork(self):
        other = Promise()
        other.held = {seq: where.copy() for seq, where in self.held.items()}
        other.known = self.known.copy()
        other.flight = {seq: contents[:] for seq, contents in self.flight.items()}
        other.released = self.released.copy()
        other.acked, other.acked_at_most = self.acked, self.acked_at_most
        other.epoch = self.epoch
        return other

    def release(self, sector, in_order):
        """The content of a sector goes: with an erase, or because it is damaged."""
        gone = []
        for seq, where in self.held.items():
            where.discard(sector)
            if not where:
                gone.append(seq)
        for seq in gone:
            del self.held[seq]
            self.released.add(seq)
        if gone and in_order and self.held and max(gone) > min(self.held):
            raise Broken("lost", f"erased {max(gone)} while {min(self.held)} is held")


class Case:
    """Geometry, workload and how densely to cut; everything follows from it."""

    def __init__(self, seed, ops, sectors=4, size=128, page=32, unit=1, depth=1, every=True,
                 density=256, nested=64, random_content=False):
        self.seed, self.ops = seed, ops
        self.sectors, self.size, self.page, self.unit = sectors, size, page, unit
        self.depth = depth  # cuts within cuts
        self.every = every  # at each byte
        self.density = density  # of 256 cuts of the workload so many are tried
        self.nested = nested  # of 256 cuts of a recovery
        self.random_content = random_content

    def run(self, tally):
        """Live the workload; raise Broken."""
        dice = Dice(self.seed)
        flash = Flash(self.sectors, self.size, dice)
        if self.random_content:
            for sector in range(self.sectors):
                flash.replace(sector, dice.bytes(self.size))
        life = Life(self, flash, Promise(), self.depth, tally, self.density)
        life.boot(RANDOM)
        for op in self.ops:
            life.do(op)
        life.boot(RANDOM)

    def __repr__(self):
        return (f"Case({self.seed}, {self.ops}, sectors={self.sectors}, size={self.size}, "
                f"page={self.page}, unit={self.unit}, depth={self.depth}, every={self.every}, "
                f"density={self.density}, nested={self.nested}, "
                f"random_content={self.random_content})")


class Life:
    def __init__(self, case, flash, promise, depth, tally, density):
        self.case, self.flash, self.promise = case, flash, promise
        self.depth, self.tally, self.density = depth, tally, density
        self.dice = Dice(flash.dice.bits())
        self.ring = None
        self.saved = None
        self.prepared = -1  # the ordinal that must not need an erase
        self.damaged = False
        self.clock = flash.dice.bits()
        flash.hook = self._hook

    # --- cuts ---

    def _hook(self, operation, sector, offset, data):
        if operation == "erase":
            self.promise.release(sector, not self.flash.bad)
        if not self.depth:
            return
        dice = Dice(self.dice.bits())
        if operation == "erase":
            cuts = erase_cuts(self.flash, dice, self.case.every)
        else:
            cuts = program_cuts(self.flash, sector, offset, data, dice, self.case.every)
        kept = None
        for cut in cuts:
            if dice.below(256) >= self.density:
                continue
            if kept is None:
                kept = [bytes(buffer) for buffer in BUFFERS]
            fork = Life(self.case, self.flash.fork(), self.promise.fork(), self.depth - 1,
                        self.tally, self.case.nested)
            fork.damaged = self.damaged
            if operation == "erase":
                cut_erase(fork.flash, cut, sector, dice)
            else:
                cut_program(fork.flash, cut, sector, offset, data, dice)
            self.tally.cuts += 1
            if self.depth < self.case.depth:
                self.tally.nested += 1
            model = MODEL_OF[cut[0]]
            self.tally.models[model] = self.tally.models.get(model, 0) + 1
            try:
                fork.aftermath()
            except Broken as broken:
                broken.text += f"; after {cut} in {operation} of sector {sector} at {offset}"
                raise
        if kept is not None:
            for buffer, content in zip(BUFFERS, kept):  # noqa: B905
                buffer[:] = content

    def aftermath(self):
        """Boot after a cut, live on a little, boot again."""
        dice = self.dice
        first, second = BOOTS[dice.below(len(BOOTS))]
        self.boot(first)
        for _ in range(dice.below(4)):
            self.do(dice.choice((("append", dice.below(12)), ("append", 3), ("prepare",),
                                 ("extend", 3, 4), ("ack", dice.below(4)), ("warm",))))
        self.boot(second)
        self.do(("append", 1))
        self.check()

    # --- what a node does ---

    def new_ring(self):
        case = self.case
        return Ring(self.flash, 0, case.sectors, 1, case.unit, self.flash.dice.bits, case.size,
                    case.page)

    def boot(self, mood):
        """Power comes: mount without retained state, and look."""
        self.flash.power_up(mood)
        self.flash.patience = self.flash.reads + 100000
        self.prepared = -1
        self.mount(None)

    def mount(self, saved):
        self.ring = self.new_ring()
        try:
            self.ring.mount(saved)
            self.check()
        except (Broken, MemoryError):
            raise
        except Exception as error:
            raise Broken("mount", f"mount raised {error!r}")  # noqa: B904

    def do(self, op):
        self.flash.patience = self.flash.reads + 100000
        name = op[0]
        if name == "append" or name == "extend":
            self.append(op[1:])
        elif name == "ack":
            seq = self.ring.next_seq - 1 - op[1]
            if seq > self.ring.acked:
                self.promise.acked_at_most = max(self.promise.acked_at_most, seq)
                if self._try(lambda: self.ring.acknowledge(seq)):
                    self.promise.acked = seq
        elif name == "prepare":
            self._try(self.ring.prepare)
            self.prepared = self.ring._next
        elif name == "cold":
            self.boot(RANDOM)
        elif name == "warm":
            saved, reads = self.ring.save(), self.flash.reads
            self.ring = self.new_ring()
            self.ring.mount(saved)
            reads = self.flash.reads - reads
            if reads > 2:
                self.rule(self.in_doubt(saved), "warm mount took %d reads", reads)
                self.prepared = -1
            self.check()
        elif name == "save":
            self.saved = self.ring.save()
        elif name == "stale":  # believed, though much has happened since
            if self.saved:
                self.prepared = -1
                self.mount(self.saved)
        elif name == "bad":
            self.damage(op[1])
            self.flash.bad[op[1] % self.case.sectors] = op[2]
        elif name == "fill":
            self.damage(op[1])
            self.flash.replace(op[1] % self.case.sectors, self.dice.bytes(self.case.size))
            self.boot(RANDOM)
        elif name == "wipe":
            self.damage(op[1])
            if self.ring._ordinal < self.case.sectors:
                self.saved = None  # a blank sector is nothing strange in the first lap
            self.flash.replace(op[1] % self.case.sectors, b"\xff" * self.case.size)
            self.boot(RANDOM)
        elif name == "swap":
            a, b = op[1] % self.case.sectors, op[2] % self.case.sectors
            if a != b:
                self.damage(a)
                self.damage(b)
                data = self.flash.data[a]
                self.flash.replace(a, self.flash.data[b])
                self.flash.replace(b, data)
            self.boot(RANDOM)
        else:
            raise ValueError(name)

    def in_doubt(self, saved):
        """Is there nothing firm, within two reads, that could show that all is as it was?"""
        ring = self.ring
        following = ring.load((saved[-1] >> 2) % self.case.sectors)
        ring.load(saved[1] % self.case.sectors)
        jumped = sector_module.seen[sector_module.JUMPS] != 0xFF
        far = not ring._last or ring._tail - ring._last > len(sector_module.seen) - 16
        return (self.flash.bad or self.damaged or any(self.flash.weak) or far or jumped
                or following == sector_module.JUNK)

    def damage(self, sector):
        """A sector's content is no longer owed, and with it perhaps an acknowledgement."""
        self.promise.release(sector % self.case.sectors, False)
        self.promise.acked = 0
        self.damaged = True

    def _try(self, step):
        """Run a step; it may only fail where sectors are bad."""
        try:
            step()
            return True
        except OSError:
            if not self.flash.bad:
                raise Broken("rule", "OSError on good flash")  # noqa: B904
            return False

    def append(self, sizes):
        ring, promise, flash = self.ring, self.promise, self.flash
        records = []
        for size in sizes:
            self.clock += 1
            size = min(size, self.case.page - 9, self.case.size - 41)
            time_s = self.clock * 2654435761 & 0xFFFFFFFF
            records.append((1 + self.clock % 15, time_s, self.dice.bytes(size)))
        first = ring.next_seq
        for i in range(len(records)):
            self.rule(first + i not in promise.known, "sequence %d is given again", first + i)
            promise.flight.setdefault(first + i, []).append(records[i])
        programs, erases, following = flash.programs, flash.erases, ring._next
        if not self._try(lambda: ring.extend(records) if len(records) > 1
                         else ring.append(*records[0])):
            return
        if promise.epoch is None:
            promise.epoch = ring.epoch
        self.rule(ring.next_seq == first + len(records), "append of %d gave %d", first,
                  ring.next_seq)
        if not flash.bad and not self.damaged and len(records) == 1:
            self.rule(flash.programs - programs <= 1, "%d programs", flash.programs - programs)
            self.rule(flash.erases - erases <= (self.prepared != following), "%d erases",
                      flash.erases - erases)
        # A cut page may have left a record in doubt before one that was seen: it keeps its number.
        promise.flight = {seq: promise.flight[seq] for seq in promise.flight if seq < first}
        for i in range(len(records)):
            promise.known[first + i] = records[i]
            where = self.where(records[i])
            # If all other sectors were erased since, it made room for a later one of this call.
            if where or flash.erases - erases < self.case.sectors - 1 - len(flash.bad):
                promise.held[first + i] = where
            else:
                promise.released.add(first + i)

    def where(self, record):
        """Return the sectors that hold a copy."""
        needle = pack("<I", record[1]) + record[2]
        found = set()
        for sector in range(len(self.flash.data)):
            if self.flash.data[sector].find(needle) >= 0:
                found.add(sector)
        good = found - set(self.flash.bad)
        return good or found

    # --- what must be true ---

    def rule(self, true, text, *values):
        if not true:
            raise Broken("rule", text % values)

    def check(self):
        """Read everything and compare with what is owed."""
        ring, promise = self.ring, self.promise
        if ring.epoch != promise.epoch and not promise.held:  # the history is gone
            self.promise = Promise()
            self.promise.flight = promise.flight
            self.promise.acked_at_most = promise.acked_at_most
            promise = self.promise
        found, last = [], 0
        for seq, kind, time_s, payload in ring.records():
            if seq <= last:
                raise Broken("phantom", f"sequence {seq} after {last}")
            last = seq
            content = (kind, time_s, bytes(payload))
            if promise.known.get(seq) != content:
                if content not in promise.flight.get(seq, ()):
                    raise Broken("phantom", f"record {seq} was never appended")
                promise.known[seq] = content
            found.append(seq)
        missing = [seq for seq in promise.held if seq not in found]
        if missing:
            raise Broken("lost", f"lost {missing}; readable: {found}")
        self.rule(not promise.held or ring.epoch == promise.epoch, "epoch changed")
        for seq in found:
            if seq not in promise.held and seq not in promise.released:
                where = self.where(promise.known[seq])
                if where.issubset(self.flash.bad):  # never promised, and nothing makes it firm
                    promise.released.add(seq)
                    if all(self.flash.bad[sector] == "stuck" for sector in where):
                        del promise.known[seq]  # nor could anybody tell: it reads as programmed
                else:
                    promise.held[seq] = where
                    promise.epoch = ring.epoch
        self.rule(ring.next_seq > last, "next is %d, last %d", ring.next_seq, last)
        if found or not self.damaged:
            self.rule(promise.acked <= ring.acked <= promise.acked_at_most,
                      "acknowledged %d, must be in %d..%d", ring.acked, promise.acked,
                      promise.acked_at_most)
        if found:
            start = self.dice.choice(found)
            part = [record[0] for record in ring.records(start)]
            if not self.flash.bad:
                self.rule(part == [seq for seq in found if seq >= start], "from %d: %s", start,
                          part)
