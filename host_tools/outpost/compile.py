"""C to one relocatable object, for any architecture, by the clang of the `ziglang` package.

(Xtensa has compilers of its own: toolchain/xtensa.py.)

No headers or libraries of a target are needed: the code is freestanding, and what a small core
can't do itself comes from firmware/native/runtime (see `runtime`).
"""

import functools
import hashlib
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from outpost import cache
from outpost.errors import OutpostError
from outpost.paths import NATIVE
from outpost.toolchain import xtensa

RUNTIME = NATIVE / "runtime"

# What every target has in common. The code must run wherever the loader puts it (-fpic), tables
# of addresses would need relocations (-fno-jump-tables), and sections as fine as functions let
# the linker take only what is used.
FLAGS = (
    "-std=c99", "-Wall", "-Wextra", "-Werror", "-Os", "-g0", "-ffreestanding", "-fno-builtin",
    "-fpic", "-fomit-frame-pointer", "-fno-common", "-fno-jump-tables", "-fno-stack-protector",
    "-fno-unwind-tables", "-fno-asynchronous-unwind-tables", "-fno-sanitize=all",
    "-fno-vectorize", "-fno-slp-vectorize", "-ffp-contract=off", "-ffunction-sections",
    "-fdata-sections",
)


class CompileError(OutpostError):
    """The compiler refused the code, or there is no compiler."""


@dataclass(frozen=True)
class Architecture:
    """What MicroPython calls an architecture: `code` is its number in a .mpy header."""

    name: str
    code: int
    machine: str  # e_machine of its objects, and with it the family of relocations
    word: int  # bytes of a pointer
    flags: tuple[str, ...]


def _arm(name: str, code: int, *flags: str) -> Architecture:
    return Architecture(name, code, "EM_ARM", 4, flags)


_HARD_FLOAT = ("-target", "thumb-freestanding-eabihf", "-mfloat-abi=hard")

ARCHITECTURES = {arch.name: arch for arch in (
    Architecture("x64", 2, "EM_X86_64", 8, ("-target", "x86_64-linux-musl", "-mcpu=x86_64")),
    _arm("armv6m", 4, "-target", "thumb-freestanding-eabi", "-mcpu=cortex_m0plus"),
    _arm("armv7m", 5, "-target", "thumb-freestanding-eabi", "-mcpu=cortex_m3"),
    # plain cortex_m4 would compile floats to library calls, without a word
    _arm("armv7emsp", 7, *_HARD_FLOAT, "-mcpu=cortex_m4+vfp4d16sp"),
    _arm("armv7emdp", 8, *_HARD_FLOAT, "-mcpu=cortex_m7+fp_armv8d16"),
    Architecture("rv32imc", 11, "EM_RISCV", 4, ("-target", "riscv32-freestanding-none",
                                                "-mcpu=generic_rv32+m+c", "-mno-relax")),
    Architecture("xtensawin", 10, "EM_XTENSA", 4, ()),  # by toolchain/xtensa.py
)}


def architecture(name: str) -> Architecture:
    """Return the architecture MicroPython calls `name`."""
    try:
        return ARCHITECTURES[name]
    except KeyError:
        known = ", ".join(ARCHITECTURES)
        raise CompileError(f"there is no architecture {name!r}; known are {known}") from None


def compile_module(c_sources: list[Path], include_dirs: list[Path], arch: str, out: Path) -> Path:
    """Compile `c_sources` as one translation unit into the relocatable object `out`.

    One unit, because then everything is static and what nothing uses is not compiled at all.
    """
    target = architecture(arch)
    sources = [path.resolve() for path in c_sources]
    includes = [flag for path in include_dirs for flag in ("-I", str(path.resolve()))]
    if len(sources) == 1:
        unit, text = str(sources[0]), None
    else:
        unit, text = "-", "".join(f'#include "{path}"\n' for path in sources)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as scratch:
        part = Path(scratch) / "unit.o"
        flags = [*FLAGS, *target.flags, *includes]
        try:
            if target.machine == "EM_XTENSA":
                xtensa.compile_unit(flags, unit, text, part)
            else:
                _clang([*flags, "-x", "c", "-c", unit, "-o", str(part)], text)
        except (CompileError, xtensa.XtensaError) as error:
            names = ", ".join(path.name for path in c_sources)
            raise CompileError(f"{arch}: {names} doesn't compile:\n{error}") from error
        part.replace(out)
    return out


def _clang(arguments: list[str], text: str | None) -> None:
    """Run ziglang's clang, with `text` as its standard input; raise CompileError if it fails."""
    caches = str(cache.root() / "zig")  # zig locks it itself: several may compile at once
    done = subprocess.run(
        [sys.executable, "-m", "ziglang", "cc", *arguments], input=text or "", text=True,
        capture_output=True, check=False,
        env={**os.environ, "ZIG_GLOBAL_CACHE_DIR": caches, "ZIG_LOCAL_CACHE_DIR": caches})
    if done.returncode:
        if "No module named ziglang" in done.stderr:
            raise CompileError("the compiler is missing: pip install ziglang")
        raise CompileError(done.stderr.strip())


@functools.cache
def runtime(arch: str) -> tuple[Path, ...]:
    """Return the objects of our own small runtime for `arch`, compiled the first time.

    One object a source file of firmware/native/runtime; the linker takes from them what is used.
    """
    sources = sorted(RUNTIME.glob("*.c"))
    parts = [*FLAGS, *architecture(arch).flags]
    parts += [path.read_text() for path in (NATIVE / "abi.h", *sources)]
    key = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]

    def make(folder: Path) -> None:
        for source in sources:
            compile_module([source], [NATIVE], arch, folder / f"{source.stem}.o")

    folder = cache.item(f"runtime/{arch}-{key}", make)
    return tuple(sorted(folder.glob("*.o")))
