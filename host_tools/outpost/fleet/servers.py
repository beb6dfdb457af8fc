"""What a fleet reports to: a gateway in a process of its own, and somebody who doubles frames."""

import os
import select
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.subscribeoptions import SubscribeOptions

from outpost.errors import OutpostError
from outpost.paths import BUILD

PREFIX = "outpost"
KEPT = 50  # frames of the past that may come again


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
        self._nodes, self._random = nodes, Random(f"{seed}/echo")
        self._past: list[tuple[str, bytes]] = []
        self.sent = 0
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        self._client.on_connect, self._client.on_message = self._connected, self._heard
        self._client.reconnect_delay_set(0.1, 1)
        self._client.connect_async("127.0.0.1", port)

    def __enter__(self) -> "Echo":
        self._client.loop_start()
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _connected(self, client: paho.Client, *_: Any) -> None:
        options = SubscribeOptions(qos=0, noLocal=True)  # or it would answer itself for ever
        client.subscribe([(f"{PREFIX}/{node}/up", options) for node in self._nodes])

    def _heard(self, client: paho.Client, _: Any, message: paho.MQTTMessage) -> None:
        if len(self._past) == KEPT:
            self._send(*self._past.pop(self._random.randrange(KEPT)))
        self._past.append((message.topic, message.payload))
        self._send(message.topic, message.payload)

    def _send(self, topic: str, frame: bytes) -> None:
        self._client.publish(topic, frame)
        self.sent += 1
