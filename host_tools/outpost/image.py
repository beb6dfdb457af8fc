"""What goes into a board's flash, byte by byte: file system, partition table, UF2.

The same inputs give the same bytes. Formats: littlefs (SPEC.md of littlefs), ESP-IDF's partition
table ("Partition Tables" in its programming guide), Microsoft's UF2.
"""

import hashlib
import json
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from littlefs import LittleFS, LittleFSError
from mpremote.romfs import VfsRomWriter

from outpost import bytecode, power
from outpost.boards import STAGES, Battery, Board
from outpost.errors import OutpostError
from outpost.paths import FIRMWARE

SECTOR = 4096
BLANK = b"\xff"
NOTHING = 0xFFFFFFFF  # littlefs' inline_max that puts no content into directories

UF2_BLOCK = 512
UF2_PAYLOAD = 256
UF2_MAGIC = (0x0A324655, 0x9E5D5157, 0x0AB16F30)
UF2_FAMILY_PRESENT = 0x2000
RP2040_FAMILY = 0xE48BFF56
RP2040_FLASH = 0x10000000

ENTRY = struct.Struct("<2sBBII16sI")
TABLE_BYTES = 0xC00
ENTRY_MAGIC, DIGEST_MAGIC = b"\xaa\x50", b"\xeb\xeb"
# region of a board file: type, subtype and label of its partition; the rest has no entry
PARTITIONS = {"nvs": (1, 2, "nvs"), "phy_init": (1, 1, "phy_init"), "firmware": (0, 0, "factory"),
              "littlefs": (1, 0x81, "vfs"), "ring": (1, 0x40, "ring")}


# what of node/board a chip needs
FOR = {"esp32": ("esp32", "wifi"), "rp2": ("rp2",)}


class ImageError(OutpostError):
    """Something that does not fit into flash, or a file that is not what it should be."""


@dataclass(frozen=True)
class Region:
    """A stretch of flash and what shall be in it."""

    name: str
    offset: int
    data: bytes

    @property
    def sha256(self) -> str:
        """The hash of its bytes, in hex."""
        return hashlib.sha256(self.data).hexdigest()

    def json(self) -> dict[str, Any]:
        """Return what the plan says of it."""
        return {"name": self.name, "offset": self.offset, "size": len(self.data),
                "sha256": self.sha256}


# --- files ---


def node_files(board: Board) -> dict[str, bytes]:
    """Return the node's Python as bytecode, {path: content}.

    Board files of other chips are left out, and so is the unix board's sensor.
    """
    compiled = bytecode.build(board.chip["architecture"])
    chip = "esp32" if board.chip["name"].startswith("ESP32") else "rp2"
    files = {}
    for path in sorted((compiled / "node").rglob("*.mpy")):
        other = path.parent.name == "board" and path.stem not in ("__init__", *FOR[chip])
        if not other and path.stem != "replay":
            files[str(path.relative_to(compiled))] = path.read_bytes()
    return files


def application(board: Board) -> dict[str, bytes]:
    """Return the node's program as files: what runs at a boot, and its Python in one file."""
    compiled = bytecode.build(board.chip["architecture"])
    return {"boot.py": b"import bundle\n", "main.py": (FIRMWARE / "main.py").read_bytes(),
            "bundle.mpy": (compiled / "bundle.mpy").read_bytes(),
            "node.bundle": bundle(node_files(board))}


def bundle(files: dict[str, bytes]) -> bytes:
    """Return `files` as one: docs/bundle.md."""
    folders = {str(folder) for name in files for folder in Path(name).parents}
    index: dict[str, list[int]] = {f"/{name}": [] for name in sorted(folders - {"."})}
    at = 0
    for name, content in sorted(files.items()):
        index[f"/{name}"] = [at, len(content)]
        at += len(content)
    head = json.dumps(index, separators=(",", ":")).encode()
    return struct.pack("<H", len(head)) + head + b"".join(files[name] for name in sorted(files))


