"""The firmware's Python files as bytecode (.mpy), the form in which a device imports them fast."""

import os
import subprocess
from pathlib import Path

from outpost.errors import OutpostError
from outpost.paths import BUILD, FIRMWARE
from outpost.toolchain import unix


class BytecodeError(OutpostError):
    """A file of the firmware that MicroPython can't compile."""


def build(arch: str = "x64", folder: Path | None = None) -> Path:
    """Compile main.py, bundle.py and node/ into `folder`, what has changed; return `folder`.

    `arch` is whose machine code the few native functions become; the default folder is its own.
    Raises BytecodeError with the compiler's words.
    """
    folder = folder or BUILD / "firmware" / "bytecode" / arch
    sources = {path.relative_to(FIRMWARE).with_suffix(".mpy"): path
               for path in (FIRMWARE / "main.py", FIRMWARE / "bundle.py",
                            *(FIRMWARE / "node").rglob("*.py"))}
    for target, source in sources.items():
        path = folder / target
        if not path.exists() or path.stat().st_mtime_ns != source.stat().st_mtime_ns:
            path.parent.mkdir(parents=True, exist_ok=True)
            _compile(source, path, arch)
    for path in folder.rglob("*.mpy"):
        if path.relative_to(folder) not in sources:
            path.unlink()
    return folder


def _compile(source: Path, target: Path, arch: str) -> None:
    # The target gets the source's time, so that any change of the source is seen.
    stat = source.stat()
    scratch = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        done = subprocess.run([unix.mpy_cross(), f"-march={arch}", "-s",
                               source.relative_to(FIRMWARE), "-o", scratch, source],
                              capture_output=True, text=True, check=False)
        if done.returncode:
            raise BytecodeError(f"{source}: {done.stderr.strip()}")
        os.utime(scratch, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        scratch.replace(target)
    finally:
        scratch.unlink(missing_ok=True)
