"""The `outpost` command: one verb a file, found by name."""

import importlib
import pkgutil
import sys

import typer

from outpost.console import console
from outpost.errors import OutpostError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
                  help="Sensor nodes that hold their position alone.")

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}").register(app)


def main() -> None:
    """Run the command line; an OutpostError ends it with a message and exit code 1."""
    try:
        app()
    except OutpostError as error:
        console.print(f"[bold red]error:[/] {error}", soft_wrap=True)
        sys.exit(1)
