"""A model on its way to nodes: offered to canaries, and to the rest if those stay healthy.

It stops by itself: when a canary fails, when one has not shown in time that it is well, and when
too many of the rest fail.

What a node has of it the node tells itself: by asking for what it lacks, and by records of kind
EVENT, UPDATE (firmware/node/fetch.py, trial.py), which come once and are never lost. Each function
works in the caller's transaction, so any number of gateways may share a roll-out.
"""

import json
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, and_, insert, select, update

from node import modes, record, verdict
from outpost.errors import OutpostError
from outpost.gateway.schema import packages, rollouts, status, targets
from outpost.gateway.wire import Heartbeat, Part, Records, Want, events
from outpost.words import refusal, span

# What becomes of a node, each with how far it is: nobody goes back.
STATES = {"waiting": 0, "fetching": 1, "withdrawn": 1, "trial": 2, "kept": 3, "refused": 3,
          "undone": 3}
OPEN = ("waiting", "fetching")
ENDED = ("withdrawn", "kept", "refused", "undone")
RUNNING = ("canary", "rest")
FAULTS = 1 << record.MODEL_REFUSED | 1 << record.STAGE_FAILED  # that a healthy node has not
HEALTHY_S = 3600.0  # that canaries must be well, by default
DEADLINE_S = 3 * 86400.0  # within which they must have been: nodes may report once a day
MOST_FAILED = 0.1  # of the rest may fail
NAMED = 3  # nodes in a reason
PIECES = 64  # in one answer at most
SO_FAR = {"waiting": "has not asked for it", "fetching": "is fetching it",
          "trial": "is trying it", "kept": "has not told since that it is well"}

_UNDER_WAY = (select(rollouts).where(rollouts.c.state.in_(RUNNING)).order_by(rollouts.c.id)
              .with_for_update())


class RolloutError(OutpostError):
    """A roll-out that can't begin, or that there is not."""


@dataclass(frozen=True)
class Offer:
    """A package that a node may ask for."""

    number: int
    total: int
    forced: bool


def begin(db: Connection, model: str, version: int, content: Mapping[int, bytes],
          nodes: Sequence[int], canary: int = 0, forced: bool = False,
          healthy_s: float = HEALTHY_S, deadline_s: float = DEADLINE_S,
          most_failed: float = MOST_FAILED) -> int:
    """Begin a roll-out of `content` (by processor, as in a .mpy) to `nodes`; return its number.

    The first `canary` of them get it first, and must have been well with it for `healthy_s` when
    `deadline_s` are over. Of the others a share of `most_failed` may fail. Whatever else was under
    way to a node and has not come to it yet is withdrawn.
    """
    if not nodes or len(set(nodes)) != len(nodes):
        raise RolloutError("a roll-out is to nodes, each named once")
    if not 0 <= canary <= len(nodes):
        raise RolloutError(f"{canary} canaries of {len(nodes)} nodes")
    if canary and not healthy_s < deadline_s:
        raise RolloutError(f"canaries must be well for {healthy_s:,.0f} s, and all they have is "
                           f"{deadline_s:,.0f} s: a shorter --healthy, or a longer --deadline")
    if not 0 <= most_failed <= 1:
        raise RolloutError(f"{100 * most_failed:g} % of nodes can't fail")
    _lock(db)
    now = time.time()
    db.execute(update(targets).where(targets.c.node.in_(nodes), targets.c.state.in_(OPEN))
               .values(state="withdrawn", changed_at=now))
    number = db.execute(insert(rollouts).values(
        model=model, version=version, forced=forced, healthy_s=healthy_s,
        deadline_s=deadline_s, most_failed=most_failed,
        state="canary" if canary else "rest", reason="", begun_at=now, changed_at=now)
        .returning(rollouts.c.id)).scalar_one()
    db.execute(insert(packages), [
        {"rollout": number, "mpy": mpy, "number": secrets.randbelow(0xFFFFFFFF) + 1,
         "content": one} for mpy, one in content.items()])
    db.execute(insert(targets), [
        {"rollout": number, "node": node, "canary": at < canary, "state": "waiting", "why": 0,
         "have": 0, "total": 0, "changed_at": now} for at, node in enumerate(nodes)])
    advance(db)
    return int(number)


def stop(db: Connection, rollout: int, reason: str) -> None:
    """Offer it to nobody any more; who has it already keeps it if it stands its trial."""
    _lock(db)
    now = time.time()
    db.execute(update(rollouts).where(rollouts.c.id == rollout, rollouts.c.state.in_(RUNNING))
               .values(state="stopped", reason=reason, changed_at=now))
    db.execute(update(targets).where(targets.c.rollout == rollout, targets.c.state.in_(OPEN))
               .values(state="withdrawn", changed_at=now))


