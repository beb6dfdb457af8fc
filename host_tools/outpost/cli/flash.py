"""`outpost flash`: put a node onto a board and ask it how it is."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from outpost.flash import Plan


def register(app: typer.Typer) -> None:
    """Add the verb to `app`."""
    app.command("flash")(flash)


def flash(
    board: Annotated[str, typer.Option(help="board, as in `outpost boards`")],
    port: Annotated[str | None, typer.Option(
        help="serial port, or the folder of a drive RPI-RP2; found if there is one board")] = None,
    model: Annotated[str, typer.Option(help="model the node carries")] = "motion",
    image: Annotated[Path | None, typer.Option(
        "--firmware", help="MicroPython's .bin (ESP32), or a firmware.uf2 (RP2040)")] = None,
    node: Annotated[int | None, typer.Option(help="be this known node again")] = None,
    network: Annotated[Path | None, typer.Option(
        help="JSON file with ssid, password, host and port of the gateway, and perhaps ca, "
             "login, prefix, address")] = None,
    battery: Annotated[str, typer.Option(
        help="what it hangs on, as in boards/batteries.toml")] = "li-ion-18650",
    wipe: Annotated[bool, typer.Option("--wipe", help="erase the recorded data as well")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print the plan only")] = False,
    baud: Annotated[int, typer.Option(help="speed of the serial line (ESP32)")] = 460800,
    no_stub: Annotated[bool, typer.Option(
        "--no-stub", help="use the chip's ROM loader alone: slower")] = False,
    phase_pins: Annotated[bool, typer.Option(
        "--phase-pins", help="the board's phase pins are high in their stages, for a power "
                             "profiler: docs/power.md")] = False,
    program: Annotated[bool, typer.Option(
        "--program", help="the node's Python only, which goes before what the firmware has of it "
                          "(RP2040, by its serial port)")] = False,
    json: Annotated[bool, typer.Option("--json", help="one line of JSON")] = False,
) -> None:
    """Build what a node needs, write it, read it back, and have the node test itself."""
    from outpost import flash as flashing
    from outpost.console import print_json, stdout

    if program:
        from outpost import boards
        from outpost import program as programs

        size = programs.write(boards.load(board), port)
        if json:
            print_json({"program": size})
        else:
            stdout.print(f"{size:,} bytes of the node's Python run from the next reset on. "
                         "Flashed without --program, the firmware's own come back", soft_wrap=True)
        return
    plan, told = flashing.run(flashing.Options(board, port, model, image, node, network,
                                               battery, wipe, baud, not no_stub, phase_pins),
                                dry_run)
    if json:
        print_json({**plan.json(), **({"told": told} if told else {})})
    else:
        show(plan, told)


def show(plan: "Plan", told: dict[str, Any]) -> None:
    """Print the regions, and what the node said of itself."""
    from rich.table import Table

    from outpost.console import stdout

    table = Table("region", "offset", "bytes", "SHA-256", title_justify="left",
                  title=f"node {plan.node.number} on {plan.board.name}, {plan.port or 'no port'}")
    for column in (1, 2):
        table.columns[column].justify = "right"
    for region in plan.regions:
        table.add_row(region.name, f"{region.offset:#08x}", f"{len(region.data):,}",
                      region.sha256[:16])
    stdout.print(table)
    stdout.print("the ring is kept" if plan.keeps_ring else "the ring is erased")
    if "tests" in told:
        for line in told["tests"]:
            stdout.print(line, markup=False)
        stdout.print(f"node {told['node']}: MicroPython {told['micropython']}, "
                     f"{told['heap_free']:,} bytes of heap free, model {told['model']}, "
                     f"{told['waiting']} records wait, {told['battery_mv']} mV", markup=False)
