"""What a fleet reports to: a gateway in a process of its own, and somebody who doubles frames."""

import asyncio
import os
import select
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random

from outpost.errors import OutpostError
from outpost.gateway.client import Client, Where, connection
from outpost.paths import BUILD

PREFIX = "outpost"
KEPT = 50  # frames of the past that may come again
AGAIN_S = 0.1  # before the next attempt to connect


def environment() -> dict[str, str]:
    """Return that of a fleet's Python processes, which keep what they have compiled.

    A gateway is started anew with each kill; where nothing is kept that takes it a second longer.
    """
    if not sys.dont_write_bytecode:
        return dict(os.environ)
    kept = {"PYTHONPYCACHEPREFIX": str(BUILD / "pycache"), "PYTHONDONTWRITEBYTECODE": ""}
    return os.environ | kept


class GatewayError(OutpostError):
    """A gateway that ends by itself."""


class Gateway:
    """`outpost gateway`, which may be killed at any moment.

    What it has committed outlives it, but not a power cut of this machine: nobody waits for the
    disk. `broker` are its options about that; `command` is how to start it, without its options.
    """

    def __init__(self, folder: Path, database: str | Path, broker: Sequence[str],
                 command: Sequence[str] = (sys.executable, "-m", "outpost", "gateway")) -> None:
        self._log = folder / "gateway.log"
        self._command = [*command, "--database", str(database), *broker, "--no-time",
                         "--no-provisioned", "--volatile", "--json"]
        self._process: subprocess.Popen[bytes] | None = None
        self.ready = False

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it; it is `ready` some time later, which look() finds out."""
        self.ready = False
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL,
                                             stdout=subprocess.PIPE, stderr=log,
                                             env=environment())

    def look(self, wait_s: float = 0) -> bool:
        """Return whether it listens, once it does or after `wait_s`.

        Raises GatewayError if it has ended.
        """
        process = self._process
        assert process is not None and process.stdout is not None
        if not self.ready and select.select([process.stdout], [], [], wait_s)[0]:
            self.ready = bool(process.stdout.readline())
        if process.poll() is not None:
            words = self._log.read_text(errors="replace").strip().splitlines()
            raise GatewayError(f"the gateway has ended ({self._log}): "
                               f"{words[-1] if words else 'without a word'}")
        return self.ready

    def kill(self) -> None:
        """kill -9, in the middle of whatever it does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()

    def stop(self) -> int:
        """Let it answer what has come, and end; return its exit code."""
        assert self._process is not None
        self._process.terminate()
        return self._process.wait()


class Echo:
    """Sends each frame of some nodes once more, and now and then one of long ago."""

    def __init__(self, port: int, nodes: Sequence[int], seed: int) -> None:
        self._broker = Where("127.0.0.1", port, PREFIX)
        self._topics = [f"{PREFIX}/{node}/up" for node in nodes]
        self._random = Random(f"{seed}/echo")
        self._past: list[tuple[str, bytes]] = []
        self._own: Counter[tuple[str, bytes]] = Counter()  # what is still to come back from here
        self.sent = 0
        self._loop, self._ended = asyncio.new_event_loop(), asyncio.Event()
        self._thread = threading.Thread(
            target=lambda: self._loop.run_until_complete(self._until_ended()))

    def __enter__(self) -> "Echo":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join()
        self._loop.close()

    async def _until_ended(self) -> None:
        task = asyncio.create_task(self._run())
        await self._ended.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            try:
                async with connection(self._broker) as client:
                    self._own.clear()
                    await client.subscribe(self._topics)
                    while True:
                        for topic, frame in await client.heard():
                            self._hear(client, topic.decode(), frame)
            except OSError:  # the broker was killed
                await asyncio.sleep(AGAIN_S)

    def _hear(self, client: Client, topic: str, frame: bytes) -> None:
        if self._own[topic, frame]:  # or it would answer itself for ever
            self._own -= Counter([(topic, frame)])
            return
        if len(self._past) == KEPT:
            self._send(client, *self._past.pop(self._random.randrange(KEPT)))
        self._past.append((topic, frame))
        self._send(client, topic, frame)

    def _send(self, client: Client, topic: str, frame: bytes) -> None:
        client.publish([(topic, frame)])
        self._own[topic, frame] += 1
        self.sent += 1
