"""`outpost check`: a model against its contract on a board, line by line."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from outpost.check import Checked

KIND_STYLES = {"modelled": "yellow", "measured on emulator": "green", "measured on host": "green",
               "measured on hardware": "bold green"}


def register(app: typer.Typer) -> None:
    """Add the verb to `app`."""
    app.command("check")(check)


def check(
    model: Annotated[str, typer.Argument(help="a name under models/, or a path")],
    board: Annotated[str, typer.Option(help="a name under boards/, or a path")] = "rp2040",
    battery: Annotated[str, typer.Option(help="a key of boards/batteries.toml")] = "li-ion-18650",
    fetch: Annotated[bool, typer.Option(
        "--fetch", help="build the machines to measure on, if they are not there yet")] = False,
    world: Annotated[str | None, typer.Option(
        help="let the node live in a world: life, joules a day, time awake")] = None,
    days: Annotated[float, typer.Option(min=0.05, help="virtual days there")] = 7,
    drift: Annotated[Path | None, typer.Option(
        help="recordings of `outpost pull`, to hold against the training windows")] = None,
    explain: Annotated[bool, typer.Option(
        "--explain", help="what costs what, also if nothing is broken")] = False,
    json: Annotated[bool, typer.Option("--json", help="one line of JSON")] = False,
) -> None:
    """Hold a model against its contract: demanded, got, margin, and how that was obtained."""
    from dataclasses import asdict

    from outpost import check as checking
    from outpost import explain as explaining
    from outpost.console import console, print_json

    checked = checking.check(model, board, battery, fetch, drift, world, days)
    remedies = explaining.remedies(checked)
    if json:
        print_json({**checked.json(), "remedies": remedies, "sizes": checked.sizes,
                    "features": [asdict(one) for one in explaining.features(checked)],
                    "trees": [asdict(one) for one in explaining.trees(checked)]})
    else:
        _show(checked)
        _show_data(checked)
        if explain or not checked.ok:
            _explain(checked)
        for remedy in remedies:
            console.print(f"[yellow]{remedy}[/]", soft_wrap=True)
    if not checked.ok:
        raise checking.CheckError(f"{checked.what.name} breaks its contract on "
                                  f"{checked.board.name}: {'; '.join(checked.broken)}")


def _show(checked: "Checked") -> None:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    from outpost.console import stdout

    table = Table("", title=f"{checked.what.name} {checked.what.version} on "
                            f"{checked.board.name}", title_justify="left",
                  box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    table.add_column("", no_wrap=True)
    for column in ("demanded", "got", "95 %", "margin"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("measured or", no_wrap=True)
    for line in checked.lines:
        mark = "·" if line.demanded is None else "[green]✓[/]" if line.ok else "[red]✗[/]"
        least = "≥" if line.term.least else "≤"
        scale = 100 if line.term.unit == "share" else 1
        between = ("" if line.low is None else
                   f"{scale * line.low:,.1f}–{scale * line.high:,.1f}")
        style = KIND_STYLES.get(line.kind, "white")
        table.add_row(mark, line.term.words, "" if line.demanded is None else
                      f"{least} {line.told(line.demanded)}", line.told(line.got), between,
                      line.told(line.margin) if line.ok else f"[red]{line.told(line.margin)}[/]",
                      f"[{style}]{line.kind.removeprefix('measured ')}[/]")
    stdout.print(table)
    for line in checked.lines:
        where = f" ({line.where})" if line.where else ""
        stdout.print(f"[dim]{line.name}{escape(where)}: {escape(line.how)}[/]")


def _show_data(checked: "Checked") -> None:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    from outpost import honesty
    from outpost.console import console, stdout

    splits = honesty.splits(checked.fitted)
    table = Table("class", title=f"data, split {splits.by}",
                  title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("trained on", "windows", "held out", "windows"):
        table.add_column(column, justify="right")
    for one in splits.classes:
        table.add_row(escape(one.label), str(one.groups_train), f"{one.windows_train:,}",
                      str(one.groups_test), f"{one.windows_test:,}")
    stdout.print(table)
    if checked.drift is not None:
        table = Table("feature", title=f"drift of {checked.drift.windows} windows; seen as "
                      + ", ".join(f"{label} {100 * share:.0f} %"
                                  for label, share in checked.drift.mix.items()),
                      title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        for column in ("PSI", "allowed"):
            table.add_column(column, justify="right")
        for feature in checked.drift.features[:12]:
            table.add_row(feature.name, f"{feature.psi:.2f}", f"{feature.limit:.2f}",
                          style="red" if feature.drifted else "")
        stdout.print(table)
    for warning in [*checked.fitted.dataset.warnings, *splits.warnings,
                    *filter(None, [checked.drift and checked.drift.warning])]:
        console.print(f"[yellow]warning:[/] {escape(warning)}", soft_wrap=True)


def _explain(checked: "Checked") -> None:
    from rich import box
    from rich.table import Table

    from outpost import explain as explaining
    from outpost.console import stdout

    sizes = checked.sizes
    stdout.print(f"\n{sizes['module']:,} B: {sizes['forest']:,} are the model, {sizes['rest']:,} "
                 "features, names and what MicroPython needs")
    found = explaining.features(checked)
    if found:
        table = Table("without", title="what features cost (modelled), dearest first",
                      title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        for column in ("µs saved", "nodes that look at it", "importance"):
            table.add_column(column, justify="right")
        for one in found:
            table.add_row(one.name, f"{one.us:.1f}", str(one.nodes),
                          f"{100 * one.importance:.1f} %")
        stdout.print(table)
    idle = [name for name, count in explaining.looks(checked).items() if not count]
    if idle and checked.fitted.forest.trees and not checked.what.features.raw:
        stdout.print(f"[dim]no tree looks at {', '.join(idle)}[/]")
    trees = explaining.trees(checked)
    if not trees:
        return
    table = Table("tree", title="what trees cost", title_justify="left", box=box.SIMPLE_HEAD,
                  pad_edge=False)
    for column in ("nodes", "longest path", "bytes", "training windows lost without"):
        table.add_column(column, justify="right")
    for one in trees:
        table.add_row(str(one.number), str(one.nodes), str(one.longest), f"{one.bytes:.0f}",
                      f"{100 * one.missed:+.2f} points")
    stdout.print(table)
