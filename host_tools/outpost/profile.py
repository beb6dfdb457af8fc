"""What a model costs on the board that is attached: stage times, heap, disagreements.

The native module goes to the node over the REPL, into RAM and not into its flash. Times are the
board's own clock: on hardware they are measured on hardware, on the emulator on the emulator.
"""

import base64
import json
import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from outpost import build, compile, link
from outpost.console import steps
from outpost.errors import OutpostError
from outpost.paths import NATIVE
from outpost.recipe import (
    STATISTICS,
    Channel,
    Data,
    FeatureRow,
    Features,
    Forest,
    Post,
    Recipe,
    Signal,
)
from outpost.repl import Repl

# sys.implementation._mpy >> 10 & 15 on the board, and how the architecture is called here
ARCHITECTURES = {2: "x64", 4: "armv6m", 5: "armv7m", 6: "armv7m", 7: "armv7emsp", 8: "armv7emdp",
                 10: "xtensawin", 11: "rv32imc"}
LIMITS = {"trees": (1, 255), "depth": (1, 20), "features": (1, 127), "classes": (2, 32),
          "window": (2, 1024)}
DEFAULTS = {"trees": 10, "depth": 8, "features": 24, "classes": 4, "window": 64}
WINDOWS = 12
GROWN_ON = 4096  # rows of noise
REPEATS = 5
LINE = 512  # bytes in one line of source on their way to the board

# A file system in RAM with one module in it, so that nothing is written to flash.
LOAD = """
import gc, io, sys, vfs
from array import array
from binascii import a2b_base64
class _Ram:
    def mount(self, readonly, mkfs): pass
    def umount(self): pass
    def stat(self, path):
        if path.lstrip("/") != NAME + ".mpy": raise OSError(2)
        return (0x8000,) + (0,) * 5 + (len(DATA),) + (0,) * 3
    def open(self, path, mode): return io.BytesIO(DATA)
gc.collect()
_before = gc.mem_alloc()
vfs.mount(_Ram(), "/_profile")
sys.path.insert(0, "/_profile")
try:
    module = __import__(NAME)
finally:
    sys.path.pop(0)
    vfs.umount("/_profile")
_peak = gc.mem_alloc() - _before
gc.collect()
_held = max(0, gc.mem_alloc() - _before)
DATA = None
gc.collect()
print(_held, max(_peak, _held))
"""

MEASURE = """
import time
window = array("h", a2b_base64(WINDOW))
features = array("h", bytes(2 * module.FEATURES))
votes = bytearray(module.CLASSES)
def _span(action, *arguments):
    best = 1 << 30
    worst = 0
    for _ in range(REPEATS):
        begin = time.ticks_us()
        action(*arguments)
        us = time.ticks_diff(time.ticks_us(), begin)
        best, worst = min(best, us), max(worst, us)
    return best, worst
pre = _span(module.features, window, features)
infer = _span(module.predict, features, votes)
both = _span(module.classify, window, features, votes)
_before = gc.mem_alloc()
answer = module.classify(window, features, votes)
_before = gc.mem_alloc() - _before
print(json.dumps([pre, infer, both, _before, list(features), list(votes), answer]))
"""


class ProfileError(OutpostError):
    """A shape that makes no sense, or a board that can't load the module."""


@dataclass(frozen=True)
class Subject:
    """A module to profile and what it must answer."""

    name: str
    content: bytes
    windows: list[bytes]
    expected: list[tuple[list[int], list[int], int]]  # features, votes, class


def parse_shape(text: str) -> dict[str, int]:
    """Read "trees=10,depth=8,features=24" (also classes, window); raise ProfileError."""
    shape = dict(DEFAULTS)
    for part in text.split(","):
        key, _, value = part.strip().partition("=")
        low, high = LIMITS.get(key, (0, -1))
        if not value.isdigit() or not low <= int(value) <= high:
            allowed = ", ".join(f"{name}={a}..{b}" for name, (a, b) in LIMITS.items())
            raise ProfileError(f"--shape: {part.strip()!r}; allowed: {allowed}")
        shape[key] = int(value)
    return shape


def of_model(model: str, arch: str) -> Subject:
    """Return a recipe's module, with its golden windows (held-out recordings) to run."""
    built = build.build(model, (arch,))
    meta = json.loads((built.folder / "model.json").read_text())
    golden = meta["golden"]
    return Subject(meta["name"], (built.folder / meta["modules"][arch]["file"]).read_bytes(),
                   [bytes.fromhex(one["window"]) for one in golden],
                   [(one["features"], one["votes"], one["class"]) for one in golden])


