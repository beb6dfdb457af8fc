"""MQTT as one of the gateway's ports: subscribed to what all nodes say, published to each.

Topics: PREFIX/NODE/up and PREFIX/NODE/down, NODE in decimal. QoS 0 on this side: what the broker
is told to have arrived is not yet stored, so it would mean nothing, and cost a lot.
"""

import asyncio
import contextlib
import logging
import socket
import ssl
from urllib.parse import unquote, urlsplit

import aiomqtt

from outpost.errors import OutpostError
from outpost.gateway.client import Where
from outpost.gateway.service import Service

WAIT_S = (0.2, 10.0)  # before the next attempt to connect: first, and at most
QUEUE = 20_000  # messages that wait; what comes beyond is lost, and sent again by its node

log = logging.getLogger(__name__)


class UrlError(OutpostError):
    """A broker's URL that can't be understood; the message never has its password."""


def where(url: str, ca: str | None = None) -> Where:
    """Read mqtt[s]://[user:password@]host[:port][/prefix]; `ca` is a file of trusted certificates.

    Raises UrlError.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or {"mqtt": 1883, "mqtts": 8883}[parts.scheme]
        host = parts.hostname or ""
    except (KeyError, ValueError):
        host = ""
    prefix = unquote(parts.path.strip("/")) or "outpost"
    if not host or "+" in prefix or "#" in prefix or parts.query or parts.fragment:
        raise UrlError("a broker is mqtt://HOST or mqtts://USER:PASSWORD@HOST:PORT/PREFIX")
    try:
        tls = ssl.create_default_context(cafile=ca) if parts.scheme == "mqtts" else None
    except OSError as error:  # ssl.SSLError is one
        raise UrlError(f"{ca}: no certificates that can be read ({error.strerror})") from error
    return Where(host, port, prefix, unquote(parts.username) if parts.username else None,
                 unquote(parts.password) if parts.password else None, tls)


def connection(broker: Where) -> aiomqtt.Client:
    """Return a client for `broker`, to be entered."""
    return aiomqtt.Client(
        broker.host, broker.port, username=broker.user, password=broker.password,
        tls_context=broker.tls, max_queued_incoming_messages=QUEUE, timeout=10,
        # or an answer waits 40 ms for the acknowledgement of what went before it
        socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)])


class Port:
    """The subscription, kept up whatever the broker does. `group`: shared with other workers."""

    def __init__(self, service: Service, broker: Where, group: str | None = None) -> None:
        self._service, self._broker = service, broker
        share = f"$share/{group}/" if group else ""
        self._topic = f"{share}{broker.prefix}/+/up"
        self._client: aiomqtt.Client | None = None
        self._answer: asyncio.Timeout | None = None  # that is on its way
        self.ready = asyncio.Event()  # subscribed at the moment

    async def run(self) -> None:
        """Connect, and again whenever that ends, until cancelled."""
        wait_s = WAIT_S[0]
        while True:
            try:
                async with connection(self._broker) as client:
                    await client.subscribe(self._topic, qos=0)
                    self._client, wait_s = client, WAIT_S[0]
                    self.ready.set()
                    async for message in client.messages:
                        if isinstance(message.payload, bytes | bytearray):
                            await self._service.put(bytes(message.payload), self._reply)
            except aiomqtt.MqttError as error:
                log.warning("%s: %s; again in %.1f s", self._broker, error, wait_s)
            finally:
                self._client = None
                if self._answer is not None:  # aiomqtt would wait for it, and we with it
                    self._answer.reschedule(asyncio.get_running_loop().time())
                self.ready.clear()
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, WAIT_S[1])

    async def deafen(self) -> None:
        """Hear nothing new, so that what has come can be answered before the end."""
        if self._client is not None:
            with contextlib.suppress(aiomqtt.MqttError):
                await self._client.unsubscribe(self._topic)

    async def _reply(self, node: int, frame: bytes) -> None:
        """Publish to a node; while there is no broker it goes unanswered, and asks again."""
        if self._client is None:
            return
        try:
            async with asyncio.timeout(None) as self._answer:
                await self._client.publish(f"{self._broker.prefix}/{node}/down", frame)
        except (aiomqtt.MqttError, TimeoutError) as error:
            log.warning("%s: an answer was lost: %s", self._broker, str(error) or "no connection")
        finally:
            self._answer = None
