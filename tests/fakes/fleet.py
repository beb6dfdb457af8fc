"""A fleet with a past, for whoever looks at one.

Frames of the nodes' own code go through the gateway's own desk, at times of their own. What nodes
live through is made up, and the same each time.

    python tests/fakes/fleet.py gateway.db --nodes 500 --days 21
"""

import struct
import sys
import time
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any
from unittest import mock

import outpost.device  # noqa: F401  # firmware/ on the path
from node import frame, heartbeat, latency, modes, outbox, record, verdict
from node.batch import Batch
from node.frame import Seal
from node.heartbeat import Heartbeat
from outpost.gateway import intake, load, rollouts, store
from outpost.gateway.desk import Desk
from outpost.gateway.keys import enrol

DAY_S, WAKE_S = 86400, 300
MPY, NONCE = 2, 7  # x64
TOGETHER_S = 600  # what comes within so long is stored at once
FIRST = 1001  # number of the first node
LANES = (outbox.ALERT, outbox.EVENT, outbox.TELEMETRY, outbox.DIAGNOSTIC)
MJ = (310, 880, 45, 12, 8, 95, 1450, 820, 210, 260)  # a day, by phase
US = (70_000, 5_300_000, 2_600, 40, 30, 18_000, 780_000, 5_400_000)  # median of each stage


@dataclass
class Story:
    """What befalls a node: shares of its past at which that begins, None never."""

    full: float = 0.9  # charge at the beginning
    drain: float = 0.09  # % a day
    silent: float | None = None
    degraded: float | None = None
    critical: float | None = None
    deaf: float | None = None  # its sensor is silent
    hot: float | None = None
    drops: int = 0  # records a session
    windows: bool = False


def story(number: int, random: Random) -> Story:
    """Return the story of a node; of forty, some six have one worth telling."""
    one = Story(full=random.uniform(0.7, 0.99), drain=random.uniform(0.02, 0.25),
                windows=number % 25 == 3)
    match number % 40:
        case 3:
            one.critical, one.full, one.drain = random.uniform(0.8, 0.95), 0.42, 1.0
        case 11:
            one.silent = random.uniform(0.6, 0.95)
        case 17:
            one.degraded, one.drops = random.uniform(0.4, 0.9), 6
        case 23:
            one.deaf = random.uniform(0.7, 0.95)
        case 31:
            one.full, one.drain = 0.55, 1.1
        case 36:
            one.hot = 0.97
    return one


