"""`python -m outpost.world FOLDER`: live the run described in FOLDER/run.json."""

import sys
from pathlib import Path

from outpost.errors import OutpostError
from outpost.world.world import World

try:
    World(Path(sys.argv[1])).live()
except OutpostError as error:
    sys.exit(f"error: {error}")
