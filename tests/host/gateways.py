"""Gateways for tests: the product's own, in a thread of the test."""

import asyncio
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from outpost.gateway import main, mqtt, store
from outpost.gateway.keys import enrol


def enrolled(database: str | Path, keys: dict[int, bytes]) -> str | Path:
    """Make the database believe these nodes; return it."""
    engine = store.connect(database)
    with engine.begin() as db:
        for node, key in keys.items():
            enrol(db, node, key)
    engine.dispose()
    return database


@contextmanager
def gateway(database: str | Path, **options) -> Iterator[mqtt.Where]:
    """Run a gateway with a broker of its own, or with `broker`; yields the broker."""
    loop, up, found, stop = asyncio.new_event_loop(), threading.Event(), [], asyncio.Event()
    given = main.Options(database, **{"listen": ("127.0.0.1", 0), "clock": None,
                                      "provisioned": False} | options)

    def ready(where: mqtt.Where) -> None:
        found.append(where)
        up.set()

    def run() -> None:
        try:
            loop.run_until_complete(main.run(given, ready, stop))
        except BaseException as error:
            logging.exception("the gateway has ended")
            found.append(error)
        finally:
            up.set()
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert up.wait(60), "the gateway doesn't start"
        if isinstance(found[0], BaseException):
            raise found[0]
        yield found[0]
    finally:
        if thread.is_alive():
            loop.call_soon_threadsafe(stop.set)
        thread.join(60)
        assert not thread.is_alive(), "the gateway doesn't end"
    assert not isinstance(found[-1], BaseException), found
