"""How a run stands right now, read from its journal and the gateway's database."""

import sqlite3
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from outpost.world import journal
from outpost.world.run import Plan
from outpost.world.schedule import DAY_S


@dataclass
class Now:
    """One look at a run."""

    clock_s: float  # virtual time
    start_s: int
    share: float = 0.0  # of the days that have passed
    pace: float = 0.0  # virtual seconds a real second, since the run began
    wakes: int = 0
    cause: int = 0
    ended: str = "slept"
    decision: str = ""
    certainty: float = 0.0
    smoothed: str = ""
    truth: str = ""
    waiting: int = 0
    link: bool = False
    stored: int = 0
    brownouts: int = 0
    watchdogs: int = 0

    @property
    def day(self) -> int:
        """The day of the run, from 1 on."""
        return int((self.clock_s - self.start_s) // DAY_S) + 1

    @property
    def time(self) -> datetime:
        """Virtual time as a date."""
        return datetime.fromtimestamp(self.clock_s, UTC)


class Watch:
    """Looks at the files of a run while it goes on; close() it, or use it in a with statement."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._began = time.monotonic()
        self._now = Now(plan.schedule.start_s, plan.schedule.start_s)
        self._world: sqlite3.Connection | None = None
        self._gateway: sqlite3.Connection | None = None

    def __enter__(self) -> "Watch":
        return self

    def __exit__(self, *_: object) -> None:
        for db in (self._world, self._gateway):
            if db is not None:
                db.close()

    def look(self) -> Now:
        """Return how things stand; what can't be read yet is as it was."""
        with suppress(sqlite3.OperationalError):
            if self._world is None:
                self._world = journal.read(self.plan.folder / "world.db")
            self._look_at_world(self._world)
        with suppress(sqlite3.OperationalError):
            if self._gateway is None:
                self._gateway = journal.read(self.plan.folder / "gateway.db")
            self._now.stored = self._gateway.execute(
                "SELECT count(*) FROM records").fetchone()[0]
        return self._now

    def _look_at_world(self, db: sqlite3.Connection) -> None:
        now, schedule = self._now, self.plan.schedule
        row = db.execute("SELECT * FROM wakes ORDER BY n DESC LIMIT 1").fetchone()
        if row is None:
            return
        now.wakes, now.cause, now.ended = row["n"], row["cause"], row["ended"]
        now.clock_s = row["clock_us"] / 1e6
        passed = now.clock_s - now.start_s
        now.share = min(1.0, passed / (schedule.end_s - now.start_s))
        now.pace = passed / (time.monotonic() - self._began)
        now.link = schedule.link_up(now.clock_s)
        counts = dict(db.execute("SELECT ended, count(*) FROM wakes WHERE ended != 'slept'"
                                 " GROUP BY ended").fetchall())
        now.brownouts = counts.get("cut", 0) + counts.get("killed", 0)
        now.watchdogs = counts.get("hung", 0) + counts.get("crashed", 0)
        if row["ended"] == "slept":
            now.waiting = row["depth"]
            now.decision = self._name(row["decision"])
            now.certainty = row["share"] / 255
            now.smoothed = self._name(row["smoothed"])
        truth = db.execute("SELECT label FROM captures WHERE n = ?", (row["n"],)).fetchone()
        now.truth = truth["label"] if truth else "the sensor is silent"

    def _name(self, number: int) -> str:
        classes = self.plan.meta["classes"]
        return classes[number] if number < len(classes) else "none yet"
