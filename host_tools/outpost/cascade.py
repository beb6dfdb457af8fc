"""What each tier of a simulated node decided, what it spared, and what that cost in accuracy.

Gate and large are held against main, which is given the same windows afterwards; heavy answers
the windows that the node sent up because main was unsure. docs/power.md tells of the tiers.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy import select

import outpost.device  # noqa: F401  # firmware/ on the path
from node.latency import STORE
from node.record import BY_MAIN, PART
from outpost import build, recipe
from outpost.gateway import schema, store
from outpost.words import MODES, TIERS
from outpost.world import journal
from outpost.world.audit import Audit
from outpost.world.battery import Drain
from outpost.world.figures import Life
from outpost.world.run import costs

MOST = 2000  # windows that main is asked about again
FRAMED = 16  # bytes that a record of kind WINDOW is longer than its samples, by ring and frame


@dataclass(frozen=True)
class Share:
    """What one tier did in one mode."""

    tier: str
    mode: str
    windows: int
    right: float  # share of them
    main_right: float  # and of what main says to the same windows, or to a sample of them
    mj: float  # a pass, up to its decision; heavy: beside main's, to keep the window and send it
    spared_mj: float  # in all, against main; below 0 it took more


def shares(life: Life, found: Audit) -> list[Share]:
    """Return what each tier did in each mode, in the order of the cascade."""
    spent = life.drained_mj[:, :STORE].sum(axis=1)
    mj = {tier: float(spent[np.array(wakes) - 1].mean()) for tier, wakes in found.decided.items()}
    captures = _captures(life)
    told = []
    for (tier, mode), (right, total) in sorted(found.tiers.items()):
        share = main = right / total
        spared = 0.0
        if tier != BY_MAIN:
            wakes = [n for n in found.decided[tier] if life.mode[n - 1] == mode]
            wakes = wakes or found.decided[tier]  # power went before the mode was told
            main = _main(life, [captures[n] for n in wakes[::max(1, len(wakes) // MOST)]])
            spared = (mj.get(BY_MAIN, mj[tier]) - mj[tier]) * total
        told.append(Share(TIERS[tier], MODES.get(mode, str(mode)), total, share, main, mj[tier],
                          spared))
    return told + list(_heavy(life, found, captures))


def _heavy(life: Life, found: Audit, captures: dict[int, Any]) -> Iterator[Share]:
    """Let a heavy model answer what was sent up, as the gateway's would."""
    from outpost import heavy

    engine = store.connect(life.plan.folder / "gateway.db")
    with engine.connect() as db:
        sent = {row.time_s: row.samples for row in db.execute(
            select(schema.windows).order_by(schema.windows.c.time_s))}
    engine.dispose()
    sent = {n: sent[one["time_s"]] for n, one in captures.items() if one["time_s"] in sent}
    if not sent:
        return
    what = recipe.load(recipe.find(life.plan.model.model))
    labels = [captures[n]["label"] for n in sent]
    said = heavy.train(what).answer(list(sent.values()))
    right = sum(label == one for (label, _), one in zip(said, labels, strict=True))
    mj = _sending_mj(life, found, sent)
    yield Share("heavy", "FULL", len(sent), right / len(sent),
                _main(life, [captures[n] for n in sent]), mj, -mj * len(sent))


def _sending_mj(life: Life, found: Audit, sent: dict[int, bytes]) -> float:
    """Return what a window took on flash, as the world saw it, and takes on the air."""
    stored = life.drained_mj[:, STORE]
    others = [n for n in found.decided.get(BY_MAIN, []) if n not in sent]
    keeping = stored[np.array(list(sent)) - 1].mean()
    if others:
        keeping -= stored[np.array(others) - 1].mean()
    plan, size = life.plan, max(map(len, sent.values()))
    drain = Drain.of(plan.board, plan.battery, plan.radio)
    sent_b = size + -(-size // PART) * FRAMED
    air_s = sent_b * costs(plan.board, plan.meta)["uplink"]["byte_ns"] / 1e9
    return float(keeping) + air_s * (drain.radio + drain.rest)


def _captures(life: Life) -> dict[int, Any]:
    """Return the rows of captured windows, by wake."""
    db = journal.read(life.plan.folder / "world.db")
    rows = {row["n"]: row for row in db.execute("SELECT * FROM captures")}
    db.close()
    return rows


def _main(life: Life, captures: list[Any]) -> float:
    """Return how often main, compiled for this machine, is right about captured windows."""
    meta, plan = life.plan.meta, life.plan
    by_name: dict[str, Any] = {one.name: one.samples for one in life.plan.recordings}
    asked: dict[tuple[str, int], list[str]] = defaultdict(list)
    for row in captures:
        asked[row["recording"], row["start"]].append(row["label"])
    windows = np.stack([by_name[name][start:start + meta["window"]] for name, start in asked])
    _, _, said, _ = build.execute(plan.model.folder / meta["modules"][build.HOST]["file"],
                                  windows.astype("<i2"), len(meta["features"]),
                                  len(meta["classes"]))
    right = sum(labels.count(meta["classes"][one])
                for one, labels in zip(said, asked.values(), strict=True))
    return right / sum(map(len, asked.values()))
