"""What a ring costs, as docs/ring-format.md states it: bytes, erases, reads, wear, memory."""

import math
from collections import Counter
from collections.abc import Callable

import pytest

from node.ring import Ring
from node.sector import HEAD, OVER

SECTOR = 4096
PAYLOAD = bytes(range(32))


class Nor:
    """NOR flash that counts; `fill` are the 0xFF bytes that only round a program up to units."""

    def __init__(self, sectors: int, unit: int = 1) -> None:
        self.data = [bytearray(b"\xff" * SECTOR) for _ in range(sectors)]
        self.unit = unit
        self.wear = [0] * sectors
        self.bad: set[int] = set()
        self.heads: list[int] = []  # sectors whose head was read
        self.count: Counter[str] = Counter()

    def readblocks(self, sector: int, buf: memoryview, offset: int = 0) -> None:
        self.count.update(reads=1, read=len(buf))
        if offset == 0 and len(buf) == HEAD:
            self.heads.append(sector)
        buf[:] = self.data[sector][offset:offset + len(buf)]

    def writeblocks(self, sector: int, buf: memoryview, offset: int = 0) -> None:
        assert offset % self.unit == 0 and len(buf) % self.unit == 0
        if sector in self.bad:
            raise OSError(5)
        data, size = bytes(buf), len(buf)
        fill = size - len(data.strip(b"\xff"))
        self.count.update(programs=1, programmed=size - fill, sent=size)
        old = int.from_bytes(self.data[sector][offset:offset + size])
        self.data[sector][offset:offset + size] = (old & int.from_bytes(data)).to_bytes(size)

    def ioctl(self, operation: int, sector: int) -> None:
        assert operation == 6
        if sector in self.bad:
            raise OSError(5)
        self.count.update(erases=1)
        self.wear[sector] += 1
        self.data[sector][:] = b"\xff" * SECTOR

    def copy(self) -> "Nor":
        """The same content, counters at nought."""
        other = Nor(len(self.data), self.unit)
        other.data = [bytearray(data) for data in self.data]
        return other


def ring_on(flash: Nor, saved: tuple | None = None) -> Ring:
    ring = Ring(flash, 0, len(flash.data), 0, flash.unit, lambda: 7)
    ring.mount(saved)
    return ring


def fill(ring: Ring, flash: Nor, laps: int) -> int:
    """Append 32-byte records until the first sector is opened after `laps`; return how many."""
    count = 0
    while sum(flash.wear) <= laps * len(flash.wear):
        ring.append(1, count, PAYLOAD)
        count += 1
    return count


@pytest.mark.parametrize("unit", [1, 4, 16, 256])
def test_bytes_and_erases_a_record(unit: int) -> None:
    flash = Nor(8, unit)
    ring = ring_on(flash)
    fill(ring, flash, 0)
    flash.count.clear()
    records = fill(ring, flash, 10)
    programmed = flash.count["programmed"] / (records * len(PAYLOAD))
    assert 1 < programmed <= 1.30
    assert flash.count["erases"] / records <= 0.0105
    assert flash.count["programs"] == records
    assert OVER - 4 <= 8  # around payload and time
    if unit == 1:
        assert flash.count["sent"] == pytest.approx(flash.count["programmed"], rel=0.001)


def test_append_costs_the_same_after_a_hundred_laps() -> None:
    flash = Nor(3)
    ring = ring_on(flash)
    fill(ring, flash, 0)
    costs = []
    for lap in range(1, 102):
        flash.count.clear()
        records = fill(ring, flash, lap)
        costs.append({name: n / records for name, n in flash.count.items()})
    for name in ("reads", "read", "programs", "programmed", "erases"):
        mean = sum(cost[name] for cost in costs) / len(costs)
        assert mean > 0
        assert all(abs(cost[name] - mean) <= 0.1 * mean for cost in costs), name


def test_an_append_is_one_program_and_needs_no_erase_after_prepare() -> None:
    flash = Nor(3)
    ring = ring_on(flash)
    for i in range(700):
        before = flash.count.copy()
        ring.append(1, i, PAYLOAD)
        assert flash.count["programs"] - before["programs"] == 1
        assert flash.count["erases"] - before["erases"] <= (i == 0)
        ring.prepare()


