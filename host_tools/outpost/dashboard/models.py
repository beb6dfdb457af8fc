"""What is known here of a model that nodes carry: the names of its classes and channels."""

import json
from dataclasses import dataclass
from typing import Any

from outpost.paths import BUILD


@dataclass(frozen=True)
class Model:
    """Names in a model's order; `channels` as (name, unit, counts a unit)."""

    classes: tuple[str, ...] = ()
    channels: tuple[tuple[str, str, float], ...] = ()
    window: int = 0
    rate_hz: float | None = None


def known(name: str) -> Model:
    """Return what the build of a model says, an empty one if it was not built here."""
    try:
        meta: dict[str, Any] = json.loads(
            (BUILD / "models" / name.replace("/", "_") / "model.json").read_text())
        return Model(tuple(meta["classes"]),
                     tuple((one["name"], one["unit"], one["counts"]) for one in meta["channels"]),
                     meta["window"], meta["rate_hz"])
    except (OSError, ValueError, KeyError, TypeError):
        return Model()
