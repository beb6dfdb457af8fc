"""Windows that nodes were unsure about: what heavy says, what people say, and both as data.

The windows themselves are kept with the records they came in: gateway/intake.py.
"""

import asyncio
import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, and_, delete, exists, func, select

from node import record
from node.outbox import TELEMETRY
from outpost.errors import OutpostError
from outpost.gateway.schema import answers, labels, records, windows
from outpost.gateway.service import told
from outpost.gateway.store import StoreError, insert_or_ignore

if TYPE_CHECKING:
    from outpost.heavy import Heavy

AT_ONCE = 256  # windows answered in one transaction
PAUSE_S = 2.0  # between two looks for new ones
OVERLAP_S = 60.0  # another worker's transaction may be as late

Key = tuple[int, int, int]  # node, epoch, seq

log = logging.getLogger(__name__)


class WindowError(OutpostError):
    """A window that isn't there, or windows that are not the model's."""


@dataclass(frozen=True)
class Window:
    """A window and all that has been said to it; None where nobody has."""

    key: Key
    time_s: int
    samples: bytes
    decided: tuple[int, float] | None  # the node's class, and its share of the votes
    heavy: tuple[str, float] | None
    label: str | None

    @property
    def name(self) -> str:
        """The key as people give it."""
        return "/".join(map(str, self.key))


def key_of(name: str) -> Key:
    """Read NODE/EPOCH/SEQ. Raises WindowError."""
    parts = name.split("/")
    if len(parts) != 3 or not all(part.isdecimal() and int(part) >> 32 == 0 for part in parts):
        raise WindowError(f"{name!r} is not the name of a window: NODE/EPOCH/SEQ, as the list has "
                          "it")
    return int(parts[0]), int(parts[1]), int(parts[2])


def newest(db: Connection, count: int = 50, node: int | None = None,
           unlabelled: bool = False) -> list[Window]:
    """Return the `count` windows that came last, newest first, of one node or of all."""
    wanted = select(windows).order_by(windows.c.received_at.desc(), windows.c.seq.desc())
    if node is not None:
        wanted = wanted.where(windows.c.node == node)
    if unlabelled:
        wanted = wanted.where(~exists().where(_is(labels, windows.c)))
    return [_window(db, row) for row in db.execute(wanted.limit(count)).all()]


def _window(db: Connection, row: Any) -> Window:
    heavy = db.execute(select(answers.c.label, answers.c.share).where(_is(answers, row))
                       .order_by(answers.c.answered_at.desc()).limit(1)).first()
    label = db.execute(select(labels.c.label).where(_is(labels, row))).scalar()
    decision = db.execute(select(records.c.payload).where(
        records.c.node == row.node, records.c.lane == TELEMETRY,
        records.c.kind == record.DECISION, records.c.time_s == row.time_s)
        # from the newest backwards, as the key has it: what is asked for lies near the end
        .order_by(records.c.epoch.desc(), records.c.seq.desc()).limit(1)).scalar()
    return Window((row.node, row.epoch, row.seq), row.time_s, row.samples,
                  (decision[0], decision[1] / 255) if decision else None,
                  (heavy.label, heavy.share) if heavy else None, label)


def _is(table: Any, row: Any) -> Any:
    return and_(table.c.node == row.node, table.c.epoch == row.epoch, table.c.seq == row.seq)


# --- people ---


def label(db: Connection, key: Key, said: str | None) -> None:
    """Note what a person says a window shows; None takes it back. Raises WindowError."""
    node, epoch, seq = key
    here = {"node": node, "epoch": epoch, "seq": seq}
    if not db.execute(select(func.count()).select_from(windows).where(
            windows.c.node == node, windows.c.epoch == epoch, windows.c.seq == seq)).scalar():
        raise WindowError(f"there is no window {node}/{epoch}/{seq}")
    db.execute(delete(labels).where(labels.c.node == node, labels.c.epoch == epoch,
                                    labels.c.seq == seq))
    if said is not None:
        db.execute(labels.insert(), {**here, "label": said, "labelled_at": time.time()})


def count_labelled(db: Connection) -> int:
    """Return how many windows people have labelled."""
    return db.execute(select(func.count()).select_from(labels)).scalar_one()


def labelled(db: Connection, size: int | None = None) -> list[tuple[Key, bytes, str]]:
    """Return (key, samples, label) of what people have labelled, of windows of `size` bytes."""
    wanted = select(windows, labels.c.label).join(labels, and_(
        labels.c.node == windows.c.node, labels.c.epoch == windows.c.epoch,
        labels.c.seq == windows.c.seq)).order_by(windows.c.node, windows.c.epoch, windows.c.seq)
    if size is not None:
        wanted = wanted.where(func.length(windows.c.samples) == size)
    return [((row.node, row.epoch, row.seq), row.samples, row.label) for row in db.execute(wanted)]


