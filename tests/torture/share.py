"""A share of the torture on MicroPython: imported there by __main__.py."""

import json

from cases import draw
from flash import Broken
from life import Tally


def run(seed, cuts):
    """Try drawn cases until so many cuts are done; print the figures as JSON."""
    tally = Tally()
    number = 0
    broken = ""
    counts = {}
    while tally.cuts < cuts and not broken:
        try:
            draw(seed, number).run(tally)
        except Broken as error:
            broken = f"case {number}: {error.sort}: {error.text}"
            name = {"lost": "lost", "phantom": "phantoms", "mount": "failed_mounts",
                    "hang": "hangs"}.get(error.sort, "broken_rules")
            counts[name] = 1
        number += 1
    counts["cuts"] = tally.cuts
    counts["nested_cuts"] = tally.nested
    print(json.dumps({"counts": counts, "broken": broken}))
