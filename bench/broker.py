"""The gateway's own broker beside others, one run: mosquitto, amqtt, and iotcore (rumqttd, Rust).

Nodes are connections that publish frames of 100 bytes at QoS 1, eight on their way each, and go
on when they are answered; all on this machine, so generator and broker share its processors.

broker   the broker alone, for 40 and for 400 nodes: somebody subscribed answers each frame at
         once. Frames a second, and processor time of the broker a frame
gateway  `outpost gateway` on it, 40 nodes with one record a frame: records a second stored in
         SQLite (which doesn't wait for the disk), and processor time of gateway and broker

amqtt and iotcore are fetched into the cache: no part of the product needs them.
"""

import argparse
import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rich import box
from rich.table import Table
from sqlalchemy import func, select

from outpost import cache
from outpost.console import console, stdout
from outpost.fleet.servers import Gateway
from outpost.gateway import broker, load, schema, store
from outpost.gateway.client import Client, Where, connection
from outpost.gateway.keys import enrol
from outpost.gateway.load import Manners, Node
from outpost.toolchain.servers import Mosquitto, free_port

SECONDS = 5.0
FRAME, WINDOW = bytes(100), 8
NODES = 40
OURS = "ours"
PACKAGES = {"amqtt": ("amqtt==0.12.1", "transitions==0.9.3", "dacite==1.9.2", "psutil==7.2.2",
                      "pwdlib==0.3.1", "six==1.17.0", "websockets==15.0.1", "pyyaml==6.0.3",
                      "argon2-cffi==25.1.0", "argon2-cffi-bindings==26.2.0"),
            "iotcore": ("iotcore==0.4.0",)}
EVERYBODY = "amqtt.plugins.authentication.AnonymousAuthPlugin"


def packages(name: str) -> Path:
    """Return where a rival's packages are."""
    def fetch(folder: Path) -> None:
        subprocess.run([sys.executable, "-m", "pip", "--quiet", "install", "--no-deps", "--target",
                        str(folder), *PACKAGES[name]], check=True)

    return cache.item(f"bench/{PACKAGES[name][0]}", fetch)


async def serve(name: str, port: int) -> None:
    """Be a broker until somebody ends this process."""
    if name == OURS:
        async with broker.embedded("127.0.0.1", port):
            await asyncio.Event().wait()
    import logging

    from amqtt.broker import Broker

    logging.getLogger("transitions").setLevel(logging.ERROR)  # it tells of every packet
    logging.getLogger("amqtt").setLevel(logging.ERROR)
    await Broker({"listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{port}"}},
                  "plugins": {EVERYBODY: {"allow_anonymous": True}}}).start()
    await asyncio.Event().wait()


