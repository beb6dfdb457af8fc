"""Real MicroPython on emulated processors: QEMU, and MicroPython's port for it built per machine.

QEMU comes from the package mirror with all it needs; the port is built with the Arm compiler of
toolchain/rp2.py or a RISC-V one. `Board` starts a machine and speaks MicroPython's raw REPL.
"""

import hashlib
import inspect
import os
import re
import select
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from outpost import cache
from outpost.errors import OutpostError
from outpost.toolchain import apt, rp2, unix
from outpost.toolchain.make import make

PACKAGES = ["qemu-system-arm", "qemu-system-riscv"]
RISCV = ["gcc-riscv64-unknown-elf", "binutils-riscv64-unknown-elf"]
UNITS = 190  # C files; only the progress bar minds
WAIT_S = 60  # for an answer of the machine
INSTRUCTION_NS = 512  # how much virtual time an instruction takes when they are counted


class QemuError(OutpostError):
    """An emulated machine could not be built, or doesn't answer."""


@dataclass(frozen=True)
class Machine:
    """One emulated processor: its architecture, how to build for it and how to start it.

    `spare` is where files are put in its memory. `timer` is the address of a counter that runs
    with the virtual clock at `timer_hz`, downwards if `down`, and `timer_bits` wide.
    """

    name: str
    arch: str
    qemu: tuple[str, ...]
    flags: str
    soc: str
    script: str
    helper: str
    spare: int
    timer: int
    timer_hz: int
    timer_bits: int = 24
    down: bool = True


def _cortex(name: str, arch: str, machine: str, flags: str, spare: int = 0x21000000) -> Machine:
    return Machine(name, arch, ("qemu-system-arm", "-machine", machine), f"-mthumb {flags}",
                   "MPS2", "mcu/arm/mps2.ld", "thumb2", spare, 0xE000E018, 25_000_000)


MACHINES = {machine.name: machine for machine in (
    Machine("M0", "armv6m",
            ("qemu-system-arm", "-machine", "microbit", "-global",
             "nrf51-soc.flash-size=1048576", "-global", "nrf51-soc.sram-size=262144"),
            # the port takes native code for granted only from the Cortex-M3 up
            "-mthumb -mcpu=cortex-m0 -mfloat-abi=soft -DMICROPY_EMIT_THUMB=1 "
            "-DMICROPY_EMIT_THUMB_ARMV7M=0", "NRF51", "mcu/arm/nrf51.ld", "thumb1",
            0x80000, 0xE000E018, 16_000_000),
    _cortex("M3", "armv7m", "mps2-an385", "-mcpu=cortex-m3 -mfloat-abi=soft"),
    _cortex("M4", "armv7emsp", "mps2-an386",
            "-mcpu=cortex-m4 -mfpu=fpv4-sp-d16 -mfloat-abi=hard"),
    _cortex("M7", "armv7emdp", "mps2-an500",
            "-mcpu=cortex-m7 -mfpu=fpv5-d16 -mfloat-abi=hard", 0x60000000),
    Machine("RV32", "rv32imc", ("qemu-system-riscv32", "-machine", "virt", "-bios", "none"), "",
            "VIRT", "mcu/rv32/virt.ld", "rv32i", 0x84000000, 0x0200BFF8, 10_000_000, 32, False),
)}

# The port leaves the floating-point unit off, and its linker scripts don't expect the unwind
# tables that come with gcc's own library.
_STARTUP = """void _start(void) {
    #if defined(__ARM_FP)
    *(volatile uint32_t *)0xe000ed88 |= 0xf << 20;
    __asm volatile ("dsb\\n isb");
    #endif
"""
_DISCARD = "SECTIONS\n{\n    /DISCARD/ : { *(.ARM.exidx*) *(.ARM.extab*) }\n"


def qemu() -> Path:
    """Return the folder QEMU is unpacked in."""
    key = hashlib.sha256(" ".join(PACKAGES).encode()).hexdigest()[:8]
    return cache.item(f"toolchain/qemu-{key}", lambda folder: apt.install(PACKAGES, folder))


def firmware(machine: Machine) -> Path:
    """Return MicroPython as an ELF file for `machine`; build it the first time."""
    return cache.item(_item(machine), lambda folder: _build(machine, folder)) / "firmware.elf"


