"""Whose frames are believed: the key of each node, from the database and this person's store.

`outpost flash` keeps the nodes it made in outpost/provision.py. Where the gateway runs on the same
machine it takes their keys into its database, from which workers elsewhere read them. No key ever
leaves this module but inside a Seal.
"""

import time
from collections.abc import Iterable
from pathlib import Path

from sqlalchemy import Connection, Engine, delete, insert, select, update

from node.frame import Seal
from outpost import provision
from outpost.gateway import schema, store

MOST = 1_000_000  # nodes kept in mind
AGAIN_S = 10.0  # a node that is not known is looked for again after so long
KEPT_S = 60.0  # and one that is, lest it has been forgotten meanwhile
NEVER = (float("-inf"), None)


class Keys:
    """The seals of nodes; `folder` is a store of outpost/provision.py, None to do without."""

    def __init__(self, engine: Engine, folder: Path | None = None) -> None:
        self._engine = engine
        self._folder = folder
        self._known: dict[int, tuple[float, Seal | None]] = {}

    def seal(self, node: int, afresh: bool = False) -> Seal | None:
        """Return the seal of `node`, None if nobody has provisioned it.

        `afresh` looks again, if that has not been done just now: the node may have a new key.
        """
        looked, seal = self._known.get(node, NEVER)
        now = time.monotonic()
        if now - looked > (AGAIN_S if seal is None or afresh else KEPT_S):
            seal = self._look(node)
            self._known[node] = now, seal
        return seal

    def learn(self, nodes: Iterable[int]) -> None:
        """Look up at once those of many nodes that nobody has looked for: thousands may come."""
        old = time.monotonic() - KEPT_S
        new = [node for node in nodes if self._known.get(node, NEVER)[0] < old]
        if self._folder is not None or len(new) < 2:
            return  # each of them is looked up when it is its turn
        if len(self._known) > MOST:  # anybody can make numbers up
            self._known.clear()
        found: dict[int, bytes] = {}
        with self._engine.connect() as db:
            for some in store.lots(new):
                found |= {row.node: row.key for row in db.execute(
                    select(schema.keys.c.node, schema.keys.c.key).where(
                        schema.keys.c.node.in_(some)))}
        now = time.monotonic()
        for node in new:
            self._known[node] = now, Seal(found[node]) if node in found else None

    def _look(self, node: int) -> Seal | None:
        given = provision.load(self._folder, node) if self._folder else None
        with self._engine.begin() as db:
            if given is not None:
                enrol(db, node, given.key)
            key = db.execute(select(schema.keys.c.key).where(schema.keys.c.node == node)).scalar()
        return Seal(key) if key else None


def forget(engine: Engine, node: int) -> None:
    """Believe `node` no more, anywhere, after KEPT_S; its records stay. Raises StoreError."""
    expect(engine, node)
    with engine.begin() as db:
        db.execute(delete(schema.keys).where(schema.keys.c.node == node))
    provision.forget(node)


def expect(engine: Engine, node: int) -> None:
    """Raise StoreError unless `node` has reported, was flashed from here or was enrolled."""
    with engine.connect() as db:
        known = db.execute(select(schema.keys.c.node).where(schema.keys.c.node == node)).first()
    if known is None and provision.load(provision.folder(), node) is None:
        raise store.StoreError(f"no node {node} is known there: outpost nodes lists them")


def enrol(db: Connection, node: int, key: bytes) -> bool:
    """Believe `node` when it uses `key`, and from now on only then; True if that is new."""
    mine = schema.keys.c.node == node
    known = db.execute(select(schema.keys.c.key).where(mine)).scalar()
    if known == key:
        return False
    values = {"key": key, "since": time.time()}
    if known is None:
        db.execute(insert(schema.keys).values(node=node, **values))
    else:
        db.execute(update(schema.keys).where(mine).values(**values))
    return True
