"""The table of records, and what may be acknowledged of it.

A record's identity (node, lane, epoch, seq) is the primary key, so one that comes twice is stored
once. `prev` is the sequence before it at its node: what lies between the two never existed or was
dropped there. By that chain an acknowledgement never covers a record that is missing here.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Double,
    Engine,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    and_,
    create_engine,
    event,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

import outpost.device  # noqa: F401  # firmware/ on the path
from node import frame

metadata = MetaData()

records = Table(
    "records", metadata,
    Column("node", BigInteger, primary_key=True),
    Column("lane", Integer, primary_key=True),
    Column("epoch", BigInteger, primary_key=True),
    Column("seq", BigInteger, primary_key=True),
    Column("prev", BigInteger, nullable=False),
    Column("kind", Integer, nullable=False),
    Column("time_s", BigInteger, nullable=False),
    Column("payload", LargeBinary, nullable=False),
    Column("received_at", Double, nullable=False),
)

# `head`: all up to it is stored, or gone at the node.
lanes = Table(
    "lanes", metadata,
    Column("node", BigInteger, primary_key=True),
    Column("lane", Integer, primary_key=True),
    Column("epoch", BigInteger, primary_key=True),
    Column("head", BigInteger, nullable=False),
)


def connect(url: str | Path) -> Engine:
    """Open a database by URL, or an SQLite file by path, and make the tables if need be."""
    if isinstance(url, Path):
        url = f"sqlite:///{url}"
    engine = create_engine(url)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
    metadata.create_all(engine)
    return engine


def store(engine: Engine, batch: bytes) -> tuple[int, int, int, int]:
    """Store a frame's records durably; return (node, lane, epoch, seq) to acknowledge.

    Raises frame.FrameError when `batch` is no intact frame of records.
    """
    node, lane, epoch, after, floor, found = frame.decode_records(batch)
    here = {"node": node, "lane": lane, "epoch": epoch}
    now = time.time()
    rows: list[dict[str, Any]] = []
    prev = after
    for seq, kind, time_s, payload in found:
        rows.append({**here, "seq": seq, "prev": prev, "kind": kind, "time_s": time_s,
                     "payload": payload, "received_at": now})
        prev = seq
    with engine.begin() as db:
        if rows:
            db.execute(_insert_or_ignore(db, records), rows)
        is_here = and_(*(lanes.c[key] == value for key, value in here.items()))
        old = db.execute(select(lanes.c.head).where(is_here)).scalar()
        head = max(old or 0, after if floor else 0)
        if rows and after <= head:
            head = max(head, prev)
        head = _follow(db, here, head)
        if old is None:
            db.execute(_insert_or_ignore(db, lanes), {**here, "head": head})
        db.execute(update(lanes).where(is_here, lanes.c.head < head).values(head=head))
    return node, lane, epoch, head


def _follow(db: Connection, here: dict[str, int], head: int) -> int:
    """Return how far the chain of records reaches from `head` on."""
    mine = and_(*(records.c[key] == value for key, value in here.items()))
    while True:
        further = db.execute(select(func.max(records.c.seq)).where(
            mine, records.c.prev <= head, records.c.seq > head)).scalar()
        if further is None:
            return head
        head = further


def _insert_or_ignore(db: Connection, table: Table) -> Any:
    """An insert that leaves a row that is already there as it is."""
    if db.dialect.name == "postgresql":
        return postgresql.insert(table).on_conflict_do_nothing()
    if db.dialect.name == "sqlite":
        return sqlite.insert(table).on_conflict_do_nothing()
    return insert(table)


def _prepare_sqlite(connection: Any, _: Any) -> None:
    # FULL: what has been acknowledged outlives a power cut of the gateway as well.
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA busy_timeout = 10000")


def lane_records(db: Connection, node: int, lane: int, epoch: int) -> Sequence[Any]:
    """Return (seq, kind, time_s, payload) of one lane, in order."""
    return db.execute(
        select(records.c.seq, records.c.kind, records.c.time_s, records.c.payload)
        .where(records.c.node == node, records.c.lane == lane, records.c.epoch == epoch)
        .order_by(records.c.seq)).all()
