"""What the world remembers, in SQLite: where the node's life stands, and all that happened.

Each wake ends in one transaction, so a world killed at any instant goes on from the last whole
wake. The live view and the report read the same file.
"""

import sqlite3
import struct
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import outpost.device  # noqa: F401  # firmware/ on the path
from node.board import unix as wire

LAP = struct.Struct(wire.LAP)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS state (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    clock_us INTEGER NOT NULL,    -- when the next wake begins, true time
    skew_us INTEGER NOT NULL,     -- how far the node's clock is ahead of it
    cause INTEGER NOT NULL,       -- and why
    retained BLOB NOT NULL,       -- what it finds in retained memory
    battery_mj REAL NOT NULL,     -- and in the battery
    wakes INTEGER NOT NULL,       -- so many have begun
    faults INTEGER NOT NULL,      -- so many of the schedule's faults have struck
    done INTEGER NOT NULL         -- the run is over
);
CREATE TABLE IF NOT EXISTS wakes (
    n INTEGER PRIMARY KEY,
    clock_us INTEGER NOT NULL,
    cause INTEGER NOT NULL,
    ended TEXT NOT NULL,          -- slept, cut, hung, killed, crashed
    awake_us INTEGER,
    laps BLOB,                    -- node.board.unix.LAP after LAP
    drained BLOB,                 -- mJ by phase, the sleep after it too: world.battery.PHASES, f64
    battery_mj REAL,              -- left at the end of that sleep
    harvest_mj REAL,              -- brought by the sun meanwhile
    asleep_us INTEGER,            -- how long that sleep was
    mode INTEGER, left_mj REAL, rate_uw REAL, pace_s INTEGER,  -- as the node believes
    spent_mj REAL,                -- by the node's own ledger, since it began
    depth INTEGER,                -- records waiting
    decision INTEGER, share INTEGER, smoothed INTEGER,
    link INTEGER,                 -- NULL not tried, 0 down, 1 up
    carried INTEGER,              -- bytes over the link
    programmed INTEGER, erases INTEGER
);
CREATE TABLE IF NOT EXISTS flat (  -- the battery had nothing to give
    from_us INTEGER PRIMARY KEY,
    until_us INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS captures (
    n INTEGER NOT NULL,           -- the wake
    time_s INTEGER PRIMARY KEY,   -- of the node's clock; no two windows begin in one second
    label TEXT NOT NULL,          -- the truth
    recording TEXT NOT NULL,
    start INTEGER NOT NULL        -- first sample of the window in it
);
"""


@dataclass
class State:
    """Where the node's life stands between two wakes."""

    clock_us: int
    skew_us: int
    cause: int
    retained: bytes
    battery_mj: float
    wakes: int
    faults: int
    done: bool


_STATE = tuple(one.name for one in fields(State))
_WAKE = ("n", "clock_us", "cause", "ended", "awake_us", "laps", "drained", "battery_mj",
         "harvest_mj", "asleep_us", "mode", "left_mj", "rate_uw", "pace_s", "spent_mj", "carried",
         "depth", "decision", "share", "smoothed", "link", "programmed", "erases")


class Journal:
    """The file `world.db` of a run, opened by the world that writes it."""

    def __init__(self, path: Path, batch: int = 1) -> None:
        self._batch = batch  # wakes in a transaction; what is not yet in one dies with the world
        self._wakes: list[tuple[Any, ...]] = []
        self._captures: list[tuple[Any, ...]] = []
        self._flat: list[tuple[Any, ...]] = []
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = OFF")  # it need survive this process, not the PC
        self._db.executescript(_SCHEMA)

    def load(self) -> State | None:
        """Return the state after the last whole wake, None before the first."""
        row = self._db.execute(f"SELECT {', '.join(_STATE)} FROM state").fetchone()
        return None if row is None else State(*row[:-1], done=bool(row[-1]))

    def save(self, state: State, wake: dict[str, Any] | None = None) -> None:
        """Store the state and the wake that led to it, both or neither."""
        if wake is not None:
            self._wakes.append(tuple(map(wake.get, _WAKE)))
        if len(self._wakes) >= self._batch or state.done or wake is None:
            self._write(state)

    def _write(self, state: State) -> None:
        self._db.execute("BEGIN IMMEDIATE")
        self._insert("wakes", self._wakes, f" ({', '.join(_WAKE)})")
        self._insert("captures", self._captures)
        self._insert("flat", self._flat)
        self._db.execute(f"INSERT OR REPLACE INTO state VALUES (1{', ?' * len(_STATE)})",
                         [getattr(state, name) for name in _STATE])
        self._db.execute("COMMIT")

    def _insert(self, table: str, rows: list[tuple[Any, ...]], columns: str = "") -> None:
        if rows:
            self._db.executemany(f"INSERT INTO {table}{columns} "
                                 f"VALUES ({', '.join('?' * len(rows[0]))})", rows)
            rows.clear()

    def captured(self, n: int, time_s: int, label: str, recording: str, start: int) -> None:
        """Note the truth about a window, before the node gets it."""
        self._captures.append((n, time_s, label, recording, start))
        if self._batch == 1:  # what the node makes of it may outlive this world
            self._insert("captures", self._captures)

    def flat(self, from_us: int, until_us: int) -> None:
        """Note a time when the battery had nothing to give."""
        self._flat.append((from_us, until_us))

    def close(self) -> None:
        """Close the file."""
        self._db.close()


def read(path: Path) -> sqlite3.Connection:
    """Open a run's journal to read it, also while the world writes."""
    db = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    db.row_factory = sqlite3.Row
    return db


def laps(blob: bytes) -> list[tuple[int, int]]:
    """Return (stage, µs it took) of the column `laps`, whose times count from the wake's start."""
    found, before = [], 0
    for stage, at_us, *_ in LAP.iter_unpack(blob):
        found.append((stage, at_us - before))
        before = at_us
    return found
