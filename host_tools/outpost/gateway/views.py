"""What a person wants to see of the database: questions only, each bounded however long it ran.

Nothing here writes, and on SQLite nothing here waits for whoever does.
"""

import json
import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, event, func, select

from node import record
from node.outbox import ALERT
from outpost.gateway import store
from outpost.gateway.schema import (
    answers,
    heartbeats,
    keys,
    labels,
    lanes,
    records,
    rollouts,
    status,
    targets,
    windows,
)

USUAL = 4  # heartbeats whose mean distance is a node's usual one
EPOCHS = 3  # of a lane that are looked at: all but the newest are of a history that is gone
SCANNED = 20_000  # sequences of a lane that are looked through for the kinds asked for
OVERLAP_S = 5.0  # a commit may be so much later than the time it bears


class Reader:
    """The database, to be looked at."""

    def __init__(self, url: str | Path) -> None:
        self.engine = _engine(url)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Yield a connection that sees the database as it is now, and can't change it."""
        with self.engine.connect() as db:
            yield db


def _engine(url: str | Path) -> Engine:
    if not isinstance(url, Path) and not url.startswith("sqlite"):
        return store.reach(url, isolation_level="REPEATABLE READ",
                           execution_options={"postgresql_readonly": True})
    engine = store.reach(url)

    def prepare(connection: Any, _: Any) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA busy_timeout = 30000")
        connection.execute("PRAGMA query_only = ON")

    event.listen(engine, "connect", prepare)
    event.listen(engine, "begin", lambda db: db.exec_driver_sql("BEGIN"))
    return engine


# --- the fleet ---


@dataclass(frozen=True)
class Glance:
    """A node at a glance; `heard_at` None: never. `alert` is (time_s, payload) of its newest.

    `usual_s` is how long it is between two of its reports, None while that is not known.
    """

    node: int
    heard_at: float | None
    usual_s: float | None
    items: dict[str, Any]
    alert: tuple[int, bytes] | None


def glances(db: Connection, since: float = 0.0, node: int | None = None) -> list[Glance]:
    """Return every node that is known, or those that were heard from after `since`."""
    query = select(
        keys.c.node, status.c.heard_at, status.c["items"],
        *(_earlier(back).label(f"earlier{back}") for back in (1, USUAL)),
        _last_alert(records.c.time_s).label("alert_s"),
        _last_alert(records.c.payload).label("alert"),
    ).select_from(keys.outerjoin(status, status.c.node == keys.c.node)).order_by(keys.c.node)
    if since:
        query = query.where(status.c.heard_at > since - OVERLAP_S)
    if node is not None:
        query = query.where(keys.c.node == node)
    return [Glance(row.node, row.heard_at, _usual_s(row), json.loads(row.items or "{}"),
                   None if row.alert is None else (row.alert_s, row.alert))
            for row in db.execute(query)]


def _earlier(back: int) -> Any:
    """When the heartbeat so many before a node's newest was received."""
    return (select(heartbeats.c.received_at)
            .where(heartbeats.c.node == keys.c.node, heartbeats.c.epoch == status.c.epoch,
                   heartbeats.c.part == 0)
            .order_by(heartbeats.c.seq.desc(), heartbeats.c.wakes.desc())
            .limit(1).offset(back).correlate(keys, status).scalar_subquery())


def _last_alert(column: Any) -> Any:
    epoch = (select(lanes.c.epoch).where(lanes.c.node == keys.c.node, lanes.c.lane == ALERT)
             .order_by(lanes.c.since.desc()).limit(1).correlate(keys).scalar_subquery())
    return (select(column).where(records.c.node == keys.c.node, records.c.lane == ALERT,
                                 records.c.epoch == epoch)
            .order_by(records.c.seq.desc()).limit(1).correlate(keys).scalar_subquery())


def _usual_s(row: Any) -> float | None:
    for back, then in ((USUAL, row[4]), (1, row[3])):
        if then is not None:
            return (row.heard_at - then) / back
    return None


def newest(db: Connection) -> tuple[int, float]:
    """Return how many nodes are known, and when one was last heard."""
    return (db.execute(select(func.count()).select_from(keys)).scalar_one(),
            db.execute(select(func.max(status.c.heard_at))).scalar() or 0.0)


# --- one node ---


@dataclass(frozen=True)
class Lane:
    """A lane's history: all up to `head` is here or gone at the node, `reach` is the last here."""

    number: int
    epoch: int
    head: int
    reach: int
    since: float


def node_lanes(db: Connection, node: int) -> list[Lane]:
    """Return the newest histories of a node's lanes, newest first within each lane."""
    found: dict[int, list[Lane]] = {}
    for row in db.execute(select(lanes).where(lanes.c.node == node)
                          .order_by(lanes.c.lane, lanes.c.since.desc())):
        mine = found.setdefault(row.lane, [])
        if len(mine) < EPOCHS:
            mine.append(Lane(row.lane, row.epoch, row.head, row.reach, row.since))
    return [one for mine in found.values() for one in mine]


@dataclass(frozen=True)
class Record:
    """A record as the node made it."""

    lane: int
    epoch: int
    seq: int
    kind: int
    time_s: int
    payload: bytes


