"""Downloads and toolchains shared by every clone: one folder an item, keyed by version."""

import fcntl
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def root() -> Path:
    """Return the cache folder, `${XDG_CACHE_HOME:-~/.cache}/outpost`, and make it if need be."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "outpost"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def lock(name: str) -> Iterator[None]:
    """Hold an exclusive lock on cache item `name`; a second process waits here."""
    path = root() / f".{name.replace('/', '-')}.lock"
    with path.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another process that is making {name}", file=sys.stderr)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def item(name: str, make: Callable[[Path], None]) -> Path:
    """Return the folder of cache item `name`; `make(folder)` fills it the first time.

    `make` works in a scratch folder which is renamed into place when it returns, so an interrupted
    attempt leaves nothing that could be mistaken for the finished item.
    """
    folder = root() / name
    if folder.is_dir():
        return folder
    with lock(name):
        if not folder.is_dir():
            folder.parent.mkdir(parents=True, exist_ok=True)
            for left in folder.parent.glob(f".{folder.name}-*"):  # by one that was killed
                shutil.rmtree(left, ignore_errors=True)
            scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
            try:
                make(scratch)
                scratch.chmod(0o755)
                scratch.rename(folder)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
    return folder
