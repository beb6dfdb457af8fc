# The interpreter itself: what the node's unix board relies on.
# See host_tools/outpost/toolchain/unix.py for how it is chosen or built.

import asyncio
import sys
from array import array
from binascii import crc32
from time import ticks_us

import vfs

assert sys.implementation.name == "micropython"
assert sys.implementation._mpy & 0xFF == 6, "another .mpy format"
assert (sys.implementation._mpy >> 10) & 0xF == 2, "no native x64 modules"
assert crc32(b"123456789") == 0xCBF43926
assert array("h", b"\xff\xff")[0] == -1
assert ticks_us() >= 0
assert hasattr(vfs, "VfsLfs2")


async def answer():
    await asyncio.sleep_ms(1)
    return 42


assert asyncio.run(answer()) == 42
print("OK")
