"""How fast a node lives here, and whether its ledger and the world's battery agree over a month.

30 days at one wake a minute, each from nothing but retained memory and flash. Kind of the times:
measured on this machine, which should be otherwise idle. Kind of the joules: modelled.
"""

import resource
import sqlite3
import tempfile
import time
from pathlib import Path

import numpy as np
from rich import box
from rich.table import Table

from outpost import boards, simulate
from outpost.console import stdout
from outpost.world import scenario
from outpost.world.battery import LEAK, LISTEN, SLEEP

SETTINGS = {"wake_s": 60, "uplink_s": 3600, "listen": 0, "life_days": 0}
CASES = (("rewind", 30.0), ("process", 1.0))


def used_s() -> float:
    """Return the processor time of this process and of those it has waited for."""
    return sum(sum(resource.getrusage(who)[:2])
               for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def ledger(outcome: simulate.Outcome) -> tuple[float, float, float]:
    """Return (days, node's joules, world's joules) between losses of retained memory, added up.

    The node charges a sleep when it wakes from it, so each stretch begins and ends with a pass.
    """
    life = outcome.life
    with sqlite3.connect(outcome.plan.folder / "world.db") as db:
        spent = np.array([row[0] for row in db.execute("SELECT spent_mj FROM wakes ORDER BY n")],
                         float)
    cuts = np.flatnonzero(np.isnan(spent) | (np.diff(spent, prepend=0) < 0))
    days = node = world = 0.0
    for begin, end in zip([0, *cuts + 1], [*cuts, len(spent)], strict=True):
        if end - begin < 3:
            continue
        last = end - 1
        asleep = life.drained_mj[:, [SLEEP, LISTEN, LEAK]].sum(axis=1)
        node += (spent[last] - spent[begin]) / 1e3
        world += (life.drained_mj[begin + 1:last + 1].sum() + asleep[begin] - asleep[last]) / 1e3
        days += (life.clock_s[last] - life.clock_s[begin]) / 86400
    return days, node, world


def main() -> None:
    """Print the tables."""
    table = Table("each wake is a", box=box.SIMPLE_HEAD, pad_edge=False,
                  title="A wake a minute, a batch an hour", title_justify="left")
    for column in ("days", "wakes", "seconds", "processor s", "ms a wake"):
        table.add_column(column, justify="right")
    with tempfile.TemporaryDirectory() as scratch:
        for isolation, days in CASES:
            case = simulate.Case(isolation, "motion", boards.load("esp32"),
                                 scenario.load("factory"), None, SETTINGS)
            begun, before = time.monotonic(), used_s()
            outcome, = simulate.live([case], Path(scratch) / isolation, days, 1, isolation)
            took, used = time.monotonic() - begun, used_s() - before
            wakes = outcome.told["wakes"]
            table.add_row(isolation, f"{days:g}", f"{wakes:,}", f"{took:,.1f}", f"{used:,.1f}",
                          f"{1e3 * took / wakes:.2f}")
            if isolation == "rewind":
                counted, node, drained = ledger(outcome)
    stdout.print(table)
    stdout.print(f"node's ledger {node:,.2f} J, world's drain {drained:,.2f} J over {counted:.1f} "
                 f"days with retained memory: {100 * (node / drained - 1):+.3f} %")
    if abs(node / drained - 1) > 0.01:
        raise SystemExit("they differ by more than 1 %")


if __name__ == "__main__":
    main()
