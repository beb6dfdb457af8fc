"""Byte streams as the gateway's ports: nodes on a cable, or an ESP-NOW bridge that is on one.

Frames are COBS-encoded and end in a zero byte: docs/frame-format.md.
"""

import asyncio
import logging
import threading
from collections.abc import Sequence
from concurrent.futures import wait
from contextlib import suppress

import serial

from node.frame import LONGEST
from node.uplink.serial import decode, encode
from outpost.errors import OutpostError
from outpost.gateway.desk import Answer, Desk
from outpost.gateway.service import Service

BAUD = 115200
AGAIN_S = 2.0  # a port that is gone is opened again after so long
MOST = LONGEST + LONGEST // 254 + 2  # bytes without a zero among them; more is noise

log = logging.getLogger(__name__)


class PortError(OutpostError):
    """A serial port that can't be opened."""


class Lines:
    """What comes over a byte stream, as frames."""

    def __init__(self) -> None:
        self._line = bytearray()
        self._noise = False

    def feed(self, data: bytes) -> list[bytes]:
        """Return the frames that `data` completes; what is none is passed over."""
        frames = []
        for at, part in enumerate(data.split(b"\0")):
            if at:  # a zero was before it
                if self._line and not self._noise:
                    with suppress(ValueError):
                        frames.append(bytes(self._line[:decode(self._line, len(self._line))]))
                self._line.clear()
                self._noise = False
            self._line += part
            if len(self._line) > MOST:
                self._line.clear()
                self._noise = True
        return frames


def coded(frame: bytes) -> bytes:
    """Return a frame as it goes over a byte stream."""
    out = bytearray(len(frame) + len(frame) // 254 + 2)
    return bytes(out[:encode(frame, len(frame), out)])


def answer(desk: Desk, data: bytes) -> bytes:
    """Return what goes back for whole frames at once, for a stream that nobody waits on."""
    return b"".join(coded(frame) for _, frame in desk.take(Lines().feed(data)))


class Port:
    """A serial port, by name or pyserial URL (`socket://host:port`), opened again when it goes."""

    def __init__(self, service: Service, name: str, baud: int = BAUD) -> None:
        self._service, self._name, self._baud = service, name, baud
        self._serial: serial.Serial | None = None
        self._open()

    def _open(self) -> None:
        try:
            self._serial = serial.serial_for_url(self._name, self._baud, timeout=0.2,
                                                 write_timeout=2)
        except (serial.SerialException, ValueError, OSError) as error:
            raise PortError(f"{self._name}: {error}") from error

    async def run(self) -> None:
        """Read until cancelled."""
        loop, stop = asyncio.get_running_loop(), threading.Event()

        def read() -> None:
            lines = Lines()
            while not stop.is_set():
                try:
                    if self._serial is None:
                        self._open()
                    data = self._serial.read(max(1, self._serial.in_waiting))
                except (PortError, OSError) as error:  # a SerialException is one
                    if self._serial is not None:
                        log.warning("%s: %s", self._name, error)
                        self._serial.close()
                        self._serial = None
                    stop.wait(AGAIN_S)
                    continue
                for frame in lines.feed(data):
                    waiting = asyncio.run_coroutine_threadsafe(
                        self._service.put([frame], self._reply), loop)
                    while not stop.is_set() and not waiting.done():
                        wait([waiting], 0.2)

        try:
            await asyncio.to_thread(read)
        finally:
            stop.set()

    async def _reply(self, answers: Sequence[Answer]) -> None:
        port = self._serial
        if port is not None:
            try:
                for _, frame in answers:
                    await asyncio.to_thread(port.write, coded(frame))
            except (OSError, TypeError) as error:  # pyserial's, of a port that is closed meanwhile
                log.warning("%s: answers were lost: %s", self._name, error)
