"""`outpost erase`: a board as it came, nothing of the node left."""

from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the verb to `app`."""
    app.command("erase")(erase)


def erase(
    board: Annotated[str, typer.Option(help="board, as in `outpost boards`")],
    port: Annotated[str | None, typer.Option(help="serial port; found if there is one")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="don't ask")] = False,
) -> None:
    """Erase a board's flash: program, identity and everything recorded."""
    from outpost import boards, flash
    from outpost.console import console
    from outpost.repl import find_port

    what = boards.load(board)
    port = port or find_port(what.chip["name"])
    if not yes:
        typer.confirm(f"Erase {what.name} on {port}, with all it has recorded?", abort=True)
    flash.erase(what, port)
    console.print(f"{port}: erased")
