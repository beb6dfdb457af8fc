"""The shared cache: whole items or none, whoever is killed and however many start at once."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from outpost import cache

MAKER = """
import sys, time
from pathlib import Path
from outpost import cache

def make(folder):
    with open(sys.argv[1], "a") as log:
        log.write("made\\n")
    (folder / "half").write_text("half")
    print("half", flush=True)
    sys.stdin.read()
    (folder / "whole").write_text("whole")

print(cache.item("thing/1.0", make), flush=True)
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def start(home: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", MAKER, str(home / "log")], text=True,
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_made_once_and_kept() -> None:
    calls = []
    for _ in range(2):
        folder = cache.item("thing/1.0", lambda scratch: calls.append(scratch))
    assert len(calls) == 1
    assert folder == cache.root() / "thing/1.0"
    assert folder.is_dir() and not calls[0].exists()


def test_a_failed_attempt_leaves_nothing() -> None:
    def fail(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise RuntimeError("no network")

    with pytest.raises(RuntimeError):
        cache.item("thing/1.0", fail)
    assert list((cache.root() / "thing").iterdir()) == []
    folder = cache.item("thing/1.0", lambda scratch: (scratch / "whole").touch())
    assert [path.name for path in folder.iterdir()] == ["whole"]


def test_a_killed_attempt_is_cleared_away(home: Path) -> None:
    with start(home) as victim:
        assert victim.stdout.readline() == "half\n"
        os.kill(victim.pid, signal.SIGKILL)
    assert list((cache.root() / "thing").glob(".1.0-*"))
    folder = cache.item("thing/1.0", lambda scratch: (scratch / "whole").touch())
    assert [path.name for path in folder.iterdir()] == ["whole"]
    assert list(folder.parent.iterdir()) == [folder]


def test_two_at_once_make_it_once(home: Path) -> None:
    with start(home) as first:
        assert first.stdout.readline() == "half\n"
        with start(home) as second:
            waiting = second.stderr.readline()  # it has found the lock taken
            assert "thing/1.0" in waiting
            done, _ = first.communicate("")
            other, _ = second.communicate("")
    assert done == other == f"{cache.root()}/thing/1.0\n"
    assert (home / "log").read_text() == "made\n"
    assert (cache.root() / "thing/1.0/whole").is_file()
