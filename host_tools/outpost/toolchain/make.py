"""Other people's makefiles, run with a progress bar and their last words kept for a failure."""

import os
import re
import subprocess
from pathlib import Path

from outpost.console import steps
from outpost.errors import OutpostError

COMPILED = re.compile(r"^(?:CC|MPY|GEN|AS|LINK) (\S+)")


class MakeError(OutpostError):
    """A build failed; the message ends with its last lines."""


def environment() -> dict[str, str]:
    """Return our environment without what a `make` above us added: its flags and variables."""
    overrides = {word.partition("=")[0] for word in os.environ.get("MAKEFLAGS", "").split()}
    dropped = overrides | {"MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES"}
    return {name: value for name, value in os.environ.items() if name not in dropped}


def make(title: str, arguments: list[str], units: int) -> None:
    """Run `make arguments` on all cores; `units` (files, roughly) only scales the bar."""
    run(title, ["make", f"-j{os.cpu_count() or 1}", *arguments], COMPILED, units)


def run(title: str, command: list[str], sign: re.Pattern[str], units: int) -> None:
    """Run `command`; each line that matches `sign` is a step, named by its first group."""
    tail: list[str] = []
    with (steps(title, units) as step,
          subprocess.Popen(command, text=True, errors="replace", env=environment(),
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process):
        for line in process.stdout:
            tail = [*tail[-19:], line.rstrip()[:300]]
            match = sign.search(line)
            if match:
                step(Path(match[1]).name)
    if process.returncode:
        raise MakeError(f"{title}: {command[0]} failed with code {process.returncode}. "
                        "Its last lines:\n" + "\n".join(tail))
