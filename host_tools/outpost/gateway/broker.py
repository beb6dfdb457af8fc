"""A broker in the gateway's own process, for one machine and some hundred nodes: amqtt.

It lets everybody in who reaches its port: frames prove themselves. Whoever wants logins, TLS for
nodes or thousands of them runs mosquitto or the like and gives its URL.
"""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from amqtt.broker import Broker
from amqtt.errors import BrokerError

from outpost.errors import OutpostError
from outpost.gateway.mqtt import Where

for _name in ("amqtt", "transitions"):  # they tell of every packet
    logging.getLogger(_name).setLevel(logging.ERROR)


class ListenError(OutpostError):
    """An address the broker can't listen at."""


@asynccontextmanager
async def embedded(host: str, port: int) -> AsyncIterator[Where]:
    """Run a broker at host:port (0: a free one); yields how to reach it from here."""
    port = port or _free(host)
    broker = Broker({
        "listeners": {"default": {"type": "tcp", "bind": f"{host}:{port}"}},
        "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
    })
    log = logging.getLogger("amqtt")
    log.setLevel(logging.CRITICAL)  # it would tell of this with a traceback
    try:
        await broker.start()
    except (BrokerError, OSError) as error:
        raise ListenError(f"nobody can listen at {host}:{port}: is a broker running there? "
                          "Choose another with --listen HOST:PORT, or use that one with "
                          "--broker") from error
    finally:
        log.setLevel(logging.ERROR)
    try:
        yield Where("127.0.0.1" if host in ("0.0.0.0", "::") else host, port)
    finally:
        async with asyncio.timeout(5):
            await broker.shutdown()


def _free(host: str) -> int:
    with socket.socket() as one:
        one.bind((host, 0))
        return int(one.getsockname()[1])
