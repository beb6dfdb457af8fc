"""littlefs in RAM whose power can be cut in any operation of its flash, before it or half way."""

import os

import vfs

SIZES = {"progsize": 32, "readsize": 32, "lookahead": 32}


class Cut(BaseException):
    pass


class Disk:
    def __init__(self, data, left=-1, torn=False):
        self.data, self.left, self.torn, self.dead = data, left, torn, False

    def readblocks(self, n, buf, offset=0):
        at = n * 4096 + offset
        buf[:] = self.data[at:at + len(buf)]

    def writeblocks(self, n, buf, offset=0):
        self.operate(n * 4096 + offset, bytes(buf))

    def ioctl(self, op, n):
        if op == 6:
            self.operate(n * 4096, b"\xff" * 4096)
        return {4: len(self.data) // 4096, 5: 4096}.get(op, 0)

    def operate(self, at, data):
        if self.dead:  # the finaliser of a file that was open at the cut
            return
        if self.left == 0:
            if self.torn:
                self.data[at:at + len(data) // 2] = data[:len(data) // 2]
            self.cut()
        self.left -= 1
        self.data[at:at + len(data)] = data

    def cut(self):
        self.dead = True
        raise Cut


def blank(sectors=16):
    data = bytearray(b"\xff" * (sectors * 4096))
    vfs.VfsLfs2.mkfs(Disk(data), **SIZES)
    return data


def on(data, action, left=-1, torn=False):
    """Do `action` in a file system on `data`; return its result, or the Cut it met."""
    disk = Disk(data, left, torn)
    vfs.mount(vfs.VfsLfs2(disk, **SIZES), "/flash")
    here = os.getcwd()
    os.chdir("/flash")
    try:
        return action()
    except BaseException as error:  # what a dead disk says on the way out is of no interest
        if not disk.dead:
            raise
        return error if isinstance(error, Cut) else Cut()
    finally:
        os.chdir(here)
        vfs.umount("/flash")


def cut_everywhere(start, action, look):
    """Cut `action` at each operation; `look()` is called each time power is back. Returns cuts."""
    cuts = 0
    while True:
        for torn in (False, True):
            data = bytearray(start)
            done = on(data, action, cuts, torn)
            on(data, look)
        if not isinstance(done, Cut):
            return cuts
        cuts += 1
