"""`outpost pull`: what a node has recorded, over its serial port."""

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the verb to `app`."""
    app.command("pull")(pull)


def pull(
    port: Annotated[str | None, typer.Option(help="serial port or socket://HOST:PORT")] = None,
    board: Annotated[str, typer.Option(help="which board to look for")] = "esp32",
    model: Annotated[str, typer.Option(help="model whose windows were captured")] = "motion",
    database: Annotated[Path | None, typer.Option(help="SQLite file")] = None,
    recordings: Annotated[Path | None, typer.Option(help="folder for captured windows")] = None,
    clear: Annotated[bool, typer.Option("--clear", help="remove the windows there")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="keep trying until the node wakes")] = False,
    json: Annotated[bool, typer.Option("--json", help="one line of JSON")] = False,
) -> None:
    """Fetch records into SQLite, and captured windows as recordings to train on."""
    from rich.markup import escape

    from outpost import pull as pulling
    from outpost.console import console, print_json, stdout
    from outpost.repl import CATCH_S, find_port_of

    got = pulling.pull(port or find_port_of(board), model, database, recordings, clear,
                       None if wait else CATCH_S)
    drifted = pulling.drift_of(got, model)
    if drifted:
        console.print(f"[yellow]warning:[/] {escape(drifted)}", soft_wrap=True)
    if json:
        print_json({"node": got.node, "records": got.records, "database": str(got.database),
                    "recordings": [str(path) for path in got.recordings], "drift": drifted})
        return
    stdout.print(f"node {got.node}: {got.records:,} records in {got.database}", soft_wrap=True)
    if got.recordings:
        stdout.print(f"{len(got.recordings)} windows in {got.recordings[0].parent}: train on them "
                     "with [data] path in model.toml", soft_wrap=True)
