"""How long it takes from a fitted model to a module: convert, compile and link, by architecture.

Kind of figure: measured on host (this machine, now; the best of three). The compilers are started
anew each time, as `outpost build` does, and each time on code they have not seen: zig would answer
from its cache.
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import track
from rich.table import Table

from outpost import build, compile, convert, link, recipe
from outpost.paths import NATIVE

MODELS = ("motion", "digits")
FORMS = ("fast", "compact")
REPEATS = 3


def best(action: Callable[[], Any]) -> tuple[float, Any]:
    """Return the least seconds of a few runs, and what came of it."""
    seconds = []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        result = action()
        seconds.append(time.perf_counter() - begin)
    return min(seconds), result


def compiled(folder: Path, arch: str) -> Path:
    """Return the object of the model in `folder`, which no compiler has seen before."""
    with (folder / "model.c").open("a") as code:
        code.write(f"/* {time.time_ns()} */\n")
    return compile.compile_module([NATIVE / "module.c"], [folder, NATIVE], arch,
                                  folder / f"{arch}.o")


def main() -> None:
    """Print the table."""
    table = Table("model", "architecture", "convert, s", "compile, s", "link, s", "bytes",
                  box=SIMPLE_HEAD)
    for arch in compile.ARCHITECTURES:
        compile.runtime(arch)  # compiled once in a lifetime of the cache
    for name in MODELS:
        fitted = build.fit(recipe.load(recipe.find(name)))
        for form in FORMS:
            what = recipe.load(recipe.find(name))
            what = replace(what, forest=replace(what.forest, form=form))
            with tempfile.TemporaryDirectory() as scratch:
                folder = Path(scratch)
                converting, _ = best(lambda: convert.emit(what, fitted.model, folder))  # noqa: B023
                for arch in track(compile.ARCHITECTURES, f"{name}, {form}",
                                  console=Console(stderr=True)):
                    compiling, obj = best(lambda: compiled(folder, arch))  # noqa: B023
                    linking, module = best(lambda: link.link(obj, arch, name))  # noqa: B023
                    table.add_row(f"{name}, {form}", arch, f"{converting:.2f}",
                                  f"{compiling:.2f}", f"{linking:.2f}", f"{len(module):,}")
    Console().print(table)


if __name__ == "__main__":
    main()
