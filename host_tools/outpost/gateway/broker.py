"""A broker in the gateway's own process: MQTT 3.1.1 at QoS 0 and 1, for one machine.

It lets everybody in who reaches its port: frames prove themselves. It keeps nothing for who is
away, neither sessions nor retained messages: a node that is back asks anew. What a slow link has
no room for is dropped, and what the gateway has no room for is not read yet, so its memory is
bounded; whoever speaks no MQTT or falls silent loses the connection, and nobody else notices.
Whoever wants logins, TLS for nodes or thousands of them runs mosquitto or the like and gives its
URL.
"""

import asyncio
import contextlib
import logging
import math
import re
import resource
import socket
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

from outpost.errors import OutpostError
from outpost.gateway import packets
from outpost.gateway.client import Where
from outpost.gateway.desk import Answer
from outpost.gateway.packets import Message, PacketError
from outpost.gateway.service import Service

HELLO_S = 10.0  # a connection that doesn't say CONNECT by then ends
SWEEP_S = 1.0  # between two looks for who has fallen silent
MOST = 900  # connections …
SPARE = 200  # … which leave so many of the files that a process may have open, often 1,024 in all
ROOM = 1 << 18  # bytes that wait for a link; what comes beyond is dropped
FLYING = 1000  # messages of QoS 1 that one has not confirmed; the same
FILTERS = 1000  # that one may subscribe to
INBOX = 2000  # messages for the gateway; beyond, nobody is read from until half are taken

log = logging.getLogger(__name__)


class ListenError(OutpostError):
    """An address the broker can't listen at."""


class Subscriber(Protocol):
    """Whom messages are handed to; it never waits."""

    def deliver(self, message: Message, granted: int) -> None:
        """Take a message, at QoS `granted` at most."""


