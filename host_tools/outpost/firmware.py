"""The RP2040 firmware: MicroPython with our board, the node frozen in and models in flash.

The same sources and compiler give the same bytes, wherever the clone and the cache lie: dates and
hash seeds are fixed and paths are mapped away.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from outpost.errors import OutpostError
from outpost.image import littlefs, read_littlefs
from outpost.paths import BOARDS, BUILD, NATIVE, ROOT
from outpost.toolchain import make, rp2, unix

BOARD = "rp2040"
FLASH_BASE = 0x10000000
FIRMWARE_BYTES = 512 * 1024  # up to the program beside it: boards/rp2040.toml
PROGRAM_BYTES = 128 * 1024
FILES_OFFSET = FIRMWARE_BYTES + PROGRAM_BYTES
FILES_BYTES = 256 * 1024
EPOCH = "1744675200"  # the day MicroPython 1.25.0 was released, for the banner
STEP = re.compile(r"^\[\d+/\d+\] .*?([\w.-]+)$")
UNITS = 450

# Where code comes from, by a piece of the object's path; the first that fits counts.
ORIGINS = (
    ("models", ("usermodule/", "/models/", "firmware/native", "features.c")),
    ("frozen Python", ("frozen_content",)),
    ("USB (tinyusb)", ("tinyusb", "usbd")),
    ("pico-sdk", ("pico-sdk", "bs2_default", "crt0")),
    ("littlefs, FAT", ("littlefs", "oofatfs", "vfs")),
    ("mbedtls", ("mbedtls",)),
    ("libc, libm, libgcc", (".a(", "libm", "libgcc", "crtbegin", "crtend", "crti")),
    ("drivers, extmod", ("extmod", "ports/rp2", "drivers", "shared")),
    ("MicroPython core", ("/py/",)),
    ("rp2 port", ("firmware.dir/",)),
)


class FirmwareError(OutpostError):
    """The firmware can't be built or does not fit."""


@dataclass(frozen=True)
class Firmware:
    """A built image: the UF2 and raw files, what takes how many bytes, the free heap's start."""

    uf2: Path
    image: Path
    sizes: dict[str, int]
    flash_bytes: int
    ram_bytes: int
    sha256: str


def build(models: list[Path] = (), frozen: bool = True, out: Path | None = None) -> Firmware:
    """Build the firmware into `out` (default build/firmware/rp2040).

    `models`: folders with model.h and model.c of `outpost build`, compiled in as user C modules
    named after the folder. Without `frozen` the node's Python is left out, so that it can be put
    on the file system as `.mpy` instead.
    """
    out = out or BUILD / "firmware" / BOARD
    tools = rp2.toolchain()
    work = out / "work"
    work.mkdir(parents=True, exist_ok=True)
    manifest = BOARDS / BOARD / ("manifest.py" if frozen else "manifest-bare.py")
    definition = [path.read_text() for path in (BOARDS / "node.py",
                                                *sorted((BOARDS / BOARD).glob("m*")))
                  if path.is_file()]
    # of several that fit, the last counts
    maps = " ".join(f"-ffile-prefix-map={path}={name}" for path, name in
                    ((ROOT, "outpost"), (tools.source, "micropython"), (out, "firmware")))
    environment = {
        "PYTHONHASHSEED": "0",  # MicroPython's generators write out sets
        "SOURCE_DATE_EPOCH": EPOCH, "CFLAGS": maps, "CXXFLAGS": maps, "ASMFLAGS": maps,
        "PICO_TOOLCHAIN_PATH": str(tools.bin), "MICROPY_MPYCROSS": str(unix.mpy_cross()),
        "PATH": f"{tools.bin}{os.pathsep}{tools.ninja.parent}{os.pathsep}{os.environ['PATH']}",
    }
    if not os.environ.get("MICROPYTHON_SRC"):
        environment |= {"MICROPY_GIT_TAG": f"v{unix.version()}", "MICROPY_GIT_HASH": "outpost"}
    prefix = ["env", *(f"{name}={value}" for name, value in environment.items())]
    options = [
        "-DMICROPY_BOARD=OUTPOST_RP2040", f"-DMICROPY_BOARD_DIR={BOARDS / BOARD}",
        "-DPICO_NO_PICOTOOL=1", f"-DMICROPY_FROZEN_MANIFEST={manifest}",
        f"-DPython3_EXECUTABLE={sys.executable}", f"-DCMAKE_MAKE_PROGRAM={tools.ninja}",
    ]
    if models:
        units = [_unit(model, out / "models" / model.name) for model in models]
        options += [f"-DUSER_C_MODULES={NATIVE / 'micropython.cmake'}",
                    f"-DOUTPOST_UNITS={';'.join(map(str, units))}"]
    # ninja sees no change of a manifest, and not all that follows from one of mpconfigboard.h
    key = hashlib.sha256("\n".join(
        [*prefix, *options, str(tools.source), *definition]).encode()).hexdigest()
    stamp = work / "outpost-stamp"
    if not stamp.is_file() or stamp.read_text() != key:
        shutil.rmtree(work)
        work.mkdir()
        make.run("configuring the firmware", [
            *prefix, str(tools.cmake), "-G", "Ninja", "-S", str(tools.source / "ports/rp2"),
            "-B", str(work), *options], re.compile(r"^-- (\S+)"), 20)
        stamp.write_text(key)
    make.run("building the firmware", [
        *prefix, str(tools.ninja), "-C", str(work), f"-j{os.cpu_count() or 1}"], STEP, UNITS)
    return _publish(tools, work, out)


