"""One node process: started for a wake, spoken to over an inherited socket, gone after it."""

import json
import os
import socket
import struct
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from outpost.errors import OutpostError

PATIENCE_S = 30.0  # real seconds of silence after which a node is taken for hung
HEAP = "256k"  # twice what an ESP32 has, as pointers here are twice as long
_HEAD = struct.Struct("<HH")


class ProtocolError(OutpostError):
    """A node that says something docs/world.md doesn't know."""


class Hung(Exception):
    """The node has said nothing for `PATIENCE_S`."""


class Node:
    """A running node; `flash` is the file it alone may touch, under the lock that it inherits."""

    def __init__(self, micropython: Path, bytecode: Path, folder: Path, flash: BinaryIO,
                 log: BinaryIO) -> None:
        self._socket, inner = socket.socketpair()
        self._socket.settimeout(PATIENCE_S)
        with inner:
            fds = (inner.fileno(), flash.fileno())
            self.process = subprocess.Popen(
                [micropython, "-X", f"heapsize={HEAP}", "-m", "main", *map(str, fds)],
                cwd=folder, env={"MICROPYPATH": os.fspath(bytecode)}, pass_fds=fds,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def send(self, message: dict[str, Any], blob: bytes = b"") -> None:
        """Send a message and the bytes that belong to it; a node that is gone is no error."""
        text = json.dumps(message).encode()
        with suppress(OSError):  # the next receive() tells
            self._socket.sendall(_HEAD.pack(len(text), len(blob)) + text + blob)

    def receive(self) -> tuple[dict[str, Any], bytes] | None:
        """Return the next message and its bytes, None once the node is gone.

        Raises Hung when nothing comes, ProtocolError when nonsense does.
        """
        try:
            head = self._read(_HEAD.size)
            if head is None:
                return None
            text, blob = map(self._read, _HEAD.unpack(head))
        except TimeoutError:
            raise Hung from None
        except ConnectionError:
            return None
        if text is None or blob is None:
            return None
        try:
            message = json.loads(text)
            message["do"]
        except (ValueError, KeyError, TypeError):
            raise ProtocolError(f"the node sent {text[:80]!r}; docs/world.md tells what is "
                                "understood") from None
        return message, blob

    def end(self, kill: bool = False) -> int:
        """Wait for the process to end, at once with `kill`; return its exit code."""
        try:
            # Its end of the socket closes when it exits; waiting with a timeout would poll.
            while not kill and self._socket.recv(4096):
                pass
        except TimeoutError:
            kill = True
        except ConnectionError:
            pass
        if kill:
            self.process.kill()
        self._socket.close()
        return self.process.wait()

    def _read(self, size: int) -> bytes | None:
        data = bytearray()
        while len(data) < size:
            part = self._socket.recv(size - len(data))
            if not part:
                return None
            data += part
        return bytes(data)