def read_bundle(data: bytes) -> dict[str, bytes]:
    """Return the files in a bundle."""
    (size,) = struct.unpack_from("<H", data)
    begin = 2 + size
    return {name[1:]: data[begin + where[0]:begin + sum(where)]
            for name, where in json.loads(data[2:begin]).items() if where}


def model_files(folder: Path, arch: str) -> dict[str, bytes]:
    """Return a built model as files: its module and its golden windows.

    Golden windows lie one behind the other: window and features (int16), votes and class (u8).
    """
    meta = json.loads((folder / "model.json").read_text())
    golden = b"".join(
        bytes.fromhex(one["window"]) + struct.pack(f"<{len(one['features'])}h", *one["features"])
        + bytes([*one["votes"], one["class"]]) for one in meta["golden"])
    name = meta["name"]
    return {f"models/{name}.mpy": (folder / meta["modules"][arch]["file"]).read_bytes(),
            f"models/{name}.golden": golden}


def board_file(board: Board, battery: Battery, radio: str | None = None,
               phases: bool = False) -> bytes:
    """Return board.json, as the node reads it: chip, pins, sectors of each lane, power.

    `radio` is the kind of uplink, by default the first in the board file. With `phases` the node
    puts each stage's phase pin high while it lasts, for a power profiler.
    """
    lanes = [board.lanes[lane] for lane in ("alert", "event", "telemetry", "diagnostic")]
    pins = {name: pin for name, pin in board.pins.items() if isinstance(pin, int)}
    profiled = {"phase": [board.pins["phase"][stage] for stage in STAGES]} if phases else {}
    return json.dumps({"chip": board.chip["name"], "pins": pins, "lanes": lanes, **profiled,
                       **power.figures(board, battery, radio)}).encode()


def littlefs(files: dict[str, bytes], size: int) -> bytes:
    """Return a littlefs image of `size` bytes that holds `files`; MicroPython mounts it.

    Raises ImageError when they don't fit.
    """
    # disk version 2.0: what every MicroPython since 1.12 can read. No file lies in its directory:
    # littlefs checks the CRC of all that does each time it looks for a name.
    disk = LittleFS(block_size=SECTOR, block_count=size // SECTOR, disk_version=0x00020000,
                    inline_max=NOTHING)
    try:
        for name in sorted(files):
            path = Path(name)
            if path.parent != Path("."):
                disk.makedirs(str(path.parent), exist_ok=True)
            with disk.open(name, "wb") as file:
                file.write(files[name])
    except LittleFSError as error:
        total = sum(len(content) for content in files.values())
        raise ImageError(f"{len(files)} files of {total:,} bytes don't fit the file system of "
                         f"{size:,} bytes ({error}): choose a smaller model, or move the flash "
                         "map in the board's .toml") from error
    return bytes(disk.context.buffer)


