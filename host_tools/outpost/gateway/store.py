"""What the gateway keeps, and what may be acknowledged of it.

A record's identity (node, lane, epoch, seq) is the primary key, so one that comes twice is stored
once. `prev` is the sequence before it at its node: what lies between the two never existed or was
dropped there. By that chain an acknowledgement never covers a record that is missing here. The
same schema serves SQLite and PostgreSQL.
"""

import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from functools import cache, partial
from itertools import chain, groupby
from pathlib import Path
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Double,
    Engine,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    and_,
    bindparam,
    create_engine,
    delete,
    event,
    inspect,
    select,
    text,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from node import record
from node.outbox import DIAGNOSTIC
from outpost.errors import OutpostError
from outpost.gateway.wire import Heartbeat, Part, Piece, Records
from outpost.paths import BUILD

DEFAULT = BUILD / "gateway" / "gateway.db"

metadata = MetaData()


class StoreError(OutpostError):
    """A database that isn't there, is no gateway's or refuses; never told with its password."""


def _key(name: str, kind: Any = BigInteger) -> Column[Any]:
    return Column(name, kind, primary_key=True, autoincrement=False)


records = Table(
    "records", metadata,
    _key("node"), _key("lane", Integer), _key("epoch"), _key("seq"),
    Column("prev", BigInteger, nullable=False),
    Column("kind", Integer, nullable=False),
    Column("time_s", BigInteger, nullable=False),
    Column("payload", LargeBinary, nullable=False),
    Column("received_at", Double, nullable=False),
    sqlite_with_rowid=False,
)

# `head`: all up to it is stored, or gone at the node. `reach`: the last that is stored.
lanes = Table(
    "lanes", metadata,
    _key("node"), _key("lane", Integer), _key("epoch"),
    Column("head", BigInteger, nullable=False),
    Column("reach", BigInteger, nullable=False),
    Column("since", Double, nullable=False),
)

# Pieces of what is too long for a frame, until the last one has come.
pieces = Table(
    "pieces", metadata,
    _key("node"), _key("name", Text), _key("offset", Integer), _key("size", Integer),
    Column("total", Integer, nullable=False),
    Column("payload", LargeBinary, nullable=False),
    Column("received_at", Double, nullable=False),
)

heartbeats = Table(
    "heartbeats", metadata,
    _key("node"), _key("epoch"), _key("seq"), _key("wakes"), _key("part", Integer),
    Column("items", Text, nullable=False),  # JSON
    Column("received_at", Double, nullable=False),
)

