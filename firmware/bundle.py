# The node's Python out of one file, for boards that import from littlefs: that checks the CRC of a
# folder's whole list at each look for a name, four times a module. Bytes: docs/bundle.md.

import sys

# Without a path MicroPython takes its own modules, and looks for no file of their name.
_path = sys.path[:]
sys.path[:] = []
for _name in ("array", "binascii", "errno", "hashlib", "io", "json", "machine", "os", "select",
              "struct", "time", "vfs"):
    if _name not in sys.modules:
        sys.modules[_name] = __import__(_name)
sys.path[:] = ["/bundle"] + _path

import io  # noqa: E402
import json  # noqa: E402

import vfs  # noqa: E402
from micropython import const  # noqa: E402

_FILE = const(0x8000)
_FOLDER = const(0x4000)


class Bundle:
    """As much of a file system as an import asks for."""

    def __init__(self, path):
        self._file = open(path, "rb")
        size = int.from_bytes(self._file.read(2), "little")
        self._index = json.loads(self._file.read(size))  # path: [at, bytes], of a folder []
        self._begin = 2 + size

    def mount(self, readonly, mkfs):
        pass

    def stat(self, path):
        where = self._index[path]  # KeyError: there is none
        return (_FILE if where else _FOLDER), 0, 0, 0, 0, 0, 0, 0, 0, 0

    def open(self, path, mode):
        at, size = self._index[path]
        self._file.seek(self._begin + at)
        return io.BytesIO(self._file.read(size))


vfs.mount(Bundle("node.bundle"), "/bundle")