def of_shape(shape: dict[str, int], arch: str) -> Subject:
    """Return a forest of that shape, grown on noise: as deep and wide as asked, never good.

    Features are the nine statistics of as many channels as are needed.
    """
    from sklearn.ensemble import RandomForestClassifier

    from outpost import convert, features

    what = recipe_of(shape)
    noise = np.random.default_rng(1)
    channels = len(what.signal.channels)
    x = noise.integers(-32768, 32768, (GROWN_ON, shape["features"])).astype(np.int16)
    y = noise.integers(0, shape["classes"], GROWN_ON)
    forest = RandomForestClassifier(shape["trees"], max_depth=shape["depth"], random_state=1)
    forest.fit(x, y)
    windows = noise.integers(-8000, 8000, (WINDOWS, shape["window"], channels)).astype(np.int16)
    found = features.compute(what, windows)
    answers = convert.declare(what, forest).answer(found)
    with tempfile.TemporaryDirectory(prefix="outpost-") as name:
        folder = Path(name)
        convert.emit(what, forest, folder)
        obj = compile.compile_module([NATIVE / "module.c"], [folder, NATIVE], arch,
                                     folder / "module.o")
        content = link.link(obj, arch, what.name)
    expected = [(row.tolist(), votes.tolist(), int(chosen)) for row, votes, chosen
                in zip(found, answers.votes, answers.chosen, strict=True)]
    return Subject(what.name, content, [one.tobytes() for one in windows], expected)


def recipe_of(shape: dict[str, int]) -> Recipe:
    """Return a recipe of that shape: statistics of as many made-up channels as are needed."""
    count = math.ceil(shape["features"] / len(STATISTICS))
    channels = tuple(Channel(f"c{i}", "count", 1.0) for i in range(count))
    rows, left = [], shape["features"]
    for i, channel in enumerate(channels):
        rows.append(FeatureRow(channel.name, i, 1, STATISTICS[:left]))
        left -= len(rows[-1].statistics)
    return Recipe(
        file=Path("shape"), name="shape", version=1, classes=None,
        data=Data(None, None, None, None, 0.3, 1),
        signal=Signal(channels, shape["window"], shape["window"], 100.0, None, None, None),
        features=Features(False, tuple(rows)),
        forest=Forest(shape["trees"], shape["depth"], None, 1, 1), post=Post("majority", 1, 0.5))


def architecture(repl: Repl) -> str:
    """Return the architecture of native modules that the board on `repl` loads."""
    told = repl.run("import sys\nprint(sys.implementation._mpy >> 10 & 15)").strip()
    return arch_of(int(told) if told.isdigit() else -1, repl.port)


def arch_of(code: int, who: str) -> str:
    """Return the architecture with that number in the header of a .mpy; `who` says it has it."""
    arch = ARCHITECTURES.get(code)
    if arch is None:
        raise ProfileError(f"{who}: its MicroPython loads no native modules that outpost can make "
                           f"(architecture {code})")
    return arch


def profile(port: str, model: str | None, shape: str | None,
            wait_s: float | None = 15) -> dict[str, Any]:
    """Run a model's module, or a forest of a shape, on the board on `port`; return its figures.

    Keys: model, arch, kind (of the times), windows, bytes, heap and heap_peak (bytes, of loading),
    allocated (bytes a window), us {pre, infer, both: {best, worst}}, disagreements. Raises
    ProfileError.
    """
    if (model is None) == (shape is None):
        raise ProfileError("name a model, or give a --shape: one of the two")
    wanted = parse_shape(shape) if shape else {}
    with Repl(port, wait_s) as repl:
        arch = architecture(repl)
        subject = of_model(model, arch) if model else of_shape(wanted, arch)
        with steps(f"profiling on {port}", len(subject.windows) + 1) as step:
            step(f"loading {len(subject.content):,} bytes")
            held, peak = load(repl.run, subject.content)
            rows = []
            for number, window in enumerate(subject.windows):
                step(f"window {number + 1}")
                rows.append(_measure(repl, window))
    spans = {name: {"best": min(row[i][0] for row in rows),
                    "worst": max(row[i][1] for row in rows)}
             for i, name in enumerate(("pre", "infer", "both"))}
    wrong = sum(tuple(row[4:]) != expected
                for row, expected in zip(rows, subject.expected, strict=True))
    emulated = port.startswith(("socket://", "/dev/pts/"))  # what `outpost emulate` offers
    return {"model": subject.name, "arch": arch,
            "kind": f"measured on {'emulator' if emulated else 'hardware'}", "windows": len(rows),
            "bytes": len(subject.content), "heap": held, "heap_peak": peak,
            "allocated": max(row[3] for row in rows), "us": spans, "disagreements": wrong}


def load(run: Callable[[str], str], content: bytes) -> tuple[int, int]:
    """Import a native module as `module` by `run`, which runs Python on a board.

    Returns the bytes of heap it holds, and what loading it took at its peak.
    """
    # under a name of its own: the firmware may have a module of the model's name
    run("import json, sys\nfrom binascii import a2b_base64\n"
        "NAME = 'outpost_profiled'\nDATA = b''\nsys.modules.pop(NAME, None)")
    for at in range(0, len(content), LINE):
        run(f"DATA += a2b_base64({encoded(content[at:at + LINE])})")
    held, peak = run(LOAD).split()
    return int(held), int(peak)


def encoded(data: bytes) -> str:
    """Return `data` as the source of a string in base64."""
    return repr(base64.b64encode(data).decode())


def _measure(repl: Repl, window: bytes) -> list[Any]:
    repl.run(f"WINDOW = {encoded(window)}\nREPEATS = {REPEATS}")
    return json.loads(repl.run(MEASURE).strip().splitlines()[-1])
