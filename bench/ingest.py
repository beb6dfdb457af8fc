"""Records a second that the gateway takes in, beside the raw insert rate of the same database.

All on this machine, one run: PostgreSQL and mosquitto from the distribution, both waiting for the
disk at each commit; 10,000 nodes with records of 32 bytes, as many in a frame as fit 1,024 bytes.

raw      ready-made rows by the gateway's own statement (on PostgreSQL COPY, then insert or
         ignore), 20,000 in a transaction: nothing else is done
per row  the same rows by SQLAlchemy, which is a statement a row
desk     frames in memory: read, seal checked, stored, acknowledged
broker   `outpost gateway` processes on mosquitto; nodes of gateway/load.py send, wait for their
         acknowledgement, and send on, in a process beside them

The generator, mosquitto, PostgreSQL and the workers share this machine's processors, so `broker`
is a lower bound.

    --rows N     how far PostgreSQL is filled for the second table; 0 leaves it out
    --only       the second table alone
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from rich import box
from rich.table import Table
from sqlalchemy import Engine

from outpost.console import console, stdout
from outpost.gateway import load, mqtt, service, store
from outpost.gateway.desk import Desk
from outpost.gateway.load import Manners, Node
from outpost.toolchain.servers import Mosquitto, Postgres

NODES, EACH = 10_000, 25  # records of a node, about a frame
RAW = 20_000  # rows in one transaction
MANNERS = Manners(records=EACH, patience_s=60)


def rows(first: int, each: int = EACH, per: int = EACH) -> Iterator[tuple[object, ...]]:
    """Yield rows of `records` of all nodes from sequence `first` on, `per` of each in turn."""
    for begin in range(first, first + each, per):
        for node in range(1, NODES + 1):
            for seq in range(begin, begin + per):
                yield (node, load.LANE, 1, seq, seq - 1, load.KIND, load.START_S + seq,
                       load.payload(node, seq, MANNERS.size), 0.0)


def frames(first: int, each: int = EACH) -> list[bytes]:
    """Return the frames in which all nodes send `each` records from `first` on."""
    return [one for number in range(1, NODES + 1)
            for node in [Node(number, first + each - 1, acked=first - 1, sent=first - 1)]
            for one in node.frames(MANNERS)]


def believed(engine: Engine) -> Engine:
    """Enrol all nodes."""
    with engine.begin() as db:
        store.insert_rows(db, store.keys, [(node, load.key(node), 0.0)
                                           for node in range(1, NODES + 1)])
    return engine


def rate(count: int, began: float) -> float:
    """Return records a second since `began`."""
    return count / (time.perf_counter() - began)


def raw(engine: Engine, first: int = 1) -> float:
    """Return the raw insert rate."""
    ready = list(rows(first))
    began = time.perf_counter()
    for at in range(0, len(ready), RAW):
        with engine.begin() as db:
            store.insert_rows(db, store.records, ready[at:at + RAW])
    return rate(len(ready), began)


def per_row(engine: Engine) -> float:
    """Return the rate of a statement a row."""
    names = [column.name for column in store.records.columns]
    ready = [dict(zip(names, row, strict=True)) for row in rows(1)]
    began = time.perf_counter()
    for at in range(0, len(ready), RAW):
        with engine.begin() as db:
            db.execute(store.insert_or_ignore(db, store.records), ready[at:at + RAW])
    return rate(len(ready), began)


def desk(engine: Engine, first: int = 1) -> float:
    """Return the rate of frames from memory."""
    ready, one = frames(first), Desk(engine, clock=None)
    began = time.perf_counter()
    for at in range(0, len(ready), service.BATCH):
        answers = one.take(ready[at:at + service.BATCH])
        assert answers
    return rate(NODES * EACH, began)


def served(database: str, workers: int) -> float:
    """Return the rate through mosquitto and so many workers."""
    believed(store.connect(database)).dispose()
    nodes = [Node(number, EACH) for number in range(1, NODES + 1)]
    for node in nodes:
        node.prepare(MANNERS)
    with ExitStack() as stack:
        broker = stack.enter_context(Mosquitto())
        for _ in range(workers):
            process = subprocess.Popen(
                [sys.executable, "-m", "outpost", "gateway", "--database", database, "--broker",
                 f"mqtt://127.0.0.1:{broker.port}", "--share", "bench", "--no-provisioned",
                 "--json"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            stack.callback(process.wait, 60)
            stack.callback(process.terminate)
            stack.callback(process.stdout.close)
            json.loads(process.stdout.readline())  # it is up
        began = time.perf_counter()
        asyncio.run(load.bring_home(nodes, mqtt.Where("127.0.0.1", broker.port), MANNERS))
        return rate(sum(node.total for node in nodes), began)


def add(table: Table, *cells: str) -> None:
    """Add a row, and show it while the others are still to come."""
    table.add_row(*cells)
    console.print(*cells)


def compared(folder: Path, postgres: Postgres) -> Table:
    """Return the first table."""
    table = Table("", title=f"{NODES:,} nodes, {NODES * EACH:,} records and more a figure; "
                  f"{os.cpu_count()} processors", title_justify="left", box=box.SIMPLE_HEAD)
    for name in ("records/s", "of raw"):
        table.add_column(name, justify="right")
    fresh = {"SQLite": lambda: f"sqlite:///{tempfile.mkdtemp(dir=folder)}/bench.db",
             "PostgreSQL": postgres.database}
    for kind, make in reversed(fresh.items()):
        with console.status(kind) as status:
            base = 0.0
            for name, measure in (("raw", raw), ("per row", per_row),
                                  ("desk", lambda engine: desk(believed(engine)))):
                status.update(f"{kind}: {name}")
                engine = store.connect(make())
                got = measure(engine)
                engine.dispose()
                base = base or got
                add(table, f"{kind}: {name}", f"{got:,.0f}", f"{got / base:.0%}")
            for workers in (1, 2) if kind == "PostgreSQL" else (1,):
                status.update(f"{kind}: broker, {workers} workers")
                got = served(make(), workers)
                add(table, f"{kind}: broker, {workers} worker{'s' * (workers > 1)}",
                    f"{got:,.0f}", f"{got / base:.0%}")
        table.add_section()
    return table


def filled(postgres: Postgres, most: int) -> Table:
    """Return the second table: the rates while the table of records grows."""
    table = Table("rows", title="PostgreSQL, as its table grows", title_justify="left",
                  box=box.SIMPLE_HEAD)
    for name in ("raw/s", "desk/s", "bytes a row"):
        table.add_column(name, justify="right")
    engine = believed(store.connect(postgres.database()))
    first, step = 1, NODES * EACH
    with console.status("filling") as status:
        for share in (0.0, 0.1, 0.25, 0.5, 0.75, 1.0):
            while (first - 1) * NODES < share * most - 2 * step:
                with engine.begin() as db:
                    store.insert_rows(db, store.records, rows(first))
                first += EACH
                status.update(f"{(first - 1) * NODES:,} rows")
            before = (first - 1) * NODES
            figures = raw(engine, first), desk(engine, first + EACH)
            first += 2 * EACH
            with engine.connect() as db:
                size = db.exec_driver_sql("SELECT pg_total_relation_size('records')").scalar()
            add(table, f"{before:,}", *(f"{one:,.0f}" for one in figures),
                f"{size / ((first - 1) * NODES):.0f}")
    engine.dispose()
    return table


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--rows", type=int, default=10_000_000)
    options.add_argument("--only", action="store_true")
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as folder, Postgres() as postgres:
        if not given.only:
            stdout.print(compared(Path(folder), postgres))
        if given.rows:
            stdout.print(filled(postgres, given.rows))


if __name__ == "__main__":
    main()
