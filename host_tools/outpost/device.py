"""The node's pure modules, imported from `firmware/` so that host and node run the same code."""

import sys
import types

from outpost.paths import FIRMWARE

if "micropython" not in sys.modules:
    shim = types.ModuleType("micropython")
    shim.const = lambda value: value
    sys.modules["micropython"] = shim
if str(FIRMWARE) not in sys.path:
    sys.path.insert(0, str(FIRMWARE))
