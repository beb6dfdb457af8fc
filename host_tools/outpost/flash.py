"""From one line to a living node: plan the flash, write it, read it back, ask the node how it is.

What `outpost flash` does. The regions of a board file are the map; the ring of a node that has one
already is left alone unless told otherwise.
"""

import hashlib
import json
import re
import shutil
import ssl
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from outpost import boards, build, esp32, firmware, image, package, power, provision, tiers
from outpost.boards import Board
from outpost.console import console, steps
from outpost.errors import OutpostError
from outpost.image import BLANK, SECTOR, Region
from outpost.paths import BUILD
from outpost.repl import Repl, find_port, ports
from outpost.tables import meant

DRIVE_S = 20  # how long a board may take to show up as a drive
BOOT_S = 30  # and how long a fresh one until it answers
DRIVE_MARK = "INFO_UF2.TXT"

# Runs on the node. `facts` does not write, the self-test neither.
ASK = """
import json
from node import board, debug
here = board.here()
well = debug.selftest(here)
print(json.dumps({"well": well, "facts": debug.facts(here)}))
"""

# Runs on an RP2040: digest of a stretch of flash, counted from the start of rp2.Flash().
DIGEST = """
import hashlib, rp2
from binascii import hexlify
device, block, digest = rp2.Flash(start={start}, len={size}), bytearray(4096), hashlib.sha256()
for i in range({size} // 4096):
    device.readblocks(i, block)
    digest.update(block)
print(hexlify(digest.digest()).decode())
"""


ERASE = """
import os, rp2, vfs
os.umount("/")
if hasattr(vfs, "rom_ioctl"):
    vfs.rom_ioctl(2, 0).ioctl(6, 0)
device = rp2.Flash()
for i in range(device.ioctl(4, 0)):
    device.ioctl(6, i)
"""


class FlashError(OutpostError):
    """A board that can't be flashed as asked, or a node that is not well afterwards."""


@dataclass(frozen=True)
class Options:
    """What a person asked for. `port` is a serial port, or the folder of a mounted UF2 drive."""

    board: str
    port: str | None = None
    model: str = "motion"
    image: Path | None = None  # MicroPython's .bin, or firmware as .uf2
    node: int | None = None
    network: Path | None = None
    battery: str = power.BATTERY  # a key of boards/batteries.toml
    wipe: bool = False
    baud: int = esp32.BAUD
    stub: bool = True
    phases: bool = False  # the phase pins are driven


@dataclass(frozen=True)
class Plan:
    """What will be written where; `keeps_ring` tells whether records on the node stay."""

    board: Board
    port: str | None
    node: provision.Node
    regions: list[Region]
    keeps_ring: bool
    uf2: bytes = field(default=b"", repr=False)

    def json(self) -> dict[str, Any]:
        """Return the object of `--dry-run --json`."""
        return {"board": self.board.name, "port": self.port, "node": self.node.number,
                "keeps_ring": self.keeps_ring,
                "regions": [region.json() for region in self.regions]}


def is_esp32(board: Board) -> bool:
    """Return whether esptool is the way to `board`."""
    return board.chip["name"] in esp32.CHIPS


def run(options: Options, dry: bool = False) -> tuple[Plan, dict[str, Any]]:
    """Flash a board; return the plan and what the node says of itself ({} for `dry`)."""
    board = boards.load(options.board)
    if not is_esp32(board) and board.chip["name"] != "RP2040":
        raise FlashError(f"{board.name} has a {board.chip['name']}, which outpost can't flash; it "
                         f"can {', '.join(esp32.CHIPS)} and RP2040")
    return (_esp32 if is_esp32(board) else _rp2040)(board, options, dry)


