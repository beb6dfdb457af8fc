"""Pure modules of the node for the host: `from outpost.device import frame`.

Host and node then run the same code. Importing this puts `firmware/` on the path and, under
CPython, a `micropython` module with `const`.
"""

import importlib
import sys
import types
from typing import Any

from outpost.paths import FIRMWARE

if "micropython" not in sys.modules:
    shim = types.ModuleType("micropython")
    shim.const = lambda value: value
    sys.modules["micropython"] = shim
if str(FIRMWARE) not in sys.path:
    sys.path.insert(0, str(FIRMWARE))


def __getattr__(name: str) -> Any:
    """Return module `node.<name>` from `firmware/`."""
    try:
        return importlib.import_module(f"node.{name}")
    except ModuleNotFoundError as error:
        raise AttributeError(f"firmware/node has no module {name!r}: {error}") from None