@dataclass
class Node:
    """One node with its lanes and clock."""

    number: int
    random: Random
    story: Story
    seq: list[int] = field(default_factory=lambda: [0, 0, 0, 0])
    acked: list[int] = field(default_factory=lambda: [0, 0, 0, 0])
    queue: list[list[tuple[int, int, int, bytes]]] = field(
        default_factory=lambda: [[], [], [], []])
    wakes: int = 1
    mode: int = modes.FULL
    reason: int = 0
    since_s: float = 0
    faults: int = 0
    dropped: int = 0
    day: int = -1
    klass: int = 0
    version: int = 1  # of its model
    trial: int = 0
    beats: int = 0  # heartbeats so far

    def __post_init__(self) -> None:
        self.seal = Seal(load.key(self.number))
        self.latency = latency.Latency()
        self.soc = self.story.full

    def put(self, lane: int, kind: int, time_s: float, payload: bytes) -> None:
        """Append a record."""
        self.seq[lane] += 1
        self.queue[lane].append((self.seq[lane], kind, int(time_s), payload))

    def event(self, lane: int, time_s: float, reason: int, detail: int, value: int) -> None:
        """Append an event."""
        self.put(lane, record.EVENT, time_s, bytes((reason, detail, value)))

    def turn(self, time_s: float, mode: int, reason: int) -> None:
        """Change the mode."""
        if mode != self.mode:
            grave = mode in (modes.CRITICAL, modes.SAFE)
            self.event(outbox.ALERT if grave else outbox.EVENT, time_s, record.MODE_CHANGED,
                       self.mode << 4 | mode, reason)
            self.mode, self.reason, self.since_s = mode, reason, time_s

    def fault(self, lane: int, time_s: float, reason: int, detail: int, begins: bool) -> None:
        """Let a fault begin or end."""
        if begins != bool(self.faults >> reason & 1):
            self.faults ^= 1 << reason
            self.event(lane, time_s, reason, detail if begins else 0, int(begins))

    def live(self, begin_s: float, end_s: float, share: float, wakes: int) -> None:
        """Live from one report to the next, `wakes` of them told; `share`: how much is over."""
        told, random = self.story, self.random
        self.soc = max(0.03, self.soc - told.drain / 100 * (end_s - begin_s) / DAY_S)
        if told.critical is not None and (self.soc < 0.2 or share > told.critical):
            self.soc = min(self.soc, 0.19)
            self.turn(begin_s, modes.CRITICAL, modes.BATTERY_LOW)
        elif told.hot is not None and share > told.hot:
            self.turn(begin_s, modes.CRITICAL, modes.HOT)
        elif told.degraded is not None and share > told.degraded:
            self.turn(begin_s, modes.DEGRADED, modes.LINK_LOST)
        elif random.random() < 0.004:
            self.turn(begin_s, modes.DEGRADED, modes.LINK_LOST)
            self.fault(outbox.EVENT, begin_s, record.UPLINK_FAILED, 0, True)
        elif self.mode != modes.FULL:
            self.turn(end_s - 60, modes.FULL, self.reason | modes.OVER)
            self.fault(outbox.EVENT, end_s - 60, record.UPLINK_FAILED, 0, False)
        if told.deaf is not None and share > told.deaf:
            self.fault(outbox.ALERT, begin_s, record.SENSOR_SILENT, 19, True)
        self.wakes += int((end_s - begin_s) / WAKE_S)
        for i in range(wakes):
            self._wake(end_s - (wakes - i) * WAKE_S)
        for _ in range(told.drops):
            self.seq[outbox.TELEMETRY] += random.random() < 0.8
            self.dropped += 1
        self._state(end_s)

    def _wake(self, time_s: float) -> None:
        random = self.random
        for stage, median in enumerate(US):
            if stage != latency.UPLINK or random.random() < 0.15:
                self.latency._count(stage, int(median * random.lognormvariate(0, 0.18)))
        if self.mode in (modes.CRITICAL, modes.SAFE) or self.faults >> record.SENSOR_SILENT & 1:
            return
        if random.random() < 0.12:
            new = random.randrange(4)
            if new != self.klass:
                self.event(outbox.EVENT, time_s, record.CLASS_CHANGED, new, self.klass)
                self.klass = new
        share = min(255, int(255 * random.betavariate(9, 1.6)))
        tier = random.random() < 0.6 and self.klass == 0
        self.put(outbox.TELEMETRY, record.DECISION, time_s, bytes((
            self.klass, share, self.klass, (record.BY_GATE if tier else record.BY_MAIN)
            + 16 * self.mode)))
        if self.story.windows and share < 150:
            self._window(time_s)

    def _window(self, time_s: float) -> None:
        rows = bytearray()
        for i in range(64):
            for channel in range(6):
                swing = 3000 * ((i // (4 + self.klass * 3) + channel) % 2) * self.klass
                rows += struct.pack("<h", int(self.random.gauss(swing - 1500 * self.klass, 500)))
        parts = [rows[at:at + record.PART] for at in range(0, len(rows), record.PART)]
        for i, part in enumerate(parts):
            self.put(outbox.DIAGNOSTIC, record.WINDOW, time_s,
                     bytes((i, len(parts))) + bytes(part))

    def _state(self, time_s: float) -> None:
        day = int(time_s // DAY_S)
        if day != self.day:
            if self.day >= 0:
                mj = [int(one * self.random.uniform(0.85, 1.15)) for one in MJ]
                self.put(outbox.DIAGNOSTIC, record.DAY, time_s,
                         struct.pack(record.DAY_FORMAT, self.day, *mj,
                                     int(self.soc * 46_000_000), 40_000))
            self.day = day
        self.put(outbox.DIAGNOSTIC, record.STATE, time_s, struct.pack(
            record.STATE_FORMAT, 1, self.faults, self._mv(), 21, self.wakes,
            sum(map(len, self.queue)), self.dropped, 0, 30, 34, 1, self.wakes - 1, 0, 0, 0,
            self.mode, int(100 * self.soc), self._days(), WAKE_S, 130))

    def _mv(self) -> int:
        return 3300 + int(900 * self.soc)

    def _days(self) -> int:
        return min(3650, int(100 * self.soc / max(0.01, self.story.drain)))

    def report(self, now_s: float, ask: bool = False) -> Iterator[bytes]:
        """Yield the frames of a session that goes well."""
        buf = bytearray(frame.LONGEST)
        beat = Heartbeat(buf, self.number, self.seal, 1, self.seq[outbox.DIAGNOSTIC] + 1,
                         self.wakes + self.beats)
        self.beats += 1  # each is another, however soon
        for size in beat.frames(self._condition(now_s, ask)):
            yield bytes(buf[:size])
        batch = Batch(buf, self.number, self.seal)
        for lane in LANES:
            waiting = self.queue[lane]
            while waiting:
                after = self.acked[lane]
                batch.begin(lane, 1, after, True)
                while waiting and batch.add(*waiting[0]):
                    self.acked[lane] = waiting.pop(0)[0]
                yield bytes(buf[:batch.end()])

    def _condition(self, now_s: float, ask: bool) -> Iterator[tuple[int, bytes]]:
        pack, most = struct.pack, heartbeat.MOST
        yield heartbeat.CAUSE, b"\1"
        yield from heartbeat.pairs(heartbeat.WAKES, [1, self.wakes - 1, 0, 0, 0], most)
        yield heartbeat.MISSES, pack("<H", 0)
        yield heartbeat.POWER, pack("<HbBHI", self._mv(), 21, int(100 * self.soc), self._days(),
                                    WAKE_S)
        yield heartbeat.MODE, pack("<BBI", self.mode, self.reason,
                                   max(0, int(now_s - self.since_s)) if self.since_s else 0)
        part = now_s % DAY_S / DAY_S
        yield from heartbeat.pairs(heartbeat.JOULES, [int(1000 * mj * part) for mj in MJ], most)
        yield heartbeat.FAULTS, pack("<H", self.faults)
        yield from heartbeat.pairs(heartbeat.WAITING, list(map(len, self.queue)), most)
        yield from heartbeat.pairs(heartbeat.DROPPED, [0, 0, self.dropped, 0], most)
        yield from heartbeat.latency(self.latency.rows, most)
        yield from heartbeat.pairs(heartbeat.LONGEST, list(self.latency.longest_us), most)
        yield heartbeat.BYTES, pack("<III", int(40_000 * part), 60_000 - int(40_000 * part),
                                    len(self.queue[3]))
        yield heartbeat.UNLINKED, b"\0"
        yield from heartbeat.pairs(heartbeat.WORN, [1, 2, 12, 4], most)
        yield heartbeat.CONFIG, pack("<IB", 7, 255)
        yield heartbeat.model(MPY, {"name": "motion", "version": self.version}, self.trial)
        if ask:
            yield heartbeat.ask(NONCE, int(now_s), 0, 0, frame.LONGEST, 0)

    # --- a model by radio ---

    def updated(self, time_s: float, why: int, number: int) -> None:
        """Tell what became of a package."""
        self.put(outbox.EVENT, record.EVENT, time_s,
                 bytes((record.UPDATE, why, 2)) + struct.pack("<I", number))

    def want(self, number: int, offset: int) -> bytes:
        """Ask for pieces of a package from `offset` on."""
        body = struct.pack("<IIHB", number, offset, 200, 1)
        data = bytearray(frame.HEAD + len(body) + frame.TAIL)
        at = self.seal.begin(data, frame.WANT, self.number)
        data[at:at + len(body)] = body
        self.seal.close(data, at + len(body))
        return bytes(data)


def fill(database: str | Path, nodes: int, days: float = 2.0, session_s: int = 21600,
         wakes: int = 3, now_s: float | None = None, seed: int = 1, rolled: bool = False
         ) -> list[Node]:
    """Let `nodes` nodes live `days` days up to now, and report every `session_s` seconds.

    `wakes` of each session are told. With `rolled`, two models have been sent to some of them.
    Return them, as they are now.
    """
    now_s = time.time() if now_s is None else now_s
    begin_s = now_s - days * DAY_S
    engine = store.connect(database, durable=False)
    fleet = []
    for number in range(FIRST, FIRST + nodes):
        random = Random(seed << 32 | number)
        fleet.append(Node(number, random, story(number, random)))
    with engine.begin() as db:
        for one in fleet:
            enrol(db, one.number, load.key(one.number))
    desk = Desk(engine, clock=None)
    sessions = []
    for one in fleet:
        at = begin_s + one.random.uniform(0, session_s)
        while at + session_s < now_s:
            sessions.append((at + session_s, at, one))
            at += session_s * one.random.uniform(0.97, 1.03)
    sessions.sort(key=lambda session: session[0])
    for _, together in groupby(sessions, key=lambda session: session[0] // TOGETHER_S):
        frames: list[bytes] = []
        for end_s, at, one in together:
            share = (end_s - begin_s) / (now_s - begin_s)
            if one.story.silent is None or share <= one.story.silent:
                one.live(at, end_s, share, wakes)
                frames += one.report(end_s)
        take(desk, frames, end_s)
    assert not desk.refused, desk.refused
    engine.dispose()
    if rolled:
        tell(database, fleet, now_s)
    return fleet


def take(desk: Desk, frames: list[bytes], now_s: float) -> list[tuple[int, bytes]]:
    """Have the desk take frames at a time that need not be now; return its answers."""
    with at(now_s):
        return desk.take(frames)


@contextmanager
def at(now_s: float) -> Iterator[None]:
    """Let the gateway take it for that time."""
    clock = SimpleNamespace(time=lambda: now_s)
    with mock.patch.object(intake, "time", clock), mock.patch.object(rollouts, "time", clock):
        yield


class Rollout:
    """A roll-out to nodes of the fleet, who do as they are told."""

    def __init__(self, database: str | Path, nodes: list[Node], begun_s: float,
                 version: int = 2, **more: Any) -> None:
        self.engine = store.connect(database, durable=False)
        self.desk = Desk(self.engine, clock=None)
        self.version = version
        with self.engine.begin() as db, at(begun_s):
            self.id = rollouts.begin(db, "motion", version, {MPY: bytes(9200)},
                                     [one.number for one in nodes], **more)

    def number(self, node: Node, now_s: float) -> int | None:
        """Let a node report; return the number of the package that it is offered, if it is."""
        for _, data in take(self.desk, list(node.report(now_s, ask=True)), now_s):
            if frame.identify(data)[0] == frame.OFFER:
                return int(struct.unpack_from("<II", data, frame.HEAD)[1])
        return None

    def fetch(self, node: Node, now_s: float, share: float = 1.0) -> int | None:
        """Let a node fetch so much of what it is offered."""
        number = self.number(node, now_s)
        if number is not None:
            take(self.desk, [node.want(number, int(9200 * share))], now_s)
        return number

    def update(self, node: Node, now_s: float, why: int = verdict.KEPT) -> None:
        """Let a node fetch it, try it, and keep it or tell why not, all within an hour."""
        number = self.fetch(node, now_s)
        if number is None:
            return
        if why in (verdict.KEPT, verdict.CRASHED, verdict.FAILED):
            node.updated(now_s + 600, verdict.ON_TRIAL, number)
        node.updated(now_s + 1500, why, number)
        if why == verdict.KEPT:
            node.version = self.version
        take(self.desk, list(node.report(now_s + 1800)), now_s + 1800)


def tell(database: str | Path, nodes: list[Node], now_s: float) -> None:
    """Two roll-outs: one that a canary's crash stops, and a better one that is under way."""
    one = Rollout(database, nodes[:40], now_s - 4 * DAY_S, 2, canary=3, healthy_s=7200)
    for i, node in enumerate(nodes[:3]):
        one.update(node, now_s - 3.9 * DAY_S + 3600 * i,
                   verdict.CRASHED if i == 1 else verdict.KEPT)
    two = Rollout(database, nodes[:40], now_s - 2 * DAY_S, 3, canary=3, healthy_s=7200)
    for i, node in enumerate(nodes[:3]):
        two.update(node, now_s - 1.9 * DAY_S + 600 * i)
    for node in nodes[:3]:
        take(two.desk, list(node.report(now_s - 1.7 * DAY_S)), now_s - 1.7 * DAY_S)
    for i, node in enumerate(nodes[3:40]):
        then = now_s - 86400 + 1900 * i
        if node.story.silent is not None:
            continue
        if i < 22:
            two.update(node, then, verdict.NO_ROOM if i == 13 else verdict.KEPT)
        elif i < 27:
            two.fetch(node, then, i / 30)
    for node in nodes[:40]:
        if node.story.silent is None:
            then = now_s - node.random.uniform(60, 21600)
            take(two.desk, list(node.report(then)), then)


if __name__ == "__main__":
    ask = ArgumentParser()
    ask.add_argument("database")
    ask.add_argument("--nodes", type=int, default=500)
    ask.add_argument("--days", type=float, default=21)
    ask.add_argument("--session", type=int, default=21600)
    ask.add_argument("--wakes", type=int, default=6)
    given = ask.parse_args()
    began = time.monotonic()
    fill(given.database if "://" in given.database else Path(given.database), given.nodes,
         given.days, given.session, given.wakes, rolled=given.nodes >= 40)
    print(f"{time.monotonic() - began:.1f} s", file=sys.stderr)
