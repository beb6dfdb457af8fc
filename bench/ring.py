"""The flash ring beside littlefs as a log: bytes, erases, reads, time of NOR, what a mount reads.

Both run on the same counted flash of 4,096-byte sectors, in one run. Kinds of figures: bytes,
erases and reads are counted (the same on every machine); times are modelled: what `[costs.store]`
of boards/esp32.toml says of a page program, a byte sent, a byte read and a sector erase, added up,
without MicroPython's own time. littlefs is littlefs-python with the defaults of MicroPython's
VfsLfs2 (read and program 32 bytes, cache 128, look-ahead 32, 100 block cycles), a log of two files
that take turns, without the modification times that MicroPython adds.
"""

import math
from collections.abc import Callable, Iterator

import littlefs
import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import track
from rich.table import Table

import outpost.device  # noqa: F401  # firmware/ on the path
from node.ring import Ring
from node.sector import HEAD
from outpost import boards

SECTOR, SECTORS, PAGE = 4096, 64, 256
BATCH = 16  # records a sync, where littlefs need not be durable at once
Append = Callable[[int, bytes], None]


class Nor(littlefs.UserContext):
    """Flash that counts, for the ring (block protocol) and for littlefs (its context)."""

    def __init__(self, sectors: int, unit: int = 1) -> None:
        super().__init__(sectors * SECTOR)
        self.unit = unit
        cost = boards.load("esp32").costs["store"]
        self._us = {key: float(cost[key].to("us" if key in ("program_page", "erase_sector")
                                            else "ns")) / (1 if "_byte" not in key else 1000)
                    for key in ("program_page", "program_byte", "erase_sector", "read_byte")}
        self.clear()

    def clear(self) -> None:
        """Set the counters to nought."""
        self.programmed = self.sent = self.erases = self.reads = 0
        self.heads: list[int] = []
        self.us = 0.0

    def read(self, cfg: object, block: int, off: int, size: int) -> bytearray:
        """Read for littlefs."""
        self.reads += 1
        self.us += size * self._us["read_byte"]
        start = block * SECTOR + off
        return self.buffer[start:start + size]

    def prog(self, cfg: object, block: int, off: int, data: bytes) -> int:
        """Program; 0xFF at both ends, which only fills up a unit, clears no bit."""
        size = len(data)
        self.sent += size
        self.programmed += len(data.strip(b"\xff"))
        self.us += (off % PAGE + size + PAGE - 1) // PAGE * self._us["program_page"]
        self.us += size * self._us["program_byte"]
        start = block * SECTOR + off
        old = int.from_bytes(self.buffer[start:start + size])
        self.buffer[start:start + size] = (old & int.from_bytes(data)).to_bytes(size)
        return 0

    def erase(self, cfg: object, block: int) -> int:
        """Erase a sector."""
        self.erases += 1
        self.us += self._us["erase_sector"]
        self.buffer[block * SECTOR:(block + 1) * SECTOR] = b"\xff" * SECTOR
        return 0

    def readblocks(self, block: int, buf: memoryview, offset: int = 0) -> None:
        """Read for the ring."""
        if offset == 0 and len(buf) == HEAD:
            self.heads.append(block)
        buf[:] = self.read(None, block, offset, len(buf))

    def writeblocks(self, block: int, buf: memoryview, offset: int = 0) -> None:
        """Program for the ring."""
        self.prog(None, block, offset, bytes(buf))

    def ioctl(self, operation: int, block: int) -> None:
        """Erase for the ring."""
        self.erase(None, block)


def ring_on(flash: Nor, sectors: int = SECTORS, saved: tuple | None = None) -> Ring:
    """Mount a ring."""
    ring = Ring(flash, 0, sectors, 0, flash.unit, lambda: 7)
    ring.mount(saved)
    return ring


def littlefs_log(flash: Nor, every: int) -> Append:
    """Return append() to two files in turn: open, write, close `every` so many records."""
    fs = littlefs.LittleFS(context=flash, block_size=SECTOR, block_count=SECTORS, read_size=32,
                           prog_size=32, cache_size=128, lookahead_size=32, block_cycles=100)
    turn, waiting, room = 0, [], SECTORS * SECTOR // 4

    def append(number: int, payload: bytes) -> None:
        nonlocal turn
        waiting.append(number.to_bytes(4, "little") + bytes((1,)) + payload)
        if len(waiting) < every:
            return
        name = f"log{turn}"
        there = name in fs.listdir("/")
        with fs.open(name, "ab" if there else "wb") as file:
            file.write(b"".join(waiting))
            full = file.tell() > room
        waiting.clear()
        if full:
            turn = 1 - turn
            if f"log{turn}" in fs.listdir("/"):
                fs.remove(f"log{turn}")

    return append


def ring_log(flash: Nor, every: int = 1) -> Append:
    """Return append(), `every` so many records in one call."""
    ring, waiting = ring_on(flash), []

    def append(number: int, payload: bytes) -> None:
        waiting.append((1, number, payload))
        if len(waiting) == every:
            ring.extend(waiting)
            waiting.clear()

    return append


