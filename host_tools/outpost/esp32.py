"""ESP32 chips from the host: MicroPython's image for them, and esptool, called as a program.

The image is MicroPython's own release, a single .bin with boot loader, partition table and an
application. It is looked for in the cache, then downloaded, and never written before its
structure, its own SHA-256 digests, its chip and its version have been checked.
"""

import hashlib
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from outpost import cache
from outpost.boards import Board
from outpost.console import steps
from outpost.errors import OutpostError
from outpost.image import TABLE_BYTES, Region

RELEASE = ("20250415", "1.25.0")  # date and version of the MicroPython that gets installed
DOWNLOADS = "https://micropython.org/resources/firmware"
FETCH_S = 30

TABLE = 0x8000
APPLICATION = 0x10000
IMAGE_MAGIC = 0xE9
DESCRIPTION = 32  # where ESP-IDF's application description lies in an application image
DESCRIPTION_MAGIC = 0xABCD5432
# chip's name: number in image headers, where its boot loader begins (esptool's own name: small)
CHIPS = {"ESP32": (0, 0x1000), "ESP32-S2": (2, 0x1000), "ESP32-S3": (9, 0), "ESP32-C3": (5, 0),
         "ESP32-C6": (13, 0)}

BAUD = 460800
PIECE = 256 * 1024  # what is found right is not written again, a piece at a time
GRACE_S = 60  # beyond three times what the bytes take on the wire


class Esp32Error(OutpostError):
    """An image that must not be written, or a chip that esptool could not work with."""


# --- MicroPython's image ---


def image_name(board: Board) -> str:
    """Return the name of MicroPython's release file for `board`."""
    return f"{board.chip['micropython']}-{RELEASE[0]}-v{RELEASE[1]}.bin"


def find_image(board: Board) -> Path:
    """Return MicroPython's image for `board`: from the cache, or downloaded into it and checked.

    $OUTPOST_MICROPYTHON replaces the address it comes from (a folder or URL). Raises Esp32Error
    that says which file to fetch and where to put it.
    """
    name = image_name(board)
    folder = cache.root() / "micropython"
    path = folder / name
    if path.is_file():
        return path
    source = os.environ.get("OUTPOST_MICROPYTHON") or DOWNLOADS
    url = f"{source if '://' in source else Path(source).absolute().as_uri()}/{name}"
    folder.mkdir(parents=True, exist_ok=True)
    with cache.lock("micropython"), steps(f"fetching {name}"):
        scratch = path.with_suffix(f".{os.getpid()}")
        try:
            with urllib.request.urlopen(url, timeout=FETCH_S) as answer, scratch.open("wb") as out:
                shutil.copyfileobj(answer, out)
            split_image(scratch, board)
            scratch.replace(path)
        except (OSError, urllib.error.URLError) as error:
            reason = getattr(error, "reason", error)
            raise Esp32Error(
                f"MicroPython for {board.name} could not be fetched ({reason}). Fetch {name} from "
                f"{DOWNLOADS}/ on another machine and put it into {folder}, or give it with "
                "--firmware FILE") from error
        finally:
            scratch.unlink(missing_ok=True)
    return path


