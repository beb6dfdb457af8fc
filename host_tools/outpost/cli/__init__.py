"""The `outpost` command: one verb a file, found by name."""

import errno
import importlib
import pkgutil
import signal
import sys
from typing import Annotated, Any

import typer
from rich.text import Text

import outpost
from outpost.console import console
from outpost.errors import OutpostError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


def _version(wanted: bool) -> None:
    """Print the version and leave."""
    if wanted:
        print(f"outpost {outpost.__version__}")
        raise typer.Exit


@app.callback(help="Sensor nodes that hold their position alone.")
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True,
                                          help="Show the version and exit.")] = False,
) -> None:
    pass


for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}").register(app)


def _end(number: int, _: Any) -> None:
    sys.exit(128 + number)


def main() -> None:
    """Run the command line; what a person can put right ends it with a message and code 1.

    Whoever is told to end, or whose terminal goes, ends what it has started, as after Ctrl-C.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:  # nohup ignores one
            signal.signal(number, _end)
    try:
        app()
    except OutpostError as error:
        _refuse(str(error))
    except OSError as error:  # of a file that a person has named, or whose disk is full
        if error.filename is None and error.errno != errno.ENOSPC:
            raise
        _refuse(": ".join(str(one) for one in (error.filename, error.strerror) if one))


def _refuse(told: str) -> None:
    console.print(Text.assemble(("error: ", "bold red"), told), soft_wrap=True)
    sys.exit(1)
