"""`outpost torture`: cut the power at every step of the flash ring."""

import subprocess
import sys
from typing import Annotated

import typer

from outpost.paths import ROOT


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("torture")(torture)


def torture(
    cuts: Annotated[int, typer.Option(envvar="CUTS", help="So many at least.")] = 100_000,
    seed: Annotated[int, typer.Option(envvar="SEED", help="What is tried follows from it.")] = 1,
    case: Annotated[int | None, typer.Option(help="Only this case of the seed.")] = None,
) -> None:
    """Cut the power at every flash operation, in every way; the last line is a JSON object."""
    script = ROOT / "tests" / "torture"
    command = [sys.executable, script, "--cuts", str(cuts), "--seed", str(seed)]
    if case is not None:
        command += ["--case", str(case)]
    raise typer.Exit(subprocess.run(command, cwd=ROOT, check=False).returncode)
