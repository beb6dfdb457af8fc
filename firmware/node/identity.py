# Who this node is: its number and its own key, written once by `outpost flash` to identity.json.
# A board that was never provisioned has a number made from its chip's, and no key.

import json
from binascii import crc32

_FILE = "identity.json"


def load(unique=b""):
    """Return (number 1..2^32-1, key of 32 bytes or b""); `unique` is the chip's own number."""
    try:
        with open(_FILE) as file:
            given = json.loads(file.read())
        return given["node"], bytes.fromhex(given["key"])
    except (OSError, ValueError, KeyError, TypeError):
        return crc32(unique) or 1, b""


def trusted():
    """The public key by which model packages must be signed, 32 bytes, or b"" for nobody's."""
    try:
        with open(_FILE) as file:
            return bytes.fromhex(json.loads(file.read())["trust"])
    except (OSError, ValueError, KeyError, TypeError):
        return b""
