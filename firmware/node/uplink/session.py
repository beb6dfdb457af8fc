# One meeting with the gateway: a heartbeat, then records by priority until none waits, several
# frames on their way at a time; meanwhile whatever comes down, and last a model package.
# Bytes: docs/frame-format.md

import errno
import sys

from micropython import const

from node import document, downlink, heartbeat
from node.batch import Batch
from node.frame import (
    ACK,
    COMMAND,
    LONGEST,
    OFFER,
    PACKAGE,
    SETTINGS,
    TIME,
    FrameError,
    Seal,
    identify,
)
from node.outbox import DIAGNOSTIC, LANES

_AROUND = const(200)  # bytes around a frame, and of what answers it
_SLACK_S = const(2)  # what the way of an answer may take
_STALE = const(32)  # frames without news in a row are as good as silence


class Session:
    def __init__(self, board, settings, state, outbox, link):
        self._board, self._settings, self._state = board, settings, state
        self._outbox, self._link = outbox, link
        self._node = board.node_id
        self._most_us = state.energy.link_us(settings)
        self._seal = Seal(board.key)
        self._buf = bytearray(min(link.size, settings.frame))
        self._view = memoryview(self._buf)
        self._back = bytearray(LONGEST)
        self._flying = []  # [lane, last sequence] of frames that are not acknowledged
        self._nonce = board.random32()
        self._welcome = False  # the gateway has said all that it had to say
        self._offer = self._fetch = None  # a model package
        self._pieces = document.Pieces()
        self._since_s = None  # of what time each lane's oldest record is, if bytes are counted

    def hold(self):
        """Raises OSError when the other side is gone or answers nothing, Late when it is time."""
        if not self._board.key:
            raise OSError(errno.EACCES)  # nobody would believe a word
        try:
            for _ in range(self._link.tries):
                if self._attempt():
                    return
            raise OSError(errno.ETIMEDOUT)
        finally:
            self._outbox.settle()
            self._hold_back()

    def _attempt(self):
        # True if all is said, or as much as the time was enough for.
        outbox = self._outbox
        outbox.rewind()
        self._flying.clear()
        if not self._welcome:
            self._greet()
            self._state.hello = min(self._link.carried, 0xFFFF)
        batch = Batch(self._buf, self._node, self._seal)
        more, heard = True, False
        while self._left_ms() > 0:
            while more and (len(self._flying) < self._link.window or outbox.offset):
                more = self._next(batch)
            if not self._flying and not more and self._welcome:
                if self._offer:
                    self._take_up()
                return True
            if self._listen():
                more = heard = True  # what came may have left something to say
            elif self._left_ms() > 0:
                return False
        self._board.hurry()
        return heard

    def _left_ms(self):
        # The deadline of the wake, and what the radio may take of it.
        board = self._board
        return min(board.left_ms(), (self._most_us - board.radio_us) // 1000)

    # --- out ---

    def _greet(self):
        ring = self._outbox.lanes[DIAGNOSTIC]
        frames = heartbeat.Heartbeat(self._buf, self._node, self._seal, ring.epoch, ring.next_seq,
                                     self._state.wakes)
        for size in frames.frames(self._items()):
            self._send(size)

    def _items(self):
        board, state = self._board, self._state
        yield from heartbeat.condition(board, self._settings, state,
                                       self._outbox)
        yield heartbeat.model(getattr(sys.implementation, "_mpy", 0) >> 10 & 15,
                              self._settings.model, self._settings.trial)
        yield heartbeat.ask(self._nonce, board.now_s(), document.crc(self._settings.changes),
                            state.refused, len(self._buf), state.order)

    def _next(self, batch):
        self._affords(1)
        size, lane, seq = self._outbox.batch(batch)
        if size:
            self._send(size)
            if [lane, seq] not in self._flying:  # the parts of a record count once
                self._flying.append([lane, seq])
        return size

    def _affords(self, frames):
        """Bar the lanes that today's bytes are not enough for; are they for the last lane?"""
        day_bytes = self._settings.day_bytes
        if not day_bytes:
            return True
        from node.budget import barred

        outbox = self._outbox
        if self._since_s is None:
            self._since_s = [outbox.since_s(lane) for lane in range(LANES)]
        outbox.barred = barred(
            day_bytes, day_bytes - self._state.spent - self._link.carried,
            frames * (len(self._buf) + _AROUND), self._board.now_s(), self._since_s)
        return not outbox.barred >> DIAGNOSTIC & 1

    def _hold_back(self):
        outbox, held = self._outbox, 0
        for lane in range(LANES):
            if outbox.barred >> lane & 1:
                ring = outbox.ring(lane)
                held += ring.next_seq - 1 - ring.acked
        self._state.held = min(held, 0xFFFF)
        outbox.barred = 0

    def _send(self, size):
        self._link.send(self._view[:size])

    def _take_up(self):
        # The records are home: what is left of the time may go to the package, as long as it is
        # enough to ask, and to wait in vain for the last piece.
        from node.fetch import Fetch

        fetch, link = Fetch(self._offer), self._link
        if not fetch.welcome(self._settings, self._state):
            return
        self._fetch, tries = fetch, link.tries
        try:
            while (fetch.have < fetch.total and tries and self._left_ms() > 2 * link.patience_ms
                   and self._affords(link.ahead)):
                before = fetch.have
                self._send(fetch.want(self._buf, self._node, self._seal, link.ahead))
                while (fetch.have < fetch.until and self._left_ms() > link.patience_ms
                       and self._listen()):
                    pass
                tries = link.tries if fetch.have > before else tries - 1
        finally:
            fetch.close(self._state)

    # --- in ---

    def _listen(self):
        """Take what comes until something is news; False if nothing is."""
        for _ in range(_STALE):
            wait_ms = min(self._link.patience_ms, self._left_ms())
            size = self._link.receive(self._back, wait_ms) if wait_ms > 0 else 0
            if size == 0:
                return False
            frame = memoryview(self._back)[:size]
            try:
                kind, node = identify(frame)
                if node == self._node:
                    self._seal.open(frame)
                    if self._take(kind, downlink.read(kind, frame)):
                        self._board.feed()
                        return True
            except FrameError:
                pass  # noise, or somebody else's, or forged: as if it had not come
        return False

    def _take(self, kind, body):
        """True if it was news: a replayed frame must not keep the node awake."""
        if kind == ACK:
            for lane, epoch, seq in body:
                self._outbox.acknowledge(lane, epoch, seq)
            flying, acked = self._flying, self._outbox.acked
            self._flying = [one for one in flying if one[1] > acked[one[0]]]
            return len(self._flying) < len(flying)
        if kind == SETTINGS and body[0] == self._nonce:
            whole = self._pieces.add(*body[1:])
            if whole:
                self._change(whole, body[1])
            return whole is not None
        if kind == TIME and body[0] == self._nonce and not self._welcome:
            self._welcome = True
            if body[1]:
                self._set_clock(body[1])
            return True
        if kind == COMMAND and body[0] == self._nonce and body[1] > self._state.order:
            from node import orders

            outbox = self._outbox
            orders.obey(self._board, self._settings, self._state, outbox, *body[1:])
            # What is to come again is no longer on its way.
            self._flying = [one for one in self._flying if one[1] <= outbox.sent[one[0]]]
            return True
        if kind == OFFER and body[0] == self._nonce and not self._offer:
            self._offer = body[1:]
            return True
        return kind == PACKAGE and self._fetch is not None and self._fetch.take(*body)

    def _set_clock(self, time_s):
        board, state = self._board, self._state
        before_s = board.now_s()
        if abs(time_s - before_s) > _SLACK_S:
            board.set_clock(time_s - before_s)
            from node import summary

            summary.clock(state, self._outbox, before_s, board.now_s())

    def _change(self, whole, crc):
        from node import sync  # seldom, and no wake without an uplink needs it

        board, settings = self._board, self._settings
        if sync.take(whole, crc, settings, self._state, self._outbox, board.now_s()):
            for size in document.frames(self._buf, self._node, self._seal, settings.changes):
                self._send(size)
