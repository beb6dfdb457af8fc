"""Records a second that the gateway takes in, beside the raw insert rate of the same database.

All on this machine, one run: PostgreSQL and mosquitto from the distribution, both databases
waiting for the disk at each commit; 10,000 nodes with two frames of 25 records of 32 bytes each.

raw       ready-made rows in the way that is the database's fastest for many of them (SQLite:
          executemany, PostgreSQL: COPY), 25,000 in a transaction: nothing else is done
insert or ignore
          the same, and rows that are there already are left as they are: on SQLite that is the
          same statement, on PostgreSQL COPY into a temporary table and an insert from there
per row   the same rows by SQLAlchemy, which is a statement a row
desk      frames in memory: read, seal checked, stored, acknowledged
broker    `outpost gateway` processes on mosquitto; nodes of gateway/load.py send at QoS 1, each
          until its last record is acknowledged

Generator, mosquitto, PostgreSQL and workers share this machine's processors, so `broker` is a
lower bound; what each of them takes of a processor for a frame is in the last four columns. Every
figure is the median of rounds in which all of them take turns, so that what else the machine does
meets all alike.

The second table: as a database grows, the rate into it beside that into an empty one, in turns.

    --rounds N   of the first table; 0 leaves it out
    --rows N     how far databases are filled for the second table; 0 leaves it out
"""

import argparse
import asyncio
import copy
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich import box
from rich.status import Status
from rich.table import Table
from sqlalchemy import Connection, Engine

from outpost.console import console, stdout
from outpost.gateway import load, mqtt, schema, service, store
from outpost.gateway.desk import Desk
from outpost.gateway.load import Manners, Node
from outpost.toolchain.servers import Mosquitto, Postgres

NODES, FRAME = 10_000, 25  # nodes, and records in a frame
EACH = 2 * FRAME  # records of a node
BATCH = FRAME * service.BATCH  # rows in one transaction, as the gateway has them
ROW = 20_000  # rows of `per row`, which is slow
MANNERS = Manners(records=FRAME, patience_s=60)
SHARES = 0.0, 0.1, 0.5, 1.0  # of the rows it is filled with
TURNS = 3  # at each
PROCESSES = ("nodes", "broker", "gateway", "database")

Row = tuple[object, ...]
Spent = tuple[float, dict[str, float]]  # seconds, and those of a processor by process


@dataclass
class Figure:
    """What the rounds of one line of the table gave."""

    rates: list[float] = field(default_factory=list)  # records/s
    spent: list[dict[str, float]] = field(default_factory=list)  # by process, µs a frame

    def add(self, count: int, took_s: float, spent_s: dict[str, float]) -> None:
        """Add a round."""
        self.rates.append(count / took_s)
        self.spent.append({name: one / count * FRAME * 1e6 for name, one in spent_s.items()})

    @property
    def rate(self) -> float:
        """The median."""
        return statistics.median(self.rates)

    def cells(self) -> list[str]:
        """Return what each process took."""
        return [f"{statistics.median(one[name] for one in self.spent):,.0f}"
                if name in self.spent[0] else "" for name in PROCESSES]


class Clock:
    """Wall clock, and what processes take of a processor meanwhile, by name."""

    def __init__(self, postgres: Postgres | None, **processes: list[int]) -> None:
        self._postgres, self._processes = postgres, processes
        self._spent = self._now()
        self._began = time.perf_counter()

    def _now(self) -> dict[str, float]:
        pids = self._processes
        if self._postgres is not None:  # which has a process for each connection
            pids = pids | {"database": family(self._postgres.process.pid)}
        return {name: sum(map(spent_s, found)) for name, found in pids.items()}

    def stop(self) -> Spent:
        """Return seconds since the beginning, and seconds of a processor by process."""
        took_s, now = time.perf_counter() - self._began, self._now()
        return took_s, {name: one - self._spent[name] for name, one in now.items()}


def stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the third on; none of a process that is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def spent_s(pid: int) -> float:
    """Return what a process and the children it has outlived have taken of a processor."""
    return sum(map(int, stat(pid)[11:15])) / os.sysconf("SC_CLK_TCK")


def family(pid: int) -> list[int]:
    """Return a process and its children."""
    everybody = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    return [pid, *(one for one in everybody if stat(one)[1:2] == [str(pid)])]


def rows(first: int, each: int) -> Iterator[Row]:
    """Yield rows of `each` records of every node from sequence `first` on, a frame's in turn."""
    for begin in range(first, first + each, FRAME):
        for node in range(1, NODES + 1):
            for seq in range(begin, begin + FRAME):
                yield (node, load.LANE, 1, seq, seq - 1, load.KIND, load.START_S + seq,
                       load.payload(node, seq, MANNERS.size), 0.0)


