"""A gateway from its options: broker or none of its own, serial ports, database, until it is told
to stop.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from outpost import provision
from outpost.gateway import broker, mqtt, rollouts, store, streams, windows
from outpost.gateway.desk import Desk
from outpost.gateway.keys import Keys
from outpost.gateway.service import Service, told

DRAIN_S = 10.0  # for what has come when it is told to stop
TICK_S = 60.0  # between two looks whether a roll-out's deadline is over

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """What a gateway is made of. `broker` None: its own, at `listen`."""

    database: str | Path
    broker: mqtt.Where | None = None
    listen: tuple[str, int] = ("127.0.0.1", 1883)
    group: str | None = None  # share the subscription with others that name the same
    serial: list[str] = field(default_factory=list)
    clock: Callable[[], float] | None = time.time  # what nodes are told
    provisioned: bool = True  # believe the nodes that this person has flashed
    durable: bool = True  # SQLite waits for the disk
    heavy: str | None = None  # the model whose heavy one answers unsure windows


async def run(options: Options, ready: Callable[[mqtt.Where], None], stop: asyncio.Event,
              watch: Callable[[Service, mqtt.Where], Coroutine[Any, Any, None]] | None = None
              ) -> None:
    """Run until `stop` is set, then answer what has come and end.

    Calls `ready` once it is subscribed; `watch` looks on meanwhile. Raises OutpostError when it
    can't start.
    """
    engine = store.connect(options.database, options.durable)
    keys = Keys(engine, provision.folder() if options.provisioned else None)
    service = Service(Desk(engine, keys, options.clock))
    try:
        async with contextlib.AsyncExitStack() as stack:
            port: mqtt.Port | broker.Port
            if options.broker is not None:
                where, port = options.broker, mqtt.Port(service, options.broker, options.group)
            else:
                own, where = await stack.enter_async_context(broker.embedded(*options.listen))
                port = broker.Port(service, own, where.prefix)
            cables = [streams.Port(service, name) for name in options.serial]
            ears = {asyncio.create_task(one.run()) for one in (port, *cables)}
            tasks = {asyncio.create_task(service.run()), asyncio.create_task(_tick(engine)), *ears}
            if options.heavy:
                tasks.add(asyncio.create_task(windows.attend(engine, options.heavy)))
            if watch is not None:
                tasks.add(asyncio.create_task(watch(service, where)))
            stack.push_async_callback(_cancel, tasks)
            told = asyncio.create_task(_tell(port, where, ready))
            stopped = asyncio.create_task(stop.wait())
            done, _ = await asyncio.wait({*tasks, stopped}, return_when=asyncio.FIRST_COMPLETED)
            await _cancel({told})
            for one in done - {stopped}:
                one.result()  # a bug: it ends with its traceback
            await port.deafen()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(service.drain(), DRAIN_S)
    finally:
        engine.dispose()


async def _tick(engine: Engine) -> None:
    """Let roll-outs come to their deadlines also while no node reports."""
    while True:
        await asyncio.sleep(TICK_S)
        try:
            await asyncio.to_thread(rollouts.tick, engine)
        except store.StoreError as error:  # tried again
            log.error("roll-outs were not looked after: %s", told(error))


async def _tell(port: mqtt.Port | broker.Port, where: mqtt.Where,
                ready: Callable[[mqtt.Where], None]) -> None:
    await port.ready.wait()
    ready(where)


async def _cancel(tasks: set[asyncio.Task[None]]) -> None:
    # More than once: up to Python 3.11 wait_for, which MQTT's client uses, forgets that it was
    # cancelled when what it waits for comes at the same time.
    left = tasks
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=1)
    await asyncio.gather(*tasks, return_exceptions=True)
