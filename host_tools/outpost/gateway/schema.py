"""The gateway's tables; the same serve SQLite and PostgreSQL.

A record's identity (node, lane, epoch, seq) is the primary key, so one that comes twice is stored
once.
"""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    text,
)

metadata = MetaData()


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
