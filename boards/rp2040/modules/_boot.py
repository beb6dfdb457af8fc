# Mounts the part of the flash that holds files; the rings beside it are raw and stay untouched.
# Formats what is blank and nothing else: a damaged file system is reported, and the node lives on.

import sys

import rp2
import vfs

# boards/rp2040.toml, counted from the start of rp2.Flash()
FILES_START = 0x00000
FILES_SIZE = 0x40000
BLOCK = 4096


def settle():
    """Spare imports their looks among the files, some forty, a millisecond each.

    MicroPython looks for a file of the name of a built-in module each time one is imported, unless
    the module is known already; and there is no file yet to take the place of these.
    """
    for name in ("array", "binascii", "errno", "hashlib", "json", "machine", "os", "select",
                 "struct", "time"):
        sys.modules[name] = __import__(name)
    rom = ["/rom"] if "/rom" in sys.path else []  # a program beside the frozen one goes before it
    sys.path[:] = rom + [".frozen", "", "/lib"]


def blank(device):
    erased = b"\xff" * BLOCK
    found = bytearray(BLOCK)
    for block in range(FILES_SIZE // BLOCK):
        device.readblocks(block, found)
        if found != erased:
            return False
    return True


def mount():
    device = rp2.Flash(start=FILES_START, len=FILES_SIZE)
    try:
        files = vfs.VfsLfs2(device, progsize=256)
    except OSError as error:
        if not blank(device):
            print("files: damaged (error %d), not mounted" % error.errno)
            return
        vfs.VfsLfs2.mkfs(device, progsize=256)
        files = vfs.VfsLfs2(device, progsize=256)
    vfs.mount(files, "/")


settle()
mount()
del settle, mount, blank, FILES_START, FILES_SIZE, BLOCK, rp2, sys, vfs