def files(board: Board, model: str, node: provision.Node, network: Path | None,
          compiled_in: bool = False, battery: str = power.BATTERY, phases: bool = False) -> bytes:
    """Return the file system's image: program (where it isn't frozen), model, settings, identity,
    and what the board is. `battery` is a key of boards/batteries.toml.

    Builds the model for the board's architecture if need be. `compiled_in`: the firmware has the
    model already, so the file system needs no module of it. `phases`: the phase pins are driven.
    """
    built = build.build(model, (board.architecture,))
    if built.violations:
        raise FlashError(f"{built.model} breaks its contract: {'; '.join(built.violations)}")
    meta = json.loads((built.folder / "model.json").read_text())
    if meta["rate_hz"] is None:
        raise FlashError(f"{built.model} has no rate_hz: there is nothing to sample over time; "
                         "models/motion has")
    from outpost.world.run import settings

    large = tiers.large(meta, [board.architecture])
    told = settings(meta, board.architecture, large)
    content = image.model_files(built.folder, board.architecture)
    if large:
        content |= image.model_files(Path(large["folder"]), board.architecture)
    if compiled_in:
        told["model"]["crc32"] = 0
        del content[f"models/{meta['name']}.mpy"]
    content |= {"settings.json": json.dumps(told).encode(),
                "identity.json": json.dumps(
                    node.identity() | {"trust": package.signer().public.hex()}).encode(),
                package.VERIFY: package.verifier(board.architecture)}
    content["board.json"] = image.board_file(board, power.battery(battery), phases=phases)
    if is_esp32(board):
        content |= image.application(board)
    if network:
        content |= _network(network)
    return image.littlefs(content, board.flash.region("littlefs").size)


_NEEDED = {"ssid": str, "password": str, "host": str, "port": int}
_MAY = {"prefix": str, "login": list, "address": list, "ca": str}
_BY_BRIDGE = {"bridge": str, "channel": int}  # ESP-NOW


def _network(path: Path) -> dict[str, bytes]:
    """Return network.json, and ca.der if it names one, from a person's file.

    No message has a value of it: there are passwords among them. Raises FlashError.
    """
    try:
        given = json.loads(path.read_text())
    except OSError as error:
        raise FlashError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise FlashError(f"{path}: it is no JSON ({type(error).__name__})") from error
    by_bridge = isinstance(given, dict) and "bridge" in given
    needed = _BY_BRIDGE if by_bridge else _NEEDED
    known = _BY_BRIDGE if by_bridge else _NEEDED | _MAY
    if not isinstance(given, dict) or not needed.keys() <= given.keys():
        raise FlashError(f"{path}: it must be JSON with {', '.join(_NEEDED)}, and may have "
                         f"{', '.join(_MAY)}; or with {', '.join(_BY_BRIDGE)}")
    for key, value in given.items():
        if key not in known:
            raise FlashError(f"{path}: there is no {key!r}{meant(key, known)}; it may have "
                             f"{', '.join(known)}")
        if not isinstance(value, known[key]) or isinstance(value, list) and (
                len(value) != {"login": 2, "address": 4}[key]
                or not all(isinstance(word, str) for word in value)):
            raise FlashError(f"{path}: {key} is not what it should be (docs/hardware.md)")
    if by_bridge and not re.fullmatch("[0-9a-f]{12}", given["bridge"]):
        raise FlashError(f"{path}: bridge is its address in twelve digits, 0-9 and a-f")
    content = {}
    if "ca" in given:
        content["ca.der"] = _certificate(path.parent / given.pop("ca"))
        given["tls"] = True
    return content | {"network.json": json.dumps(given).encode()}


def _certificate(path: Path) -> bytes:
    """Return a certificate, PEM or DER, as DER."""
    try:
        data = path.read_bytes()
        if data.startswith(b"-----"):
            data = ssl.PEM_cert_to_DER_cert(data.decode("ascii"))
        ssl.create_default_context(cadata=data)
    except OSError as error:
        raise FlashError(f"{path}: {error.strerror or 'no certificate'}") from error
    except ValueError as error:
        raise FlashError(f"{path}: no certificate, PEM or DER") from error
    return data


# --- ESP32 ---


