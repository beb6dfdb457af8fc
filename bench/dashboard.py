"""The dashboard with 500 nodes that have lived for days, in headless Chromium.

From the start of a navigation until 500 rows are on the screen (two frames after the last was
there), from a commit in the database until it shows, and what looking on takes from the gateway.
"""

import statistics
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright
from rich import box
from rich.table import Table
from sqlalchemy import func, select

from outpost.console import console, stdout
from outpost.dashboard import serve
from outpost.gateway import schema, store
from outpost.gateway.desk import Desk
from outpost.paths import ROOT
from outpost.toolchain import browser

sys.path.insert(0, str(ROOT / "tests"))
from fakes import fleet  # noqa: E402

NODES, DAYS, SESSION_S, WAKES = 500, 7.0, 21600, 4
TOKEN = "bench" * 10
REPEATS = 7
PAINTED = """() => new Promise(done => {
  const look = () => (%s) ? requestAnimationFrame(() => requestAnimationFrame(
    () => done(performance.now()))) : requestAnimationFrame(look);
  look();
})"""  # two frames after it is there
FLEET = f"document.querySelectorAll('#fleet tbody tr').length === {NODES}"
NODE = "document.querySelectorAll('.curve svg').length === 3"


def load_ms(page: Page, url: str, ready: str) -> float:
    """Return ms from the start of the navigation until `ready` is painted."""
    page.goto(url, wait_until="commit")
    return float(page.evaluate(PAINTED % ready))


def loads(chromium: Browser, url: str, path: str, ready: str, warm: bool) -> list[float]:
    """Return the times of some loads, each with an empty cache or all with one that is warm."""
    found = []
    context = None
    for _ in range(REPEATS):
        if context is None or not warm:
            if context is not None:
                context.close()
            context = chromium.new_context(viewport={"width": 1440, "height": 900})
            page = context.new_page()
            page.goto(f"{url}login?token={TOKEN}") if warm else context.request.get(
                f"{url}login?token={TOKEN}", max_redirects=0)
            if warm:
                load_ms(page, url + path, ready)
        found.append(load_ms(page, url + path, ready))
    assert context is not None
    context.close()
    return found


def shown_ms(page: Page, desk: Desk, nodes: list[fleet.Node]) -> list[float]:
    """Return ms from the commit of a heartbeat until the page shows it."""
    found = []
    for node in nodes:
        node.soc, then = 0.5 + len(found) / 100, time.time()
        desk.take(list(node.report(then)))
        began = time.perf_counter()
        page.evaluate(PAINTED % f"document.querySelector('#n{node.number} .battery')"
                                f".textContent.includes('{int(100 * node.soc)} %')")
        found.append(1e3 * (time.perf_counter() - began))
    return found


def stored_ms(desk: Desk, nodes: list[fleet.Node]) -> list[float]:
    """Return how long each of many commits took."""
    found = []
    for node in nodes:
        frames = list(node.report(time.time()))
        began = time.perf_counter()
        desk.take(frames)
        found.append(1e3 * (time.perf_counter() - began))
    return found


def main(database: Path | None = None) -> None:
    """Print the table; `database` is one that tests/fakes/fleet.py has filled already."""
    table = Table("", box=box.SIMPLE_HEAD, pad_edge=False, title_justify="left",
                  title=f"{NODES} nodes, SQLite, headless Chromium on this machine")
    for column in ("median", "worst"):
        table.add_column(column, justify="right")

    def row(name: str, times: list[float]) -> None:
        table.add_row(name, f"{statistics.median(times):,.0f} ms", f"{max(times):,.0f} ms")

    with tempfile.TemporaryDirectory() as scratch:
        if database is None:
            database = Path(scratch) / "gateway.db"
            console.print(f"letting {NODES} nodes live {DAYS:g} days")
            nodes = fleet.fill(database, NODES, DAYS, SESSION_S, WAKES)
        else:  # its nodes go on
            nodes = [fleet.Node(number, fleet.Random(number), fleet.Story(), wakes=1 << 24)
                     for number in range(fleet.FIRST, fleet.FIRST + NODES)]
        engine = store.connect(database)
        with engine.connect() as db:
            counts = [db.execute(select(func.count()).select_from(one)).scalar_one()
                      for one in (schema.records, schema.heartbeats)]
        table.title += f"; {counts[0]:,} records, {counts[1]:,} heartbeats"
        program, env = browser.chromium()
        with serve.beside(database, "127.0.0.1", 0, TOKEN) as url, sync_playwright() as play:
            chromium = play.chromium.launch(executable_path=program, env=env,
                                            args=["--no-sandbox"])
            for _ in range(200):
                try:
                    urllib.request.urlopen(url + "login").close()
                    break
                except OSError:
                    time.sleep(0.1)
            row("fleet, empty cache", loads(chromium, url, "", FLEET, False))
            row("fleet, again", loads(chromium, url, "", FLEET, True))
            row("a node, empty cache", loads(chromium, url, "nodes/1003", NODE, False))
            row("a node, again", loads(chromium, url, "nodes/1003", NODE, True))
            page = chromium.new_context(viewport={"width": 1440, "height": 900}).new_page()
            page.goto(f"{url}login?token={TOKEN}")
            desk = Desk(engine, clock=None)
            row("a heartbeat shows after", shown_ms(page, desk, nodes[:REPEATS]))
            row("a commit takes, one looks on", stored_ms(desk, nodes[:60]))
            page.close()
            row("a commit takes, nobody does", stored_ms(desk, nodes[:60]))
            chromium.close()
        engine.dispose()
    stdout.print(table)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