def split_image(path: Path, board: Board) -> list[Region]:
    """Check MicroPython's image and return what of it gets written: boot loader, application.

    Its own partition table is left out: ours takes the place. Raises Esp32Error.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise Esp32Error(f"{path}: {error.strerror}") from error
    chip, start = CHIPS[board.chip["name"]]
    where = {region.name: region for region in board.flash.regions}
    if len(content) < APPLICATION - start + 1024:
        raise Esp32Error(f"{path}: {len(content):,} bytes are too few for MicroPython's image, "
                         f"which holds boot loader, partition table and application "
                         f"({image_name(board)})")
    loader = _checked(path, content[:TABLE - start], chip, board, "boot loader")
    if content[TABLE - start:TABLE - start + 2] != b"\xaa\x50":
        raise Esp32Error(f"{path}: no partition table at {TABLE:#x}; this is not MicroPython's "
                         f"combined image ({image_name(board)})")
    application = _checked(path, content[APPLICATION - start:], chip, board, "application")
    found = re.search(rb"MicroPython v?(\d+)\.(\d+)", application)
    if not found or struct.unpack_from("<I", application, DESCRIPTION)[0] != DESCRIPTION_MAGIC:
        raise Esp32Error(f"{path} is an application for {board.chip['name']}, but not MicroPython")
    if tuple(map(int, found.groups())) < (1, 24):
        raise Esp32Error(f"{path} is {found[0].decode()}; 1.24 is the oldest that will do")
    if len(application) > where["firmware"].size:
        raise Esp32Error(f"{path}: the application has {len(application):,} bytes, its partition "
                         f"{where['firmware'].size:,}")
    return [Region("bootloader", start, loader), Region("firmware", APPLICATION, application)]


def _checked(path: Path, content: bytes, chip: int, board: Board, part: str) -> bytes:
    """Return the ESP image at the start of `content`, checked to its last byte."""
    if content[0] != IMAGE_MAGIC:
        raise Esp32Error(f"{path}: no {part} where one must be (byte {content[0]:#04x}, not "
                         f"{IMAGE_MAGIC:#04x}): not MicroPython's image for {board.chip['name']}")
    found = struct.unpack_from("<H", content, 12)[0]
    if found != chip:
        names = {number: name for name, (number, _) in CHIPS.items()}
        other = names.get(found, f"chip {found}")
        raise Esp32Error(f"{path}: its {part} is for {other}, the board {board.name} has "
                         f"an {board.chip['name']}: fetch {image_name(board)}")
    at, checksum = 24, 0xEF
    for _ in range(content[1]):
        size = struct.unpack_from("<I", content, at + 4)[0] if at + 8 <= len(content) else 0
        for byte in content[at + 8:at + 8 + size]:
            checksum ^= byte
        at += 8 + size
    end = at // 16 * 16 + 16
    digest = end + 32 if content[23] else end
    if digest > len(content):
        raise Esp32Error(f"{path}: its {part} is cut off, {digest - len(content):,} bytes are "
                         "missing: fetch it again")
    if content[end - 1] != checksum or (
            content[23] and hashlib.sha256(content[:end]).digest() != content[end:digest]):
        raise Esp32Error(f"{path}: its {part} is damaged, the checksum is wrong: fetch it again")
    return content[:digest]


# --- esptool ---


@dataclass(frozen=True)
class Chip:
    """A chip on a port, as esptool is told to talk to it."""

    name: str  # as in CHIPS
    port: str
    baud: int = BAUD
    stub: bool = True

    def probe(self) -> tuple[str, bytes]:
        """Return the chip's MAC address and the partition table in its flash."""
        with tempfile.TemporaryDirectory(prefix="outpost-") as name:
            path = Path(name) / "table"
            told = self._run("looking at the chip", ["read-flash", hex(TABLE), hex(TABLE_BYTES),
                                                     str(path)], TABLE_BYTES, after="no-reset")
            found = re.search(r"MAC:\s+([0-9a-f:]{17,})", told)
            return found[1] if found else "", path.read_bytes()

    def write(self, regions: Iterable[Region]) -> None:
        """Write all regions in one go; pieces that are right already are left as they are."""
        self._with_pieces("writing", ["write-flash", "--skip-flashed"], regions, "no-reset")

    def verify(self, regions: Iterable[Region]) -> None:
        """Have the chip read all regions back, compare digests, then start it anew."""
        self._with_pieces("reading back", ["verify-flash"], regions, "hard-reset")

    def erase(self) -> None:
        """Erase the whole flash."""
        self._run("erasing", ["erase-flash"], 0, after="hard-reset")

    def _with_pieces(self, what: str, verb: list[str], regions: Iterable[Region],
                     after: str) -> None:
        with tempfile.TemporaryDirectory(prefix="outpost-") as name:
            arguments, total = [], 0
            for region in regions:
                for at in range(0, len(region.data), PIECE):
                    path = Path(name) / f"{region.name}+{at:#x}"
                    path.write_bytes(region.data[at:at + PIECE])
                    arguments += [hex(region.offset + at), str(path)]
                total += len(region.data)
            self._run(what, [*verb, *arguments], total, after)

    def _run(self, what: str, arguments: list[str], total: int, after: str) -> str:
        """Run esptool, show what it does, return its words; `total` bytes set its time limit."""
        limit_s = GRACE_S + 30 * total / self.baud
        command = [sys.executable, "-m", "esptool", "--chip", self.name.lower().replace("-", ""),
                   "--port", self.port, "--baud", str(self.baud), "--after", after,
                   *(() if self.stub else ("--no-stub",)), *arguments]
        environment = {**os.environ, "NO_COLOR": "1", "COLUMNS": "200", "PYTHONUNBUFFERED": "1"}
        with steps(f"{what} ({self.port})") as step:
            code, lines = run_limited(command, limit_s, environment, _shower(step))
        if code is None:
            raise Esp32Error(f"{what}: esptool had not finished after {limit_s:.0f} s and was "
                             f"stopped. {_AGAIN}")
        if code:
            raise Esp32Error(explain(what, self, lines))
        return "\n".join(lines)


