"""`outpost boards`: what each board has, draws and takes, and how long its flash ring lasts."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from outpost.boards import Board, Figure

RATES = {"1/min": 1440.0, "1/s": 86400.0}  # records a day
KIND_STYLES = {"modelled": "yellow", "measured on emulator": "green",
               "measured on hardware": "bold green"}
REGION_COLOURS = {"firmware": "blue", "littlefs": "green", "ring": "magenta"}


def register(app: typer.Typer) -> None:
    """Add the verb to `app`."""
    app.command("boards")(boards)


def boards(
    name: Annotated[str | None, typer.Argument(
        help="a name under boards/, or a path; without: all")] = None,
    records_per_day: Annotated[float | None, typer.Option(
        min=0.001, help="records a day for the ring's lifetime; without: 1/min and 1/s",
        show_default=False)] = None,
    payload: Annotated[int, typer.Option(min=0, max=240, help="bytes of a record")] = 32,
    json: Annotated[bool, typer.Option("--json", help="one line of JSON")] = False,
) -> None:
    """Show the boards, or one board with every figure and where it comes from."""
    from outpost import boards as library
    from outpost.console import print_json

    rates = RATES if records_per_day is None else {f"{records_per_day:g}/day": records_per_day}
    if json and name is None:
        print_json({"boards": [_json(library.load(one), rates, payload)
                               for one in library.names()]})
    elif json:
        print_json(_json(library.load(name), rates, payload))
    elif name is None:
        _show_all([library.load(one) for one in library.names()], rates, payload)
    else:
        _show(library.load(name), rates, payload)


def _json(board: "Board", rates: dict[str, float], payload: int) -> dict[str, Any]:
    result: dict[str, Any] = {
        "name": board.name, "chip": board.chip["name"], "board": board.chip["board"],
        "architecture": board.architecture, "micropython": board.chip["micropython"],
        "pins": board.pins,
        "regions": [{"name": region.name, "offset": region.offset, "size": region.size}
                    for region in board.flash.regions],
        "lanes": {lane: {"sectors": sectors,
                         "lifetime_years": {label: round(board.lane_years(lane, rate, payload), 2)
                                            for label, rate in rates.items()}}
                  for lane, sectors in board.lanes.items()},
        "figures": {key: {"value": figure.value, "unit": figure.unit, "per": figure.per,
                          "kind": figure.kind, "source": figure.source}
                    for key, figure in board.figures()},
    }
    return result


def _show_all(found: list["Board"], rates: dict[str, float], payload: int) -> None:
    from outpost.console import stdout

    table = _table("board", "arch", right=("RAM", "flash", "ring", "asleep", "boot",
                                           *(f"at {label}" for label in rates)))
    for board in found:
        table.add_row(
            f"[bold]{board.name}[/]", board.architecture, _nice(board.memory["ram"]),
            _nice(board.flash.size), f"{board.flash.region('ring').size // 1024:,} KiB",
            _nice(board.power["deep_sleep"]), f"{board.stage_us('boot', reset=1) / 1000:.0f} ms",
            *(_years(board.lane_years("telemetry", rate, payload)) for rate in rates.values()))
    stdout.print(table)
    stdout.print(f"[dim]boot: from deep sleep to the node's first line. At a rate of "
                 f"{payload}-byte records: years until telemetry's lane is worn out. "
                 f"`outpost boards {found[0].name}` shows every figure and its source.[/]")


def _show(board: "Board", rates: dict[str, float], payload: int) -> None:
    from rich.markup import escape

    from outpost import boards as library
    from outpost.console import stdout

    chip, memory = board.chip, board.memory
    stdout.print(f"[bold]{chip['board']}[/]  {chip['cpu']}, {chip['clock']}, "
                 f"{board.architecture}, MicroPython {chip['micropython']}")
    stdout.print(f"RAM {memory['ram']}, heap {memory['heap']}, kept over sleep "
                 f"{memory['retained']}")
    _show_pins(board)
    _show_flash(board)
    _show_lanes(board, rates, payload)
    _show_figures("Current", "power", board)
    _show_figures("Time", "costs", board)
    _show_figures("Supply", "supply", board)
    _show_batteries(board, library.batteries())
    counts = {kind: sum(figure.kind == kind for _, figure in board.figures())
              for kind in library.KINDS}
    told = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)
    stdout.print(f"[dim]{told}. Whole sources: {escape(str(_short(board.file)))}; what the "
                 "kinds mean: docs/boards.md[/]", soft_wrap=True)


def _show_pins(board: "Board") -> None:
    from outpost.console import stdout

    pins = dict(board.pins)
    phases = pins.pop("phase")
    stdout.print("GPIO " + ", ".join(f"[dim]{key}[/] {pin}" for key, pin in pins.items()))
    stdout.print("  high in phase " + ", ".join(f"[dim]{key}[/] {pin}"
                                                for key, pin in phases.items()))


def _show_flash(board: "Board") -> None:
    from rich.text import Text

    from outpost.console import stdout

    flash = board.flash
    size, sector = int(flash.size.to("B")), int(flash.sector.to("B"))
    stdout.print(f"\n[bold]Flash[/]  {flash.part}; sectors of {flash.sector}, programmed by "
                 f"{flash.program_unit}, {flash.endurance} of erasing")
    bar, width, at = Text(), min(stdout.width, 100), 0
    for region in flash.regions:
        start, end = (round(edge * width / size) for edge in (region.offset, region.end))
        bar.append("░" * (start - at), style="dim")
        end = max(end, start + (region.name in REGION_COLOURS))
        bar.append("█" * (end - max(start, at)), style=REGION_COLOURS.get(region.name, "dim"))
        at = max(at, end)
    bar.append("░" * (width - at), style="dim")
    stdout.print(bar)
    table = _table("", "region", right=("from", "to", "size", "sectors"))
    for region in flash.regions:
        colour = REGION_COLOURS.get(region.name, "dim")
        table.add_row(f"[{colour}]█[/]", region.name, f"{region.offset:#08x}",
                      f"{region.end:#08x}", f"{region.size // 1024:,} KiB",
                      f"{region.size // sector:,}")
    stdout.print(table)


def _show_lanes(board: "Board", rates: dict[str, float], payload: int) -> None:
    from outpost.console import stdout

    stdout.print(f"\n[bold]Ring[/]  lanes, and how long each lasts when all records of {payload} "
                 "bytes go there")
    table = _table("lane", right=("sectors", "records", *(f"at {label}" for label in rates)))
    for lane, sectors in board.lanes.items():
        table.add_row(lane, f"{sectors:,}", f"{board.lane_records(lane, payload):,}",
                      *(_years(board.lane_years(lane, rate, payload)) for rate in rates.values()))
    stdout.print(table)


def _show_figures(title: str, section: str, board: "Board") -> None:
    from rich.markup import escape

    from outpost.console import stdout

    rows = [(key.split(".", 1)[1].replace(".", " ").replace("_", " "), _nice(figure),
             figure.kind, figure.source)
            for key, figure in board.figures() if key.startswith(section + ".")]
    room = stdout.width - sum(max(len(row[i]) for row in rows) + 2 for i in range(3)) - 1
    table = _table(title, right=("",))
    table.add_column("kind", no_wrap=True)
    table.add_column("source", no_wrap=True, style="dim")
    for what, value, kind, source in rows:
        style = KIND_STYLES.get(kind)
        short = source if len(source) <= room else source[:room - 1] + "…"
        table.add_row(what, value, f"[{style}]{kind}[/]" if style else kind, escape(short))
    stdout.print()
    stdout.print(table)


def _show_batteries(board: "Board", found: dict[str, Any]) -> None:
    from outpost.console import stdout

    supply = board.supply
    stdout.print()
    table = _table("Battery", right=("capacity", "empty–full", "gives", "asleep"))
    table.add_column("peaks", no_wrap=True)
    for battery in found.values():
        gain = supply["voltage"].to("mV") / battery.nominal.to("mV")
        gain /= supply["efficiency"].value / 100
        asleep_ua = ((board.power["deep_sleep"].to("uA") + board.power["sensor"]["watch"].to("uA"))
                     * gain + supply["quiescent"].to("uA"))
        weak = [kind for kind, radio in board.power["radio"].items()
                if radio["peak"].to("mA") * gain > battery.limit.to("mA")]
        table.add_row(battery.name, str(battery.capacity),
                      f"{battery.curve[0][1] / 1000:.2f}–{battery.curve[-1][1] / 1000:.2f} V",
                      _nice(battery.limit), _years(battery.capacity.to("mAh") * 1000
                                                 / asleep_ua / 24 / 365.25),
                      f"[red]not {', '.join(weak)}[/]" if weak else "fed")
    stdout.print(table)
    stdout.print("[dim]asleep: until empty in deep sleep with the sensor watching, converter "
                 "included, self-discharge not[/]\n")


def _table(*left: str, right: tuple[str, ...]) -> "Table":
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", show_edge=False,
                  collapse_padding=True)
    for column in left:
        table.add_column(column, no_wrap=True)
    for column in right:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _nice(figure: "Figure") -> str:
    """Return the figure in the largest unit that leaves three digits before the point."""
    from outpost.boards import UNITS

    units = next(units for units in UNITS.values() if figure.unit in units)
    if len(units) == 1 or not figure.value:
        return str(figure)
    unit = max((unit for unit in units if figure.to(unit) >= 1), key=units.__getitem__,
               default=min(units, key=units.__getitem__))
    shown = unit.replace("u", "µ")
    return f"{figure.to(unit):,.4g} {shown}{'/' + figure.per if figure.per else ''}"


def _years(years: float) -> str:
    if years < 1:
        return f"{years * 365.25:,.0f} d"
    return f"{years:,.0f} y" if years >= 10 else f"{years:.1f} y"


def _short(file: Any) -> Any:
    from outpost.paths import ROOT

    return file.relative_to(ROOT) if file.is_relative_to(ROOT) else file
