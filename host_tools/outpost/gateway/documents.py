"""Settings of nodes that are out: what was changed here, and what nodes changed themselves.

A document maps a setting to [stamp, value], or to [stamp] where the node's own file shall hold
again; firmware/node/document.py has the rules by which two of them merge. There is one for each
node of which anything was changed, and one for all of them, node 0. What is said for a node alone
holds against what is said for all.
"""

import json
import struct
import time
from binascii import crc32
from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection, Engine, bindparam, select, update

from node import document, record, settings
from node.outbox import EVENT
from outpost import words
from outpost.errors import OutpostError
from outpost.gateway import intake, schema, store, views
from outpost.gateway.wire import Piece
from outpost.tables import meant

ALL = 0  # the node that stands for all
Changes = dict[str, list[Any]]

_OF = select(schema.documents.c.node, schema.documents.c.changes).where(
    schema.documents.c.node.in_(bindparam("nodes", expanding=True)))


class SettingError(OutpostError):
    """A setting that no node has, or a value that none would take."""


def load(db: Connection, nodes: Iterable[int]) -> dict[int, Changes]:
    """Return what each of `nodes` shall have: its own document, with that for all below it."""
    wanted = list(nodes)
    found: dict[int, Changes] = {}
    for some in store.lots(wanted):
        found |= {row.node: json.loads(row.changes)
                  for row in db.execute(_OF, {"nodes": [*some, ALL]})}
    common = found.get(ALL, {})
    return {node: _over(common, found.get(node, {})) for node in wanted}


def _over(common: Changes, own: Changes) -> Changes:
    """Return `own` over `common`; a stamp never falls, or the node would not believe it."""
    both = dict(own)
    for name, change in common.items():
        mine = own.get(name)
        if mine is None:
            both[name] = change
        else:
            both[name] = [max(mine[0], change[0]), *(mine[1:] or change[1:])]
    return both


def change(engine: Engine, node: int, values: dict[str, Any], unset: Iterable[str] = ()
           ) -> Changes:
    """Change settings of `node` (`ALL`: of all); `unset` ones are as in the node's file again.

    Returns the whole document. Raises SettingError before anything is changed.
    """
    known = {rule[0]: rule for rule in settings.RULES if rule[0] not in settings.FIXED}
    for name in (*values, *unset):
        if name not in known:
            raise SettingError(f"{name!r} can't be set{meant(name, known)}; there are "
                               f"{', '.join(known)} (docs/wake.md)")
        _, _, least, most = known[name]
        if name in values and not settings.allowed(name, values[name], least, most):
            raise SettingError(f"{name} = {values[name]!r} is not allowed: " + (
                "docs/wake.md tells what is" if least is None else f"{least}…{most} is"))
    with engine.begin() as db:
        own = _lock(db, node)
        stamps = [entry[0] for entry in (*load(db, [node])[node].values(), *own.values())]
        if node == ALL:  # it must win over what any node has
            for row in db.execute(select(schema.documents.c.changes)):
                stamps += [entry[0] for entry in json.loads(row.changes).values()]
        stamp = document.stamp(max(stamps, default=0), document.GATEWAY)
        own |= {name: [stamp, value] for name, value in values.items()}
        own |= {name: [stamp] for name in unset}
        _save(db, node, own)
        return load(db, [node])[node] if node != ALL else own


def told(db: Connection, node: int) -> str:
    """Return in words whether `node` has what it shall have."""
    if node == ALL:
        return "each has it when it has reported"
    row = db.execute(select(schema.status.c["items"]).where(schema.status.c.node == node)).scalar()
    if row is None:
        return "it has not reported yet"
    items, wanted = json.loads(row), document.crc(load(db, [node])[node])
    if items.get("document") == wanted:
        return "it tries them out" if items.get("model", {}).get("trial") else "it has them"
    if items.get("refused") == wanted:
        return "it has refused them"
    return "it will have them when it reports"


def outcomes(db: Connection, node: int, most: int = 8) -> list[tuple[int, str]]:
    """Return (time_s, words) of the last changes that did not come to be, the newest first."""
    lanes = [lane for lane in views.node_lanes(db, node) if lane.number == EVENT]
    found = views.newest_records(db, node, lanes, [record.SETTING], most)
    return [(one.time_s, words.setting(one.payload)) for one in found[::-1]
            if len(one.payload) >= struct.calcsize(record.SETTING_FORMAT)]


def learn(db: Connection, piece: Piece, now: float) -> None:
    """Take in a piece of what a node has changed itself; merge it once it is whole."""
    whole = intake.assemble(db, piece, now)
    if whole is None or crc32(whole) != piece.name[0]:
        return
    try:
        theirs = json.loads(whole)
        if not settings.are_changes(theirs):
            raise ValueError
    except ValueError:
        return
    own = _lock(db, piece.node)
    known = load(db, [piece.node])[piece.node]
    both, _, _ = document.merge(known, theirs)
    news = {name: entry for name, entry in both.items() if entry != known.get(name)}
    if news:
        _save(db, piece.node, own | news)


def _lock(db: Connection, node: int) -> Changes:
    """Return the document of `node`, which nobody else may change before the commit."""
    db.execute(store.insert_or_ignore(db, schema.documents), {
        "node": node, "changes": "{}", "changed_at": time.time()})
    row = db.execute(select(schema.documents.c.changes).where(schema.documents.c.node == node)
                     .with_for_update()).scalar()
    return json.loads(row or "{}")


def _save(db: Connection, node: int, changes: Changes) -> None:
    db.execute(update(schema.documents).where(schema.documents.c.node == node).values(
        changes=document.text(changes).decode(), changed_at=time.time()))
