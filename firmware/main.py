# The node's first line: which board is this, and live on it.

from node import board, cycle

cycle.live(board.here())