def built(machine: Machine) -> bool:
    """Whether `machine` starts without anything having to be fetched or built first."""
    return (cache.root() / _item(machine)).is_dir() and any(cache.root().glob("toolchain/qemu-*"))


def _item(machine: Machine) -> str:
    recipe = "\n".join((machine.name, machine.flags, machine.soc, machine.script, machine.helper,
                        inspect.getsource(_build), _STARTUP, _DISCARD))
    key = hashlib.sha256(recipe.encode()).hexdigest()[:8]
    return f"toolchain/qemu-{machine.name}-{unix.version()}-{key}"


def _build(machine: Machine, folder: Path) -> None:
    """Build MicroPython's qemu port for `machine` in an overlay of its source tree."""
    overlay = folder / "tree"
    port = overlay / "ports/qemu"
    port.parent.mkdir(parents=True)
    for entry in unix.source().iterdir():
        if entry.name != "ports":
            (overlay / entry.name).symlink_to(entry)
    shutil.copytree(unix.source() / "ports/qemu", port)
    board = port / "boards/OUTPOST"
    board.mkdir()
    is_riscv = machine.arch == "rv32imc"
    (board / "mpconfigboard.mk").write_text("\n".join((
        f"QEMU_ARCH = {'riscv32' if is_riscv else 'arm'}", f"QEMU_MACHINE = {machine.name}",
        f"CFLAGS += {machine.flags} -DQEMU_SOC_{machine.soc}",
        f"CFLAGS += -DMICROPY_HW_MCU_NAME='\"{machine.name}\"'", f"LDSCRIPT = {machine.script}",
        "SRC_BOARD_O += shared/runtime/gchelper_native.o "
        f"shared/runtime/gchelper_{machine.helper}.o", "")))
    arguments = ["-C", str(port), "BOARD=OUTPOST", f"BUILD={folder / 'build'}",
                 "FROZEN_MANIFEST=", f"MICROPY_MPYCROSS={unix.mpy_cross()}",
                 "MICROPY_MPYCROSS_DEPENDENCY="]
    if is_riscv:
        gcc = riscv() / "riscv64-unknown-elf-"
        headers = rp2.compiler().parent / "include/newlib"
        arguments += [f"CROSS_COMPILE={gcc}", "RV32_ARCH=rv32imac_zicsr",
                      f"CFLAGS_EXTRA=-isystem {headers}",
                      f"LIBS=-nostdlib {_libgcc(gcc, '-march=rv32imac', '-mabi=ilp32')}"]
    else:
        _replace(port / "mcu/arm/startup.c", "void _start(void) {\n", _STARTUP)
        _replace(port / machine.script, "SECTIONS\n{\n", _DISCARD)
        arguments.append(f"CROSS_COMPILE={rp2.compiler() / 'arm-none-eabi-'}")
    make(f"building MicroPython for the emulated {machine.name}", arguments, UNITS)
    (folder / "build/firmware.elf").rename(folder / "firmware.elf")
    shutil.rmtree(overlay)
    shutil.rmtree(folder / "build")


def _replace(path: Path, old: str, new: str) -> None:
    """Replace the one `old` in the file `path`."""
    text = path.read_text()
    if text.count(old) != 1:
        raise QemuError(f"MicroPython {unix.version()} has changed: {path.name} isn't as expected")
    path.write_text(text.replace(old, new))


def _libgcc(gcc: Path, *flags: str) -> str:
    """Return the path of gcc's own library for `flags`."""
    return subprocess.run([f"{gcc}gcc", *flags, "-print-libgcc-file-name"], check=True, text=True,
                          capture_output=True).stdout.strip()


def riscv() -> Path:
    """Return the folder of a riscv64-unknown-elf-gcc."""
    found = shutil.which("riscv64-unknown-elf-gcc")
    if found:
        return Path(found).parent

    def fetch(folder: Path) -> None:
        apt.download(RISCV, folder, own_release=True)
        libraries = next((folder / "usr/lib/gcc/riscv64-unknown-elf").iterdir())
        for path in libraries.glob("rv*"):
            if path.name != "rv32imac":
                shutil.rmtree(path)

    return cache.item("toolchain/riscv64-unknown-elf", fetch) / "usr/bin"