@contextmanager
def running(name: str) -> Iterator[tuple[int, int]]:
    """Run a broker; yields its port and its process."""
    if name == "mosquitto":
        with Mosquitto() as server:
            yield server.port, server.process.pid
        return
    port = free_port()
    command = ([sys.executable, "-m", "iotcore", "--port", str(port)] if name == "iotcore"
               else [sys.executable, __file__, "--serve", name, str(port)])
    path = {} if name == OURS else {"PYTHONPATH": str(packages(name))}
    process = subprocess.Popen(command, env={**os.environ, **path}, start_new_session=True,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        asyncio.run(answers(port))
        yield port, process.pid
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


async def answers(port: int) -> None:
    """Wait until a broker says hello."""
    async with asyncio.timeout(30):
        while True:
            with suppress(OSError):
                async with connection(Where("127.0.0.1", port)):
                    return
            await asyncio.sleep(0.1)


def burnt(*trees: int) -> float:
    """Return the seconds of processor that processes and their children have taken."""
    parents, spent = {}, {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            words = path.read_text().rpartition(")")[2].split()
            parents[int(path.parent.name)] = int(words[1])
            spent[int(path.parent.name)] = int(words[11]) + int(words[12])
    total = 0
    for one, ticks in spent.items():
        at = one
        while at not in trees and at in parents:
            at = parents[at]
        total += ticks if at in trees else 0
    return total / os.sysconf("SC_CLK_TCK")


async def alone(port: int, nodes: int) -> int:
    """Return how many frames were answered in SECONDS."""
    answered, where = 0, Where("127.0.0.1", port)

    async def answer(desk: Client) -> None:
        while True:
            desk.publish((topic.decode().replace("up", "down"), b"stored")
                         for topic, _ in await desk.heard())

    async def report(node: Client, topic: str) -> None:
        nonlocal answered
        free = WINDOW
        while True:
            node.publish([(topic, FRAME)] * free, confirmed=True)
            free = len(await node.heard())
            answered += free

    async with contextlib.AsyncExitStack() as stack:
        desk = await stack.enter_async_context(connection(where))
        await desk.subscribe(["bench/+/up"])
        clients = [await stack.enter_async_context(connection(where)) for _ in range(nodes)]
        for number, one in enumerate(clients):
            await one.subscribe([f"bench/{number}/down"])
        tasks = [asyncio.create_task(answer(desk)),
                 *(asyncio.create_task(report(one, f"bench/{number}/up"))
                   for number, one in enumerate(clients))]
        await asyncio.sleep(SECONDS)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return answered


def gateway(port: int, *brokers: int) -> tuple[int, float, float]:
    """Return how many records were stored, the seconds and the processor time it took.

    `brokers`: the process of the one at `port`, or nothing if it is to be the gateway's own.
    """
    with tempfile.TemporaryDirectory() as folder:
        engine = store.connect(Path(folder) / "bench.db")
        with engine.begin() as db:
            for number in range(1, NODES + 1):
                enrol(db, number, load.key(number))
        desk = Gateway(Path(folder), f"{folder}/bench.db",
                       ["--broker", f"mqtt://127.0.0.1:{port}"] if brokers else
                       ["--listen", f"127.0.0.1:{port}"])
        desk.start()
        try:
            if not desk.look(30):
                raise SystemExit("the gateway doesn't come to terms with its broker")
            before = burnt(desk.pid, *brokers)
            nodes = [Node(number, 1_000_000) for number in range(1, NODES + 1)]
            with suppress(TimeoutError):
                asyncio.run(asyncio.wait_for(load.bring_home(
                    nodes, Where("127.0.0.1", port), Manners(records=1, patience_s=60),
                    connections=NODES), SECONDS))
            spent = burnt(desk.pid, *brokers) - before
            with engine.connect() as db:
                stored = db.scalar(select(func.sum(schema.lanes.c.head))) or 0
        finally:
            desk.kill()
            engine.dispose()
        return stored, SECONDS, spent


def measured(name: str) -> list[str]:
    """Return a row of the table."""
    cells = []
    with running(name) as (port, process):
        for nodes in (NODES, 10 * NODES):
            before, began = burnt(process), time.perf_counter()
            count = asyncio.run(alone(port, nodes))
            cells += figures(count, time.perf_counter() - began, burnt(process) - before)
        if name != OURS:
            return cells + figures(*gateway(port, process))
    return cells + figures(*gateway(free_port()))


def figures(count: int, seconds: float, spent: float) -> list[str]:
    """Return a rate and what one of them costs."""
    return [f"{count / seconds:,.0f}", f"{1e6 * spent / count:,.0f}" if count else "–"]


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--serve", nargs=2, metavar=("NAME", "PORT"))
    given = options.parse_args()
    if given.serve:
        asyncio.run(serve(given.serve[0], int(given.serve[1])))
    table = Table("", title=f"frames of one record; {os.cpu_count()} processors",
                  title_justify="left", box=box.SIMPLE_HEAD)
    for what in (f"{NODES} nodes/s", f"{10 * NODES} nodes/s", "stored/s"):
        table.add_column(what, justify="right", no_wrap=True)
        table.add_column("µs", justify="right")
    for name in (OURS, "mosquitto", "iotcore", "amqtt"):
        with console.status(name):
            row = measured(name)
        table.add_row(name, *row)
        console.print(name, *row)
    stdout.print(table)


if __name__ == "__main__":
    main()
