"""`outpost windows`: what nodes were unsure about, to be labelled and trained on."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from outpost.gateway.windows import Window


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("windows")(windows)


def windows(
    database: Annotated[str, typer.Option(
        envvar="OUTPOST_DATABASE", show_envvar=True, help="the gateway's")] = "",
    model: Annotated[str, typer.Option(help="a name under models/, or a path")] = "motion",
    node: Annotated[int | None, typer.Option(help="of this one only")] = None,
    count: Annotated[int, typer.Option(min=1, help="so many, the newest first")] = 30,
    label: Annotated[list[str] | None, typer.Option(
        help="NODE/EPOCH/SEQ=CLASS, as often as you like; without CLASS a label is taken back")
    ] = None,
    export: Annotated[Path | None, typer.Option(
        help="write the labelled ones as an .npz for `also` in a model.toml")] = None,
    sure: Annotated[float | None, typer.Option(
        min=0, max=1, help="export what heavy gave so much of its votes to as well")] = None,
    json: Annotated[bool, typer.Option("--json", help="one line of JSON")] = False,
) -> None:
    """Windows that nodes sent up because they were unsure; what node, heavy and people say."""
    from outpost import data, recipe
    from outpost.console import console, print_json
    from outpost.gateway import store
    from outpost.gateway import windows as kept

    what = recipe.load(recipe.find(model))
    classes = what.classes or data.load(what).classes
    engine = store.existing(database)
    try:
        with engine.begin() as db:
            for one in label or ():
                name, _, said = one.partition("=")
                if said and said not in classes:
                    raise kept.WindowError(f"{said!r} is no class of {what.name}; there are "
                                           f"{', '.join(classes)}")
                kept.label(db, kept.key_of(name), said or None)
        with engine.connect() as db:
            exported = kept.export(db, what, export, sure) if export else None
            found = kept.newest(db, count, node)
    finally:
        engine.dispose()
    if json:
        print_json({"windows": [_told(one, classes) for one in found], "exported": exported})
        return
    if export:
        console.print(f"{exported} windows in {export}: train on them besides with [data] also = "
                      f"\"{export.parent.resolve()}\"", soft_wrap=True, markup=False)
    else:
        _show(found, classes)


def _told(one: "Window", classes: tuple[str, ...]) -> dict[str, object]:
    return {"window": one.name, "time_s": one.time_s, "node": _decided(one, classes),
            "heavy": one.heavy, "label": one.label}


def _decided(one: "Window", classes: tuple[str, ...]) -> tuple[str, float] | None:
    if one.decided is None:
        return None
    number, share = one.decided
    return classes[number] if number < len(classes) else str(number), share


def _show(found: list["Window"], classes: tuple[str, ...]) -> None:
    from datetime import UTC, datetime

    from rich import box
    from rich.markup import escape
    from rich.table import Table

    from outpost.console import stdout

    if not found:
        stdout.print("no node has been unsure yet")
        return
    table = Table("window", "when (UTC)", "node says", "", "heavy says", "", "label",
                  box=box.SIMPLE_HEAD, pad_edge=False)
    for i in (3, 5):
        table.columns[i].justify = "right"
    for one in found:
        node, heavy = _decided(one, classes), one.heavy
        colour = "[yellow]" if node and heavy and node[0] != heavy[0] else ""
        table.add_row(
            one.name, datetime.fromtimestamp(one.time_s, UTC).strftime("%Y-%m-%d %H:%M:%S"),
            *((escape(node[0]), f"{node[1]:.0%}") if node else ("", "")),
            *((colour + escape(heavy[0]), f"{heavy[1]:.0%}") if heavy else ("", "")),
            f"[green]{escape(one.label)}[/]" if one.label else "[dim]·[/]")
    stdout.print(table)
