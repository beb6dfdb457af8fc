"""Were all records brought home, each once? Three witnesses are heard who don't know each other.

The node's flash, read with the node's own code, tells what was appended; the gateway's database,
what was stored; the world's journal, which windows there were and what was in them.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

import outpost.device  # noqa: F401  # firmware/ on the path
from node import board as causes
from node import record
from node.latency import POST
from node.outbox import TELEMETRY, Outbox
from node.state import State
from outpost.gateway import intake, schema, store
from outpost.world import journal
from outpost.world.schedule import DAY_S

if TYPE_CHECKING:
    from outpost.world.run import Plan

GATHERED = 256  # bytes of telemetry that may wait in retained memory: node/outbox.py
LEAST = 6 + 4  # and what a decision takes of them at least
JUDGED = (record.DECISION, record.EVENT)
LOST = (causes.BROWNOUT, causes.COLD)  # retained memory was, before these


class Image:
    """A copy of a flash image as a block device: the rings may be mounted on it."""

    def __init__(self, data: bytes, sector: int = 4096) -> None:
        self.data = bytearray(data)
        self.sector = sector

    def readblocks(self, n: int, buf: memoryview, offset: int = 0) -> None:
        """Fill `buf` from byte `offset` of sector `n`."""
        start = n * self.sector + offset
        buf[:] = self.data[start:start + len(buf)]

    def writeblocks(self, n: int, buf: memoryview, offset: int = 0) -> None:
        """Program: clear those bits that are 0 in `buf`."""
        start = n * self.sector + offset
        for i, value in enumerate(buf):
            self.data[start + i] &= value

    def ioctl(self, operation: int, n: int) -> int:
        """Erase sector `n` (operation 6)."""
        if operation == 6:
            start = n * self.sector
            self.data[start:start + self.sector] = b"\xff" * self.sector
        return 0


@dataclass(frozen=True, order=True)
class Change:
    """A change of mode, as the node recorded it; `reason` is one of node/modes.py."""

    time_s: int
    before: int
    after: int
    reason: int


@dataclass
class Audit:
    """What came of a run. All is well if `ok`."""

    appended: int = 0  # records the node's rings have given a number
    stored: int = 0  # of them in the database
    dropped: int = 0  # overwritten at the node before they could be sent, and counted there
    waiting: int = 0  # still to be sent, whole on the node's flash
    acknowledged: int = 0  # as the node's flash has it: those it may forget
    lost: int = 0  # appended and none of these; or a decision nobody can account for
    duplicates: int = 0  # decisions stored beyond one a window
    phantoms: int = 0  # stored, but never appended or without a window
    compared: int = 0  # records still on flash and compared byte by byte
    differing: int = 0  # of them not equal to what is stored
    unflushed: int = 0  # decisions that went with retained memory in a brown-out
    lanes: list[dict[str, int]] = field(default_factory=list)  # the first four, by lane
    confusion: dict[tuple[str, str], int] = field(default_factory=dict)  # (truth, decision): n
    tiers: dict[tuple[int, int], list[int]] = field(default_factory=dict)
    # (who decided, in which mode): [right, all]
    decided: dict[int, list[int]] = field(default_factory=dict)  # who: in which wakes
    changes: list[Change] = field(default_factory=list)  # of mode, in order

    @property
    def ok(self) -> bool:
        """Whether everything appended is stored once, as it was, or waits."""
        return (self.appended == self.stored + self.dropped + self.waiting and self.lost == 0
                and self.duplicates == 0 and self.phantoms == 0 and self.differing == 0)

    @property
    def decisions(self) -> int:
        """Decisions that have a window with known truth."""
        return sum(self.confusion.values())

    @property
    def accuracy(self) -> float:
        """Share of the decisions that are the truth."""
        right = sum(n for (truth, decision), n in self.confusion.items() if truth == decision)
        return right / self.decisions if self.decisions else 0.0


def audit(folder: Path, classes: list[str], database: Path | None = None) -> Audit:
    """Hold flash, database and journal of the node in `folder` against each other.

    The `database` is its own, gateway.db, or that of the gateway of many.
    """
    board, identity = (json.loads((folder / "node" / f"{name}.json").read_text())
                       for name in ("board", "identity"))
    result = Audit()
    outbox = Outbox((Image((folder / "flash.img").read_bytes()), 0, sum(board["lanes"]), 1), None,
                    board["lanes"])
    db = journal.read(folder / "world.db")
    retained = db.execute("SELECT retained FROM state").fetchone()[0]
    db.close()
    state = State()
    outbox.mount(state.outbox(retained) if state.load(retained) else None)
    outbox.prepare()  # what the last erases cost is noted in the sectors they made ready
    engine = store.connect(database or folder / "gateway.db")
    mine = schema.records.c.node == identity["node"]
    here: list[tuple[int, int, bytes]] = []  # records that have not left the node
    with engine.connect() as db:
        known = 0
        for lane, ring in enumerate(outbox.lanes):
            rows = {row.seq: row for row in
                    intake.lane_records(db, identity["node"], lane, ring.epoch)}
            here += _compare(result, ring, rows)
            known += len(rows)
        result.phantoms += len(db.execute(select(schema.records.c.seq).where(mine)).all()) - known
        here += db.execute(select(schema.records.c.kind, schema.records.c.time_s,
                                  schema.records.c.payload)
                           .where(mine, schema.records.c.kind.in_(JUDGED))).all()
        telemetry = db.execute(select(schema.records.c.seq, schema.records.c.time_s)
                               .where(mine, schema.records.c.lane == TELEMETRY)
                               .order_by(schema.records.c.seq)).all()
    engine.dispose()
    here += [(kind, time_s, bytes(payload)) for kind, time_s, payload in outbox.gathered()]
    decisions = [(time_s, payload) for kind, time_s, payload in here if kind == record.DECISION]
    result.changes = sorted(
        Change(time_s, payload[1] >> 4, payload[1] & 15, payload[2])
        for kind, time_s, payload in here
        if kind == record.EVENT and payload[0] == record.MODE_CHANGED)
    gone = list(_gaps(telemetry)) if result.dropped else []
    _judge(result, folder, decisions, gone, classes)
    return result


def _compare(result: Audit, ring: Any, rows: dict[int, Any]) -> Iterator[tuple[int, int, bytes]]:
    """Hold one lane's ring against its rows in the database; yield the records that still wait."""
    given = ring.next_seq - 1
    stored = sum(seq <= given for seq in rows)
    waiting = skipped = before = unheard = 0
    sector = -1
    for seq, kind, time_s, payload in ring.records():
        if sector not in (-1, ring._cursor_ordinal):
            # A cold mount that can't rule out records behind damage opens a new sector, with
            # numbers that none of them can have had.
            skipped += sum(number not in rows for number in range(before + 1, seq))
        before, sector = seq, ring._cursor_ordinal
        unheard += seq > ring.acked
        row = rows.get(seq)
        if row is not None:
            result.compared += 1
            result.differing += (row.kind, row.time_s, row.payload) != (kind, time_s,
                                                                        bytes(payload))
        elif seq > ring.acked:
            waiting += 1
            yield kind, time_s, bytes(payload)
    if sector != ring._ordinal or ring._tail == ring.sector_size:
        skipped += sum(number not in rows for number in range(before + 1, given + 1))
    appended = given - skipped
    result.appended += appended
    result.stored += stored
    result.dropped += ring.dropped
    result.waiting += waiting
    result.acknowledged += appended - ring.dropped - unheard
    result.lost += max(0, appended - stored - ring.dropped - waiting)
    result.phantoms += len(rows) - stored
    result.lanes.append({"appended": appended, "stored": stored, "dropped": ring.dropped,
                         "waiting": waiting})