# --- nodes ---


def offers(db: Connection, beats: Iterable[Heartbeat]) -> dict[int, Offer]:
    """Return what there is for each node that asks."""
    asking = {beat.node for beat in beats if beat.ask is not None}
    if not asking or not advance(db):
        return {}
    found: dict[int, Offer] = {}
    rows = db.execute(
        select(targets.c.node, targets.c.rollout, rollouts.c.forced, status.c["items"])
        .join(rollouts, rollouts.c.id == targets.c.rollout)
        .join(status, status.c.node == targets.c.node)
        .where(targets.c.node.in_(asking), _wanted()).order_by(targets.c.rollout)).all()
    for node, rollout, forced, items in rows:
        mpy = json.loads(items).get("model", {}).get("mpy")
        package_of = db.execute(select(packages.c.number, packages.c.content).where(
            packages.c.rollout == rollout, packages.c.mpy == mpy)).first()
        if package_of is not None:
            found[node] = Offer(package_of.number, len(package_of.content), forced)
        elif mpy is not None:
            _move(db, rollout, node, "refused", verdict.WRONG_ARCH)
    return found


def pieces(db: Connection, want: Want) -> tuple[int, list[tuple[int, bytes]]]:
    """Return (bytes of the package, [(offset, bytes)]) that answer a node; none if it is not its.

    What the node has by now is noted.
    """
    _lock(db)
    row = db.execute(
        select(packages.c.content, targets.c.rollout)
        .join(targets, targets.c.rollout == packages.c.rollout)
        .join(rollouts, rollouts.c.id == targets.c.rollout)
        .where(packages.c.number == want.number, targets.c.node == want.node, _wanted())).first()
    if row is None:
        return 0, []
    content = bytes(row.content)
    db.execute(update(targets).where(targets.c.rollout == row.rollout,
                                     targets.c.node == want.node)
               .values(state="fetching", have=want.offset, total=len(content),
                       changed_at=time.time()))
    until = min(len(content), want.offset + want.size * min(want.count, PIECES))
    return len(content), [(at, content[at:min(at + want.size, until)])
                          for at in range(want.offset, until, want.size)]


def heed(db: Connection, batch: Iterable[Records | Part]) -> None:
    """Take note of what nodes say became of their packages."""
    told = False
    for node, payload in events(batch, record.EVENT):
        if len(payload) == 7 and payload[0] == record.UPDATE:
            _told(db, node, payload[1], int.from_bytes(payload[3:], "little"))
            told = True
    if told:
        advance(db)


def _told(db: Connection, node: int, why: int, number: int) -> None:
    _lock(db)
    row = db.execute(
        select(targets.c.rollout, targets.c.state)
        .join(packages, packages.c.rollout == targets.c.rollout)
        .where(packages.c.number == number, targets.c.node == node)).first()
    if row is None:
        return
    if why == verdict.ON_TRIAL:
        _move(db, row.rollout, node, "trial")
    elif why == 0:
        _move(db, row.rollout, node, "kept")
    else:
        _move(db, row.rollout, node, "undone" if row.state == "trial" else "refused", why)


def _move(db: Connection, rollout: int, node: int, state: str, why: int = 0) -> None:
    before = [name for name, far in STATES.items() if far < STATES[state]]
    values: dict[str, Any] = {"state": state, "why": why, "changed_at": time.time()}
    if state in ("trial", "kept", "refused"):  # it had all of it, whatever it last asked for
        values["have"] = targets.c.total
    db.execute(update(targets).where(targets.c.rollout == rollout, targets.c.node == node,
                                     targets.c.state.in_(before)).values(**values))


def _wanted() -> Any:
    """The condition that a target may have its package now."""
    return and_(targets.c.state.in_(OPEN), rollouts.c.state.in_(RUNNING),
                targets.c.canary | (rollouts.c.state == "rest"))


# --- roll-outs ---


def advance(db: Connection) -> bool:
    """Go on with, end or stop what is under way, as its nodes do; False if there is nothing."""
    running = _lock(db)
    for one in running:
        nodes = _nodes(db, one.id)
        canaries = [row for row in nodes if row.canary]
        if one.state == "canary":
            against = _fails(canaries) or _overdue(one, canaries)
        else:
            against = _too_many(one, [row for row in nodes if not row.canary])
        if against:
            stop(db, one.id, against)
            continue
        state = one.state
        if state == "canary" and all(_proven(row, one.healthy_s) for row in canaries):
            state = "rest"
        if all(row.state in ENDED for row in nodes):
            state = "done" if state == "rest" else state
        if state != one.state:
            db.execute(update(rollouts).where(rollouts.c.id == one.id)
                       .values(state=state, changed_at=time.time()))
    return bool(running)