_AGAIN = ("What is right in flash already stays; check cable and power and give the same command "
          "again: it carries on from there")

# What esptool says, and what it means. The first that fits counts.
_MEANINGS = (
    (r"This chip is (?P<found>[\w-]+)",
     "the chip on {port} is {a} {found}, the board has {an} {chip}: name the right board (outpost "
     "boards lists them) or the right port"),
    (r"Unexpected chip ID|doesn't match|Failed to autodetect",
     "the chip on {port} is not {an} {chip}: name the right board or the right port"),
    (r"[Nn]o such file|[Cc]ould not open|doesn't exist|is busy|Permission denied",
     "{port} can't be opened: is the cable in, is another program using it, are you in the group "
     "that owns it (dialout)?"),
    (r"No serial data received|Failed to connect|no sync reply|Wrong boot mode",
     "nothing on {port} answers as {an} {chip}: is it the right port? If the board has no "
     "automatic reset, hold BOOT, tap EN, let go of BOOT, and try again"),
    (r"MD5 of file does not match|[Vv]erification failed|digest mismatch",
     "the flash does not hold what was written: bad supply, or worn-out flash"),
    (r"No more data to read",
     "the chip on {port} fell silent: bad supply, or a loose cable"),
    (r"returned no data|disconnected|Input/output error|Device not configured|device reports"
     r"|not open|Broken pipe|write failed|Could not configure port|lost",
     "{port} went away"),
    (r"stream stopped|noise|head of packet|Packet content|Corrupt|checksum|Timed out"
     r"|[Nn]o response|timeout|Failed to|Guru|not supported|Unexpected",
     "the line to {port} garbles or loses bytes: try a shorter cable, or --baud 115200"),
)


def explain(what: str, chip: Chip, lines: list[str]) -> str:
    """Return in plain words why esptool failed, from its last lines."""
    said = " ".join(line for line in lines[-12:] if line)
    fatal = re.search(r"(?:A fatal error occurred|A serial exception error occurred|Error):\s*"
                      r"(.*)", said)
    last = fatal[1] if fatal else said or "nothing"
    last = re.split(r"\s+(?:Note:|For troubleshooting|This can have many)", last)[0].rstrip(". ")

    def an(name: str) -> str:
        return "an" if name.startswith(("ESP", "E")) else "a"

    for pattern, meaning in _MEANINGS:
        found = re.search(pattern, last)
        if found:
            named = found.groupdict().get("found", "")
            text = meaning.format(port=chip.port, chip=chip.name, found=named, an=an(chip.name),
                                  a=an(named))
            end = "" if text.endswith("?") else "."
            return f"{what}: {text}{end} (esptool: {last[:200]}) {_AGAIN}"
    return f"{what}: esptool failed: {last[-400:]}. {_AGAIN}"


def _shower(step: Callable[[str], None]) -> Callable[[str], None]:
    def show(line: str) -> None:
        at = re.search(r"'[^']*/([\w-]+)\+(0x[0-9a-f]+)'", line)
        percent = re.search(r"(\d+\.\d)%", line)
        if at:
            step(f"{at[1]} + {at[2]}")
        elif percent:
            step(f"{percent[1]} %")
    return show


def run_limited(command: list[str], limit_s: float, environment: dict[str, str],
                show: Callable[[str], None]) -> tuple[int | None, list[str]]:
    """Run `command`; return its exit code, None after `limit_s` seconds, and its last lines."""
    lines: deque[str] = deque(maxlen=200)
    with subprocess.Popen(command, text=True, errors="replace", env=environment,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT) as process:
        late = threading.Event()

        def stop() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(limit_s, stop)
        timer.start()
        try:
            for line in process.stdout or ():
                lines.append(line.rstrip())
                show(line)
            code = process.wait()
        finally:
            timer.cancel()
            process.kill()
    return (None if late.is_set() else code), list(lines)