# The newest heartbeat of each node, its parts put together.
status = Table(
    "status", metadata,
    _key("node"),
    Column("epoch", BigInteger, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("wakes", BigInteger, nullable=False),
    Column("items", Text, nullable=False),
    Column("heard_at", Double, nullable=False),
)

keys = Table(
    "keys", metadata,
    _key("node"),
    Column("key", LargeBinary, nullable=False),
    Column("since", Double, nullable=False),
)

# Windows that nodes were unsure about, whole. `seq`: of their first record in the diagnostic lane;
# `samples`: int16, little-endian, sample by sample.
windows = Table(
    "windows", metadata,
    _key("node"), _key("epoch"), _key("seq"),
    Column("time_s", BigInteger, nullable=False),
    Column("samples", LargeBinary, nullable=False),
    Column("received_at", Double, nullable=False, index=True),
)

# What the gateway's heavy model says to them, and which one it was.
answers = Table(
    "answers", metadata,
    _key("node"), _key("epoch"), _key("seq"), _key("model", Text),
    Column("label", Text, nullable=False),
    Column("share", Double, nullable=False),  # how sure it is, 0…1
    Column("answered_at", Double, nullable=False, index=True),
)

# What people say to them.
labels = Table(
    "labels", metadata,
    _key("node"), _key("epoch"), _key("seq"),
    Column("label", Text, nullable=False),
    Column("labelled_at", Double, nullable=False, index=True),
)

# A model on its way to nodes: outpost/gateway/rollouts.py.
rollouts = Table(
    "rollouts", metadata,
    Column("id", Integer, primary_key=True),
    Column("model", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("forced", Boolean, nullable=False),  # onto nodes with a later version, too
    Column("healthy_s", Double, nullable=False),  # so long canaries must do well
    Column("deadline_s", Double, nullable=False),  # so long they have to show it
    Column("most_failed", Double, nullable=False),  # share of the others that may fail
    Column("state", Text, nullable=False),  # canary, rest, done or stopped
    Column("reason", Text, nullable=False),  # why it was stopped
    Column("begun_at", Double, nullable=False),
    Column("changed_at", Double, nullable=False),
)

# The same model, built and signed for each kind of processor.
packages = Table(
    "packages", metadata,
    _key("rollout", Integer), _key("mpy", Integer),  # as in the header of a .mpy
    Column("number", BigInteger, nullable=False, unique=True),  # by which nodes know it
    Column("content", LargeBinary, nullable=False),
)

targets = Table(
    "targets", metadata,
    _key("rollout", Integer), _key("node"),
    Column("canary", Boolean, nullable=False),
    Column("state", Text, nullable=False),  # of rollouts.STATES
    Column("why", Integer, nullable=False),  # it was refused or undone: firmware/node/verdict.py
    Column("have", BigInteger, nullable=False),  # bytes the node has of `total`
    Column("total", BigInteger, nullable=False),
    Column("changed_at", Double, nullable=False, index=True),
    Index("targets_by_node", "node"),
)

# What nodes are told to do: firmware/node/orders.py. `result` is null until it is known.
commands = Table(
    "commands", metadata,
    _key("node"), _key("number", Integer),
    Column("code", Integer, nullable=False),
    Column("argument", LargeBinary, nullable=False),
    Column("result", Integer),
    Column("text", Text, nullable=False),
    Column("asked_at", Double, nullable=False),
    Column("done_at", Double),
    Index("commands_open", "node", postgresql_where=text("result IS NULL"),
          sqlite_where=text("result IS NULL")),
)

# What shall be different from the file a node was flashed with: node/document.py. Node 0 stands
# for all of them.
documents = Table(
    "documents", metadata,
    _key("node"),
    Column("changes", Text, nullable=False),  # JSON
    Column("changed_at", Double, nullable=False),
)

# PostgreSQL's names of them
BINARY = {BigInteger: "int8", Integer: "int4", Double: "float8", LargeBinary: "bytea",
          Text: "text", Boolean: "bool"}

ROWS_AT_ONCE = 500  # in one of SQLite's statements
KEYS_AT_ONCE = 200  # identities in one query
CHAIN = 100  # records of each lane's chain followed in one query

Lane = tuple[int, int, int]


def connect(url: str | Path, durable: bool = True) -> Engine:
    """Open a database by URL, or an SQLite file by path, and make the tables if need be.

    What is committed outlives a power cut of this machine, or with `durable` off this process.
    """
    engine = _prepared(url, durable)
    if engine.dialect.name == "sqlite" and engine.url.database not in (None, "", ":memory:"):
        _make(Path(engine.url.database))
    metadata.create_all(engine)
    return engine


def _make(file: Path) -> None:
    """Make `file`, if need be, its owner's alone: it holds the keys of nodes."""
    # One that is there is not even opened: who closes a file loses its process's locks on it, and
    # another process would take SQLite's log away from under those that have it open here.
    with suppress(OSError):  # SQLite will tell of that
        os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_RDONLY, 0o600))


def _prepared(url: str | Path, durable: bool = True) -> Engine:
    engine = reach(url)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", partial(_prepare_sqlite, durable))
        event.listen(engine, "begin", lambda db: db.exec_driver_sql("BEGIN IMMEDIATE"))
    return engine


def reach(url: str | Path, **options: Any) -> Engine:
    """Return an engine for a database that tells of what it can't do as a StoreError."""
    try:
        engine = create_engine(f"sqlite:///{url}" if isinstance(url, Path) else url, **options)
    except (SQLAlchemyError, ImportError, ValueError):  # their words may have the password
        raise StoreError("a database is an SQLite file, or "
                         "postgresql+psycopg://USER:PASSWORD@HOST/NAME") from None
    event.listen(engine, "handle_error", _refusal, retval=True)
    return engine


