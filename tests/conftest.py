"""Fixtures every test may use."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import outpost.device  # noqa: F401  # firmware/ on the path, for `from node import …`


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
