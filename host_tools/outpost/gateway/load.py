"""Nodes by the thousand for tests and benchmarks: frames and manners of real ones, no firmware.

A node here has numbered records, sends them in frames of the node's own code, some at a time, and
goes on from what is acknowledged. As in the field, what it sends may be doubled, overtaken or
lost, and it may forget acknowledgements it has heard.
"""

import asyncio
import contextlib
import hmac
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from random import Random
from typing import Any

from node import downlink, frame
from node.batch import Batch
from node.frame import FrameError, Seal
from outpost.gateway.client import Client, Message, Where, connection

LANE, KIND, START_S = 2, 1, 1_767_600_000


def key(number: int) -> bytes:
    """Return the key of a node that is made up."""
    return hmac.new(b"made up", struct.pack("<I", number), sha256).digest()


def payload(node: int, seq: int, size: int) -> bytes:
    """Return what the record says; it is different for each."""
    return struct.pack("<II", node, seq).ljust(size, b"\x55")[:max(8, size)]


@dataclass
class Manners:
    """How nodes behave. Shares are of frames; `window` frames are on their way at a time."""

    records: int = 20  # in a frame
    size: int = 32  # bytes of a record's payload
    window: int = 8
    doubled: float = 0.0
    overtaken: float = 0.0
    lost: float = 0.0
    forgets: float = 0.0  # of sessions that begin with an acknowledgement forgotten
    patience_s: float = 2.0


@dataclass
class Node:
    """One node with records 1…`total` to bring home."""

    number: int
    total: int
    epoch: int = 1
    acked: int = 0
    sent: int = 0

    def __post_init__(self) -> None:
        self.seal = Seal(key(self.number))
        self._batch = Batch(bytearray(frame.LONGEST), self.number, self.seal)
        self._ready: dict[tuple[int, bool], tuple[int, bytes]] = {}

    def frames(self, manners: Manners) -> list[bytes]:
        """Return the next frames."""
        out = []
        while self.sent < self.total and len(out) < manners.window:
            at = self.sent, self.sent == self.acked
            self.sent, one = self._ready.get(at) or self._frame(*at, manners)
            out.append(one)
        return out

    def _frame(self, after: int, floor: bool, manners: Manners) -> tuple[int, bytes]:
        """Return a frame of what comes after `after`, and how far it goes."""
        self._batch.begin(LANE, self.epoch, after, floor)
        last = after
        for seq in range(after + 1, min(self.total, after + manners.records) + 1):
            if not self._batch.add(seq, KIND, START_S + seq,
                                   payload(self.number, seq, manners.size)):
                break
            last = seq
        return last, bytes(self._batch.buf[:self._batch.end()])

    def prepare(self, manners: Manners) -> None:
        """Make beforehand what it will send if all goes well."""
        after, made = self.acked, {}
        while after < self.total:
            floor = len(made) % manners.window == 0
            made[after, floor] = after, _ = self._frame(after, floor, manners)
        self._ready = made

    def hear(self, data: bytes) -> bool:
        """Take an answer; False if it is none for this node."""
        with contextlib.suppress(FrameError):
            kind, number = frame.identify(data)
            self.seal.open(data)
            for lane, epoch, seq in downlink.read(kind, data) if kind == frame.ACK else ():
                if number == self.number and (lane, epoch) == (LANE, self.epoch):
                    self.acked = max(self.acked, seq)
                    self.sent = max(self.sent, seq)
                    return True
        return False


class Fleet:
    """Nodes that share one connection to the broker, each with topics of its own."""

    def __init__(self, nodes: Iterable[Node], broker: Where, manners: Manners,
                 random: Random) -> None:
        self.nodes = {node.number: node for node in nodes}
        self.broker, self.manners, self.random = broker, manners, random
        self.messages = 0
        self._topics = {number: f"{broker.prefix}/{number}/up" for number in self.nodes}

    async def run(self) -> None:
        """Bring everything home, whatever happens to broker and gateway on the way."""
        while any(node.acked < node.total for node in self.nodes.values()):
            try:
                async with connection(self.broker) as client:
                    await self._talk(client)
            except OSError:
                await asyncio.sleep(0.1)

    async def _talk(self, client: Client) -> None:
        """Send, go on from each acknowledgement, and send again what is not acknowledged."""
        numbers = list(self.nodes)
        for first in range(0, len(numbers), 200):
            await client.subscribe(f"{self.broker.prefix}/{number}/down"
                                   for number in numbers[first:first + 200])
        for node in self.nodes.values():
            if self.random.random() < self.manners.forgets:
                node.acked = self.random.randint(0, node.acked)
            node.sent = node.acked
        self._client = client
        # when the patience of each ends, the soonest first, since all have the same
        self._due: dict[int, float] = {}
        self._send(self.nodes.values())
        while self._due:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.manners.patience_s / 10):
                    self._hear(await client.heard())
            self._lose_patience(asyncio.get_running_loop().time())

    def _lose_patience(self, now: float) -> None:
        late = []
        for number, until in self._due.items():
            if until > now:
                break
            late.append(self.nodes[number])
        for node in late:
            node.sent = node.acked
        self._send(late)

    def _hear(self, messages: list[Message]) -> None:
        """Take answers."""
        told = {}
        for topic, data in messages:
            node = self.nodes.get(int(topic.rsplit(b"/", 2)[1]))
            if node is not None and node.hear(data):
                told[node.number] = node
        self._send(told.values())

    def _send(self, nodes: Iterable[Node]) -> None:
        """Let nodes go on, those that may, and be patient with all of them."""
        manners, random = self.manners, self.random
        until = asyncio.get_running_loop().time() + manners.patience_s
        out: list[tuple[str, bytes]] = []
        for node in nodes:
            self._due.pop(node.number, None)
            if node.acked >= node.total:
                continue
            self._due[node.number] = until
            if node.acked < node.sent:
                continue
            frames = []
            for one in node.frames(manners):
                if random.random() >= manners.lost:
                    frames += [one] * (1 + (random.random() < manners.doubled))
            for i in range(1, len(frames)):
                if random.random() < manners.overtaken:
                    frames[i - 1], frames[i] = frames[i], frames[i - 1]
            out += [(self._topics[node.number], one) for one in frames]
        self.messages += len(out)
        self._client.publish(out, confirmed=True)


async def bring_home(nodes: list[Node], broker: Where, manners: Manners, seed: int = 1,
                     connections: int = 4) -> int:
    """Bring home all records of `nodes`; return how many messages that took."""
    fleets = [Fleet(nodes[i::connections], broker, manners, Random(seed + i))
              for i in range(min(connections, len(nodes)))]
    await asyncio.gather(*(fleet.run() for fleet in fleets))
    return sum(fleet.messages for fleet in fleets)


def check(rows: Iterable[Any], nodes: Iterable[Node], size: int) -> None:
    """Raise AssertionError unless `rows` (node, seq, payload) are all records, each once."""
    wanted = {node.number: node.total for node in nodes}
    found: dict[int, set[int]] = {number: set() for number in wanted}
    for number, seq, data in rows:
        assert seq not in found[number], f"record {seq} of node {number} is there twice"
        assert data == payload(number, seq, size), f"record {seq} of node {number} is another"
        found[number].add(seq)
    for number, total in wanted.items():
        missing = set(range(1, total + 1)) ^ found[number]
        assert not missing, f"node {number}: {len(missing)} records missing or never made"
