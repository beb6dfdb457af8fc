"""`outpost profile`: what a model costs on the board that is attached."""

from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the verb to `app`."""
    app.command("profile")(profile)


def profile(
    model: Annotated[str | None, typer.Argument(help="a name under models/, or a path")] = None,
    port: Annotated[str | None, typer.Option(help="serial port or socket://HOST:PORT")] = None,
    board: Annotated[str, typer.Option(help="which board to look for")] = "esp32",
    shape: Annotated[str | None, typer.Option(
        help="instead of a model, for instance trees=10,depth=8,features=24")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="keep trying until the node wakes")] = False,
    json: Annotated[bool, typer.Option("--json", help="one line of JSON")] = False,
) -> None:
    """Load a native module on the attached board, run windows through it, say what it costs."""
    from rich.table import Table

    from outpost import profile as profiling
    from outpost.console import print_json, stdout
    from outpost.repl import CATCH_S, find_port_of

    got = profiling.profile(port or find_port_of(board), model, shape, None if wait else CATCH_S)
    if json:
        print_json(got)
    else:
        table = Table("figure", "best", "worst", title_justify="left",
                      title=f"{got['model']} for {got['arch']}, {got['windows']} windows, "
                            f"{got['kind']}")
        for column in (1, 2):
            table.columns[column].justify = "right"
        for name, words in (("pre", "features"), ("infer", "forest"), ("both", "both")):
            span = got["us"][name]
            table.add_row(f"{words}, µs", f"{span['best']:,}", f"{span['worst']:,}")
        table.add_section()
        for key, words in (("bytes", "module, bytes"), ("heap", "heap it holds"),
                           ("heap_peak", "heap while loading"),
                           ("allocated", "allocated a window"),
                           ("disagreements", "disagreements")):
            table.add_row(words, "", f"{got[key]:,}")
        stdout.print(table)
    if got["disagreements"]:
        raise profiling.ProfileError(f"{got['disagreements']} of {got['windows']} windows are "
                                     "answered otherwise than by the reference")
