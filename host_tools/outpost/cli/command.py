"""`outpost command`: what a node that is out shall do."""

from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the verb to `app`."""
    app.command("command")(command)


def command(
    node: Annotated[int, typer.Argument(min=1, max=0xFFFFFFFF, help="its number")],
    what: Annotated[str, typer.Argument(
        help="report, reset, safe, resume, selftest, identify or resend; nothing: what came of "
             "the last ones")] = "",
    arguments: Annotated[list[str] | None, typer.Argument(
        help="of resend: a lane and the first sequence")] = None,
    database: Annotated[str, typer.Option(
        envvar="OUTPOST_DATABASE", show_envvar=True, help="the gateway's")] = "",
    wait_s: Annotated[float, typer.Option(
        "--wait", help="so many seconds for what comes of it")] = 0,
    json: Annotated[bool, typer.Option("--json", help="one line of JSON")] = False,
) -> None:
    """Tell a node what to do when it reports the next time, in SAFE mode too."""
    import time

    from rich.table import Table

    from outpost.console import print_json, stdout
    from outpost.gateway import commands, keys, store

    engine = store.existing(database)
    keys.expect(engine, node)
    number = commands.ask(engine, node, *commands.encode(what, arguments or [])) if what else 0
    until = time.monotonic() + wait_s
    while True:
        with engine.connect() as db:
            rows = [row for row in commands.history(db, node) if number in (0, row.number)]
        if not number or rows[0].result is not None or time.monotonic() > until:
            break
        time.sleep(0.5)
    engine.dispose()
    names = {code: name for name, code in commands.NAMES.items()}
    told = [{"number": row.number, "command": names.get(row.code, str(row.code)),
             "result": commands.RESULTS.get(row.result), "text": row.text} for row in rows]
    if json:
        print_json({"node": node, "commands": told})
        return
    table = Table("number", "command", "result", "", title=f"node {node}", title_justify="left")
    for one in told:
        table.add_row(str(one["number"]), one["command"],
                      one["result"] or "waits for the node to report", one["text"])
    stdout.print(table if told else f"node {node} was never told anything")
