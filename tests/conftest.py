"""Fixtures every test may use."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

import outpost.device  # noqa: F401  # firmware/ on the path, for `from node import …`
from outpost.gateway import store
from outpost.toolchain.servers import Mosquitto, Postgres


@pytest.fixture(scope="session")
def micropython() -> Path:
    """The unix port of MicroPython, built into the cache if this is the first time."""
    from outpost.toolchain import unix

    return unix.micropython()


@pytest.fixture
def on_micropython(micropython: Path, tmp_path: Path) -> Callable[..., str]:
    """Run Python source on MicroPython in an empty folder and return what it prints.

    `path` lists further folders to import from; firmware/ is always there.
    """
    from outpost.paths import FIRMWARE

    def run(code: str, path: list[Path] | tuple[Path, ...] = (), timeout_s: float = 60) -> str:
        folders = [str(FIRMWARE), *map(str, path), ".frozen"]
        done = subprocess.run([micropython, "-c", code], cwd=tmp_path, timeout=timeout_s,
                              text=True, capture_output=True, check=False,
                              env={"MICROPYPATH": ":".join(folders)})
        assert done.returncode == 0, f"{done.stdout}{done.stderr}"
        return done.stdout

    return run


@pytest.fixture(scope="session")
def mosquitto() -> Iterator[Mosquitto]:
    """A real broker that everybody may use; a test that stops it starts it again."""
    with Mosquitto() as server:
        yield server


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A real PostgreSQL; each test makes a database of its own."""
    with Postgres(fsync="off") as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
             ) -> str | Path:
    """An empty database of either kind, as store.connect() takes it."""
    if request.param == "sqlite":
        return tmp_path_factory.mktemp("database") / "gateway.db"
    return request.getfixturevalue("postgres").database()


@pytest.fixture
def engine(database: str | Path) -> Iterator[Engine]:
    """An open gateway's database of either kind, still empty."""
    made = store.connect(database, durable=False)
    yield made
    made.dispose()
