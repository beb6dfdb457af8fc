"""Instructions of a prediction and bytes of its module, on every processor QEMU runs for us.

Kind of figure: measured on emulator (QEMU with -icount; instructions, not cycles), through real
MicroPython: predict() with its checks and votes, on held-out rows, less what calling an empty
native function costs. The first time it builds MicroPython for five processors.
"""

import tempfile
from pathlib import Path

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import track
from rich.table import Table

from outpost import compile, convert, data, features, link, recipe, train
from outpost.paths import NATIVE
from outpost.toolchain import qemu

MODELS = ("digits", "motion")
ROWS = 60


def module(sources: list[Path], folders: list[Path], arch: str, name: str, out: Path) -> bytes:
    """Compile and link one module."""
    obj = compile.compile_module(sources, [*folders, NATIVE], arch, out / f"{arch}-{name}.o")
    return link.link(obj, arch, name)


def prepare(name: str, folder: Path) -> tuple[np.ndarray, str]:
    """Train the model and write its C; return held-out features and a description."""
    what = recipe.load(recipe.find(name))
    dataset = data.load(what)
    train_set, test_set = (data.windows(part, dataset.classes, what.signal.window, what.signal.hop)
                           for part in (dataset.train, dataset.test))
    forest = train.fit(what.forest, features.compute(what, train_set.x), train_set.y)
    convert.emit(what, forest, folder)
    nodes = sum(tree.tree_.node_count - tree.tree_.n_leaves for tree in forest.estimators_)
    return (features.compute(what, test_set.x)[:ROWS],
            f"{name}: {len(forest.estimators_)} trees, {nodes} nodes")


def measure(machine: qemu.Machine, name: str, folder: Path, x: np.ndarray) -> tuple[int, list]:
    """Return the module's bytes and the instructions of each row's prediction."""
    mpy = module([NATIVE / "module.c"], [folder], machine.arch, name, folder)
    empty = module([Path(__file__).with_name("empty.c")], [], machine.arch, "empty", folder)
    files = {f"{name}.mpy": mpy, "empty.mpy": empty}
    with qemu.Board(machine, files, counted=True) as board:
        board.run("from array import array\nfrom empty import empty\n"
                  f"import {name}\npredict = {name}.predict\n"
                  f"f = array('h', bytes({2 * x.shape[1]}))\nv = bytearray({name}.CLASSES)")
        nothing = board.instructions("empty(f, v)")
        counts = []
        for row in x:
            board.run(f"f[:] = array('h', {row.tolist()})")
            counts.append(board.instructions("predict(f, v)") - nothing)
    return len(mpy), counts


def main() -> None:
    """Print the table."""
    table = Table("model", "core", "architecture", "bytes", "instructions", "worst",
                  box=SIMPLE_HEAD)
    with tempfile.TemporaryDirectory() as scratch:
        models = {}
        for name in MODELS:
            folder = Path(scratch) / name
            models[name] = (folder, *prepare(name, folder))
        work = [(name, machine) for name in MODELS for machine in qemu.MACHINES.values()]
        for name, machine in track(work, "measuring", console=Console(stderr=True)):
            folder, x, told = models[name]
            size, counts = measure(machine, name, folder, x)
            table.add_row(told, machine.name, machine.arch, f"{size:,}", f"{np.mean(counts):.0f}",
                          f"{max(counts):.0f}")
    Console().print(table)


if __name__ == "__main__":
    main()
