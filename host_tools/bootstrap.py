"""Make `.venv` from requirements.lock, or find that it is already there.

Run by the Makefile with the system's python3; standard library only. The stamp in `.venv` is
written last, so an interrupted attempt is thrown away and started again; a second `make` waits
for the first one.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
LOCK = ROOT / "requirements.lock"
STAMP = VENV / "outpost-stamp"
OLDEST = (3, 11)


class BootstrapError(Exception):
    """What is missing, in plain words."""


def stamp() -> tuple[str, str]:
    """Return what the environment depends on: (where and which Python, hash of the lock)."""
    home = f"{ROOT} {sys.version.split()[0]} {sys.executable}"
    digest = hashlib.sha256(LOCK.read_bytes() + (ROOT / "pyproject.toml").read_bytes())
    return home, digest.hexdigest()


class Progress:
    """One line on a terminal, rewritten in place with the seconds; elsewhere one line a step."""

    def __init__(self) -> None:
        self.live = sys.stderr.isatty()
        self.start = time.monotonic()
        self.text = ""
        self.ended = threading.Event()
        if self.live:
            self.ticker = threading.Thread(target=self._tick, daemon=True)
            self.ticker.start()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        """Leave a closing line, unless something went wrong."""
        self.ended.set()
        if self.live:
            self.ticker.join()
            print("\r\x1b[K", end="", file=sys.stderr)
        if error is None:
            print(f"setting up .venv: done in {self._seconds()}", file=sys.stderr, flush=True)

    def step(self, text: str) -> None:
        """Begin a step."""
        self.text = text
        if not self.live:
            print(f"setting up .venv: {text}", file=sys.stderr, flush=True)

    def detail(self, text: str) -> None:
        """Name what is being done within the step."""
        self.text = text

    def _seconds(self) -> str:
        return f"{time.monotonic() - self.start:.0f} s"

    def _tick(self) -> None:
        while not self.ended.wait(0.2):
            line = f"setting up .venv: {self._seconds()}  {self.text}"
            width = shutil.get_terminal_size().columns - 1
            print(f"\r\x1b[K{line[:width]}", end="", file=sys.stderr, flush=True)


def create(progress: Progress) -> None:
    """Make an empty environment with pip in it, with or without Debian's python3-venv."""
    shutil.rmtree(VENV, ignore_errors=True)
    progress.step("a fresh environment")
    try:
        import ensurepip  # noqa: F401  # absent on Debian without python3-venv
    except ImportError:
        run([sys.executable, "-m", "venv", "--without-pip", str(VENV)])
        borrow_pip(progress)
    else:
        run([sys.executable, "-m", "venv", str(VENV)])


def borrow_pip(progress: Progress) -> None:
    """Put pip into the environment from the distribution's own wheel, fetched through apt."""
    sys.path.insert(0, str(ROOT / "host_tools"))
    from outpost import cache
    from outpost.errors import OutpostError
    from outpost.toolchain import apt

    progress.step("pip, from the distribution's package python3-pip-whl")
    try:
        folder = cache.item("pip", lambda folder: apt.download(["python3-pip-whl"], folder))
    except OutpostError as error:
        raise BootstrapError(
            f"this Python has no pip, and it couldn't be fetched: {error}\n"
            "Install it, then try again: sudo apt install python3-venv") from error
    wheel = next(folder.rglob("pip-*.whl"))
    run([str(PYTHON), f"{wheel}/pip", "install", "-q", "--no-index", str(wheel)])


def install(progress: Progress) -> None:
    """Install the lock, every file checked against its hash, and then Outpost itself."""
    text = LOCK.read_text()
    total = len(re.findall(r"^\S+==", text, re.MULTILINE))
    blocks = re.split(r"^(?=\S)", text, flags=re.MULTILINE)
    builder = "".join(block for block in blocks if block.startswith("setuptools=="))
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as first:
        first.write(builder)
        first.flush()  # packages that come as source are built with the locked setuptools
        run([*PIP, "--require-hashes", "-r", first.name])
    progress.step(f"{total} packages")
    seen = 0

    def show(line: str) -> None:
        nonlocal seen
        words = line.split()
        if line.startswith("Collecting") and len(words) > 1:
            seen += 1
            progress.detail(f"{seen}/{total} {words[1]}")
        elif line.startswith("Installing collected"):
            progress.step(f"installing {total} packages")

    run([*PIP, "--require-hashes", "--no-build-isolation", "-r", str(LOCK)], show)
    progress.step("outpost")
    run([*PIP, "--no-index", "--no-deps", "--no-build-isolation", "-e", str(ROOT)])


PIP = (str(PYTHON), "-m", "pip", "--disable-pip-version-check", "install", "--no-compile",
       "--no-warn-script-location", "--progress-bar", "off")


def run(command: list[str], show=lambda line: None) -> None:
    """Run `command`, handing each line it prints to `show`; on failure raise its last lines."""
    tail: list[str] = []
    with subprocess.Popen(command, cwd=ROOT, text=True, errors="replace",
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        for line in process.stdout:
            tail = [*tail[-14:], line.rstrip()]
            show(line.strip())
    if process.returncode:
        raise BootstrapError(f"{' '.join(command)} failed:\n" + "\n".join(tail))


def ready() -> bool:
    """Return whether `.venv` is what the lock asks for."""
    return STAMP.is_file() and STAMP.read_text() == "\n".join(stamp())


def update() -> None:
    """Bring `.venv` up to date with the lock, from nothing if need be."""
    usable = STAMP.is_file() and STAMP.read_text().split("\n")[0] == stamp()[0]
    STAMP.unlink(missing_ok=True)  # until the end, whatever is there is unfinished
    with Progress() as progress:
        if not usable:
            create(progress)
        install(progress)
        STAMP.write_text("\n".join(stamp()))


def main() -> int:
    """Return the exit code: 0 when `.venv` is ready."""
    if sys.version_info < OLDEST:
        found = ".".join(map(str, sys.version_info[:3]))
        print(f"Outpost needs Python 3.11 or newer, and {sys.executable} is {found}.\n"
              "Install one (Debian 12, Ubuntu 24.04 and later have it: sudo apt install python3), "
              "or name another: make PYTHON=python3.12", file=sys.stderr)
        return 1
    try:
        with LOCK.open() as held:
            if not ready():
                try:
                    fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    print("waiting for another make that sets up .venv", file=sys.stderr)
                    fcntl.flock(held, fcntl.LOCK_EX)
                if not ready():
                    update()
    except BootstrapError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    os.environ.pop("PYTHONHOME", None)
    sys.exit(main())
