"""The node's Python as .mpy files beside an RP2040's firmware, in a ROMFS.

What is there is imported before what is frozen, and runs where it lies. It is written over the
node's REPL. What says that a ROMFS is there is written last: a cut of power or cable at any moment
leaves none, and the node runs what is frozen. The format: extmod/vfs_rom.c of MicroPython.
"""

import hashlib
from base64 import b64encode

from outpost import image
from outpost.boards import Board
from outpost.console import steps
from outpost.errors import OutpostError
from outpost.image import BLANK, SECTOR
from outpost.repl import Repl, find_port

PAGE = 256
MAGIC = 3  # bytes; a NOR page may be programmed again to clear more bits
BOOT_S = 30

HAS_ROOM = "import vfs\nprint(hasattr(vfs, 'rom_ioctl'))"
# Runs on the node, after a soft reset, so that nothing is imported from what is replaced.
BEGIN = """
import hashlib, vfs
from binascii import a2b_base64, hexlify
rom = vfs.rom_ioctl(2, 0)
rom.ioctl(6, 0)
def put(at, data):
    if at:
        rom.ioctl(6, at)
    rom.writeblocks(at, a2b_base64(data), 0)
"""
CHECK = """
block, digest = bytearray(4096), hashlib.sha256()
for at in range({sectors}):
    rom.readblocks(at, block)
    digest.update(block)
print(hexlify(digest.digest()).decode())
"""
END = "rom.writeblocks(0, {magic} + b'\\xff' * {rest}, 0)"


class ProgramError(OutpostError):
    """A board without room for a program, or one that did not take it."""


def romfs(board: Board) -> bytes:
    """Return the node's Python as the ROMFS that `write` puts on `board`."""
    if "program" not in [region.name for region in board.flash.regions]:
        raise ProgramError(f"{board.name} carries its program among its files: flash it whole, "
                           f"outpost flash --board {board.name}")
    data, room = image.romfs(image.node_files(board)), board.flash.region("program").size
    if len(data) > room:
        raise ProgramError(f"the node's Python has {len(data):,} bytes, {board.name}'s flash map "
                           f"{room:,} for it (flash.region.program)")
    return data


def write(board: Board, port: str | None = None) -> int:
    """Put the node's Python onto the board on `port`, read it back; return its bytes."""
    data = romfs(board)
    port = port or find_port(board.chip["name"])
    # without the magic, so that it isn't one yet
    whole = (BLANK * MAGIC + data[MAGIC:]).ljust(-(-len(data) // SECTOR) * SECTOR, BLANK)
    with Repl(port, BOOT_S) as repl:
        repl.reset()
        if repl.run(HAS_ROOM).strip() != "True":
            raise ProgramError(f"{port}: its firmware has no place for a program, flash it whole: "
                               f"outpost flash --board {board.name}")
        repl.run(BEGIN)
        sectors = len(whole) // SECTOR
        with steps(f"writing the program ({port})", sectors) as step:
            for at in range(sectors):
                repl.run(f"put({at}, {b64encode(whole[at * SECTOR:][:SECTOR])!r})")
                step("")
        told = repl.run(CHECK.format(sectors=sectors)).strip()
        if told != hashlib.sha256(whole).hexdigest():
            raise ProgramError(f"{port}: the program read back differs from what was written, and "
                               "is not used: give the same command again")
        repl.run(END.format(magic=data[:MAGIC], rest=PAGE - MAGIC))
        repl.reset()
        file = repl.run("import node\nprint(node.__file__)").strip()
    if not file.startswith("/rom/"):
        raise ProgramError(f"{port}: the program was written, but node comes from {file}: flash "
                           f"the board whole, outpost flash --board {board.name}")
    return len(data)
