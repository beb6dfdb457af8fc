"""`outpost repl`: the REPL of a node, caught while it is awake."""

from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the verb to `app`."""
    app.command("repl")(repl)


def repl(
    port: Annotated[str | None, typer.Option(help="serial port or socket://HOST:PORT")] = None,
    board: Annotated[str, typer.Option(help="which board to look for")] = "esp32",
    wait: Annotated[bool, typer.Option("--wait", help="keep trying until the node wakes")] = False,
    command: Annotated[str | None, typer.Option("--exec", help="run this and end")] = None,
) -> None:
    """Open a node's REPL (Ctrl-] leaves it); `import node; node.status()` is a beginning."""
    import subprocess

    from outpost import repl as reach
    from outpost.console import console

    port = port or reach.find_port_of(board)
    with reach.Repl(port, None if wait else reach.CATCH_S, console.print) as caught:
        if command is not None:
            print(caught.run(command), end="")
            return
    raise typer.Exit(subprocess.call(reach.interactive(port)))
