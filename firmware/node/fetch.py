# A model package by radio: the gateway offers one, the node asks for what it lacks, a few pieces
# at a time, and keeps them over sleeps and resets. It is checked and put on trial in the wake
# after: package.py. Only wakes with an offer or a package import this. Bytes: docs/frame-format.md

import os
from struct import calcsize, pack, pack_into, unpack

from micropython import const

from node import identity, package, record
from node.frame import HEAD, TAIL, WANT
from node.model import FOLDER
from node.modes import CRITICAL
from node.outbox import EVENT
from node.verdict import ON_TRIAL

FORCED = const(1)  # an older version, too
_DONE = const(2)  # it was installed or refused, and is not wanted again

_PART = FOLDER + "/part.pkg"  # what has come of it, without gaps
_NOTE = FOLDER + "/offer"  # which it is
_NEW_NOTE = FOLDER + "/offer.new"
_FORMAT = "<IIB"  # number, bytes, flags
_PIECE = const(12)  # of a frame, before a piece


def noted():
    """Return (number, bytes, flags) of the package that was last offered and taken up."""
    try:
        with open(_NOTE, "rb") as file:
            text = file.read()
    except OSError:
        text = b""
    return unpack(_FORMAT, text) if len(text) == calcsize(_FORMAT) else (0, 0, 0)


def _note(number, total, flags):
    with open(_NEW_NOTE, "wb") as file:
        file.write(pack(_FORMAT, number, total, flags))
    os.rename(_NEW_NOTE, _NOTE)


class Fetch:
    """What has come of the package that is offered, and what is asked for next."""

    def __init__(self, offer):
        self.number, self.total, self._flags = offer
        self.have = self.until = 0
        self._file = None

    def welcome(self, settings, state):
        """Whether it is worth asking for; False as well when it is all there already.

        In CRITICAL there is no energy for it. In SAFE it may be what the node is waiting for.
        """
        spec = settings.model
        if (state.modes.mode == CRITICAL or settings.trial
                or spec and spec.get("package") == self.number):
            return False
        known = noted()
        if known[0] != self.number:
            self._forget()
            _note(self.number, self.total, self._flags & FORCED)
        elif known[2] & _DONE:
            return False
        elif package.waits():
            state.package = 1
            return False
        self.have = _size(_PART)
        self._file = open(_PART, "ab")
        return True

    def _forget(self):
        package.clear()
        for path in (_PART, _NOTE):
            try:
                os.remove(path)
            except OSError:
                pass
        if FOLDER not in os.listdir():
            os.mkdir(FOLDER)

    def want(self, buf, node, seal, window):
        """Lay out the frame that asks for the next `window` pieces; return its length."""
        room = len(buf) - HEAD - TAIL - _PIECE
        self.until = min(self.total, self.have + window * room)
        at = seal.begin(buf, WANT, node)
        pack_into("<IIHB", buf, at, self.number, self.have, room, window)
        return seal.close(buf, at + 11)

    def take(self, number, total, offset, data):
        """Keep a piece; True if it was the next. After a lost one the rest is asked for again."""
        if number != self.number or offset != self.have or total != self.total:
            return False
        self._file.write(data)
        self.have += len(data)
        if self.have >= self.until:
            self._file.flush()  # power may go at any time
        return True

    def close(self, state):
        """What has come is on flash; whole, it waits for the next wake."""
        self._file.close()
        if self.have == self.total:
            os.rename(_PART, package.NEW)
            state.package = 1


def _size(path):
    try:
        return os.stat(path)[6]
    except OSError:
        return 0


def install(wake):
    """Put the package that has come on trial, or tell why not; the gateway hears either."""
    state = wake.state
    if state.modes.mode == CRITICAL:
        return  # it can wait
    state.package = 0
    if wake.settings.trial or not package.waits():
        return
    number, total, flags = noted()
    why, version = ON_TRIAL, 0
    try:
        manifest = package.install(wake.settings, identity.trusted(), flags & FORCED, number)
        version = manifest["version"]
        state.trial = state.verified = 0
    except package.Refused as refused:
        why = refused.args[0]
    wake.tell(EVENT, record.EVENT, pack(record.UPDATE_FORMAT, record.UPDATE, why, version & 255,
                                        number))
    _note(number, total, flags | _DONE)