def newest_records(db: Connection, node: int, of: Iterable[Lane], kinds: Iterable[int],
                   most: int) -> list[Record]:
    """Return the newest records of these kinds in these lanes, at most `most`, oldest first."""
    found: list[Record] = []
    for lane in of:
        rows = db.execute(
            select(records.c.lane, records.c.epoch, records.c.seq, records.c.kind,
                   records.c.time_s, records.c.payload)
            .where(records.c.node == node, records.c.lane == lane.number,
                   records.c.epoch == lane.epoch, records.c.seq > lane.reach - SCANNED,
                   records.c.kind.in_(tuple(kinds)))
            .order_by(records.c.seq.desc()).limit(most))
        found += [Record(*row) for row in rows]
    return sorted(found, key=lambda one: (one.time_s, one.lane, one.seq))[-most:]


@dataclass(frozen=True)
class State:
    """What a STATE record says; soc and days None where the node doesn't know."""

    time_s: int
    battery_mv: int
    temperature_c: int
    soc: int | None
    days_left: int | None
    mode: int
    waiting: int
    dropped: int
    power_uw: int


def states(found: Iterable[Record]) -> Iterator[State]:
    """Yield what STATE records say; one of another firmware's layout is passed over."""
    size = struct.calcsize(record.STATE_FORMAT)
    for one in found:
        if one.kind == record.STATE and len(one.payload) == size:
            told = struct.unpack(record.STATE_FORMAT, one.payload)
            soc, days = told[16], told[17]
            yield State(one.time_s, told[2], told[3], None if soc == 255 else soc,
                        None if days == 65535 else days, told[15], told[5], told[6], told[19])


def days(found: Iterable[Record]) -> dict[int, list[int]]:
    """Return mJ by phase of each day (since 1970) that DAY records tell of."""
    size = struct.calcsize(record.DAY_FORMAT)
    told = [struct.unpack(record.DAY_FORMAT, one.payload) for one in found
            if one.kind == record.DAY and len(one.payload) == size]
    return {one[0]: list(one[1:-2]) for one in told}


@dataclass(frozen=True)
class Gap:
    """Sequences `first`…`last` of a lane that are not here; `gone`: they never will be."""

    lane: int
    first: int
    last: int
    time_s: int  # of the record behind it
    gone: bool


def gaps(db: Connection, node: int, of: Iterable[Lane], most: int) -> list[Gap]:
    """Return the newest gaps in the newest histories of a node's lanes, oldest first."""
    found = []
    for lane in of:
        before = func.lag(records.c.seq).over(order_by=records.c.seq)
        steps = (select(records.c.seq, records.c.time_s, before.label("before"))
                 .where(records.c.node == node, records.c.lane == lane.number,
                        records.c.epoch == lane.epoch, records.c.seq > lane.reach - SCANNED)
                 .subquery())
        rows = db.execute(select(steps).where(steps.c.seq > steps.c.before + 1)
                          .order_by(steps.c.seq.desc()).limit(most))
        found += [Gap(lane.number, row.before + 1, row.seq - 1, row.time_s, row.seq <= lane.head)
                  for row in rows]
    return sorted(found, key=lambda one: one.time_s)[-most:]


def awaited(db: Connection, node: int | None = None) -> dict[int, int]:
    """Return how many sequences are still on their way, by node: behind them, some are here.

    No more than that; some of them may be gone at the node.
    """
    here = (select(func.count()).where(
        records.c.node == lanes.c.node, records.c.lane == lanes.c.lane,
        records.c.epoch == lanes.c.epoch, records.c.seq > lanes.c.head)
        .correlate(lanes).scalar_subquery())
    wanted = (select(lanes.c.node, func.sum(lanes.c.reach - lanes.c.head - here))
              .where(lanes.c.reach > lanes.c.head).group_by(lanes.c.node))
    if node is not None:
        wanted = wanted.where(lanes.c.node == node)
    return {number: int(count) for number, count in db.execute(wanted)}


def contacts(db: Connection, node: int, most: int) -> list[float]:
    """Return when a node's newest heartbeats of its present history came, oldest first."""
    epoch = select(status.c.epoch).where(status.c.node == node).scalar_subquery()
    rows = db.execute(
        select(heartbeats.c.received_at)
        .where(heartbeats.c.node == node, heartbeats.c.epoch == epoch, heartbeats.c.part == 0)
        .order_by(heartbeats.c.seq.desc(), heartbeats.c.wakes.desc()).limit(most))
    return sorted(row.received_at for row in rows)


# --- models ---


def models_of(db: Connection, nodes: Iterable[int],
              tell: Callable[[dict[str, Any]], Any]) -> dict[int, Any]:
    """Return what `tell` makes of the newest heartbeat of each of `nodes`."""
    found: dict[int, Any] = {}
    for some in store.lots(sorted(nodes)):
        rows = db.execute(select(status.c.node, status.c["items"])
                          .where(status.c.node.in_(some)))
        found |= {row[0]: tell(json.loads(row[1])) for row in rows}
    return {node: one for node, one in found.items() if one}


def newest_rollouts(db: Connection, most: int) -> list[int]:
    """Return the numbers of the newest roll-outs, the newest first."""
    return list(db.execute(select(rollouts.c.id).order_by(rollouts.c.id.desc())
                           .limit(most)).scalars())


def rollouts_version(db: Connection) -> tuple[Any, ...]:
    """Return what changes when anything about a roll-out does."""
    return (*db.execute(select(func.max(rollouts.c.id), func.max(rollouts.c.changed_at))).one(),
            db.execute(select(func.max(targets.c.changed_at))).scalar())


# --- windows ---


def windows_version(db: Connection) -> tuple[Any, ...]:
    """Return what changes when there is a new window, answer or label, or one less."""
    return (db.execute(select(func.max(windows.c.received_at))).scalar(),
            db.execute(select(func.max(answers.c.answered_at))).scalar(),
            *db.execute(select(func.count(), func.max(labels.c.labelled_at))).one())