class Broker:
    """Who is connected, who wants to hear what, and who waits to be read from."""

    def __init__(self) -> None:
        self.connections: set[Connection] = set()
        self.named: dict[str, Connection] = {}
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self.most = MOST if files == resource.RLIM_INFINITY else min(
            MOST, max(files - SPARE, files // 4))
        self.dropped = 0  # messages a slow link had no room for
        self.full = False  # the gateway has enough to do
        self._exact: dict[str, dict[Subscriber, int]] = {}
        self._wild: dict[str, tuple[re.Pattern[str], dict[Subscriber, int]]] = {}

    def subscribe(self, who: Subscriber, topic_filter: str, qos: int) -> None:
        """From now on hand `who` what is published to such topics; raises PacketError."""
        pattern = packets.pattern(topic_filter)
        if pattern is None:
            self._exact.setdefault(topic_filter, {})[who] = qos
        else:
            self._wild.setdefault(topic_filter, (pattern, {}))[1][who] = qos

    def unsubscribe(self, who: Subscriber, topic_filter: str) -> None:
        """No longer."""
        if (ears := self._exact.get(topic_filter)) is not None:
            ears.pop(who, None)
            if not ears:
                del self._exact[topic_filter]
        elif topic_filter in self._wild:
            ears = self._wild[topic_filter][1]
            ears.pop(who, None)
            if not ears:
                del self._wild[topic_filter]

    def publish(self, message: Message) -> None:
        """Hand a message to all who want it, to each once."""
        ears = self._exact.get(message.topic, {})
        for pattern, more in self._wild.values():
            if pattern.fullmatch(message.topic):
                ears = {who: max(ears.get(who, 0), more.get(who, 0)) for who in {**ears, **more}}
        for who, granted in ears.items():
            who.deliver(message, granted)

    def resume(self) -> None:
        """Read again from those who had to wait, as far as there is room."""
        self.full = False
        for one in list(self.connections):
            if one.held:
                one.resume()

    async def sweep(self) -> None:
        """Look for who has fallen silent, until cancelled."""
        while True:
            await asyncio.sleep(SWEEP_S)
            self.cut(asyncio.get_running_loop().time())

    def cut(self, now_s: float) -> None:
        """End those that have been silent until now; not while it is the gateway that is slow."""
        for one in list(self.connections):
            if now_s > one.until_s and not self.full:
                one.end("silent")


class Connection(asyncio.Protocol):
    """Somebody on the other end of a socket."""

    transport: asyncio.Transport

    def __init__(self, broker: Broker) -> None:
        self._broker, self._loop = broker, asyncio.get_running_loop()
        self._rest = b""  # of a packet that isn't whole, or that nobody reads yet
        self._out: list[bytes] = []  # what goes out when the loop comes round
        self._waiting = 0  # bytes in it
        self._clogged = False  # the socket takes no more
        self._name: str | None = None
        self._patience_s = HELLO_S
        self._will: Message | None = None
        self._filters: set[str] = set()
        self._flying: set[int] = set()
        self._number = 0
        self._over = self._slow = False
        self.held = False  # it is not read from
        self.until_s = self._loop.time() + HELLO_S

    # --- what asyncio calls ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Let it in, if there is room."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.set_write_buffer_limits(ROOM)
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # for who wants no keepalive
        self._broker.connections.add(self)
        if len(self._broker.connections) > self._broker.most:
            self.end("one too many")

    def connection_lost(self, error: Exception | None) -> None:
        """Forget it, and say what it wanted said when it goes without a word."""
        broker = self._broker
        self._over = True
        broker.connections.discard(self)
        for one in self._filters:
            broker.unsubscribe(self, one)
        if self._name is not None and broker.named.get(self._name) is self:
            del broker.named[self._name]
        if self._will is not None:
            broker.publish(self._will)

    def data_received(self, data: bytes) -> None:
        """Obey the packets that are whole with this."""
        self.until_s = self._loop.time() + self._patience_s
        self._rest = self._rest + data if self._rest else data
        self._read()

    def pause_writing(self) -> None:
        """Who doesn't take answers gets no more of them."""
        self._clogged = True
        self._hold()

    def resume_writing(self) -> None:
        """The link has room again."""
        self._clogged = False
        self.resume()

    # --- flow ---

    def _hold(self) -> None:
        if not self.held and not self._over:
            self.held = True
            self.transport.pause_reading()

    def resume(self) -> None:
        """Read what waits, and on from there, unless there is a reason to wait still."""
        if self._over or self._clogged or self._broker.full:
            return
        self.held = False
        self.until_s = self._loop.time() + self._patience_s
        self._read()
        if not self.held and not self._over:
            self.transport.resume_reading()

    def end(self, why: str) -> None:
        """Cut the connection."""
        log.info("%r: %s", self._name or self.transport.get_extra_info("peername"), why)
        self._over = True
        self.transport.abort()

    def close(self) -> None:
        """End it when all is said."""
        self._flush()
        self._over, self._will, self.until_s = True, None, self._loop.time() + HELLO_S
        self.transport.close()

    def _send(self, data: bytes) -> None:
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(data)
        self._waiting += len(data)

    def _flush(self) -> None:
        out, self._out, self._waiting = self._out, [], 0
        if out and not self._over:
            self.transport.write(b"".join(out))

    # --- packets ---

    def _read(self) -> None:
        data, at = self._rest, 0
        try:
            while at < len(data) and not self._over:
                packets.expect(data[at])  # before the rest is there
                if (data[at] == packets.CONNECT) != (self._name is None):
                    raise PacketError("CONNECT comes first, and once")  # [3.1.0-1, -2]
                if (found := packets.packet_at(data, at)) is None:
                    break
                first, begin, end = found
                if self._broker.full and first & 0xF0 == packets.PUBLISH:
                    self._hold()
                    break
                at = end
                self._obey(first, data[begin:end])
        except PacketError as error:
            self.end(str(error))
        self._rest = data[at:] if at else data

    def _obey(self, first: int, body: bytes) -> None:
        if first & 0xF0 == packets.PUBLISH:
            message, confirmation = packets.message(first, body)
            self._broker.publish(message)
            if confirmation:
                self._send(confirmation)
        elif first == packets.PUBACK:
            self._flying.discard(packets.identifier(body))
        elif first == packets.PINGREQ:
            self._send(packets.packet(packets.PINGRESP))
        elif first == packets.CONNECT:
            self._greet(packets.hello(body))
        elif first == packets.SUBSCRIBE:
            self._subscribe(body)
        elif first == packets.UNSUBSCRIBE:
            number = packets.identifier(body)
            for topic_filter in packets.unsubscriptions(body):
                self._filters.discard(topic_filter)
                self._broker.unsubscribe(self, topic_filter)
            self._send(packets.packet(packets.UNSUBACK, number.to_bytes(2)))
        else:  # DISCONNECT
            self.close()

    def _greet(self, hello: packets.Hello) -> None:
        answer = packets.packet(packets.CONNACK, bytes((0, hello.refused)))
        if hello.refused:
            self._send(answer)
            self.close()
            return
        self._name, self._will = hello.name, hello.will
        self._patience_s = 1.5 * hello.keepalive_s or math.inf  # [3.1.2-24]
        self.until_s = self._loop.time() + self._patience_s
        if hello.name:
            if (old := self._broker.named.get(hello.name)) is not None:
                old.end("another of the same name")  # [3.1.4-2]
            self._broker.named[hello.name] = self
        self._send(answer)

    def _subscribe(self, body: bytes) -> None:
        number, codes = packets.identifier(body), bytearray()
        for topic_filter, qos in packets.subscriptions(body):
            # a shared one would hear nothing here: better it knows
            if topic_filter.startswith("$share/") or len(self._filters) >= FILTERS:
                codes.append(packets.REFUSED)
                continue
            self._broker.subscribe(self, topic_filter, min(qos, 1))
            self._filters.add(topic_filter)
            codes.append(min(qos, 1))
        self._send(packets.packet(packets.SUBACK, number.to_bytes(2) + codes))

    def deliver(self, message: Message, granted: int) -> None:
        """Send a message, unless the link or who is at its end is too slow for it."""
        qos = min(message.qos, granted)
        if self._clogged or self._waiting > ROOM or (qos and len(self._flying) >= FLYING):
            if not self._slow:
                log.warning("%r is too slow for what is sent to it", self._name)
                self._slow = True
            self._broker.dropped += 1
            return
        if qos:
            self._number = self._number % 0xFFFF + 1
            while self._number in self._flying:
                self._number = self._number % 0xFFFF + 1
            self._flying.add(self._number)
        self._send(packets.published(message.topic, message.payload,
                                     self._number if qos else 0))


class Port:
    """The gateway's own subscription; between it and its broker is no connection."""

    def __init__(self, service: Service, broker: Broker, prefix: str) -> None:
        self._service, self._broker, self._prefix = service, broker, prefix
        self._inbox: deque[bytes] = deque()
        self._came, self.ready = asyncio.Event(), asyncio.Event()
        self._topic = f"{prefix}/+/up"

    async def run(self) -> None:
        """Hand on what comes, until cancelled."""
        self._broker.subscribe(self, self._topic, 1)
        self.ready.set()
        while True:
            await self._came.wait()
            while self._inbox:
                await self._service.put([self._inbox.popleft()], self._reply)
                if self._broker.full and len(self._inbox) < INBOX // 2:
                    self._broker.resume()
            self._came.clear()

    async def deafen(self) -> None:
        """Hear nothing new, so that what has come can be answered before the end."""
        self._broker.unsubscribe(self, self._topic)

    def deliver(self, message: Message, granted: int) -> None:
        """Take a frame."""
        self._inbox.append(message.payload)
        self._came.set()
        if len(self._inbox) >= INBOX:
            self._broker.full = True

    async def _reply(self, answers: Sequence[Answer]) -> None:
        for node, frame in answers:
            self._broker.publish(Message(f"{self._prefix}/{node}/down", frame, 0))


@asynccontextmanager
async def embedded(host: str, port: int) -> AsyncIterator[tuple[Broker, Where]]:
    """Run a broker at host:port (0: a free one); yields it, and how to reach it from here."""
    broker = Broker()
    try:
        server = await asyncio.get_running_loop().create_server(
            lambda: Connection(broker), host, port)
    except (OSError, OverflowError) as error:
        raise ListenError(f"nobody can listen at {host}:{port}: is a broker running there? "
                          "Choose another with --listen HOST:PORT, or use that one with "
                          "--broker") from error
    sweep = asyncio.create_task(broker.sweep())
    try:
        yield broker, Where("127.0.0.1" if host in ("0.0.0.0", "::") else host,
                            server.sockets[0].getsockname()[1])
    finally:
        server.close()
        sweep.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await sweep
        for one in list(broker.connections):
            one.close()
