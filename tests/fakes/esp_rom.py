"""An ESP32 on a pseudo-terminal: ROM loader, esptool's stub, and what runs when neither is asked.

Speaks the serial protocol that Espressif documents (SLIP frames, "Serial Protocol" in esptool's
manual) well enough for the real esptool, over a flash that is a bytearray. Faults are planned as
(what, at which command, how often it has come by then): see `EspRom.plan`.

A pseudo-terminal has no DTR and RTS, so closing the port stands for a reset; after it the first
byte decides: 0xC0 is esptool, anything else is for the program in flash: `boot(folder)` is the
command that runs it, on flash.bin in `folder`.
"""

import errno
import hashlib
import os
import pty
import select
import struct
import subprocess
import threading
import time
import tty
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

SECTOR = 4096
OPS = {0x02: "FLASH_BEGIN", 0x03: "FLASH_DATA", 0x04: "FLASH_END", 0x05: "MEM_BEGIN",
       0x06: "MEM_END", 0x07: "MEM_DATA", 0x08: "SYNC", 0x09: "WRITE_REG", 0x0A: "READ_REG",
       0x0B: "SPI_SET_PARAMS", 0x0D: "SPI_ATTACH", 0x0E: "READ_FLASH_SLOW", 0x0F: "CHANGE_BAUD",
       0x10: "DEFL_BEGIN", 0x11: "DEFL_DATA", 0x12: "DEFL_END", 0x13: "MD5",
       0x14: "GET_SECURITY_INFO", 0xD0: "ERASE_FLASH", 0xD1: "ERASE_REGION", 0xD2: "READ_FLASH"}
MAGIC_REG, UART_CLKDIV, SPI_W0 = 0x40001000, 0x3FF40014, 0x3FF42080
MAGIC = {"esp32": 0x00F01D83, "esp32s2": 0x000007C6}
CHIP_ID = {"esp32c3": 5, "esp32s3": 9}
BAD_CHECKSUM, BAD_DATA, UNSUPPORTED = 0x07, 0x06, 0x05


class Vanished(Exception):
    """The cable has been pulled."""


