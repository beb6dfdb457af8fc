"""A connection to an MQTT 3.1.1 broker that takes and gives many messages at a time.

What the socket brings in one piece is handed on in one piece, and what is published in one call
leaves in one. Subscriptions are at QoS 0: frames have acknowledgements of their own, which come
when a record is stored, and a broker's say nothing of that.
"""

import asyncio
import secrets
import ssl
import struct
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from outpost.gateway.packets import (
    CONNACK,
    CONNECT,
    PUBACK,
    PUBLISH,
    QOS1,
    REFUSED,
    SHORT,
    SUBACK,
    SUBSCRIBE,
    UNSUBACK,
    UNSUBSCRIBE,
    packet,
    packet_at,
    text,
)

PING, BYE = b"\xc0\x00", b"\xe0\x00"
KEEPALIVE_S = 60
ANSWER_S = 10.0  # for the broker to answer

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
    """One connection; `hear` is called with all messages that came together."""

    def __init__(self, hear: Callable[[list[Message]], None]) -> None:
        loop = asyncio.get_running_loop()
        self._hear = hear
        self._rest = b""  # of a packet that isn't whole
        self._number = 0
        self._answers: dict[int, asyncio.Future[bytes]] = {}  # that are waited for, by kind
        self._room = asyncio.Event()
        self._room.set()
        self.heard_at = loop.time()
        self.gone = loop.create_future()  # never done but with an error
        self.flying = 0  # published at QoS 1 and not confirmed

    # --- what asyncio calls ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        """Tell everybody who waits."""
        self._room.set()
        for one in (self.gone, *self._answers.values()):
            if not one.done():
                one.set_exception(Gone(str(error or "the broker has hung up")))
                one.exception()  # it may be that nobody asks

    def pause_writing(self) -> None:
        """The broker does not take more at the moment."""
        self._room.clear()

    def resume_writing(self) -> None:
        """It does again."""
        self._room.set()

    def data_received(self, data: bytes) -> None:
        """Take what has come."""
        self.heard_at = asyncio.get_running_loop().time()
        data, at = self._rest + data, 0
        heard: list[Message] = []
        try:
            while (found := packet_at(data, at)) is not None:
                first, body, at = found
                kind = first & 0xF0
                if kind == PUBLISH:
                    topic = body + 2 + SHORT.unpack_from(data, body)[0]
                    heard.append((data[body + 2:topic], data[topic:at]))
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
        if heard:
            self._hear(heard)

    # --- what the gateway and the nodes call ---

    async def hello(self, broker: Where) -> None:
        """Say hello."""
        flags, words = 0x02, [f"outpost-{secrets.token_hex(6)}"]  # a clean session
        for flag, word in ((0x80, broker.user), (0x40, broker.password)):
            if word is not None:
                flags |= flag
                words.append(word)
        answer = await self._ask(CONNECT, CONNACK, text("MQTT") + struct.pack(
            ">BBH", 4, flags, KEEPALIVE_S) + b"".join(map(text, words)))
        if len(answer) != 2 or answer[1]:
            raise Gone(f"refused with code {answer[-1] if answer else 0}")

    async def subscribe(self, topics: Iterable[str]) -> None:
        """Hear what is published to `topics`."""
        answer = await self._ask(SUBSCRIBE, SUBACK, self._next() + b"".join(
            text(topic) + b"\0" for topic in topics))
        if REFUSED in answer[2:]:
            raise Gone("a subscription was refused")

    async def unsubscribe(self, topic: str) -> None:
        """Hear nothing more of it."""
        await self._ask(UNSUBSCRIBE, UNSUBACK, self._next() + text(topic))

    def publish(self, messages: Iterable[tuple[str, bytes]], confirmed: bool = False) -> None:
        """Publish; `confirmed`: at QoS 1, of which no more than 65,535 may be `flying`."""
        out = []
        for topic, payload in messages:
            if confirmed:
                self.flying += 1
                out.append(packet(PUBLISH | QOS1, text(topic) + self._next() + payload))
            else:
                out.append(packet(PUBLISH, text(topic) + payload))
        self._transport.write(b"".join(out))

    async def drain(self) -> None:
        """Wait until the broker takes more."""
        await self._room.wait()

    def pause(self, now: bool) -> None:
        """Read no further for now, or do again."""
        if not self._transport.is_closing():
            (self._transport.pause_reading if now else self._transport.resume_reading)()

    async def stay(self) -> None:
        """Tell the broker now and then that somebody is here; end if it is silent."""
        while True:
            await asyncio.sleep(KEEPALIVE_S / 2)
            if asyncio.get_running_loop().time() - self.heard_at > 1.5 * KEEPALIVE_S:
                self._transport.abort()
            self._transport.write(PING)

    def close(self) -> None:
        """Say good-bye, as far as the broker still listens."""
        self._transport.write(BYE)
        self._transport.close()

    def _next(self) -> bytes:
        self._number = self._number % 0xFFFF + 1
        return SHORT.pack(self._number)

    async def _ask(self, kind: int, wanted: int, body: bytes) -> bytes:
        """Send a packet and return the body of its answer."""
        self._answers[wanted] = answer = asyncio.get_running_loop().create_future()
        self._transport.write(packet(kind, body))
        try:
            return await asyncio.wait_for(answer, ANSWER_S)
        except TimeoutError:
            raise Gone("the broker doesn't answer") from None
        finally:
            self._answers.pop(wanted, None)


@asynccontextmanager
async def connection(broker: Where, hear: Callable[[list[Message]], None]
                     ) -> AsyncIterator[Client]:
    """Connect; raises OSError when that can't be, and Gone, which is one."""
    try:
        async with asyncio.timeout(ANSWER_S):
            _, client = await asyncio.get_running_loop().create_connection(
                lambda: Client(hear), broker.host, broker.port, ssl=broker.tls)
    except TimeoutError:
        raise Gone("nobody answers") from None
    stays = None
    try:
        await client.hello(broker)
        stays = asyncio.create_task(client.stay())
        yield client
    finally:
        if stays is not None:
            stays.cancel()
        client.close()
