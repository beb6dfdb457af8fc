"""A worker's share of the fleet: its nodes live side by side, two hours of each at a time.

Nodes know nothing of each other, so that what one lives does not depend on who lives beside it.
"""

import heapq
import json
import resource
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from outpost.world import audit, journal
from outpost.world.world import World

SLICE_US = 7200 * 1_000_000  # of a node's life before it is another's turn
FILES = 8  # that a node keeps open here
TELL_S = 0.2


def node_folder(folder: Path, number: int) -> Path:
    """Return the folder of one node of the fleet in `folder`."""
    return folder / f"node-{number:04}"


@dataclass
class Told:
    """How far a share is; its nodes together, and what the check of them has found."""

    clock_s: float = 0.0  # all have lived until then
    boots: int = 0
    links: int = 0  # uplinks that found a way home
    killed: Counter[str] = field(default_factory=Counter)  # nodes, by kind of fault
    checked: int = 0  # nodes
    found: Counter[str] = field(default_factory=Counter)  # records: acknowledged, lost, ...

    def json(self) -> dict[str, Any]:
        """Return it as what JSON can hold."""
        return dict(vars(self))


class Share:
    """The nodes `numbers` of the fleet in `folder`; `tell` hears now and then how they do."""

    def __init__(self, folder: Path, numbers: Iterable[int], tell: Callable[[Told], None]) -> None:
        self.folder, self.numbers = folder, list(numbers)
        self.told = Told()
        self._tell, self._next_s = tell, 0.0
        self._plan = json.loads((folder / "fleet.json").read_text())
        _allow_files(FILES * len(self.numbers) + 100)
        self.worlds = [World(node_folder(folder, number)) for number in self.numbers]
        for world in self.worlds:
            world.config["port"] = self._plan["port"]

    def live(self) -> None:
        """Live the days. Raises OutpostError if a node does what it must not."""
        self._go(lambda world: world.state.clock_us < world.schedule.end_s * 1_000_000)

    def bring_home(self) -> None:
        """Live on, with the link up, until nothing waits at any node; end their processes."""
        self._go(lambda world: not world.state.done)
        for world in self.worlds:
            world.close()

    def check(self) -> None:
        """Hold each node's flash and journal against the gateway's database."""
        database = self.folder / self._plan["database"]
        for number in self.numbers:
            found = audit.audit(node_folder(self.folder, number), self._plan["classes"], database)
            for name in ("acknowledged", "appended", "stored", "duplicates", "lost", "dropped",
                         "waiting", "phantoms", "compared", "differing", "unflushed"):
                self.told.found[name] += getattr(found, name)
            self.told.found["crashes"] += _crashes(node_folder(self.folder, number))
            self.told.found["right"] += sum(
                n for (truth, decision), n in found.confusion.items() if truth == decision)
            self.told.found["decisions"] += found.decisions
            self.told.checked += 1
            self._say()
        self._say(now=True)

    def _go(self, alive: Callable[[World], bool]) -> None:
        """Let all live as long as they are `alive`, the one furthest behind first."""
        queue = [(world.state.clock_us, at) for at, world in enumerate(self.worlds)
                 if alive(world)]
        heapq.heapify(queue)
        while queue:
            clock_us, at = queue[0]
            world = self.worlds[at]
            self.told.clock_s = clock_us / 1e6
            self._live(world, clock_us + SLICE_US, alive)
            if alive(world):
                heapq.heapreplace(queue, (world.state.clock_us, at))
            else:
                heapq.heappop(queue)
            self._say()
        self._say(now=True)

    def _live(self, world: World, until_us: int, alive: Callable[[World], bool]) -> None:
        told, before = self.told, world.struck.copy()
        boots, links = world.state.wakes, world.links
        while world.state.clock_us < until_us and alive(world):
            world.step()
        told.boots += world.state.wakes - boots
        told.links += world.links - links
        if world.struck != before:
            told.killed += world.struck - before

    def _say(self, now: bool = False) -> None:
        if now or time.monotonic() >= self._next_s:
            self._next_s = time.monotonic() + TELL_S
            self._tell(self.told)


def _crashes(folder: Path) -> int:
    """Return how many wakes of a node ended in a crash of its own."""
    with closing(journal.read(folder / "world.db")) as db:
        return int(db.execute("SELECT count(*) FROM wakes WHERE ended = 'crashed'").fetchone()[0])


def _allow_files(count: int) -> None:
    """Raise the limit of open files where it is lower, as far as this user may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY:
        count = min(count, hard)
    if soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))
