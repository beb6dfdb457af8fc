# A model package: is it from whom this node trusts, whole, and does its model do what it should?
# Nothing of it runs before its signature is checked, and that once. Bytes: docs/model-package.md

import gc
import json
import os
import sys
from hashlib import sha256
from struct import unpack_from

from micropython import const

from node import golden, model, update, verdict

NEW = model.FOLDER + "/new.pkg"
# A self-test that crashes the chip is found by its name after the reset. Once may be a power cut.
_TRIES = (model.FOLDER + "/try1.pkg", model.FOLDER + "/try2.pkg")
_PLACES = (NEW,) + _TRIES  # what is new stands before what an earlier cut has left behind

_SLOTS = ("slot_a", "slot_b")
_MAGIC = b"OPK1"
_HEAD = const(70)  # magic, size of the manifest, signature
_MOST = const(4096)  # bytes of a manifest
_SIGNED = b"outpost model package 1\n"  # and the manifest: a signature is for one purpose only
_SPARE = const(16384)  # bytes of heap a node needs beside its model


class Refused(Exception):
    pass


def install(settings, key, forced=False, number=0):
    """Check the package that has come, put its model on trial and return its manifest.

    `number` is the gateway's for it, and kept with the model; 0 by cable. Raises Refused(why) and
    leaves all as it was; the package is gone then.
    """
    if settings.trial:
        raise Refused(verdict.ON_TRIAL)
    path = _stand()
    try:
        manifest = read(path, key)
        _welcome(manifest, settings, forced)
        update.sweep()
        spec = manifest["settings"]["model"]
        spec["package"] = number
        spec["name"] = _SLOTS[bool(settings.model) and settings.model["name"] == _SLOTS[0]]
        _unpack(path, manifest, spec["name"])
        _prove(path, manifest, spec)
    except Exception as error:
        clear()
        update.sweep()
        if isinstance(error, Refused):
            raise
        sys.print_exception(error)
        full = isinstance(error, (OSError, MemoryError))
        raise Refused(verdict.NO_ROOM if full else verdict.UNKNOWN)
    update.begin(manifest["settings"])
    clear()
    return manifest


def _stand():
    # Where is the package, and has its self-test been begun before?
    names = os.listdir(model.FOLDER)
    for path in _PLACES:
        if path.rpartition("/")[2] in names:
            break
    else:
        raise Refused(verdict.MISSING)
    if path == _TRIES[1]:
        clear()
        update.sweep()
        raise Refused(verdict.CRASHED)
    return path


def read(path, key):
    """Return the manifest of the package at `path`; Refused unless `key`'s owner signed it."""
    try:
        import verify
    except ImportError:
        raise Refused(verdict.NO_KEY)
    if len(key) != 32:
        raise Refused(verdict.NO_KEY)
    with open(path, "rb") as file:
        head = file.read(_HEAD)
        if head[:4] != _MAGIC[:len(head)]:
            raise Refused(verdict.UNKNOWN)
        size = unpack_from("<H", head, 4)[0] if len(head) == _HEAD else 0
        text = file.read(min(size, _MOST))
    if size == 0 or len(text) < size:
        raise Refused(verdict.TRUNCATED if size <= _MOST else verdict.UNKNOWN)
    if not verify.check(head[6:], key, _SIGNED + text):
        raise Refused(verdict.FORGED)
    manifest = json.loads(text)
    manifest["begin"] = _HEAD + size
    return manifest


def _welcome(manifest, settings, forced):
    # What can be said against it without looking at the rest.
    if manifest["mpy"] != sys.implementation._mpy >> 10 & 15:
        raise Refused(verdict.WRONG_ARCH)
    spec = settings.model
    if (not forced and spec and spec.get("of") == manifest["name"]
            and manifest["version"] <= spec.get("version", 0)):
        raise Refused(verdict.OLDER)
    gc.collect()
    if gc.mem_free() < manifest["heap"] + _SPARE:
        raise Refused(verdict.NO_ROOM)


def _unpack(path, manifest, name):
    # Copy the parts into files of their own, and hash what is on flash then.
    buf = bytearray(512)
    view = memoryview(buf)
    try:
        with open(path, "rb") as file:
            file.seek(manifest["begin"])
            for part, size, digest in manifest["parts"]:
                target = "%s/%s.%s" % (model.FOLDER, name, part)
                with open(target, "wb") as copy:
                    while size:
                        got = file.readinto(view[:min(size, len(buf))])
                        if not got:
                            raise Refused(verdict.TRUNCATED)
                        copy.write(view[:got])
                        size -= got
                if _digest(target, buf) != digest:
                    raise Refused(verdict.DAMAGED)
            if file.read(1):
                raise Refused(verdict.DAMAGED)
    except OSError:
        raise Refused(verdict.NO_ROOM)


def _digest(path, buf):
    found, view = sha256(), memoryview(buf)
    with open(path, "rb") as file:
        size = file.readinto(buf)
        while size:
            found.update(view[:size])
            size = file.readinto(buf)
    return found.digest().hex()


def _prove(path, manifest, spec):
    if update.problem(manifest["settings"]) is not None:
        raise Refused(verdict.UNFIT)
    os.rename(path, _TRIES[path == _TRIES[0]])  # from here on code of it runs
    try:
        module = model.load(spec)
        _, slowest_us = golden.check(module, spec)
    except model.Refused:
        raise Refused(verdict.WRONG_MODEL)
    except golden.Wrong:
        raise Refused(verdict.WRONG_ANSWER)
    if slowest_us > manifest["us"] > 0:
        raise Refused(verdict.TOO_SLOW)


def waits():
    """Whether there is a package to install."""
    names = os.listdir(model.FOLDER)
    return any(path.rpartition("/")[2] in names for path in _PLACES)


def clear():
    """Remove whatever package there is."""
    for path in _PLACES:
        try:
            os.remove(path)
        except OSError:
            pass