def fleet(first: int, each: int) -> list[Node]:
    """Return nodes with `each` records from `first` on, their frames made beforehand."""
    nodes = [Node(number, first + each - 1, acked=first - 1, sent=first - 1)
             for number in range(1, NODES + 1)]
    for node in nodes:
        node.prepare(MANNERS)
    return nodes


def frames(nodes: list[Node]) -> list[bytes]:
    """Return what they all send."""
    return [one for node in nodes for one in copy.copy(node).frames(MANNERS)]


def believed(engine: Engine) -> Engine:
    """Enrol all nodes, as such that have reported before."""
    with engine.begin() as db:
        store.insert_rows(db, schema.keys, [(node, load.key(node), 0.0)
                                           for node in range(1, NODES + 1)])
        store.insert_rows(db, schema.lanes, [(node, load.LANE, 1, 0, 0, 0.0)
                                            for node in range(1, NODES + 1)])
    return engine


def raw(db: Connection, ready: list[Row]) -> None:
    """The fastest way in."""
    names = ", ".join(column.name for column in schema.records.columns)
    with closing(db.connection.cursor()) as cursor:
        if db.dialect.name == "sqlite":
            cursor.executemany(f"INSERT INTO records ({names}) "
                               "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", ready)
            return
        with cursor.copy(f"COPY records ({names}) FROM STDIN (FORMAT BINARY)") as into:
            into.set_types([store.BINARY[type(column.type)] for column in schema.records.columns])
            for row in ready:
                into.write_row(row)


def or_ignore(db: Connection, ready: list[Row]) -> None:
    """The gateway's own statement for records that may be there."""
    store.insert_rows(db, schema.records, ready)


def per_row(db: Connection, ready: list[Row]) -> None:
    """What SQLAlchemy makes of it."""
    names = [column.name for column in schema.records.columns]
    db.execute(store.insert_or_ignore(db, schema.records),
               [dict(zip(names, row, strict=True)) for row in ready])


def inserted(how: Callable[[Connection, list[Row]], None], engine: Engine, ready: list[Row],
             postgres: Postgres | None) -> Spent:
    """Return what it takes to insert `ready`."""
    clock = Clock(postgres, gateway=[os.getpid()])
    for at in range(0, len(ready), BATCH):
        with engine.begin() as db:
            how(db, ready[at:at + BATCH])
    return clock.stop()


def desk(engine: Engine, ready: list[bytes], postgres: Postgres | None) -> Spent:
    """Return what it takes a desk to take `ready`."""
    one = Desk(engine, clock=None)
    clock = Clock(postgres, gateway=[os.getpid()])
    for at in range(0, len(ready), service.BATCH):
        answers = one.take(ready[at:at + service.BATCH])
        assert answers
    return clock.stop()


