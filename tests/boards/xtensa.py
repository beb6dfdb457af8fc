"""Run a module for the ESP32's cores in qemu-xtensa: loaded as MicroPython would, into one ELF."""

import struct
import subprocess
from pathlib import Path

import numpy as np

from outpost import cache, mpy
from outpost.compile import compile_module
from outpost.link import link
from outpost.paths import NATIVE
from outpost.toolchain import apt

BASE = 0x10000000
HEADER = 64
# Of the cores QEMU knows, the one most like an ESP32's: windowed registers, floats, division. None
# has muluh, so code that multiplies 64 bits is tested without it.
CPU = "de233_fpu"
CORE = ["-mcpu=esp32", "-mattr=-mul32high"]


def emulator() -> Path:
    """Return qemu-xtensa, which is linked statically."""
    folder = cache.item("toolchain/qemu-user", lambda path: apt.download(["qemu-user"], path))
    return folder / "usr/bin/qemu-xtensa"


class Image:
    """Memory from BASE on, filled part by part."""

    def __init__(self) -> None:
        self.data = bytearray(HEADER)
        self.later: list[tuple[int, int]] = []  # (address, entry of the runtime's table)

    def add(self, data: bytes) -> int:
        """Append `data` on a multiple of 16 and return its address."""
        self.data += bytes(-len(self.data) % 16)
        self.data += data
        return BASE + len(self.data) - len(data)

    def load(self, module: mpy.Module) -> int:
        """Place a module as MicroPython's loader does; return the address of its text."""
        text, rodata = self.add(module.text), self.add(module.rodata)
        bss = self.add(bytes(module.bss))
        qstrs = self.add(struct.pack(f"<{len(module.qstrs)}H", *range(len(module.qstrs))))
        places = {mpy.TO_TEXT: text, mpy.TO_RODATA: rodata, mpy.TO_BSS: bss, mpy.TO_QSTRS: qstrs}
        for fixup in module.fixups:
            address = (rodata if fixup.in_rodata else text) + fixup.offset
            if fixup.target >= mpy.TABLE:
                self.later.append((address, fixup.target - mpy.TABLE))
            else:
                at = address - BASE
                value = struct.unpack_from("<I", self.data, at)[0] + places[fixup.target]
                struct.pack_into("<I", self.data, at, value & 0xFFFFFFFF)
        return text

    def elf(self, entry: int) -> bytes:
        """Return an ELF file of one segment that may be read, written and run."""
        head = struct.pack("<16sHHIIIIIHHHHHH", b"\x7fELF\1\1\1", 2, 94, 1, entry, 52, 0, 0x300,
                           52, 32, 1, 0, 0, 0)
        size = len(self.data)
        segment = struct.pack("<IIIIIIII", 1, 4096, BASE, BASE, size, size, 7, 4096)
        return (head + segment).ljust(4096, b"\0") + self.data


def run(_: str, data: bytes, function: str, rows: list[tuple[np.ndarray, ...]],
        folder: Path) -> list[tuple[int, list[np.ndarray]]]:
    """Call an export of the module `data` on each row of int16 and uint8 arrays.

    Return its answers and the arrays after each call.
    """
    obj = compile_module([Path(__file__).with_name("runner.c")], [NATIVE], "xtensawin",
                         folder / "runner.o")
    runner = mpy.decode(link(obj, "xtensawin", "runner"), 4)
    module = mpy.decode(data, 4)
    image = Image()
    entry = image.load(runner)
    text = image.load(module)
    fixups = image.add(b"".join(struct.pack("<II", *pair) for pair in image.later))
    struct.pack_into("<III", image.data, 0, text, fixups, len(image.later))
    path = folder / "module.elf"
    path.write_bytes(image.elf(entry))
    path.chmod(0o755)

    questions = bytearray()
    for row in rows:
        questions += struct.pack("<II", module.qstrs.index(function), len(row))
        for array in row:
            code = ord("h") if array.dtype == np.int16 else 1
            questions += struct.pack("<II", code, len(array)) + array.tobytes()
    done = subprocess.run([emulator(), "-cpu", CPU, path], input=bytes(questions),
                          capture_output=True, check=False)
    assert done.returncode == 0, f"qemu-xtensa ended with {done.returncode}: {done.stderr!r}"
    answers, at = [], 0
    for row in rows:
        answer = struct.unpack_from("<i", done.stdout, at)[0] >> 1
        at += 4
        after = []
        for array in row:
            after.append(np.frombuffer(done.stdout, array.dtype, len(array), at))
            at += array.nbytes
        answers.append((answer, after))
    assert at == len(done.stdout)
    return answers
