# Mounts the files; a file system that can't be read is reported and left as it is, and a blank one
# is made anew. The ring beside it is a partition of its own.

import vfs
from flashbdev import bdev


def blank():
    block = bytearray(4096)
    bdev.readblocks(0, block)
    return block == b"\xff" * 4096


try:
    vfs.mount(bdev, "/")
except OSError as error:
    if blank():
        vfs.VfsLfs2.mkfs(bdev)
        vfs.mount(bdev, "/")
    else:
        print("files: damaged (error %d), not mounted; the node runs without" % error.errno)
