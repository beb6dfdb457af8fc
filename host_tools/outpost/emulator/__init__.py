"""The emulated RP2040 board: real firmware on rp2040js, driven from Python.

`Emulator` talks JSON lines with a Node.js process (main.mjs). Emulated time stands still between
two calls of `run`, so whatever is driven this way gives the same numbers every time; after
`serve` the board keeps pace with the wall clock instead and offers its serial ports on TCP.
Times are instruction times at the clock the firmware set, plus typical NOR times for flash
operations; XIP cache misses and flash latency are not modelled.
"""

import json
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from outpost.emulator import parts
from outpost.emulator.parts import EmulatorError

FLASH_BYTES = 2 * 1024 * 1024
SECOND_US = 1_000_000

__all__ = ["FLASH_BYTES", "SECOND_US", "Emulator", "EmulatorError", "Stop"]


@dataclass(frozen=True)
class Stop:
    """Why and where `run` returned: reason, time, and what came out of USB and UART meanwhile.

    Reasons: time, usb (the awaited bytes came), frame (a 0x00 left the UART), watchdog (the chip
    has been reset and goes on), power (lost in a flash operation), bootloader, breakpoint.
    """

    reason: str
    now_us: float
    on: bool
    instructions: int
    sleep_us: float
    idle_us: float
    operations: int
    resets: int
    usb: bytes
    uart: bytes
    usb_ready: bool


