"""The fleet on a terminal: a table of nodes, worst first, and the gateway at work, live."""

import asyncio
import time
from collections.abc import Iterable

from rich import box
from rich.console import Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from outpost import words
from outpost.console import console
from outpost.dashboard import health
from outpost.gateway import views
from outpost.gateway.mqtt import Where
from outpost.gateway.service import Service
from outpost.gateway.views import Glance, Reader

PAUSE_S = 1.0  # between two pictures
AROUND = 9  # lines of a picture besides its nodes
STYLES = ("green", "yellow", "red")  # by health's levels
COLUMNS = ("node", "heard", "mode", "V", "charge", "lasts", "queue", "awaited", "dropped",
           "model", "settings")
ROOMY, WIDE = ("mode", "V", "model", "settings"), 120  # in terminals of so many columns
REASONS = 3  # why frames are refused: shown at most


def nodes(found: Iterable[Glance], awaited: dict[int, int], now_s: float, width: int,
          most: int | None = None) -> Table:
    """Return a table of nodes, those first with which most is the matter, at most `most`.

    What a narrow terminal has no room for is left out.
    """
    ranked = sorted(((health.of(one, now_s), one) for one in found),
                    key=lambda both: (-both[0].rank, both[1].node))
    rows = [_cells(state, one, awaited.get(one.node, 0), now_s) for state, one in ranked[:most]]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    columns = [name for name in COLUMNS if width >= WIDE or name not in ROOMY]
    for name in columns:
        needed = max([len(name), *(Text.from_markup(row[name]).cell_len for row in rows)])
        table.add_column(name, justify="left" if name in ("node", "mode", "model") else "right",
                         no_wrap=True, min_width=needed)
    table.add_column("what is the matter", overflow="ellipsis", no_wrap=True)
    for row in rows:
        table.add_row(*(row[name] for name in columns), row["matter"])
    if most is not None and len(ranked) > most:
        table.caption = f"and {len(ranked) - most:,} more, which fare no worse"
        table.caption_justify = "left"
    return table


def _cells(state: health.Health, one: Glance, awaited: int, now_s: float) -> dict[str, str]:
    items = one.items
    model, charge, left = items.get("model", {}), health.soc(items), health.days_left(items)
    return {
        "node": f"[{STYLES[state.level]}]●[/] {one.node}",
        "heard": ("never" if one.heard_at is None else
                  words.span(now_s - one.heard_at)),
        "mode": words.MODES.get(items.get("mode", -1), ""),
        "V": f"{items['battery_mv'] / 1000:.2f}" if "battery_mv" in items else "",
        "charge": f"{charge} %" if charge is not None else "",
        "lasts": f"{left} d" if left is not None else "",
        "queue": _number(sum(items.get("waiting", {}).values())),
        "awaited": _number(awaited, "yellow"),
        "dropped": _number(sum(items.get("dropped", {}).values()), "yellow"),
        "model": escape(f"{model['name']} {model['version']}") if model.get("name") else "",
        "settings": str(items.get("settings", "")),
        "matter": "; ".join(f"[{STYLES[level]}]{escape(said)}[/]"
                            for level, said in state.findings)}


def _number(count: int, style: str = "") -> str:
    return "" if not count else f"[{style}]{count:,}[/]" if style else f"{count:,}"


# --- live ---


class Screen:
    """The gateway at work; `run` draws until it is cancelled."""

    def __init__(self, service: Service, broker: Where, reader: Reader) -> None:
        self._service, self._broker, self._reader = service, broker, reader
        self._found: dict[int, Glance] = {}
        self._awaited: dict[int, int] = {}
        self._newest = 0.0
        self._began = self._before = time.monotonic()
        self._records = 0
        self._rate = 0.0

    async def run(self) -> None:
        """Draw, every second."""
        with Live(console=console, auto_refresh=False, transient=True) as live:
            while True:
                await asyncio.to_thread(self._look)
                live.update(self._picture(), refresh=True)
                await asyncio.sleep(PAUSE_S)

    def _look(self) -> None:
        # A whole fleet is read once, and then only what has changed.
        with self._reader.read() as db:
            for one in views.glances(db, self._newest):
                self._found[one.node] = one
                self._newest = max(self._newest, one.heard_at or 0.0)
            self._awaited = views.awaited(db)

    def _picture(self) -> Group:
        desk, now = self._service.desk, time.monotonic()
        rate = (desk.records - self._records) / max(now - self._before, 1e-3)
        self._rate = rate if rate > self._rate else 0.7 * self._rate + 0.3 * rate
        self._records, self._before = desk.records, now
        head = Text.assemble(
            ("● ", "green"), (str(self._broker), "bold"),
            f"  up {words.span(now - self._began)}   {desk.taken:,} frames   "
            f"{desk.records:,} records   {self._rate:,.0f}/s   {self._service.waiting} waiting",
            no_wrap=True, overflow="ellipsis")
        refused = [Text(f"refused {count:,}: {reason}", "yellow", no_wrap=True,
                        overflow="ellipsis")
                   for reason, count in desk.refused.most_common(REASONS)]
        room = max(console.height - AROUND - len(refused), 3)
        return Group(head, *refused, nodes(self._found.values(), self._awaited, time.time(),
                                           console.width, room))
