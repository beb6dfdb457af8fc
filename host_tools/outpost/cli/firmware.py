"""`outpost firmware`: build a board's firmware and say what takes how many bytes."""

from pathlib import Path
from typing import Annotated

import typer

from outpost.errors import OutpostError


def register(app: typer.Typer) -> None:
    """Add the verb to `app`."""
    app.command("firmware")(firmware)


def firmware(
    board: Annotated[str, typer.Argument(help="board to build for")] = "rp2040",
    model: Annotated[list[str] | None, typer.Option(help="models compiled in, from build/models")]
    = None,
    out: Annotated[Path | None, typer.Option(help="folder for the result")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object on the last line")]
    = False,
) -> None:
    """Build the firmware: MicroPython, the node and the models in one UF2 file."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from outpost import firmware as image
    from outpost.console import print_json, stdout
    from outpost.paths import BUILD

    if board != image.BOARD:
        raise OutpostError(f"no firmware to build for {board!r}: only rp2040. An ESP32 runs stock "
                           "MicroPython with the node on its file system: outpost flash")
    folders = [BUILD / "models" / name for name in (["motion"] if model is None else model)]
    for folder in folders:
        if not (folder / "model.h").is_file():
            raise OutpostError(f"{folder} has no model.h: run `outpost build {folder.name}` first")
    built = image.build(folders, out=out)
    if as_json:
        print_json({"uf2": str(built.uf2), "bytes": built.flash_bytes, "sha256": built.sha256,
                    "flash": built.sizes, "static_ram": built.ram_bytes})
        return
    table = Table("flash", "bytes", box=SIMPLE_HEAD)
    table.columns[1].justify = "right"
    for name, size in built.sizes.items():
        table.add_row(name, f"{size:,}")
    table.add_section()
    table.add_row("image", f"{built.flash_bytes:,}")
    table.add_row("room for more", f"{image.FIRMWARE_BYTES - built.flash_bytes:,}")
    table.add_row("static RAM", f"{built.ram_bytes:,}")
    stdout.print(table)
    stdout.print(f"SHA-256 of the image {built.sha256}\n{built.uf2}", soft_wrap=True)