def export(db: Connection, what: Any, path: Path, sure: float | None = None) -> int:
    """Write labelled windows as an .npz that `[data] path` reads; return how many.

    With `sure`, those count as labelled too to which heavy gave at least that share of its votes.
    A node's windows are one subject: they stay on one side of a split. Raises WindowError.
    """
    import numpy as np

    from outpost import heavy

    size = 2 * what.signal.window * len(what.signal.channels)
    found = {key: (samples, said) for key, samples, said in labelled(db, size)}
    if sure is not None:
        for key, samples, said, share in _answered(db, size):
            if share >= sure:
                found.setdefault(key, (samples, said))
    if not found:
        raise WindowError("no window is labelled yet: outpost windows --label NODE/EPOCH/SEQ=CLASS"
                          ", or take what heavy is sure of with --sure 0.9")
    counts = np.array([channel.counts for channel in what.signal.channels])
    x = heavy.unpacked(what, [samples for samples, _ in found.values()]) / counts
    given = {"rate_hz": what.signal.rate_hz} if what.signal.rate_hz is not None else {}
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}")
    with scratch.open("wb") as file:
        np.savez_compressed(file, X=x.transpose(0, 2, 1), y=[said for _, said in found.values()],
                            subject=[str(key[0]) for key in found], **given)
    scratch.replace(path)
    return len(found)


def _answered(db: Connection, size: int) -> Iterable[tuple[Key, bytes, str, float]]:
    wanted = select(windows, answers.c.label, answers.c.share).join(answers, and_(
        answers.c.node == windows.c.node, answers.c.epoch == windows.c.epoch,
        answers.c.seq == windows.c.seq)).where(
        func.length(windows.c.samples) == size).order_by(answers.c.answered_at.desc())
    for row in db.execute(wanted):
        yield (row.node, row.epoch, row.seq), row.samples, row.label, row.share


# --- heavy ---


def unanswered(db: Connection, model: str, size: int, since: float = 0) -> Sequence[Any]:
    """Return rows of windows of `size` bytes that `model` has not answered, the oldest first."""
    return db.execute(
        select(windows).outerjoin(answers, and_(
            answers.c.node == windows.c.node, answers.c.epoch == windows.c.epoch,
            answers.c.seq == windows.c.seq, answers.c.model == model))
        .where(answers.c.model.is_(None), windows.c.received_at >= since,
               func.length(windows.c.samples) == size)
        .order_by(windows.c.received_at).limit(AT_ONCE)).all()


def answer(engine: Engine, heavy: "Heavy", since: float = 0) -> int:
    """Let `heavy` answer some of the windows that came `since`; return how many those were.

    It thinks outside of any transaction; what another worker has answered meanwhile stays.
    """
    with engine.connect() as db:
        rows = unanswered(db, heavy.name, heavy.size, since)
    if not rows:
        return 0
    said = heavy.answer([row.samples for row in rows])
    now = time.time()
    with engine.begin() as db:
        db.execute(insert_or_ignore(db, answers), [
            {"node": row.node, "epoch": row.epoch, "seq": row.seq, "model": heavy.name,
             "label": label, "share": share, "answered_at": now}
            for row, (label, share) in zip(rows, said, strict=True)])
    return len(rows)


def trained(engine: Engine, model: str) -> "Heavy":
    """Train the heavy model of `model`, on what people have labelled here as well."""
    from outpost import data, heavy, recipe

    what = recipe.load(recipe.find(model))
    size = 2 * what.signal.window * len(what.signal.channels)
    with engine.connect() as db:
        given = [(samples, said) for _, samples, said in labelled(db, size)]
    classes = what.classes or data.load(what).classes
    known = [one for one in given if one[1] in classes]
    if len(known) < len(given):
        log.warning("%d of %d labelled windows are none of %s: heavy is not trained on them",
                    len(given) - len(known), len(given), ", ".join(classes))
    return heavy.train(what, known)


async def attend(engine: Engine, model: str) -> None:
    """Train heavy, then answer what waits and what comes, until cancelled."""
    heavy = await asyncio.to_thread(trained, engine, model)
    log.info("heavy is %s, right on %.1f %% of held-out windows", heavy.name, 100 * heavy.accuracy)
    since = 0.0
    while True:
        begun = time.time()
        try:
            while await asyncio.to_thread(answer, engine, heavy, since):
                pass
            since = begun - OVERLAP_S
        except StoreError as error:  # tried again
            log.error("heavy's answers were not stored: %s", told(error))
        await asyncio.sleep(PAUSE_S)
