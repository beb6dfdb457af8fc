"""Nodes by the thousand for tests and benchmarks: frames and manners of real ones, no firmware.

A node here has numbered records, sends them in frames of the node's own code, some at a time, and
goes on from what is acknowledged. As in the field, what it sends may be doubled, overtaken or
lost, and it may forget acknowledgements it has heard.
"""

import asyncio
import contextlib
import hmac
import logging
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import sha256
from random import Random
from typing import Any

import aiomqtt

from node import downlink, frame
from node.batch import Batch
from node.frame import FrameError, Seal
from outpost.gateway.mqtt import Where, connection

LANE, KIND, START_S = 2, 1, 1_767_600_000

logging.getLogger("mqtt").setLevel(logging.ERROR)  # it counts what waits, at every message


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
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.seal = Seal(key(self.number))
        self._batch = Batch(bytearray(frame.LONGEST), self.number, self.seal)

    def frames(self, manners: Manners) -> list[bytes]:
        """Return the next frames."""
        out = []
        while self.sent < self.total and len(out) < manners.window:
            self._batch.begin(LANE, self.epoch, self.sent, self.sent == self.acked)
            until = min(self.total, self.sent + manners.records)
            for seq in range(self.sent + 1, until + 1):
                if not self._batch.add(seq, KIND, START_S + seq,
                                       payload(self.number, seq, manners.size)):
                    break
                self.sent = seq
            out.append(bytes(self._batch.buf[:self._batch.end()]))
        return out

    def hear(self, data: bytes) -> None:
        """Take an answer; what isn't one for this node is passed over."""
        with contextlib.suppress(FrameError):
            kind, number = frame.identify(data)
            self.seal.open(data)
            for lane, epoch, seq in downlink.read(kind, data) if kind == frame.ACK else ():
                if number == self.number and (lane, epoch) == (LANE, self.epoch):
                    self.acked = max(self.acked, seq)
                    self.sent = max(self.sent, seq)
                    self.news.set()


class Fleet:
    """Nodes that share one connection to the broker, each with topics of its own."""

    def __init__(self, nodes: Iterable[Node], broker: Where, manners: Manners,
                 random: Random) -> None:
        self.nodes = {node.number: node for node in nodes}
        self.broker, self.manners, self.random = broker, manners, random
        self.messages = 0

    async def run(self) -> None:
        """Bring everything home, whatever happens to broker and gateway on the way."""
        while any(node.acked < node.total for node in self.nodes.values()):
            try:
                async with connection(self.broker) as client:
                    for first in range(0, len(self.nodes), 200):
                        await client.subscribe([
                            (f"{self.broker.prefix}/{number}/down", 0)
                            for number in list(self.nodes)[first:first + 200]])
                    ear = asyncio.create_task(self._listen(client))
                    try:
                        talk = asyncio.gather(*(self._talk(client, node)
                                                for node in self.nodes.values()))
                        done, _ = await asyncio.wait({ear, talk},
                                                     return_when=asyncio.FIRST_COMPLETED)
                        for one in done:
                            one.result()
                    finally:
                        ear.cancel()
                        talk.cancel()
                        await asyncio.gather(ear, talk, return_exceptions=True)
            except aiomqtt.MqttError:
                await asyncio.sleep(0.1)

    async def _listen(self, client: aiomqtt.Client) -> None:
        async for message in client.messages:
            node = self.nodes.get(int(message.topic.value.rsplit("/", 2)[1]))
            if node is not None and isinstance(message.payload, bytes):
                node.hear(message.payload)

    async def _talk(self, client: aiomqtt.Client, node: Node) -> None:
        manners, random = self.manners, self.random
        topic = f"{self.broker.prefix}/{node.number}/up"
        if random.random() < manners.forgets:
            node.acked = random.randint(0, node.acked)
        node.sent = node.acked
        while node.acked < node.total:
            node.news.clear()
            frames = []
            for one in node.frames(manners):
                if random.random() >= manners.lost:
                    frames += [one] * (1 + (random.random() < manners.doubled))
            for i in range(1, len(frames)):
                if random.random() < manners.overtaken:
                    frames[i - 1], frames[i] = frames[i], frames[i - 1]
            for one in frames:
                await client.publish(topic, one, qos=1)
                self.messages += 1
            while node.acked < node.sent or not frames:
                try:
                    await asyncio.wait_for(node.news.wait(), manners.patience_s)
                    node.news.clear()
                except TimeoutError:
                    node.sent = node.acked
                    break


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
