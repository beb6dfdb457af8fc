"""`outpost settings`: what nodes that are out shall do differently."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from outpost.gateway.documents import Changes


def register(app: typer.Typer) -> None:
    """Add the verb to `app`."""
    app.command("settings")(settings)


def settings(
    node: Annotated[str, typer.Argument(help="its number, or `all`")],
    changes: Annotated[list[str] | None, typer.Argument(
        metavar="[NAME=VALUE]...",
        help="NAME= goes back to what the node was flashed with")] = None,
    database: Annotated[str, typer.Option(
        envvar="OUTPOST_DATABASE", show_envvar=True, help="the gateway's")] = "",
    json: Annotated[bool, typer.Option("--json", help="one line of JSON")] = False,
) -> None:
    """Change a node's settings when it reports the next time, or show what was changed.

    The node refuses what it does not take, and tells why; what each setting means: docs/wake.md.
    """
    from datetime import UTC, datetime

    from outpost.console import print_json, stdout
    from outpost.gateway import documents, keys, store

    number = _number(node)
    values, unset = _read(changes or [])
    engine = store.existing(database)
    if number != documents.ALL:
        keys.expect(engine, number)
    if values or unset:
        documents.change(engine, number, values, unset)
    with engine.connect() as db:
        shall = documents.load(db, [number])[number]
        has = documents.told(db, number)
        lost = documents.outcomes(db, number)
    engine.dispose()
    if json:
        print_json({"node": number, "changes": shall, "state": has, "lost": lost})
    else:
        _show(node, shall, has)
        for time_s, said in lost:
            when = datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%d %H:%M")
            stdout.print(f"{when} UTC  {said}", markup=False)


def _number(node: str) -> int:
    if node == "all":
        return 0
    if not node.isdecimal() or not 0 < int(node) < 1 << 32:
        raise typer.BadParameter(f"{node!r} is neither a node's number nor `all`")
    return int(node)


def _read(changes: list[str]) -> tuple[dict[str, Any], list[str]]:
    """Return what is given as NAME=VALUE, a value in JSON, and the names of NAME=."""
    import json

    values: dict[str, Any] = {}
    unset = []
    for one in changes:
        name, equals, text = one.partition("=")
        if not equals:
            raise typer.BadParameter(f"{one!r} is not NAME=VALUE")
        if not text:
            unset.append(name)
            continue
        try:
            values[name] = json.loads(text)
        except ValueError:
            raise typer.BadParameter(f"{text!r} is no number, list or null") from None
    return values, unset


def _show(node: str, shall: "Changes", has: str) -> None:
    from rich.table import Table

    from outpost.console import stdout

    if not shall:
        stdout.print(f"{node}: nothing was changed")
        return
    table = Table("setting", "value", "version", "changed", title_justify="left",
                  title=f"all nodes: {has}" if node == "all" else f"node {node}: {has}")
    table.columns[2].justify = "right"
    for name, (stamp, *value) in sorted(shall.items()):
        table.add_row(name, repr(value[0]) if value else "as flashed", str(stamp),
                      "at the node" if stamp % 2 else "here")
    stdout.print(table)
