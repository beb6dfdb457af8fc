"""Where frames are judged, stored and answered, whichever way they came.

Nothing is kept in memory between two calls, so a gateway may be killed at any moment, and any
number of them may work on one database. An answer is made of what is durably stored.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from threading import Lock
from typing import Any

from sqlalchemy import Engine

from node import document, frame
from node.frame import FrameError, Seal
from outpost.gateway import commands, documents, intake, rollouts, wire
from outpost.gateway.keys import Keys

REASONS = 100  # told apart
log = logging.getLogger(__name__)

Answer = tuple[int, bytes]  # node, frame


class Desk:
    """`clock` gives the time that nodes are told, in seconds since 1970; None tells them none."""

    def __init__(self, engine: Engine, keys: Keys | None = None,
                 clock: Callable[[], float] | None = time.time) -> None:
        self._engine = engine
        self._keys = keys or Keys(engine)
        self._clock = clock
        # SQLite has one writer at a time, and lets others wait by sleeping
        self._turn: AbstractContextManager[Any] = (
            Lock() if engine.dialect.name == "sqlite" else nullcontext())
        self.refused: Counter[str] = Counter()  # frames, by reason
        self.taken = 0  # frames
        self.records = 0  # in them

    def take(self, frames: Iterable[bytes]) -> list[Answer]:
        """Store what frames carry, all in one transaction; return the answers, in order.

        What is damaged, forged, of another version or of an unknown node changes nothing; it is
        counted by reason.
        """
        messages: list[wire.Message] = []
        seals: dict[int, Seal] = {}
        frames = list(frames)
        self._keys.learn(dict.fromkeys(int.from_bytes(data[1:5], "little") for data in frames))
        for data in frames:
            try:
                message, seal = self._open(data)
            except FrameError as error:
                self._refuse(str(error))
                continue
            messages.append(message)
            seals[message.node] = seal
        if not messages:
            return []
        self.taken += len(messages)
        batch = [one for one in messages if isinstance(one, wire.Records | wire.Part)]
        beats = [one for one in messages if isinstance(one, wire.Heartbeat)]
        asking = [beat for beat in beats if beat.ask is not None]
        with self._turn, self._engine.begin() as db:
            heads = intake.store(db, batch)
            for beat in beats:
                intake.hear(db, beat)
            rollouts.heed(db, batch)
            commands.heed(db, batch)
            offers = rollouts.offers(db, beats)
            pieces = [(one, *rollouts.pieces(db, one)) for one in messages
                      if isinstance(one, wire.Want)]
            for one in messages:
                if isinstance(one, wire.Document):
                    documents.learn(db, one.piece, time.time())
            wanted = documents.load(db, {beat.node for beat in asking}) if asking else {}
            orders = commands.waiting(db, {beat.node for beat in asking}) if asking else {}
        mine: dict[int, list[tuple[int, int, int]]] = {}
        for (node, lane, epoch), head in heads.items():
            mine.setdefault(node, []).append((lane, epoch, head))
        self.records += sum(len(one.records) for one in batch if isinstance(one, wire.Records))
        answers = [(node, one) for node, heads_of in mine.items()
                   for one in wire.acknowledgements(seals[node], node, heads_of)]
        for beat in asking:
            answers += [(beat.node, one)
                        for one in self._answer(beat.ask, seals[beat.node], beat.node,
                                                wanted[beat.node], orders.get(beat.node, ()),
                                                offers.get(beat.node))]
        for want, total, found in pieces:
            answers += [(want.node, wire.package(seals[want.node], want.node, want.number, total,
                                                 offset, data)) for offset, data in found]
        return answers

    def _answer(self, ask: wire.Ask, seal: Seal, node: int, wanted: documents.Changes,
                orders: Iterable[tuple[int, int, bytes]], offer: rollouts.Offer | None
                ) -> Iterator[bytes]:
        """Yield all there is for a node that asks; TIME, which ends it, comes last."""
        if ask.settings != document.crc(wanted) != ask.refused:
            yield from wire.document_pieces(seal, ask, node, document.text(wanted))
        for number, code, argument in orders:
            if number > ask.order:
                yield wire.command(seal, node, ask.nonce, number, code, argument)
        if offer is not None:
            yield wire.offer(seal, node, ask.nonce, offer.number, offer.total, offer.forced)
        yield wire.time(seal, node, ask.nonce, int(self._clock()) if self._clock else 0)

    def _refuse(self, reason: str) -> None:
        if reason not in self.refused:
            if len(self.refused) == REASONS:
                reason = "other reasons"
            log.warning("refused: %s", reason)
        self.refused[reason] += 1

    def _open(self, data: bytes) -> tuple[wire.Message, Seal]:
        kind, node = frame.identify(data)
        seal = self._keys.seal(node)
        if seal is None:
            raise FrameError("frame of a node that was never provisioned")
        try:
            seal.open(data)
        except FrameError:
            seal = self._keys.seal(node, afresh=True)
            assert seal is not None
            seal.open(data)
        return wire.read(kind, data), seal
