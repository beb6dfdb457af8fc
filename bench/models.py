"""Our forests beside their rivals, one run, one table for each model: what a prediction costs.

Accuracy is of held-out windows, answered by the module on MicroPython's unix port; of gait also
how many freezes were noticed, and false alarms an hour. Bytes are those of the .mpy file for a
Cortex-M0+, heap is what it holds once imported. Instructions: measured on emulator, QEMU's
Cortex-M0 (predict() from Python, less an empty call); microseconds: measured on emulator, the
emulated RP2040 at 200 MHz (predict() from Python, no flash latency). The rivals are made from the
same fitted forest by the packages themselves: bench/rivals.
"""

import argparse
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import rivals
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import track
from rich.table import Table

from outpost import build, events, firmware, measure, recipe
from outpost.paths import MODELS
from outpost.recipe import Recipe
from outpost.toolchain import unix

ROWS = 30
WIDTH = 136
CORE = "armv6m"
NAMES = ("digits", "motion", "gait")

_ANSWER = """
import sys
from array import array
sys.path.insert(0, "")
sys.path.append(".frozen")
module = __import__(sys.argv[1])
row, votes = array("h", bytes(2 * module.FEATURES)), bytearray(module.CLASSES)
with open("rows", "rb") as rows:
    while rows.readinto(row):
        print(module.predict(row, votes))
"""


def contenders(what: Recipe) -> Iterator[tuple[str, Recipe, rivals.Maker]]:
    """Yield (words, recipe, what makes its module): ours in all forms, then the others."""
    for words, way in (("hard, fast", {}), ("hard, fast, early exit", {"early_exit": True}),
                       ("hard, compact", {"form": "compact"}),
                       ("hard, compact, early exit", {"form": "compact", "early_exit": True}),
                       ("soft, fast", {"vote": "soft"}),
                       ("soft, compact", {"vote": "soft", "form": "compact"})):
        plain = {"vote": "hard", "form": "fast", "early_exit": False}
        yield (f"ours: {words}", replace(what, forest=replace(what.forest, **(plain | way))),
               rivals.native)
    hard = replace(what, forest=replace(what.forest, vote="hard"))
    for method in ("inline", "loadable"):
        yield f"emlearn {method}", hard, rivals.emlearn(method)
        yield f"emlearn {method}, thresholds mended", hard, rivals.emlearn(method, mended=True)
    yield "m2cgen, Python", hard, rivals.python(rivals.m2cgen)
    yield "everywhereml, Python", hard, rivals.python(rivals.everywhereml)


def answers(content: bytes, name: str, x: np.ndarray, folder: Path) -> np.ndarray:
    """Return what a module answers to int16 features `x` on MicroPython's unix port."""
    (folder / f"{name}.mpy").write_bytes(content)
    (folder / "rows").write_bytes(np.ascontiguousarray(x).tobytes())
    done = subprocess.run([unix.micropython(), "-X", "heapsize=64m", "-c", _ANSWER, name],
                          cwd=folder, capture_output=True, text=True, check=True)
    return np.array(done.stdout.split(), int)


def spent(machine: measure.Pico | measure.Counter, content: bytes, x: np.ndarray
          ) -> tuple[int | None, str, str]:
    """Return heap, mean and worst of a prediction on a machine; dashes where it doesn't fit."""
    try:
        heap, _ = machine.load(content)
        costs = machine.predict(x)[0]
    except Exception as error:  # the rivals in Python need more heap than some have
        if "memory" not in str(error).lower():
            raise
        return None, "no memory", ""
    return heap, f"{costs.mean():,.1f}", f"{costs.max():,.1f}"


def alarms(what: Recipe, fitted: build.Fitted, said: np.ndarray) -> list[str]:
    """Return episodes noticed and false alarms an hour, of a model that is about events."""
    if what.events is None:
        return []
    found = events.score(what, fitted.dataset.classes, fitted.dataset.test, fitted.test, said)
    return [f"{found.detected} of {found.episodes}", f"{found.per_hour:.0f}"]


def rows(name: str, pico: measure.Pico, counter: measure.Counter) -> Iterator[list[str]]:
    """Yield the table's rows for one model."""
    fitted = build.fit(recipe.load(recipe.find(name)))
    what = recipe.load(recipe.find(name))
    x, y = fitted.x_test, fitted.test.y
    some = x[np.linspace(0, len(x) - 1, ROWS).astype(int)]
    work = list(contenders(what))
    for words, chosen, make in track(work, name, console=Console(stderr=True)):
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            for part in ("host", "core"):
                (folder / part).mkdir()
            said = answers(make(chosen, fitted.model, build.HOST, folder / "host"), what.name, x,
                           folder)
            content = make(chosen, fitted.model, CORE, folder / "core")
        counter.repeats = 1 if words.endswith("Python") else 10
        heap, count, most = spent(counter, content, some)
        held, us, worst = spent(pico, content, some)
        yield [words, f"{100 * (said == y).mean():.2f} %", *alarms(what, fitted, said),
               f"{len(content):,}",
               f"{heap if held is None else held:,}" if heap or held else "", count, most, us,
               worst]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", help=f"of {', '.join(NAMES)}")
    there = [name for name in NAMES if (MODELS / name / "model.toml").is_file()]
    wanted = parser.parse_args().models or there
    if not measure.Pico.present():
        firmware.build([build.build("motion", (build.HOST, CORE)).folder])
    with measure.Pico() as pico, measure.Counter(CORE) as counter:
        for name in wanted:
            table = Table(box=SIMPLE_HEAD)
            table.add_column(name, no_wrap=True)
            about = recipe.load(recipe.find(name)).events
            for column in ("accuracy", *(("noticed", "false/h") if about else ()), "bytes", "heap",
                           "instr.", "worst", "µs", "worst"):
                table.add_column(column, justify="right", no_wrap=True)
            for row in rows(name, pico, counter):
                table.add_row(*row)
            Console(width=WIDTH).print(table)


if __name__ == "__main__":
    main()
