"""`outpost fleet`: real nodes by the hundred, their gateway, and everything killed on the way."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import RenderableType

    from outpost.fleet.plan import Plan
    from outpost.fleet.run import Now

FAULTS = {"cut": "in a flash operation", "brownout": "while sampling",
          "uplink": "while connecting", "hang": "by the watchdog"}


def register(app: typer.Typer) -> None:
    """Add the verb to `app`."""
    app.command("fleet")(fleet)


def fleet(
    nodes: Annotated[int, typer.Option(min=1, max=2000, help="how many")] = 200,
    days: Annotated[float, typer.Option(min=0.05, max=3660, help="virtual days")] = 30,
    seed: Annotated[int, typer.Option(min=0, help="another seed, other days")] = 1,
    model: Annotated[str, typer.Option(help="a name under models/, or a path")] = "motion",
    board: Annotated[str, typer.Option(help="whose costs virtual time goes by")] = "esp32",
    world: Annotated[str, typer.Option(help="a name under worlds/, or a .toml file")] = "fleet",
    kills: Annotated[float, typer.Option(
        min=0, help="of the gateway a virtual day, and as many of the broker")] = 1,
    out: Annotated[Path | None, typer.Option(help="folder instead of build/fleet")] = None,
    json: Annotated[bool, typer.Option("--json", help="one line of JSON")] = False,
) -> None:
    """Live the days of a fleet: is every acknowledged record stored exactly once?"""
    from outpost.console import console, print_json

    with console.status(f"laying out {nodes} nodes"):
        from rich.live import Live

        from outpost import boards
        from outpost.fleet import run
        from outpost.fleet.plan import prepare
        from outpost.paths import BUILD
        from outpost.world import scenario

        plan = prepare(out or BUILD / "fleet", model, boards.load(board), scenario.load(world),
                       nodes, days, seed, kills)
    console.print(f"[bold]{nodes}[/] nodes with {plan.model} on a virtual {board}, {days:g} days "
                  f"of {plan.world.name}; one gateway, one broker (seed {seed})")
    with Live(console=console, auto_refresh=False, transient=True) as live:
        day = 0

        def show(now: "Now") -> None:
            nonlocal day
            if console.is_terminal:
                live.update(_view(plan, now), refresh=True)
            elif now.clock_s >= plan.start_s + (day + 1) * 86400:
                day = int((now.clock_s - plan.start_s) // 86400)
                console.print(f"day {day}: {now.boots:,} boots, {now.kills:,} kills, "
                              f"{now.stored:,.0f} records stored")

        told = run.live(plan, show)
    _show(told)
    if json:
        print_json(told)
    if not told["ok"]:
        raise run.FleetError(f"records don't add up; all there is to know is in {plan.folder}")


def _view(plan: "Plan", now: "Now") -> "RenderableType":
    """Return the live view."""
    from datetime import UTC, datetime

    from rich.console import Group
    from rich.panel import Panel
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    passed = min(plan.days, (now.clock_s - plan.start_s) / 86400)
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", min_width=18)
    table.add_column(min_width=50)
    table.add_row("virtual time", f"day {min(int(passed) + 1, plan.days):g} of {plan.days:g}, "
                                  f"{datetime.fromtimestamp(now.clock_s, UTC):%A %H:%M}")
    table.add_row("boots", f"{now.boots:,}   [dim]{now.boots / max(1e-3, now.seconds):,.0f} "
                           "a second[/]")
    table.add_row("killed", _killed(now.killed))
    table.add_row("frames doubled", f"{now.doubled:,}   [dim]in {now.links:,} reports[/]")
    table.add_row("records stored", f"[bold]{now.stored:,.0f}[/]")
    if now.stage == "checking":
        lost, doubled = now.found["lost"], now.found["duplicates"]
        table.add_row("checked", f"{now.checked} nodes: [{'red' if lost else 'green'}]{lost} "
                                 f"lost[/], [{'red' if doubled else 'green'}]{doubled} doubled[/]")
    share = now.checked / plan.nodes if now.stage == "checking" else passed / plan.days
    bar = ProgressBar(total=1.0, completed=share, width=70)
    return Panel(Group(table, "", bar), title=f"{plan.nodes} nodes: {now.stage}", expand=False,
                 border_style="cyan")


def _killed(killed: dict[str, int]) -> str:
    """Return who was killed how often."""
    nodes = sum(killed.get(kind, 0) for kind in FAULTS)
    return (f"nodes {nodes:,} ×, gateway {killed.get('gateway', 0):,} ×, "
            f"broker {killed.get('broker', 0):,} ×")


def _show(told: dict[str, Any]) -> None:
    """Print what came of it."""
    from rich.table import Table

    from outpost.console import console
    from outpost.world import audit

    killed = told["killed"]
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column()
    table.add_row("lived", f"{told['nodes']} nodes × {told['days']:g} days: {told['boots']:,} "
                           f"boots in {told['wall_s']:,.0f} s, "
                           f"{told['boots'] / told['wall_s']:,.0f} a second")
    table.add_row("killed", f"{told['kills']:,} processes: {_killed(killed)}")
    table.add_row("", "[dim]nodes: " + ", ".join(f"{killed[kind]:,} {how}" for kind, how
                                                 in FAULTS.items())
                  + f"; {killed['asleep']:,} more lost their power asleep[/]")
    table.add_row("reported", f"{told['links']:,} times; {told['doubled_frames']:,} frames came "
                              "twice or late")
    for row in audit.in_words(told):
        table.add_row(*row)
    console.print(table)
    line = (f"{told['acknowledged']:,} records acknowledged, {told['stored']:,} stored, "
            f"{told['lost']:,} lost, {told['duplicates']:,} doubled")
    if told["dropped"]:
        line += f"; {told['dropped']:,} dropped at nodes and counted"
    if told["ok"]:
        console.print(f"[bold green]✓[/] {line}; {told['compared']:,} still on flash, byte for "
                      "byte the same", soft_wrap=True)
    else:
        console.print(f"[bold red]✗[/] {line}; appended {told['appended']:,}, waiting "
                      f"{told['waiting']:,}, phantoms {told['phantoms']:,}, differing "
                      f"{told['differing']:,}, node crashes {told['crashes']:,}", soft_wrap=True)
