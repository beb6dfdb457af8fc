"""A node's REPL from the host: caught while the node is awake, then asked through mpremote.

A node sleeps most of the time and can't be reached then. It lets a person in after every reset
(three seconds, in which a Ctrl-C stops it) and whenever its `awake` pin is held low.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from mpremote.transport import TransportError, TransportExecError
from mpremote.transport_serial import SerialTransport
from serial import SerialException, serial_for_url
from serial.tools import list_ports

from outpost import boards
from outpost.errors import OutpostError

CATCH_S = 15
BAUD = 115200
INTERRUPT_S = 0.1
# USB vendors: Espressif itself and the usual serial chips beside an ESP32; Raspberry Pi
VENDORS = {"ESP32": (0x303A, 0x10C4, 0x1A86, 0x0403), "RP2040": (0x2E8A,)}


class ReplError(OutpostError):
    """No board to talk to, or one that does not answer as MicroPython does."""


def ports(chip: str) -> list[str]:
    """Return the serial ports on which a board with `chip` may be, most likely ones only."""
    wanted = VENDORS["ESP32" if chip.startswith("ESP32") else chip]
    return sorted(port.device for port in list_ports.comports() if port.vid in wanted)


def find_port(chip: str) -> str:
    """Return the one port with a board; raise ReplError if there is none, or more than one."""
    found = ports(chip)
    if len(found) == 1:
        return found[0]
    if not found:
        raise ReplError(f"no board with {chip} on any serial port: plug one in (with a cable that "
                        "carries data), or name its port with --port")
    raise ReplError(f"there are {len(found)} boards that may be meant: {', '.join(found)}. Name "
                    "one with --port")


def find_port_of(board: str) -> str:
    """Return the one port with a board of that name; raise OutpostError."""
    return find_port(boards.load(board).chip["name"])


class Repl:
    """A node's raw REPL on `port` (a device, or socket://HOST:PORT). Use as a context manager.

    Waits up to `wait_s` seconds for the port to exist and the node to let itself be stopped; None
    waits for ever. `say` is told once, when it begins to wait.
    """

    def __init__(self, port: str, wait_s: float | None = CATCH_S,
                 say: Callable[[str], None] = lambda text: None) -> None:
        self.port = port
        self._transport = self._catch(wait_s, say)
        self._enter(soft_reset=False)

    def _enter(self, soft_reset: bool) -> None:
        try:
            self._transport.enter_raw_repl(soft_reset=soft_reset)
        except (TransportError, SerialException, OSError) as error:
            self._transport.close()
            raise ReplError(f"{self.port}: MicroPython answers, but gives no raw REPL: {error}. "
                            "Reset the board and try again") from error

    def reset(self) -> None:
        """Start MicroPython anew, without main.py: nothing of the node is imported then."""
        self._enter(soft_reset=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave the raw REPL and close the port."""
        with suppress(TransportError, SerialException, OSError):  # the cable may be out
            self._transport.exit_raw_repl()
        self._transport.close()

    def run(self, code: str, timeout_s: float = 60,
            each: Callable[[bytes], Any] | None = None) -> str:
        """Run Python on the node and return what it prints; `each` sees the bytes as they come.

        Raises ReplError with the node's own traceback, or when it is silent for `timeout_s`.
        """
        try:
            self._transport.exec_raw_no_follow(code)
            out, problem = self._transport.follow(timeout_s, each)
        except TransportExecError as error:
            raise ReplError(f"{self.port}: on the node: {error.error_output}") from error
        except (TransportError, SerialException, OSError) as error:
            raise ReplError(f"{self.port}: the node stopped answering ({error}): check cable and "
                            "power, then try again") from error
        if problem:
            words = problem.decode(errors="replace").strip()
            raise ReplError(f"{self.port}: on the node: {words}")
        return out.decode(errors="replace").replace("\r\n", "\n")

    def _catch(self, wait_s: float | None, say: Callable[[str], None]) -> SerialTransport:
        deadline = None if wait_s is None else time.monotonic() + wait_s
        told = False
        while True:
            try:
                transport = SerialTransport(self.port, timeout=5)
                if self._interrupt(transport, deadline):
                    return transport
                transport.close()
                problem = "nothing on it answers as MicroPython does"
            except (TransportError, SerialException, OSError) as error:
                there = "://" in self.port or Path(self.port).exists()
                problem = str(error) if there else "there is no such port"
            if deadline is not None and time.monotonic() >= deadline:
                raise ReplError(
                    f"{self.port}: {problem} (tried for {wait_s:.0f} s). A sleeping node is "
                    "reached after a reset (within 3 s) or while its awake pin is low: "
                    "outpost repl --wait keeps trying")
            if not told:
                say(f"waiting for the node on {self.port}: reset it, or hold its awake pin low")
                told = True
            time.sleep(INTERRUPT_S)

    def _interrupt(self, transport: SerialTransport, deadline: float | None) -> bool:
        """Send Ctrl-C (and Ctrl-B, for a raw REPL left open) until there is a prompt."""
        seen = b""
        for _ in range(30):
            transport.serial.write(b"\r\x03\x02")
            until = time.monotonic() + INTERRUPT_S
            while time.monotonic() < until:
                if transport.serial.inWaiting():
                    seen = (seen + transport.serial.read(1))[-400:]
                else:
                    time.sleep(0.005)
            if b">>> " in seen:
                while transport.serial.inWaiting():
                    transport.serial.read(1)
                return True
            if deadline is not None and time.monotonic() >= deadline:
                return False
        return False


def interactive(port: str) -> list[str]:
    """Return the command that gives a person the REPL (mpremote's, left with Ctrl-])."""
    return [sys.executable, "-m", "mpremote", "connect", port, "resume", "repl"]


def listen(port: str, seconds: float | None = None) -> Iterator[bytes]:
    """Yield what comes in on `port`, and send nothing; while the port is gone, wait for it."""
    until = None if seconds is None else time.monotonic() + seconds
    while until is None or time.monotonic() < until:
        try:
            with serial_for_url(port, BAUD, timeout=0.2) as line:
                while until is None or time.monotonic() < until:
                    data = line.read(line.in_waiting or 1)
                    if data:
                        yield data
        except (SerialException, OSError):
            time.sleep(INTERRUPT_S)