def _decided(laps: bytes | None) -> bool:
    """Return whether a wake that ended in sleep got as far as a decision."""
    return laps is not None and any(stage == POST for stage, _ in journal.laps(laps))


def _gaps(rows: Any) -> Iterator[tuple[int, int]]:
    """Yield the times (from, to) between which sequences are missing in rows of (seq, time)."""
    seq_before, time_before = 0, 0
    for seq, time_s in rows:
        if seq != seq_before + 1:
            yield time_before, time_s
        seq_before, time_before = seq, time_s


def _judge(result: Audit, folder: Path, decisions: Any, gone: list[tuple[int, int]],
           classes: list[str]) -> None:
    """Hold the decisions against the truth, and the windows against the decisions.

    `gone` are the times whose telemetry was dropped, which _compare() has accounted for.
    """
    made: dict[int, list[tuple[int, int]]] = {}
    for time_s, payload in decisions:
        made.setdefault(time_s, []).append((payload[0], payload[3]))
    db = journal.read(folder / "world.db")
    wakes = {row["n"]: row for row in db.execute("SELECT n, cause, laps FROM wakes")}
    flat = db.execute("SELECT battery_mj = 0 FROM state").fetchone()[0]
    captures = db.execute("SELECT n, time_s, label FROM captures").fetchall()
    last = db.execute("SELECT wakes FROM state").fetchone()[0]
    db.close()
    for row in captures:
        found = made.pop(row["time_s"], [])
        result.duplicates += max(0, len(found) - 1)
        if found:
            number, by = found[0]
            pair = row["label"], classes[number]
            result.confusion[pair] = result.confusion.get(pair, 0) + 1
            count = result.tiers.setdefault((by & 15, by >> 4), [0, 0])
            count[0] += pair[0] == pair[1]
            count[1] += 1
            result.decided.setdefault(by & 15, []).append(row["n"])
        elif any(start <= row["time_s"] <= end for start, end in gone):
            continue
        elif row["n"] in wakes and _decided(wakes[row["n"]]["laps"]):
            # Only power that went soon after, before a page was full, may have taken it.
            soon = range(row["n"] + 1, row["n"] + GATHERED // LEAST + 1)
            if any((flat if n > last else n not in wakes or wakes[n]["cause"] in LOST)
                   for n in soon):
                result.unflushed += 1
            else:
                result.lost += 1
    result.phantoms += len(made)  # decisions without a window


def in_words(told: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield rows (what, how) on the decisions in the summary of a run or of a fleet."""
    yield "decided", (f"{100 * told['accuracy']:.2f} % of {told['decisions']:,} decisions right, "
                      "by the recordings' labels")
    if told["unflushed"]:
        yield "", (f"[dim]{told['unflushed']:,} decisions went with retained memory, before their "
                   "page was full (docs/ring-format.md)[/]")


def summary(plan: "Plan", found: Audit, restarts: dict[str, int], wall_s: float) -> dict[str, Any]:
    """Return what build/run/summary.json holds, and write it there."""
    db = journal.read(plan.folder / "world.db")
    clock_us = db.execute("SELECT clock_us FROM wakes ORDER BY n DESC LIMIT 1").fetchone()[0]
    ended = dict(db.execute("SELECT ended, count(*) FROM wakes GROUP BY ended").fetchall())
    caused = dict(db.execute("SELECT cause, count(*) FROM wakes GROUP BY cause").fetchall())
    db.close()
    told = {
        "model": plan.model.model, "board": plan.board.name, "seed": plan.schedule.seed,
        "wakes": sum(ended.values()),
        "days": round((clock_us / 1e6 - plan.schedule.start_s) / DAY_S, 3),
        "appended": found.appended, "stored": found.stored, "duplicates": found.duplicates,
        "lost": found.lost, "dropped": found.dropped, "waiting": found.waiting,
        "phantoms": found.phantoms,
        "compared": found.compared, "differing": found.differing, "unflushed": found.unflushed,
        "decisions": found.decisions, "accuracy": round(found.accuracy, 6),
        "by_timer": caused.get(causes.TIMER, 0), "by_motion": caused.get(causes.EVENT, 0),
        "brownouts": ended.get("cut", 0) + ended.get("killed", 0),
        "watchdogs": ended.get("hung", 0), "crashes": ended.get("crashed", 0),
        "restarts": restarts, "ok": found.ok and not ended.get("crashed", 0),
        "wall_s": round(wall_s, 2)}
    scratch = plan.folder / ".summary.json"
    scratch.write_text(json.dumps(told, indent=1) + "\n")
    scratch.replace(plan.folder / "summary.json")
    return told