@dataclass
class Emulator:
    """One board: an RP2040 with 2 MB of flash, an LSM6DSOX, a battery and two serial ports.

    `pins` overrides which pins the parts hang on: {"event": 6, "i2c": 0, "uart": 0} (the latter
    two are controller numbers). `usb` tells whether a USB host is plugged in.
    """

    usb: bool = True
    pins: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Start the process and create the board, unpowered."""
        environment = {**os.environ, "OUTPOST_RP2040JS": str(parts.rp2040js())}
        self.process = subprocess.Popen(
            [str(parts.node()), str(parts.HERE / "main.mjs")], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True, env=environment,
            start_new_session=True)  # Ctrl-C at the terminal is ours: the flash is to be saved
        self.ask("create", bootrom=str(parts.bootrom()), usb=self.usb, pins=self.pins)

    def __enter__(self) -> Self:
        """Use as a context manager: the process ends with the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the process."""
        self.close()

    def close(self) -> None:
        """End the process; harmless when it is gone already."""
        if self.process.poll() is None:
            self.process.stdin.close()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def ask(self, verb: str, **arguments: Any) -> dict[str, Any]:
        """Send one request, return its answer; raise EmulatorError when it was refused."""
        try:
            self.process.stdin.write(json.dumps({"do": verb, **arguments}) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise EmulatorError(f"the emulator ended by itself (exit code {self.process.poll()}) "
                                f"at {verb!r}; its own words are on stderr")
        answer = json.loads(line)
        if "error" in answer:
            raise EmulatorError(f"emulator, {verb}: {answer['error']}")
        return answer

    def load(self, uf2: Path | None = None, image: Path | None = None,
             parts: dict[int, bytes] | None = None) -> None:
        """Fill the flash: a whole raw image, then a UF2 file, then `parts` {offset: bytes}."""
        self.ask("load", uf2=uf2 and str(uf2), image=image and str(image),
                 parts=[{"offset": at, "data": data.hex()} for at, data in (parts or {}).items()])

    def save(self, image: Path) -> None:
        """Write the whole flash to `image` (written beside, then renamed)."""
        self.ask("save", image=str(image))

    def peek(self, offset: int, length: int) -> bytes:
        """Return `length` bytes of flash from `offset`."""
        return bytes.fromhex(self.ask("peek", offset=offset, length=length)["data"])

    def power(self, on: bool = True, after_us: float = 0) -> Stop:
        """Switch the supply off or on; before switching on, let `after_us` pass without power."""
        return self._stop(self.ask("power", on=on, after_us=after_us))

    def run(self, us: float, frame: bool = False, until: bytes = b"") -> Stop:
        """Run for at most `us` microseconds of emulated time; see `Stop` for what ends it earlier.

        `frame`: stop when a 0x00 leaves the UART. `until`: stop when USB has sent these bytes.
        """
        return self._stop(self.ask("run", us=us, frame=frame, until=until.hex() or None))

    def status(self) -> Stop:
        """Return where the board stands without running it."""
        return self._stop(self.ask("status"))

    def send(self, data: bytes, port: str = "usb") -> None:
        """Feed `data` to the chip's "usb" or "uart"."""
        self.ask(port, data=data.hex())

    def cut(self, after: int, keep: int = 0, seed: int | None = None) -> None:
        """Lose power in the `after`th flash operation from now, leaving it torn.

        `keep` bytes of the page or sector get done; with `seed` instead a random half of the bits
        of every byte. `after` = 0 takes the cut back.
        """
        self.ask("cut", after=after, keep=keep, **({} if seed is None else {"seed": seed}))

    def play(self, file: Path, rate_hz: float, channels: int, range_g: float, range_dps: float,
             at_us: float | None = None, for_us: float | None = None) -> None:
        """Let the sensor feel `file` (rows of little-endian int16) from `at_us`, for `for_us`."""
        self.ask("play", file=str(file), rate_hz=rate_hz, channels=channels, range_g=range_g,
                 range_dps=range_dps, at_us=at_us, for_us=for_us)

    def scratch(self) -> list[int]:
        """Return the eight scratch registers of the watchdog; [] without power."""
        return self.ask("scratch")["words"]

    def core(self) -> tuple[float, int]:
        """Return the core's clock in MHz and its voltage in mV."""
        answer = self.ask("core")
        return answer["mhz"], answer["mv"]

    def windows(self) -> list[tuple[float, list[list[int]]]]:
        """Return what was read from the sensor's FIFO since the last call.

        One (time of the FIFO's start in us, words) for each start, a word being
        [tag, x, y, z] with tag 1 for the gyroscope and 2 for the accelerometer.
        """
        found = self.ask("delivered")["windows"]
        return [(window["start_us"], window["words"]) for window in found]

    def _stop(self, answer: dict[str, Any]) -> Stop:
        """Turn the process's answer into a Stop."""
        for name in ("usb", "uart"):
            answer[name] = bytes.fromhex(answer[name])
        return Stop(**answer)

    # A person's or a test's way in: the raw REPL of MicroPython over USB.

    def boot(self, timeout_us: float = 5 * SECOND_US) -> None:
        """Run until USB has enumerated and the REPL answers an interrupt with its prompt."""
        end = self.status().now_us + timeout_us
        while not (stop := self.run(10_000)).usb_ready:
            if stop.now_us > end or not stop.on:
                raise EmulatorError(f"no USB after {timeout_us / SECOND_US:.0f} s of emulated "
                                    f"time ({stop.reason})")
        self.send(b"\r\x03")
        self._await(b">>> ", timeout_us)

    def execute(self, code: str, timeout_us: float = 60 * SECOND_US) -> str:
        """Run Python `code` on the board through the raw REPL; return what it printed.

        Raises EmulatorError with the board's traceback, or when it takes longer than `timeout_us`
        of emulated time or the chip resets meanwhile.
        """
        self.send(b"\r\x03\x03\x01")
        self._await(b"raw REPL; CTRL-B to exit\r\n>", SECOND_US)
        self.send(code.encode() + b"\x04")
        self._await(b"OK", 10 * SECOND_US)
        out = self._await(b"\x04", timeout_us)
        err = self._await(b"\x04", timeout_us)
        if err[:-1]:
            raise EmulatorError(f"on the board: {err[:-1].decode(errors='replace').strip()}")
        return out[:-1].decode().replace("\r\n", "\n")

    def _await(self, ending: bytes, timeout_us: float) -> bytes:
        """Return USB output up to and with `ending`; what comes after is kept for the next."""
        seen = self.__dict__.pop("_rest", b"")
        if ending not in seen:
            stop = self.run(timeout_us, until=ending)
            seen += stop.usb
            if ending not in seen:
                raise EmulatorError(f"waited for {ending!r} from the board, got {stop.reason} "
                                    f"and {seen[-400:]!r}")
        head, mark, self.__dict__["_rest"] = seen.partition(ending)
        return head + mark
