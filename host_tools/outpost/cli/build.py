"""`outpost build`: from a model.toml to native modules, with the proof that they are right."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from outpost.build import Result


def register(app: typer.Typer) -> None:
    """Add the verb to `app`."""
    app.command("build")(build)


def build(
    model: Annotated[str, typer.Argument(help="a name under models/, or a path")],
    arch: Annotated[list[str] | None, typer.Option(help="architecture; may be repeated")] = None,
    board: Annotated[list[str] | None, typer.Option(
        help="board whose architecture it is; may be repeated")] = None,
    out: Annotated[Path | None, typer.Option(help="folder instead of build/models/MODEL")] = None,
    json: Annotated[bool, typer.Option("--json", help="one line of JSON")] = False,
) -> None:
    """Train, convert, compile and link a model, run it, and hold it against its contract."""
    from rich.markup import escape

    from outpost import boards
    from outpost import build as pipeline
    from outpost.console import console, print_json

    archs = [*(arch or ()), *(boards.load(one).architecture for one in board or ())]
    result = pipeline.build(model, archs or (pipeline.HOST,), out)
    for warning in result.warnings:
        console.print(f"[yellow]warning:[/] {escape(warning)}", soft_wrap=True)
    if json:
        print_json(result.json())
    else:
        _show(result)
    if result.violations:
        raise pipeline.BuildError(f"{result.model} breaks its contract: "
                                  + "; ".join(result.violations))


def _show(result: "Result") -> None:
    from rich import box
    from rich.table import Table

    from outpost.console import stdout

    def share(value: float | None) -> str:
        return "not run" if value is None else f"{100 * value:.2f} %"

    def whole(value: int | None) -> str:
        return "not run" if value is None else f"{value:,}"

    table = Table("arch", title=f"{result.model} {result.version}: {result.windows} held-out "
                                f"windows of {result.recordings} recordings", title_justify="left",
                  box=box.SIMPLE_HEAD)
    for column in ("scikit-learn", "reference", "compiled", "disagree", "bytes", "heap"):
        table.add_column(column, justify="right")
    for module in result.modules:
        table.add_row(module.arch, share(result.accuracy["sklearn"]),
                      share(result.accuracy["reference"]), share(module.accuracy),
                      whole(module.disagreements), whole(module.bytes), whole(module.heap))
    stdout.print(table)
    if result.gated:
        stdout.print(f"gate: decides {share(result.gated['decided'])} of the windows, "
                     f"{share(result.gated['of_its_class'])} of its class, "
                     f"{share(result.gated['wrong'])} wrongly")
    note = "unchanged, " if result.cached else ""
    by_recording = share(result.accuracy["reference_by_recording"])
    stdout.print(f"by recording {by_recording}   {note}{result.seconds:.1f} s   {result.folder}")
