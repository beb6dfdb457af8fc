"""`outpost emulate`: the RP2040 firmware on this machine, by hand or on a mission."""

from pathlib import Path
from typing import Annotated

import typer

from outpost.errors import OutpostError


def register(app: typer.Typer) -> None:
    """Add the verb to `app`."""
    app.command("emulate")(emulate)


def emulate(
    board: Annotated[str, typer.Argument(help="board to emulate")] = "rp2040",
    firmware: Annotated[Path | None, typer.Option(help="a UF2 file; default: ours, built")] = None,
    flash: Annotated[Path | None, typer.Option(help="flash image kept between runs")] = None,
    port: Annotated[int, typer.Option(help="TCP port of USB serial, 0 takes a free one")] = 0,
    speed: Annotated[float, typer.Option(help="emulated seconds a second, while it can")] = 1.0,
    mission: Annotated[float | None, typer.Option(metavar="HOURS", help="run a mission of so many "
                                                  "hours with faults, and check it")] = None,
    seed: Annotated[int, typer.Option(help="of the mission")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object on the last line")]
    = False,
) -> None:
    """Boot the firmware on an emulated board; USB serial on a TCP port and a pty."""
    if board != "rp2040":
        raise OutpostError(f"there is no emulator for {board!r}, only for rp2040")
    if mission is not None:
        _mission(mission, seed, as_json)
        return
    from outpost.emulator import serve

    serve.serve(firmware, flash, port, speed)


def _mission(hours: float, seed: int, as_json: bool) -> None:
    """Fly a mission and print what came of it; exit code 1 unless all is accounted for."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from outpost.console import print_json, stdout
    from outpost.emulator.mission import fly

    result = fly(hours, seed)
    if as_json:
        print_json(result)
    else:
        table = Table("figure", "value", title="mission", title_justify="left",
                      box=SIMPLE_HEAD)
        table.columns[1].justify = "right"
        for name, value in result.items():
            table.add_row(name.replace("_", " "), f"{value:,}" if value is not None else "unknown")
        stdout.print(table)
    if result["lost"] or result["disagreements"]:
        raise OutpostError(f"{result['lost']} records lost and {result['disagreements']} "
                           "decisions that are not the reference's: see build/mission "
                           f"(seed {seed})")
