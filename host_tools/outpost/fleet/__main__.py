"""`python -m outpost.fleet FOLDER FIRST STEP`: live every STEP-th node of a fleet, from FIRST on.

It is told by lines on stdin when to go on: to bring records home, then to check them. On stdout
it tells how far it is, a JSON object a line, with `over` when a stage is.
"""

import gc
import json
import os
import sys
from pathlib import Path

from outpost.errors import OutpostError
from outpost.fleet.share import Share, Told


def tell(told: Told, over: bool = False) -> None:
    """Write a line."""
    print(json.dumps(told.json() | {"over": over}), flush=True)


try:
    folder = Path(sys.argv[1])
    cores = sorted(os.sched_getaffinity(0))
    # World and node take turns: on one core they share its caches, and a wake takes half the time.
    os.sched_setaffinity(0, {cores[int(sys.argv[2]) % len(cores)]})
    nodes = json.loads((folder / "fleet.json").read_text())["nodes"]
    share = Share(folder, range(int(sys.argv[2]), nodes + 1, int(sys.argv[3])), tell)
    gc.freeze()
    gc.set_threshold(200_000)  # a wake leaves no cycles, and much that would be searched for them
    for stage in (share.live, share.bring_home, share.check):
        stage()
        tell(share.told, over=True)
        if not sys.stdin.readline():
            break
except OutpostError as error:
    sys.exit(f"error: {error}")
