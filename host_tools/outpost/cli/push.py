"""`outpost push`: another model for a node that is alive."""

from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the verb to `app`."""
    app.command("push")(push)


def push(
    model: Annotated[str, typer.Argument(help="a name under models/, or a path")] = "motion",
    port: Annotated[str | None, typer.Option(help="serial port or socket://HOST:PORT")] = None,
    board: Annotated[str, typer.Option(help="which board to look for")] = "esp32",
    nodes: Annotated[str, typer.Option(
        help="by radio instead, to these: numbers with commas, or all")] = "",
    canary: Annotated[int, typer.Option(min=0, help="the first so many of them before the rest")
                      ] = 0,
    healthy: Annotated[float, typer.Option(
        min=0, help="so many seconds canaries must do well before the rest")] = 3600.0,
    deadline: Annotated[float, typer.Option(
        min=0, help="seconds canaries have to show it, or it stops")] = 3 * 86400.0,
    failures: Annotated[float, typer.Option(
        min=0, max=100, help="% of the rest that may fail; with more it stops")] = 10.0,
    database: Annotated[str, typer.Option(
        envvar="OUTPOST_DATABASE", show_envvar=True, help="the gateway's, for --nodes")] = "",
    force: Annotated[bool, typer.Option("--force", help="an older version, too")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="keep trying until the node wakes")] = False,
    json: Annotated[bool, typer.Option("--json", help="one line of JSON")] = False,
) -> None:
    """Build a model, sign it and put it on trial: on the attached node, or by radio on many."""
    from dataclasses import asdict

    from outpost import push as pushing
    from outpost.console import print_json, stdout
    from outpost.repl import CATCH_S, find_port_of

    if nodes:
        number = pushing.roll_out(model, database, nodes, canary=canary, forced=force,
                                  healthy_s=healthy, deadline_s=deadline,
                                  most_failed=failures / 100)
        if json:
            print_json({"rollout": number})
        else:
            stdout.print(f"roll-out {number} has begun. outpost rollout {number} shows how it "
                         "goes", soft_wrap=True)
        return
    done = pushing.push(port or find_port_of(board), model, force, None if wait else CATCH_S)
    if json:
        print_json(asdict(done))
    else:
        stdout.print(f"{done.said}: {done.bytes:,} bytes for {done.arch}. Reset the node, and it "
                     "goes on", soft_wrap=True)
