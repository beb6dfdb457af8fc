"""`python -m outpost.world FOLDER`: live the run described in FOLDER/run.json."""

import sys
from contextlib import closing
from pathlib import Path

from outpost.errors import OutpostError
from outpost.world.world import World

try:
    with closing(World(Path(sys.argv[1]))) as world:
        world.live()
except OutpostError as error:
    sys.exit(f"error: {error}")
