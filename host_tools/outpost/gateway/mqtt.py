"""MQTT as one of the gateway's ports: subscribed to what all nodes say, published to each.

Topics: PREFIX/NODE/up and PREFIX/NODE/down, NODE in decimal. QoS 0 on this side: what the broker
is told to have arrived is not yet stored, so it would mean nothing, and cost a lot.
"""

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Sequence
from urllib.parse import unquote, urlsplit

from outpost.errors import OutpostError
from outpost.gateway.client import Client, Where, connection
from outpost.gateway.desk import Answer
from outpost.gateway.service import Service

WAIT_S = (0.2, 10.0)  # before the next attempt to connect: first, and at most

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


class Port:
    """The subscription, kept up whatever the broker does. `group`: shared with other workers."""

    def __init__(self, service: Service, broker: Where, group: str | None = None) -> None:
        self._service, self._broker = service, broker
        share = f"$share/{group}/" if group else ""
        self._topic = f"{share}{broker.prefix}/+/up"
        self._client: Client | None = None
        self.ready = asyncio.Event()  # subscribed at the moment

    async def run(self) -> None:
        """Connect, and again whenever that ends, until cancelled."""
        wait_s = WAIT_S[0]
        while True:
            try:
                async with connection(self._broker) as client:
                    await client.subscribe([self._topic])
                    self._client, wait_s = client, WAIT_S[0]
                    self.ready.set()
                    while True:
                        heard = await client.heard()
                        await self._service.put([frame for _, frame in heard], self._reply)
            except OSError as error:
                log.warning("%s: %s; again in %.1f s", self._broker, error, wait_s)
            finally:
                self._client = None
                self.ready.clear()
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, WAIT_S[1])

    async def deafen(self) -> None:
        """Hear nothing new, so that what has come can be answered before the end."""
        if self._client is not None:
            with contextlib.suppress(OSError):
                await self._client.unsubscribe(self._topic)

    async def _reply(self, answers: Sequence[Answer]) -> None:
        """Publish to nodes; while there is no broker they go unanswered, and ask again."""
        if self._client is None:
            return
        try:
            self._client.publish((f"{self._broker.prefix}/{node}/down", frame)
                                 for node, frame in answers)
            await self._client.drain()
        except OSError as error:
            log.warning("%s: answers were lost: %s", self._broker, error)
