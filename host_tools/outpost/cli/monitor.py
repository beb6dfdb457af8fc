"""`outpost monitor`: what a node prints, without disturbing it."""

from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the verb to `app`."""
    app.command("monitor")(monitor)


def monitor(
    port: Annotated[str | None, typer.Option(help="serial port or socket://HOST:PORT")] = None,
    board: Annotated[str, typer.Option(help="which board to look for")] = "esp32",
    seconds: Annotated[float | None, typer.Option(help="end after so long")] = None,
) -> None:
    """Show what a node prints until Ctrl-C; waits when the port goes away."""
    import sys

    from outpost import repl as reach

    try:
        for data in reach.listen(port or reach.find_port_of(board), seconds):
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
    except KeyboardInterrupt:
        pass
