# Golden windows: what a model must answer, and how long it takes for it. models/NAME.golden is
# written with the module: window, features (int16), votes and class (u8), one behind the other.

from array import array
from time import ticks_diff, ticks_us

from node.model import FOLDER


class Wrong(ValueError):
    pass


def check(module, spec):
    """Return (golden windows, us of the slowest); raise Wrong at a wrong answer.

    Each is asked twice and the second time counts: by then the code is where it will be.
    """
    window = array("h", bytes(2 * spec["window"] * spec["channels"]))
    wanted, features = (array("h", bytes(2 * spec["features"])) for _ in range(2))
    tally, votes = bytearray(spec["classes"]), bytearray(spec["classes"] + 1)
    count = slowest_us = 0
    try:
        file = open("%s/%s.golden" % (FOLDER, spec["name"]), "rb")
    except OSError:
        return 0, 0
    with file:
        while file.readinto(window):
            file.readinto(wanted)
            file.readinto(votes)
            module.classify(window, features, tally)
            start = ticks_us()
            found = module.classify(window, features, tally)
            slowest_us = max(slowest_us, ticks_diff(ticks_us(), start))
            if found != votes[-1] or features != wanted or tally != votes[:-1]:
                raise Wrong("golden window %d is answered wrongly" % count)
            count += 1
    return count, slowest_us
