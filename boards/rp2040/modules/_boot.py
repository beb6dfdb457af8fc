# Mounts the part of the flash that holds files; the rings beside it are raw and stay untouched.
# Formats what is blank and nothing else: a damaged file system is reported, and the node lives on.

import rp2
import vfs

# boards/rp2040.toml, counted from the start of rp2.Flash()
FILES_START = 0x00000
FILES_SIZE = 0x40000
BLOCK = 4096


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
            print("files: damaged (error %d), not mounted; the node lives without" % error.errno)
            return
        vfs.VfsLfs2.mkfs(device, progsize=256)
        files = vfs.VfsLfs2(device, progsize=256)
    vfs.mount(files, "/")


mount()
del mount, blank, FILES_START, FILES_SIZE, BLOCK, rp2, vfs
