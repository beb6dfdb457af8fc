"""A node's process: spoken to over an inherited socket through one wake, or a life of them.

How it stays the same to the byte whether each wake is a process of its own or one process, which
has imported everything and done nothing, is taken back to that after each: docs/world.md.
"""

import hashlib
import os
import signal
import socket
import struct
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import outpost.device  # noqa: F401  # firmware/ on the path
from node.board import unix as wire
from outpost import cache, compile, link
from outpost.errors import OutpostError
from outpost.paths import NATIVE

PATIENCE_S = 30.0  # real seconds of silence after which a node is taken for hung
HEAP = "256k"  # twice what an ESP32 has, as pointers here are twice as long
ISOLATIONS = ("rewind", "process")

WAKE, ASK, REPLY = struct.Struct(wire.WAKE), struct.Struct(wire.ASK), struct.Struct(wire.REPLY)
SLEEP, LAP = struct.Struct(wire.SLEEP_MORE), struct.Struct(wire.LAP)

# What the process does that lives one wake after the other: nothing of its own before the mark to
# which it is taken back. A wake ends where its program does.
_AGAIN = """
import rewind, sys
from node import cycle, gate
from node.board import unix
from node.uplink import session
unix.given()
sys.path.remove("")
mark = rewind.mark()
try:
    import main
except SystemExit as end:
    rewind.back(mark, end.args[0] if end.args else 0)
"""


class ProtocolError(OutpostError):
    """A node that says something docs/world.md doesn't know."""


class Hung(Exception):
    """The node has said nothing for `PATIENCE_S`."""


@dataclass(frozen=True, slots=True)
class Ask:
    """What a node wants to know `at_us` after its wake began; `detail` is CAPTURE's samples."""

    what: int
    at_us: int
    detail: int


@dataclass(frozen=True, slots=True)
class Asleep:
    """A node's last words of a wake: how long it sleeps, what the wake cost, what it retains."""

    at_us: int
    ms: int
    event: bool
    programmed: int
    erases: int
    operations: int
    laps: bytes  # LAP after LAP
    retained: bytes


class Node:
    """A process that lives one wake, or one after another.

    `flash` is the file it alone may touch, under the lock that it inherits.
    """

    def __init__(self, micropython: Path, bytecode: Path, folder: Path, flash: BinaryIO,
                 log: BinaryIO, isolation: str = "process") -> None:
        self.again = isolation == "rewind"
        self._socket, inner = socket.socketpair()
        self._socket.settimeout(PATIENCE_S)
        self._heard = bytearray()
        path = os.fspath(bytecode)
        start = ["-m", "main"]
        if self.again:
            path, start = f"{path}:{_rewind_module()}:.frozen", ["-c", _AGAIN]
        with inner:
            fds = (inner.fileno(), flash.fileno())
            self.process = subprocess.Popen(
                [micropython, "-X", f"heapsize={HEAP}", *start, *map(str, fds)],
                cwd=folder, env={"MICROPYPATH": path}, pass_fds=fds, process_group=0,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def send(self, message: bytes) -> None:
        """Send a message; a node that is gone is no error."""
        with suppress(OSError):  # the next receive() tells
            self._socket.sendall(message)

    def receive(self) -> Ask | Asleep | None:
        """Return what the node says next, None once it is gone.

        Raises Hung when nothing comes, ProtocolError when nonsense does.
        """
        head = self._read(ASK.size)
        if head is None:
            return None
        what, at_us, detail = ASK.unpack(head)
        if what in (wire.CAPTURE, wire.LINK, wire.POWER_LOST):
            return Ask(what, at_us, detail)
        if what != wire.SLEEP or detail % LAP.size:
            raise ProtocolError(f"the node sent {head.hex()}; docs/world.md tells what is "
                                "understood")
        more = self._read(SLEEP.size)
        if more is None:
            return None
        ms, event, programmed, erases, operations, retained = SLEEP.unpack(more)
        body = self._read(detail + retained)
        if body is None:
            return None
        return Asleep(at_us, ms, bool(event), programmed, erases, operations, body[:detail],
                      body[detail:])

    def end(self, kill: bool = False) -> int:
        """Wait for the process to end, at once with `kill`; return its exit code."""
        if not kill:
            try:
                # Its end of the socket closes when it exits; waiting with a timeout would poll.
                if self.again:
                    self._socket.shutdown(socket.SHUT_WR)
                while self._socket.recv(4096):
                    pass
            except TimeoutError:
                kill = True
            except ConnectionError:
                pass
        if kill:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            with suppress(ConnectionError):
                while self._socket.recv(4096):  # until it is gone
                    pass
        self._socket.close()
        return self.process.wait()

    def _read(self, size: int) -> bytes | None:
        heard = self._heard
        try:
            while len(heard) < size:
                part = self._socket.recv(65536)
                if not part:
                    return None
                heard += part
        except TimeoutError:
            raise Hung from None
        except ConnectionError:
            return None
        data = bytes(heard[:size])
        del heard[:size]
        return data


def _rewind_module() -> Path:
    """Return the folder that holds rewind.mpy, made the first time."""
    source = Path(__file__).with_name("rewind.c")
    key = hashlib.sha256(source.read_bytes() + (NATIVE / "abi.h").read_bytes()).hexdigest()[:12]

    def make(folder: Path) -> None:
        unit = compile.compile_module([source], [NATIVE], "x64", folder / "rewind.o")
        (folder / "rewind.mpy").write_bytes(link.link(unit, "x64", "rewind"))

    return cache.item(f"world/rewind-{key}", make)
