"""What a person sees: Rich on stderr, so that stdout stays free for results."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

console = Console(stderr=True, highlight=False)
stdout = Console(highlight=False)


@contextmanager
def steps(title: str, total: int | None = None) -> Iterator[Callable[..., None]]:
    """Show a progress bar of `total` steps; call the yielded function as each step begins.

    It takes what is being done now and, optionally, for how many steps this counts (1).

    `total` None shows a bar without an end. Without a terminal only the title is printed.
    """
    if not console.is_terminal:
        console.print(title, markup=False)
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(24),
               TimeElapsedColumn(), TextColumn("{task.fields[now]}", style="dim", markup=False))
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(title, total=total, now="", completed=-1)

        def step(text: str, count: int = 1) -> None:
            progress.update(task, advance=count, now=text)

        yield step
        progress.update(task, total=1, completed=1, now="")


def print_json(result: dict[str, Any]) -> None:
    """Print `result` as one line of JSON on stdout, the form scripts read (`--json`)."""
    print(json.dumps(result, separators=(",", ":"), default=float), flush=True)