def tick(engine: Engine) -> None:
    """Advance in a transaction of its own: time has passed."""
    with engine.begin() as db:
        advance(db)


def processors(db: Connection) -> dict[int, int]:
    """Return what each node that has reported runs on, as in the header of a .mpy."""
    rows = db.execute(select(status.c.node, status.c["items"])).all()
    told = {node: json.loads(items).get("model", {}).get("mpy") for node, items in rows}
    return {node: mpy for node, mpy in told.items() if mpy is not None}


def known(db: Connection) -> list[dict[str, Any]]:
    """Return the summaries of all roll-outs, the newest first."""
    return [summary(db, row.id)
            for row in db.execute(select(rollouts.c.id).order_by(rollouts.c.id.desc())).all()]


def _lock(db: Connection) -> Sequence[Any]:
    """Return what is under way, which nobody else may move before the commit.

    Before anything is written here, so that two gateways don't wait for each other.
    """
    return db.execute(_UNDER_WAY).all()


def _nodes(db: Connection, rollout: int) -> Sequence[Any]:
    """Return its nodes and their last heartbeats, the canaries first."""
    return db.execute(select(targets, status.c["items"], status.c.heard_at)
                      .outerjoin(status, status.c.node == targets.c.node)
                      .where(targets.c.rollout == rollout)
                      .order_by(targets.c.canary.desc(), targets.c.node)).all()


def _fails(nodes: Iterable[Any]) -> str:
    """Return what the first that fails says against the model, "" if none does."""
    return next(filter(None, map(_fault, nodes)), "")


def _fault(row: Any) -> str:
    """Return how a node has failed with the model, "" if it hasn't."""
    if row.state in ("refused", "undone"):
        return f"node {row.node}: {refusal(row.why)}"
    if row.state == "kept" and row.heard_at is not None and row.heard_at > row.changed_at:
        items = json.loads(row.items)
        if items.get("mode") == modes.SAFE or items.get("faults", 0) & FAULTS:
            return f"node {row.node}: kept it, and is not well"
    return ""


def _overdue(one: Any, canaries: Iterable[Any]) -> str:
    """Return which canaries have not shown in time that they are well, "" if it is not over."""
    if time.time() < one.begun_at + one.deadline_s:
        return ""
    late = [f"node {row.node} {SO_FAR[row.state]}" for row in canaries
            if not _proven(row, one.healthy_s)]
    if len(late) > NAMED:
        late[NAMED:] = [f"and {len(late) - NAMED} more"]
    return f"after {span(one.deadline_s)} {', '.join(late)}" if late else ""


def _too_many(one: Any, others: Sequence[Any]) -> str:
    """Return that too many of the rest fail, "" as long as they don't."""
    failed = _failed(others)
    if len(failed) <= _may_fail(one, others):
        return ""
    last = max(failed, key=lambda row: row.changed_at)
    return (f"{len(failed)} of {len(others)} nodes failed, and {100 * one.most_failed:g} % may; "
            f"{_fault(last)}")


def _may_fail(one: Any, others: Sequence[Any]) -> int:
    """Return how many of the rest may."""
    return int(one.most_failed * len(others) + 1e-9)


def _failed(others: Iterable[Any]) -> list[Any]:
    """Return those that failed; who has the version already says nothing against it."""
    return [row for row in others
            if _fault(row) and not (row.state == "refused" and row.why == verdict.OLDER)]


def _proven(row: Any, healthy_s: float) -> bool:
    """Whether a canary has kept the model, and has been heard of long enough afterwards."""
    return row.state == "withdrawn" or (
        row.state == "kept" and row.heard_at is not None
        and row.heard_at >= row.changed_at + healthy_s)


def summary(db: Connection, rollout: int) -> dict[str, Any]:
    """Return all there is to tell of a roll-out; raise RolloutError if there is none."""
    row = db.execute(select(rollouts).where(rollouts.c.id == rollout)).first()
    if row is None:
        raise RolloutError(f"there is no roll-out {rollout}: outpost rollout lists them")
    nodes = _nodes(db, rollout)
    others = [one for one in nodes if not one.canary]
    told = [{"node": one.node, "canary": bool(one.canary), "state": one.state,
             "reason": refusal(one.why) if one.why else "",
             "have": one.have, "bytes": one.total, "changed_at": one.changed_at} for one in nodes]
    return {"rollout": row.id, "model": row.model, "version": row.version, "state": row.state,
            "reason": row.reason, "healthy_s": row.healthy_s,
            "deadline_at": row.begun_at + row.deadline_s, "others": len(others),
            "failed": len(_failed(others)), "may_fail": _may_fail(row, others),
            "begun_at": row.begun_at, "changed_at": row.changed_at, "nodes": told,
            **{state: sum(one.state == state for one in nodes) for state in STATES}}
