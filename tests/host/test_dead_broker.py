"""A broker that is dead for a week: what the node tries, and what that takes. docs/power.md.

And what comes home first when it is there again.
"""

import json
import socket
from contextlib import closing
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from gateways import gateway

from node import frame
from node.latency import UPLINK
from node.outbox import ALERT, EVENT, LANES
from outpost import boards
from outpost.gateway import wire
from outpost.gateway.desk import Desk
from outpost.world import figures, scenario
from outpost.world.audit import audit
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
                   isolation="rewind", bring_home=False, batch=500)
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


def arrivals(monkeypatch):
    """Return the list of what a gateway is handed from now on: (when the node asked, records)."""
    found, taken, asked = [], Desk.take, [0]

    def take(self, frames):
        frames = list(frames)
        for data in frames:
            message = wire.read(frame.identify(data)[0], data)
            if isinstance(message, wire.Heartbeat) and message.ask:
                asked[0] = message.ask.time_s
            elif isinstance(message, wire.Records):
                found.append((asked[0], message))
        return taken(self, frames)

    monkeypatch.setattr(Desk, "take", take)
    return found


@pytest.mark.parametrize("how", ["gone", "refuses"])
def test_afterwards_what_waited_comes_home_in_order_of_its_lanes(tmp_path, dead, how, monkeypatch):
    link = scenario.Link(up_h=1e4, gone=((0, DAYS),) if how == "gone" else ())
    faults = scenario.Faults(silences=9, silence_min=(30, 40))  # each an alert, and one when over
    world = replace(scenario.load("factory"), link=link, faults=faults)
    plan = prepare(tmp_path / "run", "motion", boards.load("esp32"), world, DAYS + 0.1, 1,
                   changes={"wake_s": 1800, "uplink_most_s": MOST_S, "life_days": 0, "listen": 0,
                            "frame": 120}, isolation="rewind")
    until_us = (plan.schedule.start_s + DAYS * DAY_S) * 1_000_000
    with closing(World(plan.folder)) as lived:
        lived.config["port"] = dead("refuses")
        while lived.state.clock_us < until_us:
            lived.step()
        came = arrivals(monkeypatch)
        with gateway(plan.folder / "gateway.db") as where:
            lived.config["port"] = where.port
            lived.live()
    life = figures.read(plan)
    assert np.nanmax(life.took_us[:, -1]) <= 1e3 * plan.settings["awake_ms"]
    assert life.depth[-1] == 0
    found = audit(plan.folder, plan.meta["classes"])
    assert found.ok and found.stored == found.appended > 500 and found.dropped == 0, vars(found)
    in_order(came)


def in_order(came):
    """Hold a node's first session against its lanes: only each fourth frame may be out of turn."""
    waits = {lane: {} for lane in range(LANES)}  # sequence: when it was recorded
    for _, one in came:
        waits[one.lane] |= {seq: time_s for seq, _, time_s, _ in one.records}
    session_s = came[0][0]
    first = [one for asked_s, one in came if asked_s == session_s]
    sent = dict.fromkeys(waits, 0)
    early = []  # frames that went though there was something of a higher lane
    for number, one in enumerate(first):
        if any(seq > sent[lane] and time_s < session_s for lane in range(one.lane)
               for seq, time_s in waits[lane].items()):
            early.append(number)
        sent[one.lane] = one.records[-1][0]
    assert len(first) > 40 and {one.lane for one in first} == set(range(LANES))
    assert sum(one.lane == ALERT for one in first) > 4
    assert all(b - a >= 4 for a, b in pairwise(early)), early
    assert len(early) <= len(first) / 4 + 1
    last = [max(i for i, one in enumerate(first) if one.lane == lane) for lane in (ALERT, EVENT)]
    assert last[0] < last[1] < len(first) - 1


def change(path, how):
    found = json.loads(path.read_text())
    how(found)
    path.write_text(json.dumps(found))