def _esp32(board: Board, options: Options, dry: bool) -> tuple[Plan, dict[str, Any]]:
    path = options.image or esp32.find_image(board)
    micropython = esp32.split_image(path, board)
    port = options.port
    if port is None and (not dry or len(ports(board.chip["name"])) == 1):
        port = find_port(board.chip["name"])
    hardware, table = "", b""
    chip = esp32.Chip(board.chip["name"], port or "", options.baud, options.stub)
    if port and not (dry and options.port is None):
        hardware, table = chip.probe()
    node = provision.choose(board.name, hardware, options.node)
    ring = board.flash.region("ring")
    keeps = (not options.wipe
             and image.read_partition_table(table).get("ring") == (ring.offset, ring.size))
    regions = [*micropython,
               Region("littlefs", board.flash.region("littlefs").offset,
                      files(board, options.model, node, options.network,
                            battery=options.battery, phases=options.phases))]
    if not keeps:
        regions.append(Region("ring", ring.offset, BLANK * ring.size))
    # Last of all, since it is what says that a ring is there to be kept.
    regions.append(Region("partitions", esp32.TABLE, image.partition_table(board)))
    plan = Plan(board, port, node, regions, keeps)
    if dry:
        return plan, {}
    provision.save(replace(node, hardware=hardware or node.hardware, board=board.name))
    chip.write(regions)
    chip.verify(regions)
    return plan, ask(port, node)


# --- RP2040 ---


def _rp2040(board: Board, options: Options, dry: bool) -> tuple[Plan, dict[str, Any]]:
    uf2, ours = options.image, options.image is None
    if ours:
        model = build.build(options.model, (board.architecture,))
        uf2 = firmware.build([model.folder]).uf2
    try:
        code = image.read_uf2(uf2.read_bytes(), str(uf2))
    except OSError as error:
        raise FlashError(f"{uf2}: {error.strerror}") from error
    where = {region.name: region for region in board.flash.regions}
    for offset, data in code:
        if offset + len(data) > where["firmware"].end:
            raise FlashError(f"{uf2}: it writes up to {offset + len(data):#x}, the firmware's "
                             f"region ends at {where['firmware'].end:#x}")
    drive = Path(options.port) if options.port and Path(options.port).is_dir() else None
    port = None if drive else options.port
    if not drive and not port:
        drive = find_drive()
        port = None if drive or dry else _port_if_any(board)
    hardware = _unique_id(port) if port and not dry else ""
    node = provision.choose(board.name, hardware, options.node)
    regions = [Region("firmware", offset, data) for offset, data in code]
    # A program beside the firmware would go before what is frozen.
    regions.append(Region("program", where["program"].offset, BLANK * SECTOR))
    regions.append(Region("littlefs", where["littlefs"].offset,
                          files(board, options.model, node, options.network, ours,
                                options.battery, options.phases)))
    if options.wipe:
        regions.append(Region("ring", where["ring"].offset, BLANK * where["ring"].size))
    plan = Plan(board, str(drive) if drive else port, node, regions, not options.wipe,
                image.write_uf2(regions))
    if dry:
        return plan, {}
    provision.save(node)
    target = save_uf2(plan)
    if port and not drive:
        drive = _to_drive(port)
    if drive is None:
        console.print(f"No board is here. Hold BOOTSEL while plugging it in, then copy {target} "
                      "to the drive RPI-RP2, or give this command again with "
                      f"--node {node.number}.", soft_wrap=True)
        return plan, {"uf2": str(target)}
    copy(target, drive)
    found = port or _wait_for_port(board, node)
    told = ask(found, node)
    _read_back(found, plan)
    provision.save(replace(node, hardware=_unique_id(found)))
    return plan, {**told, "uf2": str(target)}


def save_uf2(plan: Plan) -> Path:
    """Write the plan's UF2 to build/firmware (it holds the node's key: readable by its owner)."""
    folder = BUILD / "firmware" / plan.board.name
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"node-{plan.node.number}.uf2"
    scratch = target.with_suffix(".new")
    scratch.touch(mode=0o600)
    scratch.write_bytes(plan.uf2)
    scratch.replace(target)
    return target


def find_drive() -> Path | None:
    """Return the folder where an RP2040 in its boot loader is mounted, None if there is none."""
    for top in ("/media", "/run/media", "/Volumes", "/mnt"):
        for depth in ("*", "*/*"):
            for mark in Path(top).glob(f"{depth}/{DRIVE_MARK}"):
                if "RPI-RP2" in mark.read_text(errors="replace"):
                    return mark.parent
    return None


