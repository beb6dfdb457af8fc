"""`outpost bench`: run the benchmarks in `bench/`, each printing its table."""

import subprocess
import sys
from typing import Annotated

import typer

from outpost.console import console
from outpost.errors import OutpostError
from outpost.paths import ROOT


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("bench")(bench)


def bench(
    names: Annotated[list[str] | None, typer.Argument(help="Which; else all of them.")] = None,
) -> None:
    """Run benchmarks: a table each, ours beside the rivals, measured in one go."""
    scripts = {path.stem: path for path in sorted((ROOT / "bench").glob("*.py"))}
    for name in names or scripts:
        if name not in scripts:
            raise OutpostError(f"no benchmark {name!r} in bench/; there are {', '.join(scripts)}")
        console.rule(f"bench/{name}.py")
        if subprocess.run([sys.executable, scripts[name]], cwd=ROOT).returncode:
            raise OutpostError(f"bench/{name}.py failed")
