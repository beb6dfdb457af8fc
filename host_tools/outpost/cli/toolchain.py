"""`outpost toolchain`: find or build what runs and compiles the firmware."""

import importlib
from typing import Annotated

import typer

from outpost.errors import OutpostError

# name: where the function is that returns the path
TOOLCHAINS = {
    "unix": ("outpost.toolchain.unix", "micropython"),
    "source": ("outpost.toolchain.unix", "source"),
    "rp2": ("outpost.toolchain.rp2", "toolchain"),
    "xtensa": ("outpost.toolchain.xtensa", "compiler"),
    "qemu": ("outpost.toolchain.qemu", "qemu"),
    "mpy-cross": ("outpost.toolchain.unix", "mpy_cross"),
}


def register(app: typer.Typer) -> None:
    """Add the verb to `app`."""
    app.command("toolchain")(toolchain)


def toolchain(
    name: Annotated[str, typer.Argument(help=" | ".join(TOOLCHAINS))] = "unix",
) -> None:
    """Find or build a toolchain, and print where it is."""
    if name not in TOOLCHAINS:
        raise OutpostError(f"no toolchain {name!r}: there is {', '.join(TOOLCHAINS)}")
    module, function = TOOLCHAINS[name]
    print(getattr(importlib.import_module(module), function)())