class EspRom:
    """One board; use it as a context manager. `port` stays the same name over every fault."""

    def __init__(self, folder: Path, chip: str = "esp32", size: int = 4 << 20,
                 stub: bool = True, boot: Callable[[Path], list] | None = None) -> None:
        self.folder = folder
        self.port = folder / "ttyFAKE"
        self._flash = bytearray(b"\xff" * size)
        self.chip, self.stub, self.boot = chip, stub, boot
        self.seen: Counter[str] = Counter()  # commands since the last plan()
        self.written: list[tuple[int, int]] = []  # offset and length of every write
        self.baud = 115200
        self._fault: tuple[str, str, int] | None = None
        self._reset()
        self._stop, self._pulled = threading.Event(), threading.Event()
        self._master = -1
        self._plug()
        self._thread = threading.Thread(target=self._live, daemon=True)

    def __enter__(self) -> "EspRom":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(60)
        self._unplug()

    @property
    def flash(self) -> bytearray:
        """The flash, once the program that runs on it has ended: close the port first."""
        self._rest()
        return self._flash

    def _rest(self) -> None:
        """Wait until the chip has seen that the port was closed."""
        until = time.monotonic() + 60
        while self._program and self._master >= 0:
            assert time.monotonic() < until, "the port is still open"
            time.sleep(0.01)

    def plan(self, what: str = "", at: str = "", nth: int = 1) -> None:
        """From now on do `what` at the `nth` command `at`; nothing without arguments.

        mute: say nothing any more. vanish: the port is gone (until `replug`). drop: a byte of
        the answer is missing, once. flip: a bit of the answer is wrong, once. eat, garble: the
        same to the command as it arrives. cell: every program from here leaves a wrong bit.
        """
        if at == "PROGRAM":  # the one that starts when the port is opened next
            self._rest()
        self.seen.clear()
        self._fault = (what, at, nth) if what else None
        self._mute = self._cell = False

    def unplug(self) -> None:
        """Pull the cable out."""
        self._pulled.set()
        while self._master >= 0:
            time.sleep(0.01)

    def replug(self) -> None:
        """Put the cable back in, with the chip as a power-up finds it."""
        self.plan()
        if self._master < 0:
            self._plug()

    def say(self, data: bytes) -> None:
        """Let the chip send something unasked."""
        os.write(self._master, data)

    # --- the port ---

    def _plug(self) -> None:
        self._reset()
        self._master, slave = pty.openpty()
        tty.setraw(slave)
        name = os.ttyname(slave)
        os.close(slave)
        scratch = self.port.with_suffix(".new")
        scratch.symlink_to(name)
        scratch.replace(self.port)

    def _unplug(self) -> None:
        self._pulled.clear()
        self._end_program()
        master, self._master = self._master, -1
        if master >= 0:
            self.port.unlink(missing_ok=True)
            os.close(master)  # whoever has the port open learns of it only now

    def _reset(self) -> None:
        self._in = bytearray()
        self._in_stub = self._mute = self._cell = False
        self._ram = b""
        self._at = 0
        self._inflate = None
        self._asked = 0
        self._program: subprocess.Popen | None = None

    def _live(self) -> None:
        while not self._stop.is_set():
            if self._master < 0:
                time.sleep(0.01)
                continue
            try:
                if self._pulled.is_set():
                    raise Vanished
                self._serve()
            except Vanished:
                self._unplug()
            except OSError as error:
                if error.errno != errno.EIO:
                    raise
                if self._in_stub or self._program or self._in:  # closed: the chip starts anew
                    self._end_program()
                    self._reset()
                time.sleep(0.005)

    def _serve(self) -> None:
        sources = [self._master]
        if self._program:
            sources.append(self._program.stdout)
        ready, _, _ = select.select(sources, [], [], 0.05)
        if self._master in ready:
            self._take(os.read(self._master, 65536))
        if self._program and self._program.stdout in ready:
            data = os.read(self._program.stdout.fileno(), 65536)
            if data:
                os.write(self._master, data)
            elif self._program.poll() is not None:
                self._end_program()

    def _take(self, data: bytes) -> None:
        if self._mute:
            return
        if not self._in and not self._in_stub and data[:1] != b"\xc0" and self.boot:
            self._to_program(data)
            return
        self._end_program()
        self._in += data
        while (start := self._in.find(b"\xc0")) >= 0:
            end = self._in.find(b"\xc0", start + 1)
            if end < 0:
                return
            frame = bytes(self._in[start + 1:end])
            del self._in[:end + (1 if frame else 0)]
            frame = frame.replace(b"\xdb\xdc", b"\xc0").replace(b"\xdb\xdd", b"\xdb")
            if frame:
                self._command(frame)

    # --- the program in flash ---

    def _to_program(self, data: bytes) -> None:
        self.seen["PROGRAM"] += 1
        self._strike("PROGRAM")
        if self._mute:
            return
        if self._program is None:
            (self.folder / "flash.bin").write_bytes(self._flash)
            self._program = subprocess.Popen(self.boot(self.folder), stdin=subprocess.PIPE,
                                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                             bufsize=0)
        try:
            self._program.stdin.write(data)
        except BrokenPipeError:
            self._end_program()

    def _end_program(self) -> None:
        program = self._program
        if program:
            program.kill()
            program.wait()
            program.stdin.close()
            program.stdout.close()
            self._flash[:] = (self.folder / "flash.bin").read_bytes()
            self._program = None  # last: `flash` waits for it

    # --- the loader ---

    def _strike(self, name: str) -> str:
        """Return the fault that hits this command, "" for none; carry out the lasting ones."""
        if not self._fault or self._fault[1:] != (name, self.seen[name]):
            return ""
        what = self._fault[0]
        if what == "vanish":
            raise Vanished
        if what == "mute":
            self._mute = True
        elif what == "cell":
            self._cell = True
        return what

    def _command(self, frame: bytes) -> None:
        if len(frame) == 4 and self._asked:  # acknowledges read-flash data
            self._asked = max(0, self._asked - 1)
            return
        if len(frame) < 8 or frame[0]:
            return
        op, size, checksum = struct.unpack("<xBHI", frame[:8])
        data = frame[8:]
        name = OPS.get(op, "?")
        self.seen[name] += 1
        what = self._strike(name)
        if self._mute or what == "eat":
            return
        if what == "garble":
            data = data[:-1] + bytes([data[-1] ^ 4])
        if len(data) != size:
            return
        status, value, body = self._carry_out(name, data, checksum)
        if status is None:
            return
        tail = bytes((status > 0, status)) + (b"" if self._in_stub else b"\0\0")
        answer = struct.pack("<BBHI", 1, op, len(body) + len(tail), value) + body + tail
        for _ in range(8 if name == "SYNC" else 1):
            self._send(answer, what)
            what = ""
        if name == "MEM_END" and self.stub:
            self._in_stub = True
            self._send(b"OHAI", "")
        if name == "READ_FLASH":
            self._read_flash(*struct.unpack("<II", data[:8]))

    def _send(self, frame: bytes, what: str) -> None:
        raw = bytearray(frame.replace(b"\xdb", b"\xdb\xdd").replace(b"\xc0", b"\xdb\xdc"))
        if what == "drop":
            del raw[len(raw) // 2]
        elif what == "flip":
            raw[1] ^= 0x40
        os.write(self._master, b"\xc0" + raw + b"\xc0")

    def _carry_out(self, name: str, data: bytes, checksum: int) -> tuple[int | None, int, bytes]:
        """Return (status or None for no answer, value, body)."""
        def words(count: int) -> tuple[int, ...]:
            return struct.unpack_from(f"<{count}I", data)

        if name == "SYNC":
            return 0, 0 if self._in_stub else 0x20120707, b""
        if name == "READ_REG":
            (address,) = words(1)
            known = {MAGIC_REG: MAGIC.get(self.chip, 0), UART_CLKDIV: 347, SPI_W0: 0x164020}
            return 0, known.get(address, 0), b""
        if name == "GET_SECURITY_INFO" and self.chip in CHIP_ID:
            return 0, 0, struct.pack("<IB7BII", 0, 0, *[0] * 7, CHIP_ID[self.chip], 0)
        if name in ("FLASH_DATA", "DEFL_DATA", "MEM_DATA"):
            length, _ = words(2)
            block, sum_ = data[16:16 + length], 0xEF
            for byte in block:
                sum_ ^= byte
            if len(block) != length or sum_ != checksum & 0xFF:
                return BAD_CHECKSUM, 0, b""
            if name != "MEM_DATA":
                if self._inflate and name == "DEFL_DATA":
                    try:
                        block = self._inflate.decompress(block)
                    except zlib.error:
                        return BAD_DATA, 0, b""
                self._write(block)
            return 0, 0, b""
        if name in ("FLASH_BEGIN", "DEFL_BEGIN"):
            size, _, _, self._at = words(4)
            self._inflate = zlib.decompressobj() if name == "DEFL_BEGIN" else None
            self._erase(self._at, size)
            return 0, 0, b""
        if name == "MD5":
            start, size = words(2)
            digest = hashlib.md5(self._flash[start:start + size])
            return 0, 0, digest.digest() if self._in_stub else digest.hexdigest().encode()
        if name == "READ_FLASH_SLOW" and not self._in_stub:
            start, size = words(2)
            return 0, 0, bytes(self._flash[start:start + 64])
        if name == "CHANGE_BAUD":
            self.baud = words(1)[0]
            return 0, 0, b""
        if self._in_stub and name in ("ERASE_FLASH", "ERASE_REGION"):
            self._erase(*(words(2) if name == "ERASE_REGION" else (0, len(self._flash))))
            return 0, 0, b""
        known = {"WRITE_REG", "SPI_SET_PARAMS", "SPI_ATTACH", "FLASH_END", "DEFL_END", "MEM_BEGIN",
                 "MEM_END"} | ({"READ_FLASH"} if self._in_stub else set())
        return (0 if name in known else UNSUPPORTED), 0, b""

    def _erase(self, start: int, size: int) -> None:
        first, last = start // SECTOR * SECTOR, -(-(start + size) // SECTOR) * SECTOR
        self._flash[first:last] = b"\xff" * (last - first)

    def _write(self, block: bytes) -> None:
        if self._cell and block:
            block = bytes([block[0] ^ 0x10]) + block[1:]
        self._flash[self._at:self._at + len(block)] = block
        self.written.append((self._at, len(block)))
        self._at += len(block)

    def _read_flash(self, start: int, size: int) -> None:
        content = bytes(self._flash[start:start + size])
        self._asked = -(-size // SECTOR)
        for at in range(0, size, SECTOR):
            self._send(content[at:at + SECTOR], "")
        self._send(hashlib.md5(content).digest(), "")