def _refusal(context: ExceptionContext) -> StoreError | None:
    """Name the database and what it says, without the SQL and its parameters: nodes' data."""
    if context.engine is None or isinstance(context.sqlalchemy_exception, IntegrityError):
        return None
    url = context.engine.url
    where = url.database if url.drivername == "sqlite" else url.render_as_string()
    said = " ".join(str(context.original_exception).split("\n", 1)[0].split())
    return StoreError(f"{where}: {said}")


def find(where: str) -> str | Path:
    """Return a gateway's database, by URL or path, "" for where it is by default.

    Raises StoreError if there is no such file.
    """
    path = Path(where) if where else DEFAULT
    if "://" not in where and not path.is_file():
        raise StoreError(f"{path}: no gateway has been here; name its database with --database")
    return where if "://" in where else path


def existing(where: str) -> Engine:
    """Open what `find` finds. Raises StoreError, and changes nothing, if it is no gateway's."""
    engine = _prepared(find(where))
    if not inspect(engine).has_table(records.name):
        raise StoreError(f"{engine.url.render_as_string()}: no gateway has been here")
    metadata.create_all(engine)
    return engine


def _prepare_sqlite(durable: bool, connection: Any, _: Any) -> None:
    # The driver's own idea of when to begin would let two writers meet in the middle.
    connection.isolation_level = None
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'OFF'}")
    connection.execute("PRAGMA busy_timeout = 30000")


