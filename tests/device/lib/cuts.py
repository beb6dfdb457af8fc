"""A node on littlefs in memory (disk.py), whose power goes in the middle of any operation.

`torture()` cuts a step at each operation of the flash, whole and torn; each time the node must
come up with settings that are accepted and a model that loads and answers its golden windows.
"""

import gc
import os
import sys

import vfs

from disk import SIZES, Disk
from node import golden, model
from node.settings import Settings

disk = None  # the one that is mounted
_scratch = b""


def mount(data):
    global disk
    disk = Disk(data)
    vfs.mount(vfs.VfsLfs2(disk, **SIZES), "/flash")
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
