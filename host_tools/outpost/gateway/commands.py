"""Commands for nodes: kept until the node has asked, and what came of each.

firmware/node/orders.py obeys them. Every command of a node has a number, one above the last; the
node says with each heartbeat which it obeyed last, and gets what is above that and not yet known
to be done. Its answer is a record, so it is not lost, and nothing is sent again for want of it.
"""

import struct
import time
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, Engine, and_, bindparam, func, insert, select, update

import outpost.device  # noqa: F401  # firmware/ on the path
from node import orders, record
from outpost import words
from outpost.errors import OutpostError
from outpost.gateway import schema, store
from outpost.gateway.wire import Part, Records, events
from outpost.tables import meant

NAMES = {"report": orders.REPORT, "reset": orders.RESET, "safe": orders.SAFE,
         "resume": orders.RESUME, "selftest": orders.TEST, "identify": orders.IDENTIFY,
         "resend": orders.RESEND}
RESULTS = {orders.DONE: "done", orders.UNKNOWN: "the node does not know it",
           orders.MALFORMED: "the node finds it malformed", orders.FAILED: "failed"}
LAST = 0xFFFF  # a heartbeat has no more room

_OPEN = (
    select(schema.commands.c.node, schema.commands.c.number, schema.commands.c.code,
           schema.commands.c.argument)
    .where(schema.commands.c.node.in_(bindparam("nodes", expanding=True)),
           schema.commands.c.result.is_(None))
    .order_by(schema.commands.c.node, schema.commands.c.number))


class CommandError(OutpostError):
    """A command that no node knows, or that lacks something."""


def encode(name: str, arguments: Sequence[str]) -> tuple[int, bytes]:
    """Return code and argument of a command as a person gives it. Raises CommandError."""
    if name not in NAMES:
        raise CommandError(f"there is no command {name!r}{meant(name, NAMES)}; there are "
                           f"{', '.join(NAMES)}")
    if name != "resend":
        if arguments:
            raise CommandError(f"{name} takes nothing more")
        return NAMES[name], b""
    if len(arguments) != 2 or arguments[0] not in words.LANES or not arguments[1].isdecimal() \
            or int(arguments[1]) >> 32:
        raise CommandError(f"resend takes a lane ({', '.join(words.LANES)}) and the first "
                           "sequence to come again")
    return NAMES[name], struct.pack("<BI", words.LANES.index(arguments[0]), int(arguments[1]))


def ask(engine: Engine, node: int, code: int, argument: bytes = b"") -> int:
    """Keep a command for `node` until it reports; return its number."""
    with engine.begin() as db:
        if db.dialect.name == "postgresql":  # two at once would take the same number
            db.execute(select(func.pg_advisory_xact_lock(node)))
        last = db.execute(select(func.max(schema.commands.c.number))
                          .where(schema.commands.c.node == node)).scalar() or 0
        if last >= LAST:
            raise CommandError(f"node {node} has had {LAST} commands and can't count further")
        db.execute(insert(schema.commands).values(
            node=node, number=last + 1, code=code, argument=argument, text="",
            asked_at=time.time()))
    return last + 1


def waiting(db: Connection, nodes: Iterable[int]) -> dict[int, list[tuple[int, int, bytes]]]:
    """Return (number, code, argument) of the commands of `nodes` not known to be done."""
    found: dict[int, list[tuple[int, int, bytes]]] = {}
    for some in store.lots(list(nodes)):
        for row in db.execute(_OPEN, {"nodes": some}):
            found.setdefault(row.node, []).append((row.number, row.code, row.argument))
    return found


def heed(db: Connection, batch: Iterable[Records | Part]) -> None:
    """Take note of what nodes say came of commands."""
    table = schema.commands.c
    for node, payload in events(batch, record.RESULT):
        if len(payload) >= 4:
            number, code, result = struct.unpack_from(record.RESULT_FORMAT, payload)
            db.execute(update(schema.commands).where(and_(
                table.node == node, table.number == number, table.code == code,
                table.result.is_(None))).values(
                    result=result, text=payload[4:].decode(errors="replace"),
                    done_at=time.time()))


def told(payload: bytes) -> str:
    """Return what a RESULT record says."""
    number, code, result = struct.unpack_from(record.RESULT_FORMAT, payload)
    name = next((name for name, known in NAMES.items() if known == code), str(code))
    text = payload[struct.calcsize(record.RESULT_FORMAT):].decode(errors="replace")
    said = f"command {number}, {name}: {RESULTS.get(result, result)}"
    return f"{said}, {text}" if text else said


def history(db: Connection, node: int, most: int = 20) -> Sequence[Any]:
    """Return the rows of the last commands of a node, the newest first."""
    return db.execute(select(schema.commands).where(schema.commands.c.node == node)
                      .order_by(schema.commands.c.number.desc()).limit(most)).all()
