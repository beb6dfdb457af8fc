"""`outpost rollout`: models on their way to nodes, and what became of them."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Group
    from sqlalchemy import Engine

COLOURS = {"kept": "green", "done": "green", "trial": "cyan", "fetching": "cyan", "rest": "cyan",
           "canary": "cyan", "refused": "red", "undone": "red", "stopped": "red"}
LOOK_S = 1.0


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("rollout")(rollout)


def rollout(
    number: Annotated[int | None, typer.Argument(help="which; without it all are listed")] = None,
    stop: Annotated[bool, typer.Option("--stop", help="offer it to nobody any more")] = False,
    database: Annotated[str, typer.Option(
        envvar="OUTPOST_DATABASE", show_envvar=True, help="the gateway's")] = "",
    json: Annotated[bool, typer.Option("--json", help="one line of JSON")] = False,
) -> None:
    """How a roll-out goes, node by node; in a terminal until it has ended or Ctrl-C."""
    from outpost.console import print_json, stdout
    from outpost.gateway import rollouts, store

    engine = store.existing(database)
    try:
        if number is None:
            with engine.connect() as db:
                known = rollouts.known(db)
            print_json({"rollouts": known}) if json else _list(known)
            return
        if stop:
            with engine.begin() as db:
                rollouts.summary(db, number)
                rollouts.stop(db, number, "by hand")
        with engine.connect() as db:
            told = rollouts.summary(db, number)
        if json:
            print_json(told)
        elif stdout.is_terminal and told["state"] in rollouts.RUNNING:
            _watch(engine, number)
        else:
            stdout.print(_shown(told))
    finally:
        engine.dispose()


def _watch(engine: "Engine", number: int) -> None:
    """Show it until it has ended."""
    import time
    from contextlib import suppress

    from rich.live import Live

    from outpost.console import stdout
    from outpost.gateway import rollouts

    with suppress(KeyboardInterrupt), Live(console=stdout, auto_refresh=False) as live:
        while True:
            with engine.connect() as db:
                told = rollouts.summary(db, number)
            live.update(_shown(told), refresh=True)
            if told["state"] not in rollouts.RUNNING:
                return
            time.sleep(LOOK_S)


def _shown(told: dict[str, Any]) -> "Group":
    from rich import box
    from rich.console import Group
    from rich.markup import escape
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    how = {"canary": "under way to its canaries", "rest": "under way to all its nodes",
           "stopped": f"stopped ({told['reason']})"}.get(told["state"], told["state"])
    head = Text.assemble(
        f"roll-out {told['rollout']}, {told['model']} {told['version']}: ",
        (how, COLOURS.get(told["state"], "")),
        f"; {told['kept']} of {len(told['nodes'])} nodes have kept it", _what_stops(told))
    table = Table("node", "", "state", "has", "", "since", box=box.SIMPLE_HEAD, pad_edge=False)
    for one in told["nodes"]:
        bar = ProgressBar(max(1, one["bytes"]), one["have"], width=16)
        table.add_row(str(one["node"]), "canary" if one["canary"] else "",
                      f"[{COLOURS.get(one['state'], 'dim')}]{one['state']}[/]", bar,
                      escape(one["reason"]), _ago(one["changed_at"]))
    return Group(head, table)


def _what_stops(told: dict[str, Any]) -> str:
    """Return how far it is from being stopped."""
    import time

    from outpost import words

    if told["state"] == "canary":
        left_s = told["deadline_at"] - time.time()
        return (f"; it stops if its canaries have not been well for "
                f"{words.span(told['healthy_s'])} in {words.span(max(0.0, left_s))}")
    if told["state"] == "rest":
        who = "nodes" if told["others"] == len(told["nodes"]) else "others"
        return f"; {told['failed']} of {told['others']} {who} failed, it stops at " \
               f"{told['may_fail'] + 1}"
    return ""


def _list(known: list[dict[str, Any]]) -> None:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    from outpost.console import stdout

    if not known:
        stdout.print("nothing has been rolled out: outpost push MODEL --nodes all does")
        return
    table = Table("roll-out", "model", "state", "", "nodes", "kept", "failed", "begun",
                  box=box.SIMPLE_HEAD, pad_edge=False)
    for one in known:
        table.add_row(str(one["rollout"]), f"{escape(one['model'])} {one['version']}",
                      f"[{COLOURS.get(one['state'], '')}]{one['state']}[/]",
                      escape(one["reason"]), str(len(one["nodes"])), str(one["kept"]),
                      str(one["refused"] + one["undone"]), _ago(one["begun_at"]))
    stdout.print(table)


def _ago(when: float) -> str:
    import time

    age_s = max(0.0, time.time() - when)
    for unit, length_s in (("d", 86400), ("h", 3600), ("min", 60)):
        if age_s >= 2 * length_s:
            return f"{age_s / length_s:.0f} {unit} ago"
    return f"{age_s:.0f} s ago"
