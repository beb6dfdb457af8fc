"""What builds firmware for the RP2040: an Arm compiler, CMake, Ninja and MicroPython's sources.

All of it comes from the machine's package mirror and PyPI into the cache, unpacked and run from
there; no root is needed. An `arm-none-eabi-gcc` with newlib, a cmake or a ninja on PATH is taken
instead, and $MICROPYTHON_SRC names a checkout of MicroPython with its submodules.
"""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from outpost import cache
from outpost.console import steps
from outpost.errors import OutpostError
from outpost.toolchain import apt, unix

LIBRARIES = {  # pico-sdk 2.2.0 lost a header that MicroPython 1.25 includes
    "debian": ["pico-sdk-source=2.1.1-1", "tinyusb-source=0.18.0+dfsg-1"],
    "ubuntu": ["pico-sdk-source", "tinyusb-source"],
}
COMPILER = ("gcc-arm-none-eabi", "binutils-arm-none-eabi", "libnewlib-arm-none-eabi",
            "libnewlib-dev", "libstdc++-arm-none-eabi-dev")
MULTILIB = "thumb/v6-m/nofp"
CORES = ("v7-m/nofp", "v7e-m+fp/hard", "v7e-m+dp/hard")  # as gcc names them
CMAKE = "cmake==3.31.*"
NINJA = "ninja==1.*"


class Rp2Error(OutpostError):
    """The RP2040 toolchain is incomplete."""


@dataclass(frozen=True)
class Toolchain:
    """Where things are: MicroPython's `source` tree, the `cmake` and `ninja` programs, and the
    folder `bin` of arm-none-eabi-gcc.
    """

    source: Path
    bin: Path
    cmake: Path
    ninja: Path


def toolchain() -> Toolchain:
    """Return the RP2040 toolchain; fetch what is missing into the cache."""
    return Toolchain(source(), compiler(), _tool("cmake", CMAKE), _tool("ninja", NINJA))


def source() -> Path:
    """Return MicroPython's tree with pico-sdk, tinyusb, mbedtls in lib/; don't write into it."""
    named = os.environ.get("MICROPYTHON_SRC")
    if named:
        tree = Path(named).expanduser().absolute()
        for part in ("ports/rp2/CMakeLists.txt", "lib/pico-sdk/pico_sdk_init.cmake",
                     "lib/tinyusb/src/tusb.c", "lib/mbedtls/library/sha256.c"):
            if not (tree / part).is_file():
                raise Rp2Error(f"$MICROPYTHON_SRC is {tree}, which has no {part}. Run `make "
                               "-C ports/rp2 submodules` there, or unset it to have the sources "
                               "fetched")
        return tree
    return cache.item(f"toolchain/rp2-source-{unix.version()}", _fetch_source)


def compiler() -> Path:
    """Return the folder of an arm-none-eabi-gcc that finds newlib for Cortex-M0+."""
    found = shutil.which("arm-none-eabi-gcc")
    if found and not _fault(Path(found)):
        return Path(found).parent
    folder = cache.item("toolchain/arm-none-eabi-thumb", _fetch_compiler) / "usr/bin"
    fault = _fault(folder / "arm-none-eabi-gcc")
    if fault:
        raise Rp2Error(f"the compiler in {folder} does not work: {fault}")
    return folder


def _fault(gcc: Path) -> str:
    """Return why `gcc` can't build firmware, or ""."""
    flags = ["-mcpu=cortex-m0plus", "-mthumb", "--specs=nosys.specs", "-xc", "-o", os.devnull, "-"]
    program = "#include <string.h>\n#include <math.h>\nint main(void) { return 0; }\n"
    try:
        done = subprocess.run([gcc, *flags], input=program, text=True, capture_output=True,
                              check=False)
    except OSError as error:
        return error.strerror or str(error)
    return done.stderr.strip() if done.returncode else ""


def _fetch_source(folder: Path) -> None:
    """Copy MicroPython's tree into `folder`, and put the libraries where Debian left gaps."""
    tree = unix.source()
    with steps("fetching pico-sdk, tinyusb and mbedtls"):
        shutil.copytree(tree, folder, dirs_exist_ok=True, symlinks=True)
        scratch = folder / ".libraries"
        apt.download(LIBRARIES[apt.family()], scratch)
        for name in ("pico-sdk", "tinyusb", "mbedtls"):
            shutil.rmtree(folder / "lib" / name, ignore_errors=True)
        for name in ("pico-sdk", "tinyusb"):
            (scratch / "usr/src" / name).rename(folder / "lib" / name)
        shutil.rmtree(scratch)
        apt.source("mbedtls", "", folder / "lib/mbedtls")


def _fetch_compiler(folder: Path) -> None:
    """Unpack the compiler of this machine's own release, which its C library can run."""
    with steps("fetching the Arm compiler (98 MB)"):
        apt.download(list(COMPILER), folder, own_release=True)
        libraries = folder / "usr/lib/arm-none-eabi"
        # gcc looks for these beside itself when it isn't in /usr
        (libraries / "lib").symlink_to("newlib")
        (libraries / "include").symlink_to("../../include/newlib")
        # MicroPython has no C++, but g++ links: empty archives save a 313 MB package
        for name in ("libstdc++.a", "libstdc++_nano.a", "libsupc++.a"):
            archive = libraries / "newlib" / MULTILIB / name
            if not archive.exists():
                archive.write_bytes(b"!<arch>\n")
        _prune(folder)


def _prune(folder: Path) -> None:
    """Drop the other processors' C libraries: 700 MB that nobody here links.

    gcc's own library stays for the other Cortex-M cores that toolchain/qemu.py builds for.
    """
    for top in [folder / "usr/lib/arm-none-eabi/newlib",
                *(folder / "usr/lib/gcc/arm-none-eabi").glob("*")]:
        shutil.rmtree(top / "arm", ignore_errors=True)
        for path in [path for path in (top / "thumb").rglob("*") if path.is_file()]:
            family = str(path.relative_to(top / "thumb").parent)
            if not family.startswith("v6-m") and (family not in CORES or path.name != "libgcc.a"):
                path.unlink()
    shutil.rmtree(folder / "usr/share", ignore_errors=True)


def _tool(name: str, requirement: str) -> Path:
    """Return the program `name` from PATH, else from its wheel in the cache."""
    found = shutil.which(name)
    if found:
        return Path(found)

    def fetch(folder: Path) -> None:
        done = subprocess.run([sys.executable, "-m", "pip", "--quiet", "install", "--no-deps",
                               "--target", str(folder), requirement], text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        if done.returncode:
            raise Rp2Error(f"pip could not install {requirement}:\n{done.stdout.strip()[-800:]}")

    folder = cache.item(f"toolchain/{requirement.replace('=', '-').rstrip('.*')}", fetch)
    # the wheel's own entry script needs its package on the path; the program itself does not
    return next((p for p in folder.glob(f"*/data/bin/{name}")), folder / "bin" / name)
