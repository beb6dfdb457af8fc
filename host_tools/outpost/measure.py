"""Modules measured on emulated machines: what they hold of the heap, how long their calls take.

`Pico` is the emulated RP2040 with the firmware of `outpost firmware`: its unit is the microsecond,
of instruction time. `Counter` is MicroPython in QEMU, which counts instructions. Both run a
module's own `features()` and `predict()`, the call from Python included, on rows of int16.
"""

from pathlib import Path
from typing import Self

import numpy as np

from outpost import cache, compile, emulator, link, profile
from outpost.errors import OutpostError
from outpost.paths import BUILD, ROOT
from outpost.toolchain import qemu

FIRMWARE = BUILD / "firmware" / "rp2040" / "firmware.uf2"
CALLS = 20  # of which the mean is taken: the clock ticks in microseconds
CHUNK = 4096  # bytes of rows sent at once
EMPTY = ROOT / "bench" / "empty.c"

_TIME = """
import time
from array import array
from binascii import a2b_base64
inputs = {"features": module.WINDOW * module.CHANNELS, "predict": module.FEATURES}
features = array("h", bytes(2 * module.FEATURES))
votes = bytearray(module.CLASSES)
def mean(call, a, b):
    calls = range(CALLS)
    start = time.ticks_us()
    for _ in calls:
        call(a, b)
    return time.ticks_diff(time.ticks_us(), start)
def timed(name, rows):
    call = getattr(module, name)
    size = 2 * inputs[name]
    for at in range(0, len(rows), size):
        row = array("h", rows[at:at + size])
        if name == "features":
            print(mean(call, row, features), *features)
        else:
            print(mean(call, row, votes), call(row, votes), *votes)
"""


class MeasureError(OutpostError):
    """A machine that isn't there, or a module that answers otherwise than it should."""


class Pico:
    """The emulated RP2040. Use as a context manager; `load` a module, then ask for times."""

    name = "emulated RP2040"

    def __init__(self) -> None:
        if not FIRMWARE.is_file():
            raise MeasureError("no firmware for the emulated RP2040: run `outpost firmware` first")
        self.board = emulator.Emulator()
        self.board.load(uf2=FIRMWARE)

    @staticmethod
    def present() -> bool:
        """Whether it can be started without building or fetching anything."""
        return FIRMWARE.is_file() and any(cache.root().glob("rp2040js/*"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.board.close()

    def load(self, content: bytes) -> tuple[int, int]:
        """Import a module on a board fresh from reset; return bytes of heap held, and at peak."""
        self.board.power(on=False)
        self.board.power()
        self.board.boot()
        held, peak = profile.load(self.board.execute, content)
        self.board.execute(f"CALLS = {CALLS}\n{_TIME}")
        return held, peak

    def features(self, windows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return µs (windows,) of features(), and int16 features, of int16 `windows`."""
        times, answers = self._run("features", windows)
        return times, answers.astype(np.int16)

    def predict(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return µs (windows,) of predict(), its answers and uint8 votes, of int16 features."""
        times, answers = self._run("predict", x)
        return times, answers[:, 0], answers[:, 1:].astype(np.uint8)

    def _run(self, name: str, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        data = np.ascontiguousarray(rows.reshape(len(rows), -1).astype("<i2"))
        many = max(1, CHUNK // (2 * data.shape[1]))
        found = []
        for at in range(0, len(data), many):
            text = profile.encoded(data[at:at + many].tobytes())
            out = self.board.execute(f"timed({name!r}, a2b_base64({text}))")
            found += [list(map(int, line.split())) for line in out.splitlines()]
        table = np.array(found)
        return table[:, 0] / CALLS, table[:, 1:]


class Counter:
    """MicroPython in QEMU, which counts instructions. Use as a context manager."""

    def __init__(self, arch: str) -> None:
        self.machine = machine(arch)
        self.name = f"QEMU {self.machine.name}"
        self.board: qemu.Board | None = None
        self.repeats = 10  # of a call; the counter of a Cortex-M is over after 2 million

    @staticmethod
    def present(arch: str) -> bool:
        """Whether there is such a machine that starts without building or fetching anything."""
        found = [one for one in qemu.MACHINES.values() if one.arch == arch]
        return bool(found) and qemu.built(found[0])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.board:
            self.board.close()

    def load(self, content: bytes) -> tuple[int, int]:
        """Import a module on a fresh machine; return bytes of heap held, and at peak."""
        if self.board:
            self.board.close()
        self.board = qemu.Board(self.machine, {"empty.mpy": _empty(self.machine.arch)},
                                counted=True)
        held, peak = profile.load(self.board.run, content)
        self.board.run("from array import array\nfrom empty import empty\n"
                       "f = array('h', bytes(2 * module.FEATURES))\n"
                       "w = array('h', bytes(2 * module.WINDOW * module.CHANNELS))\n"
                       "v = bytearray(module.CLASSES)\n"
                       "predict, features = module.predict, module.features")
        self._nothing = self.board.instructions("empty(f, v)")
        return held, peak

    def features(self, windows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return instructions of features() for each window, and the int16 features."""
        counts, answers = self._run("features(w, f)", "w", "*f", windows)
        return counts, answers.astype(np.int16)

    def predict(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return instructions of predict() for each row of features, its answers and votes."""
        counts, answers = self._run("predict(f, v)", "f", "predict(f, v), *v", x)
        return counts, answers[:, 0], answers[:, 1:].astype(np.uint8)

    def _run(self, call: str, into: str, out: str, rows: np.ndarray
             ) -> tuple[np.ndarray, np.ndarray]:
        counts, answers = [], []
        for row in rows.reshape(len(rows), -1):
            self.board.run(f"{into}[:] = array('h', {row.tolist()})")
            counts.append(self.board.instructions(call, self.repeats) - self._nothing)
            answers.append(list(map(int, self.board.run(f"print({out})").split())))
        return np.array(counts), np.array(answers)


def machine(arch: str) -> qemu.Machine:
    """Return the emulated machine that runs modules for `arch`; raise MeasureError if none."""
    for one in qemu.MACHINES.values():
        if one.arch == arch:
            return one
    raise MeasureError(f"no emulated machine here runs MicroPython for {arch}")


def _empty(arch: str) -> bytes:
    """Return a module whose function does nothing: what a call itself costs is taken off."""
    def make(folder: Path) -> None:
        obj = compile.compile_module([EMPTY], [compile.NATIVE], arch, folder / "empty.o")
        (folder / "empty.mpy").write_bytes(link.link(obj, arch, "empty"))

    return (cache.item(f"build/empty-{arch}", make) / "empty.mpy").read_bytes()