def served(database: str, nodes: list[Node], workers: int, postgres: Postgres | None) -> Spent:
    """Return what it takes so many workers behind mosquitto."""
    believed(store.connect(database)).dispose()
    nodes = [copy.copy(node) for node in nodes]
    with ExitStack() as stack:
        broker = stack.enter_context(Mosquitto())
        running = []
        for _ in range(workers):
            process = subprocess.Popen(
                [sys.executable, "-m", "outpost", "gateway", "--database", database, "--broker",
                 f"mqtt://127.0.0.1:{broker.port}", "--share", "bench", "--no-provisioned",
                 "--json"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            stack.callback(process.wait, 60)
            stack.callback(process.terminate)
            stack.callback(process.stdout.close)
            json.loads(process.stdout.readline())  # it is up
            running.append(process.pid)
        clock = Clock(postgres, nodes=[os.getpid()], broker=[broker.process.pid], gateway=running)
        asyncio.run(load.bring_home(nodes, mqtt.Where("127.0.0.1", broker.port), MANNERS))
        return clock.stop()


class Databases:
    """Empty databases of one kind."""

    def __init__(self, kind: str, folder: Path, postgres: Postgres) -> None:
        self.kind, self._folder, self._postgres = kind, folder, postgres
        self.server = postgres if kind == "PostgreSQL" else None

    def make(self) -> str:
        """Make one; return its URL."""
        if self.server is not None:
            return self.server.database()
        return f"sqlite:///{tempfile.mkdtemp(dir=self._folder)}/bench.db"

    @contextmanager
    def opened(self) -> Iterator[Engine]:
        """Make one, with all nodes enrolled; it is closed in the end."""
        engine = believed(store.connect(self.make()))
        try:
            yield engine
        finally:
            engine.dispose()

    def size(self, engine: Engine) -> int:
        """Return the bytes that the records in one take, with their index."""
        if self.server is None:
            return Path(engine.url.database).stat().st_size
        with engine.connect() as db:
            return db.exec_driver_sql("SELECT pg_total_relation_size('records')").scalar()


# --- the first table ---


def compared(databases: Databases, rounds: int, nodes: list[Node], ready: list[Row],
             status: Status) -> dict[str, Figure]:
    """Return the figures of one kind of database, by name."""
    server, data = databases.server, frames(nodes)

    def inserts(how: Callable[[Connection, list[Row]], None], most: int | None = None) -> Spent:
        with databases.opened() as engine:
            return inserted(how, engine, ready[:most], server)

    def desks() -> Spent:
        with databases.opened() as engine:
            return desk(engine, data, server)

    whole = len(ready)
    ways: dict[str, tuple[int, Callable[[], Spent]]] = {
        "raw": (whole, lambda: inserts(raw)),
        "insert or ignore": (whole, lambda: inserts(or_ignore)),
        "per row": (ROW, lambda: inserts(per_row, ROW)),
        "desk": (whole, desks),
        "broker, 1 worker": (whole, lambda: served(databases.make(), nodes, 1, server)),
        "broker, 2 workers": (whole, lambda: served(databases.make(), nodes, 2, server))}
    if server is None:
        del ways["insert or ignore"], ways["broker, 2 workers"]
    figures = {name: Figure() for name in ways}
    for number in range(rounds):
        for name, (count, way) in ways.items():
            status.update(f"{databases.kind}, round {number + 1} of {rounds}: {name}")
            figures[name].add(count, *way())
    return figures


def comparison(kinds: list[Databases], rounds: int) -> Table:
    """Return the first table."""
    table = Table("", title=f"{NODES:,} nodes, {NODES * EACH:,} records of {MANNERS.size} bytes; "
                  f"{os.cpu_count()} processors, median of {rounds}", title_justify="left",
                  box=box.SIMPLE_HEAD)
    for name in ("records/s", "of raw", "of insert or ignore",
                 *(f"µs a frame: {name}" for name in PROCESSES)):
        table.add_column(name, justify="right")
    with console.status("frames") as status:
        nodes, ready = fleet(1, EACH), list(rows(1, EACH))
        for databases in kinds:
            figures = compared(databases, rounds, nodes, ready, status)
            bases = figures["raw"], figures.get("insert or ignore", figures["raw"])
            for name, one in figures.items():
                table.add_row(f"{databases.kind}: {name}", f"{one.rate:,.0f}",
                              *(f"{one.rate / base.rate:.0%}" for base in bases), *one.cells())
            table.add_section()
    return table


# --- the second ---


def growth(kinds: list[Databases], most: int) -> Table:
    """Return the second table: the rate of a desk while records become more."""
    table = Table("", title="A desk, as the table of records grows", title_justify="left",
                  box=box.SIMPLE_HEAD)
    for name in ("rows", "records/s", "into an empty one", "of that", "bytes a row"):
        table.add_column(name, justify="right")
    step = NODES * FRAME
    with console.status("filling") as status:
        for databases in kinds:
            with databases.opened() as engine:
                first = 1
                for share in SHARES:
                    while (first - 1) * NODES < share * most - TURNS * step:
                        with engine.begin() as db:
                            raw(db, list(rows(first, FRAME)))
                        first += FRAME
                        status.update(f"{databases.kind}: {(first - 1) * NODES:,} rows")
                    before = (first - 1) * NODES
                    full, empty = Figure(), Figure()
                    for _ in range(TURNS):
                        data = frames(fleet(first, FRAME))
                        with databases.opened() as other:
                            empty.add(step, *desk(other, data, databases.server))
                        full.add(step, *desk(engine, data, databases.server))
                        first += FRAME
                    share_of = statistics.median(
                        mine / its for mine, its in zip(full.rates, empty.rates, strict=True))
                    table.add_row(databases.kind, f"{before:,}", f"{full.rate:,.0f}",
                                  f"{empty.rate:,.0f}", f"{share_of:.0%}",
                                  f"{databases.size(engine) / ((first - 1) * NODES):.0f}")
            table.add_section()
    return table


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--rows", type=int, default=10_000_000)
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as folder, Postgres() as postgres:
        kinds = [Databases(kind, Path(folder), postgres) for kind in ("PostgreSQL", "SQLite")]
        if given.rounds:
            stdout.print(comparison(kinds, given.rounds))
        if given.rows:
            stdout.print(growth(kinds, given.rows))


if __name__ == "__main__":
    main()