UNIT = """\
/* The model {name}, compiled into the firmware. */
#include "usermodule.h"
#define OUTPOST_USER_MODULE MP_QSTR_{name}
#include "model.h"
#include "features.c"
#include "model.c"
#include "module.c"

const mp_obj_module_t outpost_{name}_module = {{
    .base = {{ &mp_type_module }},
    .globals = (mp_obj_dict_t *)&outpost_globals,
}};
MP_REGISTER_MODULE(MP_QSTR_{name}, outpost_{name}_module);
"""


def _unit(model: Path, folder: Path) -> Path:
    """Put the sources of `model` and the unit that makes a module of them into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {name: (model / name).read_text() for name in ("model.h", "model.c")}
    files["usermodule.c"] = UNIT.format(name=model.name)
    for name, text in files.items():
        path = folder / name
        if not path.is_file() or path.read_text() != text:  # else ninja would build it again
            path.write_text(text)
    return folder / "usermodule.c"


def _publish(tools: rp2.Toolchain, work: Path, out: Path) -> Firmware:
    """Check the size, write the UF2 and the map beside the work folder, rename into place."""
    image = work / "firmware.bin"
    size = image.stat().st_size
    if size > FIRMWARE_BYTES:
        raise FirmwareError(f"the firmware has {size} bytes, {size - FIRMWARE_BYTES} more than "
                            f"the {FIRMWARE_BYTES} that the flash map has: leave a model out, "
                            f"or move the map in boards/{BOARD}.toml and mpconfigboard.h")
    subprocess.run([sys.executable, tools.source / "tools/uf2conv.py", "-c", "-f", "RP2040",
                    "-b", hex(FLASH_BASE), "-o", work / "firmware.uf2", image],
                   check=True, stdout=subprocess.DEVNULL)
    sizes, ram = account(work / "firmware.elf.map")
    result = {"image": "firmware.bin", "bytes": size, "limit": FIRMWARE_BYTES, "flash": sizes,
              "static_ram": ram, "sha256": hashlib.sha256(image.read_bytes()).hexdigest()}
    for name in ("firmware.bin", "firmware.uf2", "firmware.elf"):
        shutil.copy(work / name, out / f"{name}.new")
        (out / f"{name}.new").rename(out / name)
    (out / "map.json.new").write_text(json.dumps(result, indent=1) + "\n")
    (out / "map.json.new").rename(out / "map.json")
    return Firmware(out / "firmware.uf2", out / "firmware.bin", sizes, size, ram, result["sha256"])


def account(path: Path) -> tuple[dict[str, int], int]:
    """Read a GNU ld map: bytes of flash by origin, largest first, and bytes of static RAM."""
    entry = re.compile(r"^ (?:\.\S+)?\s+0x([0-9a-f]+)\s+0x([0-9a-f]+) (\S.*)$")
    text = path.read_text(errors="replace").partition("Linker script and memory map")[2]
    text = re.sub(r"^( \.\S+)\n\s+0x", r"\1 0x", text, flags=re.MULTILINE)
    section, sizes, ram = "", defaultdict(int), 0
    for line in text.splitlines():
        head = re.match(r"^(\.[\w.]+)", line)
        if head:
            section = head[1]
        match = entry.match(line)
        if not match or section.startswith((".debug", ".comment", ".ARM.attributes", ".stab")):
            continue
        address, size, origin = int(match[1], 16), int(match[2], 16), match[3]
        if not size or not address:
            continue
        if 0x20000000 <= address < 0x20042000 and section in (".data", ".bss", ".ram_vector_table",
                                                              ".uninitialized_data"):
            ram += size
        if section in (".bss", ".heap", ".stack_dummy", ".stack1_dummy", ".ram_vector_table",
                       ".uninitialized_data", ".uninitialized_bss"):
            continue
        name = next((name for name, parts in ORIGINS if any(p in origin for p in parts)), "other")
        sizes[name] += size
    return dict(sorted(sizes.items(), key=lambda item: -item[1])), ram


def files_image(files: dict[str, bytes]) -> bytes:
    """Return the littlefs that `_boot.py` mounts, holding `files` {path: content}."""
    return littlefs(files, FILES_BYTES)


def read_files(image: bytes) -> dict[str, bytes]:
    """Return the files in a littlefs image as `files_image` makes it, or the node left it."""
    return read_littlefs(image)
