"""`outpost nodes`: how the fleet is, and what of a node is missing."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from outpost.gateway.views import Gap, Glance, Lane

MOST = 40  # gaps of a node


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("nodes")(nodes)


def nodes(
    node: Annotated[int | None, typer.Argument(help="of this one: its lanes and gaps")] = None,
    forget: Annotated[bool, typer.Option(
        "--forget", help="it is lost: destroy its key, here and in the store of those that were "
                         "flashed from here; its records stay")] = False,
    database: Annotated[str, typer.Option(
        envvar="OUTPOST_DATABASE", show_envvar=True, help="the gateway's")] = "",
    json: Annotated[bool, typer.Option("--json", help="one line of JSON")] = False,
) -> None:
    """All nodes, worst first: last heard, mode, battery, queue, what is missing or dropped."""
    import time

    from outpost.console import print_json, stdout
    from outpost.gateway import keys, screen, store, views

    if forget:
        if node is None:
            raise typer.BadParameter("--forget needs a node's number")
        engine = store.existing(database)
        keys.forget(engine, node)
        engine.dispose()
        stdout.print(f"node {node} is refused within {keys.KEPT_S:.0f} s, by every gateway of "
                     "this database")
        return
    reader = views.Reader(store.find(database))  # who looks on makes no gateway wait
    try:
        with reader.read() as db:
            found = views.glances(db, node=node)
            awaited = views.awaited(db, node)
            lanes = views.node_lanes(db, node) if node is not None else []
            gaps = views.gaps(db, node, lanes, MOST) if node is not None else []
    finally:
        reader.engine.dispose()
    if not found:
        raise store.StoreError(f"no node {node} is known there" if node is not None
                               else "no node is known there yet")
    if json:
        told = [_told(one, awaited.get(one.node, 0)) for one in found]
        print_json({"nodes": told} if node is None else
                   {**told[0], "gaps": [vars(one) for one in gaps],
                    "lanes": [vars(one) for one in lanes]})
        return
    stdout.print(screen.nodes(found, awaited, time.time(), stdout.width))
    if node is not None:
        _show(found[0], lanes, gaps)


def _told(one: "Glance", awaited: int) -> dict[str, Any]:
    return {"node": one.node, "heard_at": one.heard_at, "awaited": awaited,
            "dropped": sum(one.items.get("dropped", {}).values()),
            "waiting": sum(one.items.get("waiting", {}).values()), "items": one.items}


def _show(one: "Glance", lanes: list["Lane"], gaps: list["Gap"]) -> None:
    from datetime import UTC, datetime

    from rich import box
    from rich.table import Table

    from outpost import words
    from outpost.console import stdout

    table = Table("lane", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("epoch", "acknowledged", "last here", "queue", "dropped"):
        table.add_column(name, justify="right")
    for i, lane in enumerate(lanes):
        now = i == 0 or lanes[i - 1].number != lane.number  # the history that goes on
        table.add_row(words.LANES[lane.number], f"{lane.epoch:08x}", f"{lane.head:,}",
                      f"{lane.reach:,}", *(
                          f"{one.items.get(name, {}).get(str(lane.number), 0):,}" if now else ""
                          for name in ("waiting", "dropped")), style="" if now else "dim")
    stdout.print(table)
    if not gaps:
        stdout.print("no gaps: all that the node has numbered is here")
        return
    table = Table("lane", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("sequences", "count", "before"):
        table.add_column(name, justify="right")
    table.add_column("")
    for gap in gaps:
        when = datetime.fromtimestamp(gap.time_s, UTC).strftime("%Y-%m-%d %H:%M:%S")
        table.add_row(words.LANES[gap.lane], f"{gap.first:,}…{gap.last:,}",
                      f"{gap.last - gap.first + 1:,}", when,
                      "[dim]gone at the node[/]" if gap.gone else "[yellow]awaited[/]")
    stdout.print(table)