def prepared_log(flash: Nor) -> Append:
    """Return append() of a ring whose next sector is erased while idle, out of the count."""
    ring = ring_on(flash)

    def append(number: int, payload: bytes) -> None:
        ring.append(1, number, payload)
        us = flash.us
        ring.prepare()
        flash.us = us

    return append


LOGS = {
    "ring": (1, lambda flash: ring_log(flash), 8000),
    "ring, prepared": (1, prepared_log, 8000),
    "ring, unit 16": (16, lambda flash: ring_log(flash), 8000),
    "ring, unit 256": (256, lambda flash: ring_log(flash), 8000),
    f"ring, {BATCH} at once": (1, lambda flash: ring_log(flash, BATCH), 8000),
    "littlefs": (1, lambda flash: littlefs_log(flash, 1), 2000),
    f"littlefs, {BATCH} at once": (1, lambda flash: littlefs_log(flash, BATCH), 8000),
}


def appends(size: int) -> Iterator[tuple[str, ...]]:
    """Yield a row for each log at a payload size."""
    for name, (unit, make, count) in LOGS.items():
        flash = Nor(SECTORS, unit)
        append, payload = make(flash), bytes(i * 37 & 255 for i in range(size))
        append(0, payload)
        flash.clear()
        took = []
        for i in range(count):
            before = flash.us
            append(i, payload)
            took.append(flash.us - before)
        per = count * size
        p99, worst = np.percentile(took, 99), max(took)
        yield (f"{size}", name, f"{flash.programmed / per:.2f}", f"{flash.sent / per:.2f}",
               f"{flash.erases / count:.4f}", f"{flash.reads / count:.2f}",
               f"{np.mean(took) / 1000:.2f}", f"{p99 / 1000:.2f}", f"{worst / 1000:.1f}")


def mounts(sectors: int) -> tuple[str, ...]:
    """Return a row: the most that a mount reads while a prepared ring fills and laps."""
    flash = Nor(sectors)
    ring = ring_on(flash, sectors)
    cold, touched, warm, steps = 0, 0, 0, min(3 * sectors, 400)
    for step in range(steps):
        for _ in range(max(1, 3 * sectors // steps) * 16):
            ring.extend([(1, step, bytes(240))])
            ring.prepare()
        saved, content = ring.save(), flash.buffer[:]
        flash.clear()
        ring_on(flash, sectors, saved)
        warm = max(warm, flash.reads)
        flash.clear()
        ring_on(flash, sectors)
        cold, touched = max(cold, flash.reads), max(touched, len(set(flash.heads)))
        flash.buffer[:] = content
    return (f"{sectors:,}", f"{touched}", f"{math.ceil(math.log2(sectors)) + 1}", f"{cold}",
            f"{warm}")


def laps() -> list[tuple[str, ...]]:
    """Return rows: what an append costs in the first lap and after many."""
    flash = Nor(8)
    ring, number, rows = ring_on(flash, 8), 0, []
    ring.append(1, 0, bytes(32))
    for lap in range(1, 101):
        flash.clear()
        first = number
        while flash.erases < 8:
            number += 1
            ring.append(1, number, bytes(32))
        if lap in (1, 2, 10, 50, 100):
            count = number - first
            rows.append((f"{lap}", f"{count}", f"{flash.programmed / count:.2f}",
                         f"{flash.reads / count:.3f}", f"{flash.erases / count:.4f}",
                         f"{flash.us / count:.0f}"))
    return rows


def table(title: str, *columns: str) -> Table:
    """Return an empty table; the first column is text."""
    found = Table(title=title, box=SIMPLE_HEAD, title_justify="left", padding=(0, 0, 0, 1),
                  pad_edge=False)
    for i, column in enumerate(columns):
        found.add_column(column, justify="left" if i == 0 else "right")
    return found


def main() -> None:
    """Print the tables."""
    console = Console()
    shown = table("Appending (bytes, erases, reads: counted; times: modelled)", "B", "log",
                  "pro-\ngram", "sent", "erases /\nrecord", "reads /\nrecord",
                  "ms\nmean", "p99", "worst")
    shown.columns[1].justify, shown.columns[1].no_wrap = "left", True
    for size in track((16, 32, 64), "appending", console=Console(stderr=True), transient=True):
        for row in appends(size):
            shown.add_row(*row, end_section=row[1].startswith("littlefs, "))
    console.print(shown)
    console.print("[dim]program: bytes programmed, without the 0xFF that only fills up units; "
                  "sent: with it; both for a byte of payload. prepared: the next sector erased "
                  "while idle, out of the time. at once: one call, one sync, for so many.\n")
    shown = table("Mounting a prepared ring, the most over laps (counted)", "sectors",
                  "heads looked at", "log2(sectors) + 1", "reads, cold, with mending",
                  "reads, warm")
    for sectors in track((4, 16, 64, 256, 1024, 4096), "mounting",
                         console=Console(stderr=True), transient=True):
        shown.add_row(*mounts(sectors))
    console.print(shown)
    shown = table("An append, lap by lap (8 sectors, 32-byte records)", "lap", "records",
                  "bytes programmed", "reads", "erases", "µs, modelled")
    for row in laps():
        shown.add_row(*row)
    console.print(shown)


if __name__ == "__main__":
    main()
