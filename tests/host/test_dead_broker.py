"""A broker that is dead for a week: what the node tries, and what that takes. docs/power.md."""

import json
import socket
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest

from node.latency import UPLINK
from outpost import boards
from outpost.world import figures, scenario
from outpost.world.run import prepare
from outpost.world.schedule import DAY_S
from outpost.world.world import World

DAYS = 7
WAKE_S, UPLINK_S, MOST_S = 300, 1800, 21600
ATTEMPTS = 4 + DAYS * DAY_S // (MOST_S * 3 // 4)  # on the way up, then at the soonest


@pytest.fixture
def dead():
    """Return a port at which nobody answers, as the way of being dead says."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))

        def make(how: str) -> int:
            if how == "silent":
                listener.listen(1000)  # the system accepts, and nobody reads
            return listener.getsockname()[1]

        yield make


# how it is dead; mJ at the battery that an attempt takes at most: docs/power.md has the table
@pytest.mark.parametrize(("how", "least_mj", "most_mj"), [
    ("gone", 750, 830), ("refuses", 330, 400), ("silent", 1750, 1900)])
def test_a_week_costs_what_the_table_says(tmp_path, dead, how, least_mj, most_mj):
    link = scenario.Link(up_h=1e4, gone=((0, DAYS + 1),) if how == "gone" else ())
    world = replace(scenario.load("factory"), link=link, faults=scenario.Faults())
    plan = prepare(tmp_path / "run", "motion", boards.load("esp32"), world, DAYS, 1,
                   changes={"wake_s": WAKE_S, "uplink_s": UPLINK_S, "uplink_most_s": MOST_S,
                            "listen": 0, "life_days": 0, "window": 0, "gate": None},
                   isolation="fork", bring_home=False, batch=500)
    change(tmp_path / "run/run.json", lambda found: found.update(port=dead(how)))
    change(tmp_path / "run/node/board.json",
           lambda found: found["uplink"].update(patience_pct=1))  # virtual time is as it was
    with closing(World(plan.folder)) as lived:
        lived.live()
    life = figures.read(plan)
    tried = ~np.isnan(life.took_us[:, UPLINK])
    times = life.clock_s[tried]
    assert 20 < tried.sum() <= ATTEMPTS
    # one each 30 minutes, then twice as long, up to 6 h; a quarter more or less, and a wake
    for n, gap in enumerate(np.diff(times)):
        wait_s = min(UPLINK_S << n, MOST_S)
        assert wait_s * 3 / 4 - 1 <= gap <= wait_s * 5 / 4 + WAKE_S + 1, (n, gap)
    assert np.nanmax(life.took_us[:, -1]) <= 1e3 * plan.settings["awake_ms"]
    took = life.drained_mj[tried, UPLINK]
    assert least_mj < took.min() and took.max() < most_mj
    assert took.sum() <= ATTEMPTS * most_mj
    assert life.drained_mj[~tried, UPLINK].sum() == 0


def change(path, how):
    found = json.loads(path.read_text())
    how(found)
    path.write_text(json.dumps(found))
