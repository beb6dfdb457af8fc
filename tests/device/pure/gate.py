"""The gate: still on every channel it looks at, over the samples it looks at."""

from array import array

from node.gate import quiet

SPEC = {"samples": 4, "channels": [0, 2], "span": 10, "class": 1}


def window(*rows):
    return array("h", [value for row in rows for value in row])


still = ((5, 900, -3), (8, -900, -3), (15, 0, -13), (5, 0, -3), (999, 0, 999))
assert quiet(window(*still), 3, SPEC)  # channel 1 and the fifth sample don't count
for row, channel in ((0, 0), (3, 0), (0, 2), (3, 2)):
    for step in (-20, 20):
        moved = [list(values) for values in still]
        moved[row][channel] += step
        assert not quiet(window(*moved), 3, SPEC), (row, channel, step)

# the edge: a span of 10 passes, one of 11 does not
assert quiet(array("h", [0, 10]), 1, {"samples": 2, "channels": [0], "span": 10})
assert not quiet(array("h", [0, 11]), 1, {"samples": 2, "channels": [0], "span": 10})
assert not quiet(array("h", [-32768, 32767]), 1, {"samples": 2, "channels": [0], "span": 65534})
assert quiet(array("h", [-32768, 32767]), 1, {"samples": 2, "channels": [0], "span": 65535})
print("OK")