# Runs on the machine: `files` are its memory, and a filesystem to import from, since the port has
# none that can be written to. FILES is replaced by {name: (address, bytes)}.
_MOUNT = """
import io, sys, uctypes, vfs
files = {name: uctypes.bytearray_at(*place) for name, place in FILES.items()}
class Memory:
    def mount(self, readonly, mkfs): pass
    def umount(self): pass
    def stat(self, path):
        if path.lstrip('/') not in files: raise OSError(2)
        return (0x8000, 0, 0, 0, 0, 0, len(files[path.lstrip('/')]), 0, 0, 0)
    def open(self, path, mode): return io.BytesIO(bytes(files[path.lstrip('/')]))
vfs.mount(Memory(), '/memory')
sys.path[:] = ['/memory']
"""


class Board:
    """A running machine with MicroPython on it, and `files` (.mpy, data) in its memory.

    `counted` makes its time count instructions.
    """

    def __init__(self, machine: Machine, files: dict[str, bytes], counted: bool = False) -> None:
        self.machine = machine
        self.said = bytearray()
        self.folder = tempfile.TemporaryDirectory(prefix="outpost-qemu-")
        command = [*apt.command(qemu(), machine.qemu[0]), *machine.qemu[1:], "-display", "none",
                   "-monitor", "none", "-semihosting", "-serial", "stdio",
                   "-kernel", str(firmware(machine))]
        places, at = {}, machine.spare
        for number, (name, content) in enumerate(files.items()):
            path = Path(self.folder.name) / str(number)
            path.write_bytes(content)
            command += ["-device", f"loader,file={path},addr={at:#x},force-raw=on"]
            places[name] = at, len(content)
            at += len(content) + 15 & ~15
        if counted:
            command += ["-icount", "shift=9,sleep=off"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE)
        try:
            self._until(b">>> ")
            self._send(b"\x01")
            self._until(b"raw REPL; CTRL-B to exit\r\n>")
            self.run(_MOUNT.replace("FILES", repr(places)))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Board":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Switch the machine off."""
        self.process.kill()
        self.process.communicate()
        self.folder.cleanup()

    def run(self, code: str) -> str:
        """Run Python `code` on the machine and return what it printed.

        Raises QemuError with MicroPython's words when it raises.
        """
        self._send(code.encode() + b"\x04")
        self._until(b"OK")
        out = self._until(b"\x04")
        error = self._until(b"\x04")
        self._until(b">")
        if error:
            raise QemuError(f"{self.machine.name}: {error.decode(errors='replace').strip()}")
        return out.decode().replace("\r\n", "\n")

    def instructions(self, call: str, repeats: int = 10) -> float:
        """Return how many instructions `call`, "name(name, …)", takes with its interpretation.

        The names become local, since finding a global one takes as long as chance has it. Counted
        as the time of a machine on which every instruction takes INSTRUCTION_NS.
        """
        machine = self.machine
        timer = f"mem32[{machine.timer}]"
        count = f"({'start - now' if machine.down else 'now - start'}) % {1 << machine.timer_bits}"
        names = ", ".join(dict.fromkeys(re.findall(r"\w+", call)))
        body = "\n".join([f"    {call}"] * repeats)
        out = self.run(
            "from machine import mem32\n"
            # SysTick, free running
            + ("mem32[0xE000E014] = 0xFFFFFF; mem32[0xE000E010] = 5\n" if machine.down else "")
            + f"def nothing({names}):\n"
            f"    start = {timer}\n    now = {timer}\n    return {count}\n"
            f"def spent({names}):\n"
            f"    start = {timer}\n{body}\n    now = {timer}\n    return {count}\n"
            f"nothing({names}); spent({names}); print(spent({names}) - nothing({names}))")
        return int(out) * 1e9 / machine.timer_hz / INSTRUCTION_NS / repeats

    def _send(self, data: bytes) -> None:
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def _until(self, end: bytes) -> bytes:
        """Return what the machine says up to `end`."""
        deadline = time.monotonic() + WAIT_S
        while end not in self.said:
            ready, _, _ = select.select([self.process.stdout], [], [],
                                        max(deadline - time.monotonic(), 0))
            more = os.read(self.process.stdout.fileno(), 65536) if ready else b""
            if not more:
                told = bytes(self.said[-300:]).decode(errors="replace")
                fault = b""
                if self.process.poll() is not None:
                    fault = self.process.stderr.read()
                raise QemuError(f"the emulated {self.machine.name} doesn't answer; its last "
                                f"words: {told!r} {fault.decode(errors='replace')}")
            self.said += more
        out, _, self.said = self.said.partition(end)
        return bytes(out)