@pytest.mark.parametrize("prepared", [True, False])
@pytest.mark.parametrize("sectors", [3, 8, 33, 256])
def test_a_cold_mount_looks_at_few_heads_and_one_sector(sectors: int, prepared: bool) -> None:
    flash = Nor(sectors)
    ring = ring_on(flash)
    most = math.ceil(math.log2(sectors)) + 1
    for i in range(3 * sectors):
        for _ in range(11):
            ring.extend([(1, i, bytes(59))] * 3)
            if prepared:
                ring.prepare()
        again = flash.copy()
        found = ring_on(again)
        assert found.next_seq >= ring.next_seq and found._ordinal == ring._ordinal
        active = ring._ordinal % sectors
        searched = [head for head in again.heads if head != active]
        # The first lap, the next sector not prepared and less than a page left: is it the last?
        extra = not prepared and ring._ordinal < sectors and SECTOR - ring._tail < 512
        assert len(searched) + 1 <= most + 4 * extra
        assert again.count["read"] <= (most + 5) * HEAD + SECTOR + 1024 + 2 * 256 + 16
        assert again.count["erases"] == 0


def test_a_warm_mount_is_two_reads() -> None:
    flash = Nor(5)
    ring = ring_on(flash)
    for i in range(1500):
        ring.append(1, i, bytes(i % 40))
        if i % 3:
            ring.prepare()
        saved = ring.save()
        flash.count.clear()
        ring = ring_on(flash, saved)
        assert flash.count["reads"] <= 2 and flash.count["programs"] == 0
        assert ring.next_seq == i + 2


def test_wear_is_even_after_a_million_records() -> None:
    flash = Nor(7)
    ring = ring_on(flash)
    page = [(1, 0, b"")] * 28
    for _ in range(1_000_000 // 28 + 1):
        ring.extend(page)
    assert ring.next_seq > 1_000_000
    assert max(flash.wear) - min(flash.wear) <= 1
    assert min(flash.wear) > 300
    assert sum(flash.wear) / 1_000_000 <= 0.0105


def test_a_bad_sector_costs_its_own_records_only() -> None:
    flash = Nor(6)
    ring = ring_on(flash)
    for i in range(400):
        ring.append(1, i, PAYLOAD)
    there = {seq for seq, *_ in ring.records()}
    flash.data[1][:] = bytes(SECTOR)
    flash.bad.add(1)
    ring = ring_on(flash)
    left = {seq for seq, *_ in ring.records()}
    assert 90 <= len(there - left) <= 99 and max(there) in left
    for i in range(1200):
        ring.append(1, i, PAYLOAD)
    ring = ring_on(flash)
    found = [seq for seq, *_ in ring.records()]
    assert found == list(range(found[0], ring.next_seq)) and len(found) >= 300


@pytest.mark.parametrize("content", [b"\x00", b"\xa5", b"\xff"])
def test_a_mount_erases_nothing(content: bytes) -> None:
    flash = Nor(4)
    for data in flash.data:
        data[:] = content * SECTOR
    before = flash.copy()
    ring = ring_on(flash)
    assert flash.count["erases"] == 0 and flash.data == before.data
    assert list(ring.records()) == [] and ring.append(1, 5, b"first") == 1
    assert flash.wear == [1, 0, 0, 0]


def test_memory_does_not_grow_with_the_ring(on_micropython: Callable[..., str]) -> None:
    told = on_micropython("""
import gc
from node.ring import Ring
class Flash:
    def __init__(self, sectors):
        self.kept = {}
    def readblocks(self, sector, buf, offset=0):
        data = self.kept.get(sector)
        for i in range(len(buf)):
            buf[i] = data[offset + i] if data else 255
    def writeblocks(self, sector, buf, offset=0):
        if sector not in self.kept:
            self.kept[sector] = bytearray(b"\\xff" * 4096)
        data = self.kept[sector]
        for i in range(len(buf)):
            data[offset + i] &= buf[i]
    def ioctl(self, operation, sector):
        self.kept.pop(sector, None)
def costs(sectors):
    flash = Flash(sectors)
    payload = bytes(32)
    gc.collect()
    before = gc.mem_alloc()
    ring = Ring(flash, 0, sectors)
    gc.collect()
    made = gc.mem_alloc() - before
    ring.mount()
    ring.append(1, 0, payload)
    ring.append(1, 0, payload)
    gc.collect()
    gc.disable()
    before = gc.mem_alloc()
    for i in range(16):
        ring.append(1, i, payload)
    an_append = (gc.mem_alloc() - before) // 16
    gc.enable()
    gc.collect()
    gc.disable()
    before = gc.mem_alloc()
    ring.mount()
    mount = gc.mem_alloc() - before
    gc.enable()
    gc.collect()
    return made, an_append, mount, gc.mem_alloc() - 4096 * len(flash.kept)
costs(3)
print(*costs(3))
print(*costs(4096))
""")
    small, large = ([int(word) for word in line.split()] for line in told.splitlines())
    assert small[0] == large[0] <= 1024
    assert small[1] == large[1] <= 1024
    assert large[2] <= small[2] + 11 * 400  # garbage of each further head that is looked at
    assert large[3] <= small[3] + 2048
