# A model package: is it from whom this node trusts, whole, and does its model do what it should?
# Nothing of it runs before its signature is checked, and that once. Bytes: docs/model-package.md

import gc
import json
import os
import sys
from hashlib import sha256
from struct import unpack_from

from micropython import const

from node import golden, model, update

NEW = model.FOLDER + "/new.pkg"
# A self-test that crashes the chip is found by its name after the reset. Once may be a power cut.
_TRIES = (model.FOLDER + "/try1.pkg", model.FOLDER + "/try2.pkg")

_SLOTS = ("slot_a", "slot_b")
_MAGIC = b"OPK1"
_HEAD = const(70)  # magic, size of the manifest, signature
_MOST = const(4096)  # bytes of a manifest
_SIGNED = b"outpost model package 1\n"  # and the manifest: a signature is for one purpose only
_SPARE = const(16384)  # bytes of heap a node needs beside its model
TRIAL = const(5)  # good wakes until a model is kept

# Why a package was refused
MISSING = const(1)
TRUNCATED = const(2)
UNKNOWN = const(3)  # not a package, or of another version
NO_KEY = const(4)  # this node trusts nobody, or has nothing to check a signature with
FORGED = const(5)  # not signed by the key this node trusts
DAMAGED = const(6)  # what is on flash is not what was signed
WRONG_ARCH = const(7)
OLDER = const(8)
NO_ROOM = const(9)
WRONG_MODEL = const(10)  # the module does not load, or has another ABI or shape than told
WRONG_ANSWER = const(11)  # to a golden window
TOO_SLOW = const(12)
CRASHED = const(13)
UNFIT = const(14)  # its settings break a rule
ON_TRIAL = const(15)  # another is: come again later. In a record: it is itself
FAILED = const(16)  # a stage did, or the model would not load any more, while it was on trial


class Refused(Exception):
    pass


def install(settings, key, forced=False):
    """Check the package that has come, put its model on trial and return its manifest.

    Raises Refused(why) and leaves all as it was; the package is gone then.
    """
    if settings.trial:
        raise Refused(ON_TRIAL)
    path = _stand()
    try:
        manifest = read(path, key)
        _welcome(manifest, settings, forced)
        update.sweep()
        spec = manifest["settings"]["model"]
        spec["name"] = _SLOTS[bool(settings.model) and settings.model["name"] == _SLOTS[0]]
        _unpack(path, manifest, spec["name"])
        _prove(path, manifest, spec)
    except Refused:
        _clear()
        update.sweep()
        raise
    update.begin(manifest["settings"], TRIAL)
    _clear()
    return manifest


def _stand():
    # Where is the package, and has its self-test been begun before?
    names = os.listdir(model.FOLDER)
    for path in _TRIES + (NEW,):
        if path.rpartition("/")[2] in names:
            break
    else:
        raise Refused(MISSING)
    if path == _TRIES[1]:
        _clear()
        update.sweep()
        raise Refused(CRASHED)
    return path


def read(path, key):
    """Return the manifest of the package at `path`; Refused unless `key`'s owner signed it."""
    try:
        import verify
    except ImportError:
        raise Refused(NO_KEY)
    if len(key) != 32:
        raise Refused(NO_KEY)
    with open(path, "rb") as file:
        head = file.read(_HEAD)
        if head[:4] != _MAGIC[:len(head)]:
            raise Refused(UNKNOWN)
        size = unpack_from("<H", head, 4)[0] if len(head) == _HEAD else 0
        text = file.read(min(size, _MOST))
    if size == 0 or len(text) < size:
        raise Refused(TRUNCATED if size <= _MOST else UNKNOWN)
    if not verify.check(head[6:], key, _SIGNED + text):
        raise Refused(FORGED)
    manifest = json.loads(text)
    manifest["begin"] = _HEAD + size
    return manifest


def _welcome(manifest, settings, forced):
    # What can be said against it without looking at the rest.
    if manifest["mpy"] != sys.implementation._mpy >> 10 & 15:
        raise Refused(WRONG_ARCH)
    spec = settings.model
    if (not forced and spec and spec.get("of") == manifest["name"]
            and manifest["version"] <= spec.get("version", 0)):
        raise Refused(OLDER)
    gc.collect()
    if gc.mem_free() < manifest["heap"] + _SPARE:
        raise Refused(NO_ROOM)


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
                            raise Refused(TRUNCATED)
                        copy.write(view[:got])
                        size -= got
                if _digest(target, buf) != digest:
                    raise Refused(DAMAGED)
            if file.read(1):
                raise Refused(DAMAGED)
    except OSError:
        raise Refused(NO_ROOM)


def _digest(path, buf):
    found, view = sha256(), memoryview(buf)
    with open(path, "rb") as file:
        size = file.readinto(buf)
        while size:
            found.update(view[:size])
            size = file.readinto(buf)
    return found.digest().hex()


def _prove(path, manifest, spec):
    if not update.fit(manifest["settings"]):
        raise Refused(UNFIT)
    os.rename(path, _TRIES[path == _TRIES[0]])  # from here on code of it runs
    try:
        module = model.load(spec)
        _, slowest_us = golden.check(module, spec)
    except model.Refused:
        raise Refused(WRONG_MODEL)
    except golden.Wrong:
        raise Refused(WRONG_ANSWER)
    if slowest_us > manifest["us"] > 0:
        raise Refused(TOO_SLOW)


def _clear():
    for path in _TRIES + (NEW,):
        try:
            os.remove(path)
        except OSError:
            pass
