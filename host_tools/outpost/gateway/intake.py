"""What nodes say goes into the database, and what of it may be acknowledged.

`prev` is the sequence before a record at its node: what lies between the two never existed or was
dropped there. By that chain an acknowledgement never covers a record that is missing here.
"""

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, groupby
from typing import Any

from sqlalchemy import Connection, and_, bindparam, delete, select, update

from node import record
from node.outbox import DIAGNOSTIC
from outpost.gateway.schema import heartbeats, lanes, pieces, records, status, windows
from outpost.gateway.store import insert_new, insert_or_ignore, insert_rows, lots
from outpost.gateway.wire import Heartbeat, Part, Piece, Records

CHAIN = 100  # records of each lane's chain followed in one query

Lane = tuple[int, int, int]


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
