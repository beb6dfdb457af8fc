"""The tiers of a model besides main: the gate before it, and a larger one in its place.

A gate lets main sleep when nothing moves over a window's first samples: `firmware/node/gate.py`.
How much counts as moving is taken from the training windows. Who decides when: docs/power.md.
"""

import json
from collections.abc import Iterable
from typing import Any

import numpy as np

from outpost.data import Windows
from outpost.errors import OutpostError
from outpost.recipe import Recipe

CAUTION = 2  # a gate stays so many times below all that another class has shown in training
MOST_SPAN = 0xFFFF


class TierError(OutpostError):
    """A gate that training data doesn't bear out, or a larger model of another shape."""


def spans(windows: np.ndarray, samples: int, channels: Iterable[int]) -> np.ndarray:
    """Return the widest span of any of `channels` over the first `samples`, window by window.

    `windows` is int16 (windows, samples, channels).
    """
    part = windows[:, :samples, list(channels)].astype(np.int32)
    return (part.max(axis=1) - part.min(axis=1)).max(axis=1)


def fit(what: Recipe, classes: list[str], train: Windows) -> dict[str, Any] | None:
    """Return the gate of `what` as the node's settings have it; None if it has none.

    Raises TierError if the class is unknown, or training windows of another one are as still.
    """
    gate = what.tiers.gate
    if gate is None:
        return None
    if gate.label not in classes:
        raise TierError(f"{what.file}: [tiers.gate] class is {gate.label!r}; there are "
                        f"{', '.join(classes)}")
    label = classes.index(gate.label)
    channels = [what.signal.names.index(name) for name in gate.channels]
    shown = spans(train.x, gate.samples, channels)
    others = shown[train.y != label]
    span = gate.span
    if span is None:
        span = min(int(others.min()) // CAUTION, MOST_SPAN)
        if not (shown[train.y == label] <= span).any():
            raise TierError(
                f"{what.file}: [tiers.gate] lets no training window of {gate.label} through: "
                f"others move by as little as {others.min()} counts over the first {gate.samples} "
                "samples. More samples, or other channels, tell them further apart")
    return {"samples": gate.samples, "channels": channels, "span": span, "class": label}


def quiet(gate: dict[str, Any], windows: np.ndarray) -> np.ndarray:
    """Return for which windows the node's gate would say that this will do, as bools."""
    return spans(windows, gate["samples"], gate["channels"]) <= gate["span"]


def measure(gate: dict[str, Any], held_out: Windows) -> dict[str, float]:
    """Return what a gate does on held-out windows: shares of those it decides, and wrongly."""
    decided = quiet(gate, held_out.x)
    own = held_out.y == gate["class"]
    return {"decided": float(decided.mean()), "of_its_class": float(decided[own].mean()),
            "wrong": float((decided & ~own).mean())}


def large(meta: dict[str, Any], archs: Iterable[str]) -> dict[str, Any] | None:
    """Build the larger model that `meta` (a model.json) names; return its own, None without one.

    The entry "folder" is added. Raises TierError if it doesn't take the same windows, or breaks
    its contract.
    """
    from outpost import build

    name = meta["tiers"].get("large")
    if name is None:
        return None
    built = build.build(name, archs)
    if built.violations:
        raise TierError(f"{name} breaks its contract: {'; '.join(built.violations)}")
    other: dict[str, Any] = json.loads((built.folder / "model.json").read_text())
    for key in ("window", "rate_hz", "channels", "classes"):
        if other[key] != meta[key]:
            raise TierError(f"{name} can't stand in for {meta['name']}: its {key} is "
                            f"{other[key]}, not {meta[key]}")
    return other | {"folder": str(built.folder)}
