"""`outpost calibrate`: a power profiler's capture turned into figures of a board file."""

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the verb to `app`."""
    app.command("calibrate")(calibrate)


def calibrate(
    capture: Annotated[Path, typer.Argument(help="CSV of a PPK2, with its logic inputs")],
    board: Annotated[str, typer.Option(help="a name under boards/, or a path")] = "esp32",
    radio: Annotated[str | None, typer.Option(
        help="kind of uplink in the capture; without: the board's first")] = None,
    battery_mv: Annotated[float | None, typer.Option(
        min=500, max=20000, help="measured before the converter, at so many mV; without: at the "
                                 "board's rail")] = None,
    still: Annotated[bool, typer.Option(
        "--still", help="the sensor did not watch for motion (listen = 0)")] = False,
    inputs: Annotated[str | None, typer.Option(
        help="logic input of each phase, as boot=0,capture=1; without: D0 to D6")] = None,
    out: Annotated[Path | None, typer.Option(
        help="write the new board file here instead of over the old")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only show it")] = False,
    json: Annotated[bool, typer.Option("--json", help="one line of JSON")] = False,
) -> None:
    """Measure a board's figures in a capture, and write them with kind `measured on hardware`."""
    from dataclasses import asdict

    from rich import box
    from rich.table import Table

    from outpost import boards
    from outpost import calibrate as calibrating
    from outpost.console import console, print_json

    what = boards.load(board)
    kind = radio or next(iter(what.costs["uplink"]))
    if kind not in what.costs["uplink"]:
        raise calibrating.CalibrateError(
            f"{what.file} has no uplink {kind!r}; there are {', '.join(what.costs['uplink'])}")
    results = calibrating.measure(
        calibrating.read(capture, _inputs(inputs)), what, kind, listening=not still,
        battery_mv=battery_mv, source=calibrating.source_of(capture))
    shown = Table("figure", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("was", "measured", ""):
        shown.add_column(column, justify="right")
    for row in calibrating.table(results):
        shown.add_row(*row)
    console.print(shown)
    target = out or what.file
    if not dry_run:
        calibrating.apply(what, results, target)
        console.print(f"written to {target}", soft_wrap=True)
    if json:
        print_json({"board": what.name, "file": None if dry_run else str(target),
                    "figures": [asdict(one) for one in results]})


def _inputs(text: str | None) -> dict[str, int] | None:
    """Return {stage: logic input} of `boot=0,capture=1`."""
    from outpost.boards import STAGES
    from outpost.calibrate import CalibrateError

    if text is None:
        return None
    found = {}
    for part in text.split(","):
        stage, _, number = part.partition("=")
        if stage not in STAGES or number not in "01234567" or len(number) != 1:
            raise CalibrateError(f"--inputs has {part!r}; each is one of {', '.join(STAGES)}, and "
                                 "an input from 0 to 7, as boot=0")
        found[stage] = int(number)
    return found