def copy(uf2: Path, drive: Path) -> None:
    """Copy a UF2 onto the drive of a board; raise FlashError if it isn't one or goes too early."""
    try:
        told = (drive / DRIVE_MARK).read_text(errors="replace")
    except OSError:
        told = ""
    if "RPI-RP2" not in told:
        raise FlashError(f"{drive} is not the drive of an RP2040 (no {DRIVE_MARK} that says "
                         "RPI-RP2): hold BOOTSEL while plugging the board in")
    with steps(f"copying {uf2.name} to {drive}"):
        try:
            shutil.copyfile(uf2, drive / uf2.name)
        except OSError as error:
            raise FlashError(f"{drive}: the board went away while {uf2.name} was copied "
                             f"({error.strerror}). Hold BOOTSEL, plug it in and give the same "
                             "command again") from error


def _port_if_any(board: Board) -> str | None:
    found = ports(board.chip["name"])
    return find_port(board.chip["name"]) if found else None


def _unique_id(port: str) -> str:
    with Repl(port) as repl:
        return repl.run("import machine\nfrom binascii import hexlify\n"
                        "print(hexlify(machine.unique_id()).decode())").strip()


def _to_drive(port: str) -> Path:
    """Send a running board into its boot loader and wait for its drive."""
    with Repl(port) as repl, suppress(OutpostError):  # it goes without an answer
        repl.run("import machine\nmachine.bootloader()", timeout_s=2)
    until = time.monotonic() + DRIVE_S
    with steps("waiting for the drive RPI-RP2"):
        while time.monotonic() < until:
            drive = find_drive()
            if drive:
                return drive
            time.sleep(0.2)
    raise FlashError(f"the board on {port} did not show up as a drive within {DRIVE_S} s: mount "
                     "RPI-RP2 and name its folder with --port")


def _wait_for_port(board: Board, node: provision.Node) -> str:
    until = time.monotonic() + DRIVE_S
    while time.monotonic() < until:
        found = ports(board.chip["name"])
        if found:
            return find_port(board.chip["name"])
        time.sleep(0.2)
    raise FlashError(f"the UF2 was copied, but no serial port came up within {DRIVE_S} s. Plug "
                     "the board in again with BOOTSEL held, with a cable that carries data, and "
                     f"give the same command with --node {node.number}: it is that node again")


def _read_back(port: str, plan: Plan) -> None:
    """Compare the board's file system with the plan; the firmware lies before what it can read."""
    (region,) = (one for one in plan.regions if one.name == "littlefs")
    with Repl(port, BOOT_S) as repl, steps(f"reading back ({port})"):
        told = repl.run(DIGEST.format(start=0, size=len(region.data))).strip()
    if told != hashlib.sha256(region.data).hexdigest():
        raise FlashError(f"{port}: the file system read back differs from what was written: give "
                         "the same command again")


def erase(board: Board, port: str) -> None:
    """Erase the board's flash, of an RP2040 all that is not the firmware."""
    if is_esp32(board):
        esp32.Chip(board.chip["name"], port).erase()
        return
    with Repl(port) as repl, steps(f"erasing ({port})"):
        repl.run(ERASE, timeout_s=120)


# --- afterwards ---


def ask(port: str, node: provision.Node) -> dict[str, Any]:
    """Have the node on `port` test itself; return its facts, with the test's lines as "tests".

    Raises FlashError if it is another node than was written, or if a part that is not a matter of
    wiring fails.
    """
    with steps(f"asking the node ({port})"), Repl(port, BOOT_S) as repl:
        *lines, last = repl.run(ASK).strip().splitlines()
    told = json.loads(last)
    facts: dict[str, Any] = {**told["facts"], "well": told["well"], "tests": lines}
    if facts["node"] != node.number:
        raise FlashError(f"{port}: node {facts['node']} answers, node {node.number} was written: "
                         "is there another board on this port?")
    for line in lines:
        name, verdict, *_ = line.split()
        if verdict == "FAIL" and name not in ("sensor", "battery"):
            raise FlashError(f"node {node.number} was written, but its self-test fails: {line}")
    return facts
