"""What each statistic costs on a Cortex-M0+: features() of a motion window, on the real rp2 port.

Prints the table "What they cost" of docs/features.md. Kind of figure: measured on emulator
(rp2040js, 200 MHz, instruction time; flash latency is not modelled). Builds the RP2040 firmware if
there is none yet.
"""

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import track
from rich.table import Table

from outpost import compile, convert, emulator, features, firmware, link, recipe, train
from outpost.paths import BUILD, NATIVE
from outpost.recipe import STATISTICS, FeatureRow, Features, Recipe

CALLS = 50

# A file system with one file in RAM, so that nothing needs to be written into flash first.
IMPORT = """
import binascii, io, sys, time, vfs
from array import array
class File(io.IOBase):
    def __init__(self, data):
        self.data = memoryview(data)
    def readinto(self, buf):
        n = min(len(buf), len(self.data))
        buf[:n], self.data = self.data[:n], self.data[n:]
        return n
    def ioctl(self, request, arg):
        return 0
class Files:
    def mount(self, readonly, mkfs):
        pass
    def stat(self, path):
        if path.endswith("model.mpy"):
            return (0x8000,) + (0,) * 9
        raise OSError(2)
    def open(self, path, mode):
        return File(binascii.unhexlify(HEX))
vfs.mount(Files(), "/ram")
sys.path.insert(0, "/ram")
import model
window = array("h", binascii.unhexlify(WINDOW))
out = array("h", bytes(2 * model.FEATURES))
def mean_us(calls):
    features = model.features
    start = time.ticks_us()
    for i in range(calls):
        features(window, out)
    return time.ticks_diff(time.ticks_us(), start) / calls
print(mean_us(CALLS), list(out))
"""


def variants(base: Recipe) -> dict[str, Recipe]:
    """Return the recipes to compare, by name."""
    def of(statistics: tuple[str, ...], window: int = base.signal.window) -> Recipe:
        rows = tuple(FeatureRow(name, i, 1, statistics)
                     for i, name in enumerate(base.signal.names))
        return replace(base, features=Features(False, rows),
                       signal=replace(base.signal, window=window))

    found = {name: of((name,)) for name in STATISTICS}
    found["mad, crossings (motion)"] = base
    found["mad, jerk"] = of(("mad", "jerk"))
    found["all nine"] = of(STATISTICS)
    found["mad of two magnitudes"] = replace(base, features=Features(False, (
        FeatureRow("accel", 0, 3, ("mad",)), FeatureRow("gyro", 3, 3, ("mad",)))))
    found["mad, 100 samples"] = of(("mad",), 100)
    found["deviation, 100 samples"] = of(("deviation",), 100)
    return found


def module(what: Recipe, x: np.ndarray, folder: Path) -> bytes:
    """Return the armv6m module of a forest on these features; the trees don't matter here."""
    convert.emit(what, train.fit(what.forest, x, np.arange(len(x)) % 4), folder)
    obj = compile.compile_module([NATIVE / "module.c"], [folder, NATIVE], "armv6m",
                                 folder / "model.o")
    return link.link(obj, "armv6m", "model")


def main() -> None:
    """Print microseconds a window for each variant, after checking the features themselves."""
    uf2 = BUILD / "firmware" / firmware.BOARD / "firmware.uf2"
    if not uf2.is_file():
        uf2 = firmware.build().uf2
    base = recipe.load(recipe.find("motion"))
    rng = np.random.default_rng(0)
    table = Table("statistics of six channels", "µs a window", box=SIMPLE_HEAD,
                  title="features() of 64 × 6 samples, call included: emulated RP2040, 200 MHz")
    table.columns[1].justify = "right"
    with tempfile.TemporaryDirectory() as scratch, emulator.Emulator() as board:
        board.load(uf2=uf2)
        for name, what in track(variants(base).items(), console=Console(stderr=True)):
            windows = rng.integers(-3000, 3000, (40, what.signal.window, 6)).astype(np.int16)
            x = features.compute(what, windows)
            code = IMPORT.replace("HEX", repr(module(what, x, Path(scratch)).hex()))
            code = code.replace("WINDOW", repr(windows[0].astype("<i2").tobytes().hex()))
            board.power(on=False)
            board.power()
            board.boot()
            spent, _, found = board.execute(code.replace("CALLS", str(CALLS))).partition(" ")
            if found.strip() != str(x[0].tolist()):
                raise SystemExit(f"{name}: the board's features {found} are not {x[0].tolist()}")
            table.add_row(name, f"{float(spent):.0f}")
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
