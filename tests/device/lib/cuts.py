"""A file system on littlefs in memory, whose power goes in the middle of any operation.

`torture()` cuts a step at each operation of the flash, whole and torn; each time the node must
come up with settings that are accepted and a model that loads and answers its golden windows.
"""

import gc
import os
import sys

import vfs

from node import golden, model
from node.settings import Settings

SECTOR = 4096
_LFS = {"progsize": 32, "readsize": 32, "lookahead": 32}


disk = None  # the one that is mounted
_scratch = b""


class Cut(BaseException):
    pass


class Disk:
    def __init__(self, data):
        self.data, self.left, self.torn, self.dead = data, -1, False, False

    def readblocks(self, n, buf, offset=0):
        if self.dead:  # asked by the finaliser of a file that was open at the cut
            return
        at = n * SECTOR + offset
        buf[:] = self.data[at:at + len(buf)]

    def writeblocks(self, n, buf, offset=0):
        if not self.dead:
            self.operate(n * SECTOR + offset, bytes(buf))

    def ioctl(self, op, n):
        if self.dead:
            return 0
        if op == 6:
            self.operate(n * SECTOR, b"\xff" * SECTOR)
        return {4: len(self.data) // SECTOR, 5: SECTOR}.get(op, 0)

    def operate(self, at, data):
        if self.left == 0:
            if self.torn:
                self.data[at:at + len(data) // 2] = data[:len(data) // 2]
            self.cut()
        self.left -= 1
        self.data[at:at + len(data)] = data

    def cut(self):
        self.dead = True
        raise Cut


def formatted(sectors):
    data = bytearray(b"\xff" * (sectors * SECTOR))
    vfs.VfsLfs2.mkfs(Disk(data), **_LFS)
    return data


def mount(data):
    global disk
    disk = Disk(data)
    vfs.mount(vfs.VfsLfs2(disk, **_LFS), "/flash")
    os.chdir("/flash")
    return disk


def unmount():
    os.chdir("/")
    vfs.umount("/flash")


def copy(source, names):
    """Files of the host's into the one that is mounted."""
    for name in names:
        if "/" in name:
            try:
                os.mkdir("models")
            except OSError:
                pass
        with open(source + "/" + name, "rb") as theirs, open(name, "wb") as ours:
            ours.write(theirs.read())


def state():
    """(module, good wakes on trial) of a node that has just been switched on."""
    settings = Settings("settings.json")
    assert settings.problem is None, settings.problem
    for name in ("motion", "slot_a", "slot_b"):
        sys.modules.pop(name, None)
    assert golden.check(model.load(settings.model), settings.model)[0] > 0
    return settings.model["name"], settings.trial


def cut_in(start, step, operations=-1, torn=False):
    """Live `step` until power goes in an operation; return (flash then, whether it went).

    The flash is the same piece of memory each time.
    """
    global _scratch
    gc.collect()
    data = _scratch if len(_scratch) == len(start) else bytearray(start)
    data[:] = start
    disk = mount(data)
    disk.left, disk.torn = operations, torn
    try:
        step()
    except BaseException:  # what a dead disk says on the way out is of no interest
        if not disk.dead:
            raise
    unmount()
    _scratch = data
    return data, disk.dead


def torture(start, step, before, after):
    """Return (flash afterwards, cuts)."""
    operations = cuts = 0
    while True:
        for torn in (False, True):
            data, cut = cut_in(start, step, operations, torn)
            cuts += cut
            mount(data)  # power is back
            found = state()
            assert found in (before, after), (operations, torn, found)
            if not cut:
                assert found == after
                unmount()
                return bytearray(data), cuts
            if found == before:  # and what was begun can be done again
                step()
                assert state() == after, (operations, torn, state())
            unmount()
        operations += 1