def lots(keys: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """Yield `keys` a query's worth at a time."""
    for first in range(0, len(keys), KEYS_AT_ONCE):
        yield keys[first:first + KEYS_AT_ONCE]


def insert_or_ignore(db: Connection, table: Table) -> Any:
    """An insert that leaves a row that is already there as it is."""
    return _insert_or_ignore(db.dialect.name, table)


@cache
def _insert_or_ignore(dialect: str, table: Table) -> Any:
    made = postgresql if dialect == "postgresql" else sqlite
    return made.insert(table).on_conflict_do_nothing()


def insert_rows(db: Connection, table: Table, rows: Sequence[tuple[Any, ...]]) -> None:
    """Insert whole rows, many at once, and leave those that are already there as they are.

    SQLAlchemy's own way looks at every value of every row, and PostgreSQL is four times as fast
    with COPY as with arrays or a statement a row: bench/ingest.py.
    """
    names = _names(table)
    if db.dialect.name == "postgresql":
        db.exec_driver_sql(f"INSERT INTO {table.name} ({names}) SELECT {names} "
                           f"FROM {_copied(db, table, rows)} ON CONFLICT DO NOTHING")
    else:
        # hundreds in a statement take two thirds of the time, and leave the interpreter to others
        marks = f"({', '.join('?' * len(table.columns))})"
        insert = (f"INSERT INTO {table.name} ({names}) "
                  "VALUES {} ON CONFLICT DO NOTHING").format
        whole = len(rows) - len(rows) % ROWS_AT_ONCE
        many = insert(", ".join([marks] * ROWS_AT_ONCE)) if whole else ""
        with closing(db.connection.cursor()) as cursor:
            for at in range(0, whole, ROWS_AT_ONCE):
                cursor.execute(many, list(chain.from_iterable(rows[at:at + ROWS_AT_ONCE])))
            cursor.executemany(insert(marks), rows[whole:])


def insert_new(db: Connection, table: Table, rows: Sequence[tuple[Any, ...]]) -> None:
    """Insert rows that can't be there already; if some are nevertheless, leave those as they are.

    PostgreSQL's COPY knows of no conflicts, and takes half the time.
    """
    if db.dialect.name == "postgresql":
        from psycopg.errors import UniqueViolation

        try:
            with db.begin_nested():
                _copy(db, table.name, table, rows)
            return
        except UniqueViolation:  # somebody has been at the tables by hand
            pass
    insert_rows(db, table, rows)


def _names(table: Table) -> str:
    return ", ".join(column.name for column in table.columns)


def _copied(db: Connection, table: Table, rows: Iterable[tuple[Any, ...]]) -> str:
    """Copy rows into a table of this connection's own; return its name. The commit empties it."""
    name = f"new_{table.name}"
    db.exec_driver_sql(f"CREATE TEMPORARY TABLE IF NOT EXISTS {name} (LIKE {table.name}) "
                       "ON COMMIT DELETE ROWS")
    db.exec_driver_sql(f"DELETE FROM {name}")
    _copy(db, name, table, rows)
    return name


def _copy(db: Connection, name: str, table: Table, rows: Iterable[tuple[Any, ...]]) -> None:
    """Copy rows into PostgreSQL's table `name`, which has the columns of `table`."""
    with db.connection.cursor() as cursor, cursor.copy(
            f"COPY {name} ({_names(table)}) FROM STDIN (FORMAT BINARY)") as copy:
        copy.set_types([BINARY[type(column.type)] for column in table.columns])
        for row in rows:
            copy.write_row(row)


# --- records ---


def store(db: Connection, batch: Sequence[Records | Part]) -> dict[Lane, int]:
    """Store what frames carry; return what may be acknowledged of each lane after the commit."""
    if not batch:
        return {}
    now = time.time()
    heads = _lock(db, {_lane(_records(one)) for one in batch}, now)
    found = list(_whole(db, batch, heads, now))
    before = dict(heads)
    new: list[tuple[Any, ...]] = []  # beyond all that is stored of their lanes
    other: list[tuple[Any, ...]] = []  # which may be there
    for one in found:
        lane = _lane(one)
        head, reach = heads[lane]
        node, number, epoch = lane
        rows = new if one.records[0][0] > reach else other
        prev = one.after
        for seq, kind, time_s, payload in one.records:
            rows.append((node, number, epoch, seq, prev, kind, time_s, payload, now))
            prev = seq
        if one.floor:
            head = max(head, one.after)
        if one.after <= head:
            head = max(head, prev)
        heads[lane] = head, max(reach, prev)
    if new:
        insert_new(db, records, new)
    if other:
        insert_rows(db, records, other)
    _keep_windows(db, found)
    waiting = {lane: head for lane, (head, reach) in heads.items() if reach > head}
    for lane, head in _follow(db, waiting).items():
        heads[lane] = head, heads[lane][1]
    moved = [(*lane, *at) for lane, at in heads.items() if at != before[lane]]
    if moved:
        _move(db, moved)
    return {lane: head for lane, (head, _) in heads.items()}


def _move(db: Connection, moved: Iterable[tuple[Any, ...]]) -> None:
    """Set head and reach as in these rows of `lanes`."""
    if db.dialect.name == "postgresql":
        db.exec_driver_sql(
            "UPDATE lanes SET head = new.head, reach = new.reach FROM "
            "unnest(%s::bigint[], %s::integer[], %s::bigint[], %s::bigint[], %s::bigint[]) "
            "AS new (node, lane, epoch, head, reach) WHERE lanes.node = new.node "
            "AND lanes.lane = new.lane AND lanes.epoch = new.epoch", _columns(moved))
    else:
        db.exec_driver_sql("UPDATE lanes SET head = ?4, reach = ?5 "
                           "WHERE node = ?1 AND lane = ?2 AND epoch = ?3",
                           list(moved))


def _columns(rows: Iterable[Sequence[Any]]) -> tuple[list[Any], ...]:
    """Return rows as PostgreSQL's unnest() takes them."""
    return tuple(map(list, zip(*rows, strict=True)))


def _records(one: Records | Part) -> Records:
    return one.whole if isinstance(one, Part) else one


def _lane(one: Records) -> Lane:
    return one.node, one.lane, one.epoch


def _whole(db: Connection, batch: Iterable[Records | Part],
           heads: dict[Lane, tuple[int, int]], now: float) -> Iterator[Records]:
    """Yield the frames of whole records, and those whose last part has come now."""
    for one in batch:
        if isinstance(one, Records):
            yield one
        elif one.whole.records[0][0] <= heads[_lane(one.whole)][0]:
            pass  # a part of what is stored
        elif (payload := assemble(db, one.piece, now)) is not None:
            seq, kind, time_s, _ = one.whole.records[0]
            yield Records(*_lane(one.whole), one.whole.after, one.whole.floor,
                          [(seq, kind, time_s, payload)])


def _lock(db: Connection, wanted: set[Lane], now: float) -> dict[Lane, tuple[int, int]]:
    """Return head and reach of lanes, which nobody else may move before the commit.

    In one order, so that two workers don't wait for each other.
    """
    rows = [(*lane, 0, 0, now) for lane in sorted(wanted)]
    locked = _look(db, rows)
    if len(locked) < len(rows):
        insert_rows(db, lanes, rows)  # in their order, too
        locked = _look(db, rows)
    return {(node, lane, epoch): (head, reach) for node, lane, epoch, head, reach in locked}


def _look(db: Connection, rows: Sequence[tuple[Any, ...]]) -> Sequence[Any]:
    """Return (node, lane, epoch, head, reach) of those rows of `lanes` that there are."""
    if db.dialect.name == "postgresql":
        return db.exec_driver_sql(
            "SELECT node, lane, epoch, lanes.head, lanes.reach FROM "
            "unnest(%s::bigint[], %s::integer[], %s::bigint[]) AS new (node, lane, epoch) "
            "JOIN lanes USING (node, lane, epoch) ORDER BY node, lane, epoch FOR UPDATE OF lanes",
            _columns(row[:3] for row in rows)).all()
    return [found for some in lots(rows) for found in db.exec_driver_sql(
        "SELECT node, lane, epoch, head, reach FROM lanes WHERE (node, lane, epoch) IN "
        f"(VALUES {', '.join(['(?, ?, ?)'] * len(some))})",
        tuple(chain.from_iterable(row[:3] for row in some)))]


def _follow(db: Connection, heads: Mapping[Lane, int]) -> dict[Lane, int]:
    """Return how far the chain of records reaches from the head of each lane on."""
    reached = dict(heads)
    left = heads
    while left:
        further: dict[Lane, int] = {}
        for lane, links in groupby(_links(db, left), key=lambda row: tuple(row[:3])):
            for count, (*_, seq, prev) in enumerate(links, 1):
                if prev > reached[lane]:
                    break
                reached[lane] = seq
                if count == CHAIN:
                    further[lane] = seq
        left = further
    return reached


def _links(db: Connection, heads: Mapping[Lane, int]) -> Iterable[Any]:
    """Return (node, lane, epoch, seq, prev) of the CHAIN first records beyond each head."""
    if db.dialect.name == "postgresql":
        return db.exec_driver_sql(
            "SELECT node, lane, epoch, next.seq, next.prev FROM "
            "unnest(%s::bigint[], %s::integer[], %s::bigint[], %s::bigint[]) "
            "AS mine (node, lane, epoch, head) CROSS JOIN LATERAL (SELECT seq, prev FROM records "
            "WHERE records.node = mine.node AND records.lane = mine.lane "
            "AND records.epoch = mine.epoch AND records.seq > mine.head "
            f"ORDER BY seq LIMIT {CHAIN}) AS next ORDER BY node, lane, epoch, seq",
            _columns((*lane, head) for lane, head in heads.items()))
    return chain.from_iterable(db.exec_driver_sql(
        "SELECT node, lane, epoch, seq, prev FROM records WHERE node = ? AND lane = ? "
        f"AND epoch = ? AND seq > ? ORDER BY seq LIMIT {CHAIN}", (*lane, head))
        for lane, head in heads.items())


def _keep_windows(db: Connection, batch: Iterable[Records]) -> None:
    """Keep the windows whose last missing record is in `batch`, which is stored already."""
    found: dict[tuple[int, ...], dict[int, bytes]] = {}
    for one in batch:
        if one.lane != DIAGNOSTIC:
            continue
        for seq, kind, time_s, payload in one.records:
            if kind == record.WINDOW and len(payload) > 2 and payload[0] < payload[1]:
                window = one.node, one.epoch, seq - payload[0], time_s, payload[1]
                found.setdefault(window, {})[payload[0]] = payload[2:]
    whole = []
    for (node, epoch, seq, time_s, count), parts in found.items():
        if len(parts) < count:
            parts = {payload[0]: payload[2:] for payload, in db.execute(
                select(records.c.payload).where(
                    records.c.node == node, records.c.lane == DIAGNOSTIC,
                    records.c.epoch == epoch, records.c.seq >= seq, records.c.seq < seq + count,
                    records.c.kind == record.WINDOW, records.c.time_s == time_s))}
        if len(parts) == count:
            whole.append({"node": node, "epoch": epoch, "seq": seq, "time_s": time_s,
                          "samples": b"".join(parts[i] for i in range(count)),
                          "received_at": time.time()})
    if whole:
        db.execute(insert_or_ignore(db, windows), whole)


def assemble(db: Connection, piece: Piece, now: float) -> bytes | None:
    """Keep a piece; return the whole once it is the last one missing, and forget its pieces."""
    name = "/".join(map(str, piece.name))
    db.execute(insert_or_ignore(db, pieces), {
        "node": piece.node, "name": name, "offset": piece.offset, "size": len(piece.data),
        "total": piece.total, "payload": piece.data, "received_at": now})
    mine = and_(pieces.c.node == piece.node, pieces.c.name == name)
    whole = b""
    for offset, payload in db.execute(select(pieces.c.offset, pieces.c.payload).where(mine)
                                      .order_by(pieces.c.offset)):
        if offset <= len(whole):
            whole += payload[len(whole) - offset:]
    if len(whole) < piece.total:
        return None
    db.execute(delete(pieces).where(mine))
    return whole


def lane_records(db: Connection, node: int, lane: int, epoch: int) -> Sequence[Any]:
    """Return (seq, kind, time_s, payload) of one lane, in order."""
    return db.execute(
        select(records.c.seq, records.c.kind, records.c.time_s, records.c.payload)
        .where(records.c.node == node, records.c.lane == lane, records.c.epoch == epoch)
        .order_by(records.c.seq)).all()


# --- heartbeats ---

# Made once: SQLAlchemy takes as long to build a statement as SQLite to obey it.
_NEWEST = select(status).where(status.c.node == bindparam("of")).with_for_update()
_OLDER = select(heartbeats.c.node).where(
    heartbeats.c.node == bindparam("of"), heartbeats.c.epoch == bindparam("in"),
    heartbeats.c.received_at < bindparam("before")).limit(1)
_SPEAK = update(status).where(status.c.node == bindparam("of"))


def hear(db: Connection, beat: Heartbeat) -> bool:
    """Keep a heartbeat, and let it speak for its node if it is the newest; False if it is known.

    An old one that is sent again changes nothing: its identity is known, or its epoch is over.
    """
    now = time.time()
    here = {"node": beat.node, "epoch": beat.epoch, "seq": beat.seq, "wakes": beat.wakes}
    done = db.execute(insert_or_ignore(db, heartbeats), {
        **here, "part": beat.part, "items": json.dumps(beat.items), "received_at": now})
    if done.rowcount == 0:
        return False
    last = db.execute(_NEWEST, {"of": beat.node}).first()
    if last is None:
        db.execute(insert_or_ignore(db, status),
                   {**here, "items": json.dumps(beat.items), "heard_at": now})
        return True
    if beat.epoch == last.epoch:
        if (beat.seq, beat.wakes) < (last.seq, last.wakes):
            return True
    elif db.execute(_OLDER, {"of": beat.node, "in": beat.epoch, "before": now}).first():
        return True  # of an epoch that is over
    items = dict(beat.items)
    if (beat.epoch, beat.seq, beat.wakes) == (last.epoch, last.seq, last.wakes):
        items = _joined(json.loads(last.items), items)
    db.execute(_SPEAK, {**here, "items": json.dumps(items), "heard_at": now, "of": beat.node})
    return True


def _joined(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Return both; where both have a dictionary, the two joined."""
    both = dict(first)
    for name, value in second.items():
        known = both.get(name)
        both[name] = (_joined(known, value) if isinstance(known, dict) and isinstance(value, dict)
                      else value)
    return both
