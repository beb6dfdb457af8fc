"""What a fleet is of: a folder with a run's folder for each node, and one database for all."""

import json
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, TextIO

from outpost import provision
from outpost.boards import Board
from outpost.fleet.share import node_folder
from outpost.world.run import admit, claim, gather, lay_out
from outpost.world.scenario import Scenario
from outpost.world.schedule import DAY_S

# So much of what it would wait in the field a node waits here in real time. Where servers are
# killed, the gateway answers in milliseconds or is dead, and nothing is gained by patience; where
# nobody is killed, a slow machine must make no difference.
HASTY_PCT, PATIENT_PCT = 15, 500
BATCH = 100  # wakes in a transaction of a node's journal


@dataclass(frozen=True)
class Plan:
    """A fleet that is laid out in `folder`; its nodes are 1…`nodes`."""

    folder: Path
    nodes: int
    days: float
    seed: int
    start_s: int
    classes: list[str]
    model: str
    board: Board
    world: Scenario
    strikes: list[tuple[float, str]]  # when (true seconds since 1970) which server is killed
    lock: TextIO  # held as long as the plan is in use

    @property
    def end_s(self) -> float:
        """When the days are over."""
        return self.start_s + self.days * DAY_S

    @property
    def database(self) -> Path:
        """The gateway's."""
        return self.folder / "gateway.db"


def prepare(folder: Path, model: str, board: Board, world: Scenario, nodes: int, days: float,
            seed: int, kills: float = 1, changes: dict[str, Any] | None = None) -> Plan:
    """Lay out a fleet in `folder`, in place of what was there.

    `kills` a day of the gateway, and as many of the broker. Raises OutpostError.
    """
    kit = gather(model, board, world, changes)
    lock = claim(folder)
    if folder.exists():
        shutil.rmtree(folder)
    keys = {}
    for number in range(1, nodes + 1):
        keys[number] = secrets.token_bytes(provision.KEY_BYTES)
        lay_out(node_folder(folder, number), kit, days, Random(f"{seed}/{number}").getrandbits(32),
                provision.Node(number, keys[number], "unix"), isolation="rewind", bring_home=True,
                batch=BATCH, patience_pct=HASTY_PCT if kills else PATIENT_PCT)
    plan = Plan(folder, nodes, days, seed, world.start_s, kit.meta["classes"], kit.model.model,
                board, world, _strikes(world.start_s, days, kills, seed), lock)
    admit(plan.database, keys)
    (folder / "fleet.json").write_text(json.dumps(
        {"nodes": nodes, "classes": plan.classes, "database": plan.database.name}))
    return plan


def _strikes(start_s: int, days: float, kills: float, seed: int) -> list[tuple[float, str]]:
    """Draw when gateway and broker are killed: on the days' first nine tenths, in order."""
    random = Random(f"{seed}/strikes")
    return sorted((start_s + random.uniform(0.05, 0.95) * days * DAY_S, victim)
                  for victim in ("gateway", "broker") for _ in range(round(kills * days)))