def read_littlefs(image: bytes) -> dict[str, bytes]:
    """Return the files of a littlefs image, {path: content}. Raises ImageError if it is none."""
    try:
        disk = LittleFS(block_size=SECTOR, block_count=len(image) // SECTOR, mount=False)
        disk.context.buffer = bytearray(image)
        disk.mount()
        return {f"{top.strip('/')}/{name}".lstrip("/"): disk.open(f"{top}/{name}", "rb").read()
                for top, _, names in disk.walk("/") for name in names}
    except LittleFSError as error:
        raise ImageError(f"no littlefs in these {len(image):,} bytes ({error})") from error


def romfs(files: dict[str, bytes]) -> bytes:
    """Return a ROMFS image that holds `files`, {path: content}: MicroPython reads it in place."""
    writer = VfsRomWriter()

    def fill(files: dict[str, bytes]) -> None:
        folders: dict[str, dict[str, bytes]] = {}
        for name, content in sorted(files.items()):
            first, _, rest = name.partition("/")
            if rest:
                folders.setdefault(first, {})[rest] = content
            else:
                writer.mkfile(first, content)
        for folder, inside in folders.items():
            writer.opendir(folder)
            fill(inside)
            writer.closedir()

    fill(files)
    return bytes(writer.finalise())


# --- ESP32's partition table ---


def partition_table(board: Board) -> bytes:
    """Return the partition table of `board`'s flash map, TABLE_BYTES long, with its MD5."""
    entries = b""
    for region in board.flash.regions:
        if region.name in PARTITIONS:
            kind, subtype, label = PARTITIONS[region.name]
            entries += ENTRY.pack(ENTRY_MAGIC, kind, subtype, region.offset, region.size,
                                  label.encode(), 0)
    digest = DIGEST_MAGIC + BLANK * 14 + hashlib.md5(entries).digest()
    return (entries + digest).ljust(TABLE_BYTES, BLANK)


def read_partition_table(table: bytes) -> dict[str, tuple[int, int]]:
    """Return {label: (offset, size)} of a partition table; empty if there is none or it is bad."""
    found: dict[str, tuple[int, int]] = {}
    for at in range(0, len(table) - ENTRY.size + 1, ENTRY.size):
        magic, _, _, offset, size, label, _ = ENTRY.unpack_from(table, at)
        if magic == DIGEST_MAGIC:
            good = hashlib.md5(table[:at]).digest() == table[at + 16:at + 32]
            return found if good else {}
        if magic != ENTRY_MAGIC:
            break
        found[label.rstrip(b"\0").decode("ascii", "replace")] = (offset, size)
    return found


# --- UF2 ---


def write_uf2(regions: Iterable[Region], family: int = RP2040_FAMILY,
              base: int = RP2040_FLASH) -> bytes:
    """Return a UF2 file that puts `regions` into flash, in whole sectors."""
    pages = []
    for region in regions:
        whole = region.data.ljust(-(-len(region.data) // SECTOR) * SECTOR, BLANK)
        pages += [(base + region.offset + at, whole[at:at + UF2_PAYLOAD])
                  for at in range(0, len(whole), UF2_PAYLOAD)]
    return b"".join(
        struct.pack("<8I", *UF2_MAGIC[:2], UF2_FAMILY_PRESENT, address, UF2_PAYLOAD, number,
                    len(pages), family)
        + data.ljust(UF2_BLOCK - 36, b"\0") + struct.pack("<I", UF2_MAGIC[2])
        for number, (address, data) in enumerate(pages))


def read_uf2(content: bytes, name: str = "UF2", family: int = RP2040_FAMILY,
             base: int = RP2040_FLASH) -> list[tuple[int, bytes]]:
    """Return [(offset, data)] of a UF2 file, neighbours joined. Raises ImageError."""
    if not content or len(content) % UF2_BLOCK:
        raise ImageError(f"{name}: {len(content):,} bytes are no UF2 file (blocks of {UF2_BLOCK})")
    runs: list[tuple[int, bytearray]] = []
    for at in range(0, len(content), UF2_BLOCK):
        block = content[at:at + UF2_BLOCK]
        *magic, flags, address, size, number, count, found = struct.unpack_from("<8I", block)
        if (tuple(magic) != UF2_MAGIC[:2] or block[-4:] != struct.pack("<I", UF2_MAGIC[2])
                or size > UF2_BLOCK - 36 or number != at // UF2_BLOCK
                or count != len(content) // UF2_BLOCK):
            raise ImageError(f"{name}: block {at // UF2_BLOCK} is damaged, or blocks are missing")
        if flags & UF2_FAMILY_PRESENT and found != family:
            raise ImageError(f"{name} is for another chip: family {found:#x}, not {family:#x}")
        if not runs or runs[-1][0] + len(runs[-1][1]) != address:
            runs.append((address, bytearray()))
        runs[-1][1].extend(block[32:32 + size])
    return [(address - base, bytes(data)) for address, data in runs]
