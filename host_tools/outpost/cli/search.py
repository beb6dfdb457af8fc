"""`outpost search`: the models that are best for a board under a contract, as a front."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from outpost.search import Found, Outcome


def register(app: typer.Typer) -> None:
    """Add the verb to `app`."""
    app.command("search")(search)


def search(
    model: Annotated[str, typer.Argument(help="a name under models/, or a path")],
    board: Annotated[str, typer.Option(help="a name under boards/, or a path")] = "rp2040",
    trials: Annotated[int, typer.Option(
        min=1, help="how many the study shall have; more than it has: it goes on")] = 1000,
    jobs: Annotated[int, typer.Option(
        min=0, help="processes; 0: one a core", show_default="one a core")] = 0,
    storage: Annotated[str | None, typer.Option(
        metavar="URL", help="a database that several machines share, such as "
                            "postgresql+psycopg://… or sqlite:///…; without: a file")] = None,
    battery: Annotated[str, typer.Option(help="a key of boards/batteries.toml")] = "li-ion-18650",
    seed: Annotated[int, typer.Option(min=0, help="of what Optuna draws")] = 1,
    out: Annotated[Path | None, typer.Option(
        help="folder instead of build/search/MODEL-BOARD")] = None,
    json: Annotated[bool, typer.Option("--json", help="one line of JSON")] = False,
) -> None:
    """Search for the models that are right most often for the fewest joules."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from outpost.console import console, print_json

    with console.status("loading"):
        from outpost import front
        from outpost import search as searching

    columns = (TextColumn("{task.description}", markup=False), BarColumn(30),
               TextColumn("{task.completed:.0f} of {task.total:.0f}"), TimeElapsedColumn(),
               TextColumn("{task.fields[told]}", style="dim", markup=False))
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task(f"{model} on {board}", total=trials, told="")

        def tell(done: int, of: int, told: str) -> None:
            progress.update(bar, completed=done, total=of, told=told)

        outcome = searching.search(model, board, trials, jobs or os.cpu_count() or 1, storage,
                                   battery, seed, out, tell)
    searching.write_json(outcome)
    page = front.write(outcome)
    if json:
        print_json(outcome.json())
    else:
        _show(outcome)
        console.print(f"model: {outcome.folder / 'model.toml'}   front: {page}", soft_wrap=True)


def _show(outcome: "Outcome") -> None:
    from rich import box
    from rich.table import Table

    from outpost.console import stdout

    base = outcome.space.base
    table = Table("", title=f"{base.name} on {outcome.space.board.name}: {outcome.trials} trials, "
                            f"{outcome.rate:.0f} a second, {outcome.refused} beyond the bounds",
                  title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.padding = (0, 1)
    for column in ("validated", "held out", "mJ", "bytes", "µs", "window", "feat.", "trees"):
        table.add_column(column, justify="right", no_wrap=True)
    if base.events is not None:
        table.add_column("seen", justify="right", no_wrap=True)
        table.add_column("false/h", justify="right", no_wrap=True)

    def add(mark: str, one: "Found", style: str = "") -> None:
        signal, forest = one.recipe.signal, one.recipe.forest
        table.add_row(mark, f"{100 * one.accuracy:.2f} %", f"{100 * one.held_out.value:.2f} %",
                      f"{one.energy_uj / 1e3:.2f}", f"{one.bytes:,}", f"{one.latency_us:.0f}",
                      f"{signal.window / signal.rate_hz:.2f} s",
                      str(len(one.recipe.feature_names)),
                      f"{forest.trees} × {forest.depth or '∞'}",
                      *([f"{one.events.detected}/{one.events.episodes}",
                         f"{one.events.per_hour:.0f}"] if one.events else []), style=style)

    for one in outcome.front:
        mark = " ".join(word for word, other in (("best", outcome.best), ("knee", outcome.knee))
                        if other.recipe == one.recipe)
        add(mark, one, "bold green" if "best" in mark else "")
    table.add_section()
    add("now", outcome.baseline, "yellow")
    stdout.print(table)
    saved = 1 - outcome.best.energy_uj / outcome.baseline.energy_uj
    if outcome.dominates:
        stdout.print(f"The best is as right as {base.name}'s model.toml when validated, for "
                     f"{100 * saved:.0f} % fewer joules.")
    else:
        stdout.print(f"Nothing on the front is as right as {base.name}'s model.toml for fewer "
                     "joules.")
    held = outcome.best.held_out
    stdout.print(f"[dim]Of the best, held out: {100 * held.low:.1f} to {100 * held.high:.1f} % "
                 f"with 95 % confidence ({held.windows} windows, {held.recordings} recordings), "
                 "looked at once.[/]")
