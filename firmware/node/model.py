# The model's native module: checked against what settings say it must be, then loaded.
# A refused one costs the node its decisions and nothing else.

import sys
from binascii import crc32

from micropython import const

FOLDER = "models"

# Why a model was refused
NONE_SET = const(0)
MISSING = const(1)
CORRUPT = const(2)  # the file's CRC is not the one in settings
UNLOADABLE = const(3)  # MicroPython would not import it
WRONG_ABI = const(4)
WRONG_SHAPE = const(5)


class Refused(Exception):
    pass


def load(spec, verified=False):
    """Return the module `spec` (settings' "model") names; raise Refused(why).

    Damaged machine code can do anything when it runs, so the file's CRC is checked first, unless
    it has been since power came on. A CRC of 0 stands for a model that is part of the firmware.
    """
    if spec is None:
        raise Refused(NONE_SET)
    if spec["crc32"] and not verified:
        if _crc(FOLDER + "/" + spec["name"] + ".mpy") != spec["crc32"]:
            raise Refused(CORRUPT)
    sys.path.insert(0, FOLDER)
    try:
        module = __import__(spec["name"])
    except Exception:
        raise Refused(UNLOADABLE)
    finally:
        sys.path.pop(0)
    if getattr(module, "ABI", None) != spec["abi"]:
        raise Refused(WRONG_ABI)
    for name in ("window", "channels", "features", "classes"):
        if getattr(module, name.upper(), None) != spec[name]:
            raise Refused(WRONG_SHAPE)
    return module


def _crc(path):
    crc, buf = 0, bytearray(512)
    view = memoryview(buf)
    try:
        with open(path, "rb") as file:
            size = file.readinto(buf)
            while size:
                crc = crc32(view[:size], crc)
                size = file.readinto(buf)
    except OSError:
        raise Refused(MISSING)
    return crc
