"""Type stubs of MicroPython's ESP32 port, by which board/esp32.py is checked.

They describe the port's modules for a type checker. They live in the cache and not in .venv, since
they bring files named like CPython's own modules.
"""

import re
import subprocess
import sys
from pathlib import Path

from outpost import cache
from outpost.errors import OutpostError
from outpost.paths import FIRMWARE

PACKAGES = ("micropython-esp32-stubs==1.25.0.post5", "micropython-stdlib-stubs==1.29.0.post2")


class StubsError(OutpostError):
    """The stubs could not be fetched."""


def folder() -> Path:
    """Return the folder of the stubs; fetch them the first time."""
    return cache.item(f"stubs/{PACKAGES[0].replace('==', '-')}", _fetch)


def _fetch(target: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "pip", "--quiet", "install", "--no-deps",
                           "--no-compile", "--target", str(target), *PACKAGES], text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        raise StubsError(f"pip could not fetch {', '.join(PACKAGES)}:\n"
                         f"{done.stdout.strip()[-800:]}")


def check(source: Path) -> list[str]:
    """Return what mypy finds wrong in `source`, a file of firmware/, a line each.

    What it says about the stubs themselves is left out.
    """
    stubs = folder()
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--custom-typeshed-dir", str(stubs), "--no-site-packages",
         "--follow-imports=silent", "--check-untyped-defs", "--hide-error-context",
         "--no-error-summary", "--cache-dir", str(cache.root() / "mypy"), str(source)],
        cwd=FIRMWARE, env={"MYPYPATH": str(stubs), "PATH": ""}, capture_output=True, text=True,
        check=False)
    if done.returncode > 1 or done.stderr:
        raise StubsError(f"mypy failed: {(done.stderr or done.stdout).strip()[-800:]}")
    return [line for line in done.stdout.splitlines()
            if re.match(r"\S+: error: ", line) and not line.startswith(str(stubs))]
