"""The gateway's database: opened, told of in words, and many rows at once put into it."""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, suppress
from functools import cache, partial
from itertools import chain
from pathlib import Path
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Connection,
    Double,
    Engine,
    Integer,
    LargeBinary,
    Table,
    Text,
    create_engine,
    event,
    inspect,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from outpost.errors import OutpostError
from outpost.gateway.schema import metadata, records
from outpost.paths import BUILD

DEFAULT = BUILD / "gateway" / "gateway.db"

# PostgreSQL's names of the columns' types
BINARY = {BigInteger: "int8", Integer: "int4", Double: "float8", LargeBinary: "bytea",
          Text: "text", Boolean: "bool"}

ROWS_AT_ONCE = 500  # in one of SQLite's statements
KEYS_AT_ONCE = 200  # identities in one query


class StoreError(OutpostError):
    """A database that isn't there, is no gateway's or refuses; never told with its password."""


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
