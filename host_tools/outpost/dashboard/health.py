"""How a node is, in a word: what a person should look at first, and why."""

from dataclasses import dataclass, field
from typing import Any

import outpost.device  # noqa: F401  # firmware/ on the path
from node import modes, record
from outpost import words
from outpost.gateway.views import Glance

FINE, LOOK, BAD = range(3)
LEVELS = ("fine", "look", "bad")

LATE = 3  # times its usual interval; then a node is late
# A node whose uplinks fail still tries every six hours, give or take a quarter by lot: silent is
# who has missed that as well.
SILENT_S = 1.25 * 6 * 3600
FEW_DAYS, FEWER_DAYS = 30, 10  # a battery's, when a person should look; when it is urgent
UNKNOWN_DAYS, UNKNOWN_SOC = 65535, 255
# faults that cost a node what it is there for; the others cost a capability for a while
GRAVE = (record.SENSOR_SILENT, record.MODEL_REFUSED, record.FLASH_FAILED, record.STAGE_FAILED)


@dataclass
class Health:
    """`level` of the worst, and all that is the matter as (level, words), worst first."""

    findings: list[tuple[int, str]] = field(default_factory=list)
    silent: bool = False

    @property
    def level(self) -> int:
        """The worst level."""
        return self.findings[0][0] if self.findings else FINE

    @property
    def name(self) -> str:
        """Its name."""
        return LEVELS[self.level]

    @property
    def rank(self) -> int:
        """Grows with how much is the matter: sorts worst first."""
        return sum(1000 if level == BAD else 1 for level, _ in self.findings)


def of(node: Glance, now: float) -> Health:
    """Return how a node is at time `now`."""
    found: list[tuple[int, str]] = []
    if node.heard_at is None:
        return Health([(LOOK, "never heard of")])
    items = node.items
    gone_s = now - node.heard_at
    usual_s = node.usual_s or SILENT_S / LATE
    silent = gone_s > max(LATE * usual_s, SILENT_S)
    if silent:
        found.append((BAD, f"silent for {words.span(gone_s)}"))
    elif gone_s > max(LATE * usual_s, 60):
        found.append((LOOK, f"late: last heard {words.span(gone_s)} ago"))
    mode = items.get("mode", modes.FULL)
    if mode != modes.FULL:
        found.append((LOOK if mode == modes.DEGRADED else BAD,
                      f"{words.MODES.get(mode, mode)}: "
                      f"{words.mode_reason(items.get('mode_reason', 0))}"))
    left = days_left(items)
    if left is not None and left < FEW_DAYS:
        found.append((BAD if left < FEWER_DAYS else LOOK,
                      f"{left} {'day' if left == 1 else 'days'} left"))
    for reason, name in words.FAULTS.items():
        if items.get("faults", 0) >> reason & 1:
            found.append((BAD if reason in GRAVE else LOOK, name))
    found.sort(key=lambda one: -one[0])
    return Health(found, silent)


def days_left(items: dict[str, Any]) -> int | None:
    """Return the days a heartbeat gives its battery, None if it doesn't know."""
    left = items.get("days_left", UNKNOWN_DAYS)
    return None if left == UNKNOWN_DAYS else left


def soc(items: dict[str, Any]) -> int | None:
    """Return a heartbeat's state of charge in percent, None if it doesn't know."""
    charge = items.get("soc", UNKNOWN_SOC)
    return None if charge == UNKNOWN_SOC else charge
