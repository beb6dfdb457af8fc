# Boards, one a file: all that a node asks of the world outside it. Only these import machine & co.
# What a Board offers: docs/wake.md.

import sys

from micropython import const

# Causes of a wake. Retained memory is whole after TIMER and EVENT only: those follow a sleep.
COLD = const(0)
TIMER = const(1)
EVENT = const(2)
WATCHDOG = const(3)
BROWNOUT = const(4)
CAUSES = const(5)


def here():
    """The board this runs on."""
    name = "unix" if sys.platform in ("linux", "darwin") else sys.platform
    return __import__("node.board." + name, None, None, ("Board",)).Board()
