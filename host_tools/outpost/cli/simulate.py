"""`outpost simulate`: months of a node's life in a minute, with its joules counted."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from outpost.contract import Line
    from outpost.simulate import Case, Outcome


def register(app: typer.Typer) -> None:
    """Add the verb to `app`."""
    app.command("simulate")(simulate)


def simulate(
    model: Annotated[str, typer.Argument(help="a name under models/, or a path")] = "motion",
    board: Annotated[str, typer.Option(help="a name under boards/, or a path")] = "esp32",
    world: Annotated[str, typer.Option(help="a name under worlds/, or a .toml file")] = "factory",
    days: Annotated[float, typer.Option(min=0.05, max=3660, help="virtual days")] = 30,
    seed: Annotated[int, typer.Option(min=0, help="another seed, other days")] = 1,
    battery: Annotated[str | None, typer.Option(
        help="a key of boards/batteries.toml, instead of the world's")] = None,
    set_: Annotated[list[str] | None, typer.Option(
        "--set", metavar="KEY=VALUE", help="a setting of the node, as in docs/wake.md")] = None,
    isolate: Annotated[str, typer.Option(
        help="rewind or process: how each wake begins; the result is the same")] = "rewind",
    compare: Annotated[tuple[str, str] | None, typer.Option(
        metavar="A B", help="two cases side by side, each WORLD[,key=value...]; keys are board, "
                            "battery and settings")] = None,
    budget_check: Annotated[bool, typer.Option(
        "--budget-check", help="fail if the model's contract is missed in life, awake_p99_ms or "
                               "joules_per_day")] = False,
    out: Annotated[Path | None, typer.Option(help="folder instead of build/simulate")] = None,
    json: Annotated[bool, typer.Option("--json", help="one line of JSON")] = False,
) -> None:
    """Let the real firmware live in a world: life, joules by phase, latency, modes, a report."""
    from outpost.console import console, print_json

    with console.status("getting ready"):
        from outpost import boards, simulate, simulation_report
        from outpost.paths import BUILD
        from outpost.world import scenario
        from outpost.world.node import ISOLATIONS

        if isolate not in ISOLATIONS:
            raise simulate.SimulateError(f"--isolate {isolate}: it is {' or '.join(ISOLATIONS)}")
        base = simulate.Case(world, model, boards.load(board), scenario.load(world), battery)
        base = simulate.vary(base, ",".join([world, *(set_ or [])]))
        cases = [simulate.vary(base, text) for text in compare] if compare else [base]
        folder = out or BUILD / "simulate"
    outcomes = _live(cases, folder, days, seed, isolate)
    page = simulation_report.write(outcomes, folder)
    lines = [line for one in outcomes for line in simulate.budget(one)] if budget_check else []
    broken = [line.broken for line in lines if not line.ok]
    _show(outcomes)
    for one in outcomes:
        for warning in one.told["warnings"]:
            console.print(f"[yellow]{one.case.name}: {warning}[/]", soft_wrap=True)
    if lines:
        _show_budget(lines)
    console.print(f"report: {page}   [dim]{outcomes[0].told['wall_s']:.1f} s in all[/]",
                  soft_wrap=True)
    if json:
        told = [one.told | ({"budget": [line.json() for line in lines]} if lines else {})
                for one in outcomes]
        print_json(told[0] if len(told) == 1 else {"compare": told})
    for one in outcomes:
        if not one.told["ok"]:
            raise simulate.SimulateError(
                f"{one.case.name}: records don't add up; all there is to know is in "
                f"{one.plan.folder}")
    if broken:
        raise simulate.SimulateError(f"over budget: {'; '.join(broken)}")


def _live(cases: "list[Case]", folder: Path, days: float, seed: int, isolate: str
          ) -> "list[Outcome]":
    """Live the cases with a bar for each."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from outpost.console import console
    from outpost.simulate import live

    columns = (TextColumn("{task.description}", markup=False), BarColumn(32),
               TextColumn("day {task.fields[day]:.0f} of {task.total:g}"), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal,
                  transient=True) as progress:
        bars = [progress.add_task(case.name, total=days, day=0) for case in cases]

        def tick(shares: list[float]) -> None:
            for bar, share in zip(bars, shares, strict=True):
                progress.update(bar, completed=share * days, day=share * days)

        return live(cases, folder, days, seed, isolate, tick)


def _show(outcomes: "list[Outcome]") -> None:
    """Print what came of it, a column for each case."""
    from rich import box
    from rich.table import Table

    from outpost.console import console
    from outpost.world.figures import lasts

    table = Table("", box=box.SIMPLE_HEAD, pad_edge=False)
    for one in outcomes:
        table.add_column(f"{one.case.name} on {one.plan.board.name}", justify="right")
    rows = {
        "lived": lambda t: f"{t['days']:g} days, {t['wakes']:,} wakes",
        "mean current": lambda t: f"{t['average_current_ua']:,.1f} µA",
        "life": lambda t: f"[red]{lasts(t)}[/]" if t["flat_s"] else lasts(t),
        "a day": lambda t: f"{t['joules_per_day']:,.2f} J, {t['bytes_per_day'] / 1e3:,.1f} kB",
        "most goes to": lambda t: ", ".join(
            f"{name} {100 * mj / max(1e-9, sum(t['energy_mj'].values())):.0f} %" for name, mj in
            sorted(t["energy_mj"].items(), key=lambda pair: -pair[1])[:3]),
        "awake": lambda t: (f"{t['latency_us']['awake']['p50'] / 1e3:,.0f} ms, 99 % "
                            f"{t['latency_us']['awake']['p99'] / 1e3:,.0f} ms"),
        "modes": lambda t: ", ".join(
            f"{name} {100 * span / sum(t['modes'].values()):.1f} %"
            for name, span in t["modes"].items()),
        "decided": lambda t: f"{100 * t['accuracy']:.2f} % of {t['decisions']:,} right",
        "records": lambda t: (f"{t['appended']:,} = {t['stored']:,} stored + {t['waiting']:,} "
                              f"waiting + {t['dropped']:,} dropped; {t['lost']:,} lost"),
    }
    for name, tell in rows.items():
        table.add_row(f"[dim]{name}[/]", *(tell(one.told) for one in outcomes))
    console.print(table)


def _show_budget(lines: "list[Line]") -> None:
    """Print the budget's lines."""
    from outpost.console import console

    for line in lines:
        if line.demanded is not None:
            mark = "[green]✓[/]" if line.ok else "[red]✗[/]"
            least = "at least" if line.term.least else "at most"
            console.print(f"{mark} {line.name}: {line.told(line.got)}, {least} "
                          f"{line.told(line.demanded)}   [dim]{line.kind}: {line.how}[/]",
                          soft_wrap=True)
