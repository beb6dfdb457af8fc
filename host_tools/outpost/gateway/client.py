"""A connection to an MQTT 3.1.1 broker that takes and gives many messages at a time.

What the socket brings in one piece is handed on in one piece, and what is published in one go
leaves in one: docs/gateway.md has what that spares. Subscriptions are at QoS 0: frames have
acknowledgements of their own, which come when a record is stored, and a broker's say nothing of
that.
"""

import asyncio
import secrets
import ssl
import struct
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from outpost.gateway.packets import (
    CONNACK,
    CONNECT,
    DISCONNECT,
    PINGREQ,
    PUBACK,
    PUBLISH,
    REFUSED,
    SHORT,
    SUBACK,
    SUBSCRIBE,
    UNSUBACK,
    UNSUBSCRIBE,
    packet,
    packet_at,
    published,
    text,
)

KEEPALIVE_S = 60
ANSWER_S = 10.0  # for the broker to answer
MOST = 500  # messages that wait to be heard; then the broker has to

Message = tuple[bytes, bytes]  # topic, payload


class Gone(ConnectionError):
    """The connection has ended, or the broker would not have it."""


@dataclass(frozen=True)
class Where:
    """A broker; `prefix` begins all topics."""

    host: str
    port: int
    prefix: str = "outpost"
    user: str | None = None
    password: str | None = None
    tls: ssl.SSLContext | None = None

    def __str__(self) -> str:
        return f"mqtt{'s' if self.tls else ''}://{self.host}:{self.port}/{self.prefix}"

    __repr__ = __str__


class Client(asyncio.Protocol):
    """One connection."""

    _transport: asyncio.Transport

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._rest = b""  # of a packet that isn't whole
        self._number = 0
        self._answers: dict[int, asyncio.Future[bytes]] = {}  # that are waited for, by kind
        self._heard: list[Message] = []
        self._came, self._room = asyncio.Event(), asyncio.Event()
        self._room.set()
        self._full = False  # nobody takes what is heard
        self._heard_at = self._loop.time()
        self._gone: Gone | None = None
        self.flying = 0  # published at QoS 1 and not confirmed

    # --- what asyncio calls ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        """Tell everybody who waits."""
        self._gone = Gone(str(error or "the broker has hung up"))
        self._came.set()
        self._room.set()
        for one in self._answers.values():
            if not one.done():
                one.set_exception(self._gone)

    def pause_writing(self) -> None:
        """The broker does not take more at the moment."""
        self._room.clear()

    def resume_writing(self) -> None:
        """It does again."""
        self._room.set()

    def data_received(self, data: bytes) -> None:
        """Take what has come."""
        self._heard_at = self._loop.time()
        data, at = self._rest + data, 0
        try:
            while (found := packet_at(data, at)) is not None:
                first, body, at = found
                kind = first & 0xF0
                if kind == PUBLISH:
                    topic = body + 2 + SHORT.unpack_from(data, body)[0]
                    self._heard.append((data[body + 2:topic], data[topic:at]))
                elif kind == PUBACK:
                    self.flying -= 1
                elif kind in self._answers:
                    answer = self._answers.pop(kind)
                    if not answer.done():
                        answer.set_result(data[body:at])
        except (ValueError, struct.error):
            self._transport.abort()
            return
        self._rest = data[at:]
        if self._heard:
            self._came.set()
        if len(self._heard) >= MOST and not self._full:
            self._full = True
            self._transport.pause_reading()

    # --- what the gateway and the nodes call ---

    async def hello(self, broker: Where) -> None:
        """Begin a clean session."""
        flags, words = 0x02, [f"outpost-{secrets.token_hex(6)}"]
        for flag, word in ((0x80, broker.user), (0x40, broker.password)):
            if word is not None:
                flags |= flag
                words.append(word)
        answer = await self._ask(CONNECT, CONNACK, text("MQTT") + struct.pack(
            ">BBH", 4, flags, KEEPALIVE_S) + b"".join(map(text, words)))
        if len(answer) != 2 or answer[1]:
            raise Gone(f"the broker refuses, with code {answer[-1] if answer else 0}")

    async def subscribe(self, topics: Iterable[str]) -> None:
        """Hear what is published to `topics`."""
        answer = await self._ask(SUBSCRIBE, SUBACK, SHORT.pack(self._next()) + b"".join(
            text(topic) + b"\0" for topic in topics))
        if REFUSED in answer[2:]:
            raise Gone("the broker refuses a subscription")

    async def unsubscribe(self, topic: str) -> None:
        """Hear nothing more of it."""
        await self._ask(UNSUBSCRIBE, UNSUBACK, SHORT.pack(self._next()) + text(topic))

    async def heard(self) -> list[Message]:
        """Wait for messages; return all there are. Raises Gone."""
        await self._came.wait()
        found, self._heard = self._heard, []
        if self._gone is None:
            self._came.clear()
            if self._full:
                self._full = False
                self._transport.resume_reading()
        elif not found:
            raise self._gone
        return found

    def publish(self, messages: Iterable[tuple[str, bytes]], confirmed: bool = False) -> None:
        """Publish (topic, payload)s; `confirmed`: at QoS 1, with 65,535 `flying` at most."""
        if confirmed:
            out = [published(topic, payload, self._next()) for topic, payload in messages]
            self.flying += len(out)
        else:
            out = [published(topic, payload) for topic, payload in messages]
        self._transport.write(b"".join(out))

    async def drain(self) -> None:
        """Wait until the broker takes more. Raises Gone."""
        try:
            async with asyncio.timeout(ANSWER_S):
                await self._room.wait()
        except TimeoutError:
            self._transport.abort()
            raise Gone("the broker takes nothing") from None
        if self._gone is not None:
            raise self._gone

    async def stay(self) -> None:
        """Tell the broker now and then that somebody is here; end if it is silent."""
        while True:
            await asyncio.sleep(KEEPALIVE_S / 2)
            if self._loop.time() - self._heard_at > 1.5 * KEEPALIVE_S:
                self._transport.abort()
            self._transport.write(packet(PINGREQ))

    def close(self) -> None:
        """Say good-bye, as far as the broker still listens."""
        self._transport.write(packet(DISCONNECT))
        self._transport.close()

    def _next(self) -> int:
        self._number = self._number % 0xFFFF + 1
        return self._number

    async def _ask(self, kind: int, wanted: int, body: bytes) -> bytes:
        """Send a packet and return the body of its answer."""
        if self._gone is not None:
            raise self._gone
        self._answers[wanted] = answer = self._loop.create_future()
        self._transport.write(packet(kind, body))
        try:
            async with asyncio.timeout(ANSWER_S):
                return await answer
        except TimeoutError:
            raise Gone("the broker doesn't answer") from None
        finally:
            self._answers.pop(wanted, None)


@asynccontextmanager
async def connection(broker: Where) -> AsyncIterator[Client]:
    """Connect; raises OSError when that can't be, and Gone, which is one."""
    try:
        async with asyncio.timeout(ANSWER_S):
            _, client = await asyncio.get_running_loop().create_connection(
                Client, broker.host, broker.port, ssl=broker.tls)
    except TimeoutError:
        raise Gone("nobody answers") from None
    stays = asyncio.create_task(client.stay())
    try:
        await client.hello(broker)
        yield client
    finally:
        stays.cancel()
        client.close()
