"""Captured windows as a person sees them: curves, what node and heavy say, and what to call it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy import Connection

from outpost import words
from outpost.dashboard import models
from outpost.dashboard.node import name_of_model
from outpost.gateway import views
from outpost.gateway import windows as kept
from outpost.page import PHASES

SHOWN = 40
WIDTH, HEIGHT = 300, 64  # of a curve's drawing
COLOURS = (PHASES[0], PHASES[6], PHASES[3])


@dataclass(frozen=True)
class Panel:
    """Channels of one unit: lines as SVG points, with their names and colours."""

    unit: str
    lines: list[tuple[str, str, str]]
    low: float
    high: float


def told(db: Connection, found: list[kept.Window]) -> list[dict[str, Any]]:
    """Return what there is to say to each of `found`."""
    carried = {one: models.known(name) for one, name in views.models_of(
        db, {window.key[0] for window in found}, name_of_model).items()}
    nothing = models.Model()
    shown = []
    for one in found:
        model = carried.get(one.key[0], nothing)
        shown.append({
            "name": one.name, "node": one.key[0], "time_s": one.time_s, "label": one.label,
            "decided": one.decided and (words.class_name(one.decided[0], model.classes),
                                        round(100 * one.decided[1])),
            "heavy": one.heavy and (one.heavy[0], round(100 * one.heavy[1])),
            "classes": _classes(model, one),
            "panels": panels(one.samples, model)})
    return shown


def _classes(model: models.Model, one: kept.Window) -> list[str]:
    """What it can be called: the model's classes, or at least what has been said already."""
    return list(model.classes or dict.fromkeys(
        said for said in (one.label, one.heavy and one.heavy[0]) if said))


def panels(samples: bytes, model: models.Model) -> list[Panel]:
    """Return the curves of a window (int16, sample by sample), one panel for each unit."""
    values = np.frombuffer(samples[:len(samples) // 2 * 2], "<i2").astype(float)
    channels = model.channels
    if not channels or values.size != model.window * len(channels):
        channels = (("", "counts", 1.0),)  # whatever it is, in one line
    rows = values.reshape(-1, len(channels))
    found = []
    for unit in dict.fromkeys(unit for _, unit, _ in channels):
        mine = [at for at, channel in enumerate(channels) if channel[1] == unit]
        block = np.stack([rows[:, at] / channels[at][2] for at in mine])
        low, high = float(block.min()), float(block.max())
        scale = (HEIGHT - 4) / ((high - low) or 1.0)
        x = np.linspace(0, WIDTH, block.shape[1])
        lines = [(channels[at][0], COLOURS[i % len(COLOURS)], " ".join(
            f"{a:.0f},{HEIGHT - 2 - (b - low) * scale:.1f}"
            for a, b in zip(x, block[i], strict=True))) for i, at in enumerate(mine)]
        found.append(Panel(unit, lines, low, high))
    return found
