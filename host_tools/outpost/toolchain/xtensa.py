"""C for the ESP32's Xtensa cores: Espressif's gcc if it is on PATH, else LLVM from the mirror.

LLVM's Xtensa backend is young: clang can't be asked for position-independent code, so it stops at
LLVM's intermediate language, llc makes assembly of it and llvm-mc the object. What it leaves
unfinished in relocations is finished by our linker, which writes every field whole.
"""

import functools
import hashlib
import shutil
import subprocess
from pathlib import Path

from outpost import cache
from outpost.errors import OutpostError
from outpost.toolchain import apt

VERSION = "22"
PACKAGES = [f"clang-{VERSION}", f"llvm-{VERSION}"]
GCC = "xtensa-esp32-elf-gcc"
TRIPLE = "xtensa-esp-elf"
CORE = ["-mcpu=esp32"]

# Flags of compile.FLAGS that neither of the two knows.
UNKNOWN = ("-fno-sanitize=all", "-fpic")
GCC_UNKNOWN = ("-fno-vectorize", "-fno-slp-vectorize")


class XtensaError(OutpostError):
    """No compiler for Xtensa, or it refused the code."""


def compiler() -> Path:
    """Return Espressif's gcc, or the folder of LLVM's programs; fetched the first time."""
    return gcc() or _llvm()


def gcc() -> Path | None:
    """Return Espressif's gcc, if it is on PATH."""
    found = shutil.which(GCC)
    return Path(found) if found else None


@functools.cache
def _llvm() -> Path:
    """Return the folder LLVM is unpacked in."""
    key = hashlib.sha256(" ".join(PACKAGES).encode()).hexdigest()[:8]
    return cache.item(f"toolchain/llvm-{VERSION}-{key}",
                      lambda folder: apt.install(PACKAGES, folder))


def compile_unit(flags: list[str], unit: str, text: str | None, out: Path) -> None:
    """Compile the C file `unit` (or standard input, `text`) into the object `out`.

    `flags` are those of the other compilers. Raises XtensaError with the compiler's words.
    """
    flags = [flag for flag in flags if flag not in UNKNOWN]
    if found := gcc():
        _run([str(found), *(flag for flag in flags if flag not in GCC_UNKNOWN), "-mlongcalls",
              "-x", "c", "-c", unit, "-o", str(out)], text)
        return
    ir, assembly = out.with_suffix(".ll"), out.with_suffix(".s")
    prefix = _llvm()
    resources = prefix / f"usr/lib/llvm-{VERSION}/lib/clang/{VERSION}"
    _run([*_tool("clang"), f"--target={TRIPLE}", "-resource-dir", str(resources), "-nostdlibinc",
          *flags, "-x", "c", "-S", "-emit-llvm", unit, "-o", str(ir)], text)
    lower = [*_tool("llc"), "-O2", f"-mtriple={TRIPLE}", *CORE, "-data-sections",
             "-function-sections", "-frame-pointer=none", "-filetype=asm", str(ir),
             "-o", str(assembly)]
    try:
        _run(lower, None)
    except XtensaError as error:
        if "Cannot select" not in str(error):
            raise
        _run([*lower, "-mattr=-fp"], None)  # it can't choose between two constant floats
    _run([*_tool("llvm-mc"), "-triple=xtensa", "-mcpu=esp32", "-filetype=obj", str(assembly),
          "-o", str(out)], None)


def _tool(name: str) -> list[str]:
    """Return how to call one of LLVM's programs."""
    return apt.command(_llvm(), f"../lib/llvm-{VERSION}/bin/{name}")


def _run(command: list[str], text: str | None) -> None:
    """Run one program; raise XtensaError with what it says if it fails."""
    done = subprocess.run(command, input=text or "", text=True, capture_output=True, check=False)
    if done.returncode:
        raise XtensaError(done.stderr.strip()[-4000:])
