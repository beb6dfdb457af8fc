"""`outpost run`: a node lives some virtual days on real MicroPython, and is held to account."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import RenderableType

    from outpost.world.run import Plan
    from outpost.world.watch import Now

REFRESH_S = 0.1
CAUSES = ("power on", "timer", "motion", "watchdog", "brown-out")


def register(app: typer.Typer) -> None:
    """Add the verb to `app`."""
    app.command("run")(run)


def run(
    model: Annotated[str, typer.Option(help="a name under models/, or a path")] = "motion",
    board: Annotated[str, typer.Option(help="whose costs virtual time goes by")] = "esp32",
    world: Annotated[str, typer.Option(help="a name under worlds/, or a .toml file")] = "wearer",
    days: Annotated[float, typer.Option(min=0.05, max=3660, help="virtual days")] = 7,
    seed: Annotated[int, typer.Option(min=0, help="another seed, another week")] = 1,
    out: Annotated[Path | None, typer.Option(help="folder instead of build/run")] = None,
    json: Annotated[bool, typer.Option("--json", help="one line of JSON")] = False,
) -> None:
    """Live virtual days: boot MicroPython for each wake, bring records home, write a report."""
    import time

    from outpost.console import console, print_json

    started = time.monotonic()
    with console.status("getting ready"):
        from rich.live import Live

        from outpost import boards, report
        from outpost.paths import BUILD
        from outpost.world import audit, scenario
        from outpost.world.run import Run, RunError, prepare
        from outpost.world.watch import Watch

        plan = prepare(out or BUILD / "run", model, boards.load(board), scenario.load(world),
                       days, seed)
    console.print(f"[bold]{plan.model.model}[/] on a virtual {board}: {days:g} days, each wake a "
                  f"new MicroPython process (seed {seed})")
    with Run(plan) as processes, Watch(plan) as watch:
        with Live(console=console, auto_refresh=False, transient=True) as live:
            day = 0
            while processes.alive():
                now = watch.look()
                if console.is_terminal:
                    live.update(_view(plan, now, processes.restarts), refresh=True)
                elif now.day > day:
                    day = now.day
                    console.print(f"day {day}: {now.wakes} wakes, {now.stored} records stored")
                time.sleep(REFRESH_S)
        restarts = processes.restarts
    found = audit.audit(plan.folder, plan.meta["classes"])
    page = report.write(plan, found)
    told = audit.summary(plan, found, restarts, time.monotonic() - started)
    _show(plan, told, page)
    if json:
        print_json(told)
    if not told["ok"]:
        raise RunError(f"the run did not go as promised; all there is to know is in {plan.folder}")


def _view(plan: "Plan", now: "Now", restarts: dict[str, int]) -> "RenderableType":
    """Return the live view."""
    from rich.console import Group
    from rich.panel import Panel
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    right = now.truth == now.decision
    certain = f" {100 * now.certainty:.0f} %" if now.decision else ""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", min_width=18)
    table.add_column(min_width=46)
    table.add_row("virtual time", f"day {now.day}, {now.time:%A %H:%M:%S}"
                                  f"   [dim]{now.pace:,.0f} × real time[/]")
    table.add_row("wakes", f"{now.wakes:,}   [dim]the last by {CAUSES[now.cause]}[/]")
    table.add_row("decision", f"[{'green' if right else 'yellow'}]{now.decision}[/]{certain}"
                              f"   [dim]in truth[/] {now.truth}")
    table.add_row("smoothed", now.smoothed)
    table.add_row("waiting at node", f"{now.waiting:,} records")
    table.add_row("link", "[green]up[/]" if now.link else "[dim]down[/]")
    table.add_row("stored at gateway", f"[bold]{now.stored:,}[/] records")
    table.add_row("survived", f"{_times(now.brownouts, 'brown-out')}, "
                              f"{_times(now.watchdogs, 'watchdog reset')}"
                  + "".join(f", {name} killed {n} ×" for name, n in restarts.items() if n))
    bar = ProgressBar(total=1.0, completed=now.share, width=66)
    return Panel(Group(table, "", bar), title=f"{plan.model.model} on {plan.board.name}",
                 expand=False, border_style="cyan")


def _show(plan: "Plan", told: dict[str, Any], page: Path) -> None:
    """Print what came of the run."""
    from rich.table import Table

    from outpost.console import console
    from outpost.world import audit

    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column()
    table.add_row("lived", f"{told['days']:g} days, {told['wakes']:,} wakes: "
                           f"{told['by_timer']:,} by timer, {told['by_motion']:,} by motion")
    table.add_row("survived", f"{_times(told['brownouts'], 'brown-out')}, "
                              f"{_times(told['watchdogs'], 'watchdog reset')}")
    for row in audit.in_words(told):
        table.add_row(*row)
    console.print(table)
    dropped = f" + {told['dropped']:,} dropped and counted" if told["dropped"] else ""
    line = (f"records appended {told['appended']:,} = stored {told['stored']:,}{dropped}, each "
            f"once; {told['compared']:,} still on flash, byte for byte the same")
    if told["ok"]:
        console.print(f"[bold green]✓[/] {line}", soft_wrap=True)
    else:
        console.print(f"[bold red]✗[/] appended {told['appended']:,}, stored {told['stored']:,}, "
                      f"dropped {told['dropped']:,}, lost {told['lost']:,}, duplicates "
                      f"{told['duplicates']:,}, phantoms {told['phantoms']:,}, differing "
                      f"{told['differing']:,}, node crashes {told['crashes']:,}", soft_wrap=True)
    here = page.relative_to(Path.cwd()) if page.is_relative_to(Path.cwd()) else page
    console.print(f"report: {here}   [dim]{told['wall_s']:.1f} s in all[/]", soft_wrap=True)


def _times(count: int, what: str) -> str:
    """Return "1 brown-out", "2 brown-outs"."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"
