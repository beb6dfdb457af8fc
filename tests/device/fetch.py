"""A package that is offered: when a node asks for it, how far it goes, and what it does not."""

import os
from struct import pack, unpack_from

from desk import MODEL, Board, done, wake
from node import fetch, orders
from node.frame import COMMAND, HEAD, HEARTBEAT, OFFER, PACKAGE, WANT
from node.modes import CRITICAL, SAFE
from node.outbox import EVENT
from node.record import DEADLINE_MISSED, UPDATE
from node.verdict import NO_KEY

CONTENT = bytes([number * 7 & 255 for number in range(5000)])  # nobody signed it


class Offering(Board):
    """A board whose gateway offers a package; `wants` are the offsets it was asked for."""

    lost = ()  # pieces that get lost on the way, by how many had been sent

    def __init__(self, number=7, flags=0, **settings):
        super().__init__(**settings)
        self.down = ((OFFER, pack("<IIB", number, len(CONTENT), flags)),)
        self.number, self.wants, self.pieces = number, [], 0

    def send(self, data):
        if data[0] & 15 != WANT:
            return super().send(data)
        number, first, size, count = unpack_from("<IIHB", data, HEAD)
        assert number == self.number and first < len(CONTENT)
        self.transmit(len(data) * 8)
        self.wants.append(first)
        for at in range(first, min(first + count * size, len(CONTENT)), size):
            if self.pieces not in self.lost:
                self.answer(PACKAGE, pack("<III", number, len(CONTENT), at)
                            + CONTENT[at:at + size])
            self.pieces += 1


def meet(board):
    """Wakes until one with an uplink is over; the offsets that were asked for in it."""
    first = len(board.wants)
    wake(board)
    while not board.sent(HEARTBEAT):
        wake(board)
    return board.wants[first:]


def files():
    return sorted(name for name in os.listdir("models")) if "models" in os.listdir() else []


def clean():
    for name in files():
        os.remove("models/" + name)


# all of it in one session, piece by piece: the link takes one at a time

board = Offering()
wants = meet(board)
piece = board.size - 27
assert wants == list(range(0, len(CONTENT), piece)), wants
assert files() == ["new.pkg", "offer"] and board.state().package == 1
with open("models/new.pkg", "rb") as file:
    assert file.read() == CONTENT
# the next wake refuses it, says so, and nobody asks again
wake(board)
told = [tuple(payload) for payload in board.events(UPDATE)]
assert told == [(UPDATE, NO_KEY, 0, 7, 0, 0, 0)], told
assert files() == ["offer"] and board.state().package == 0
assert meet(board) == [] and len(board.decisions()) > 2
clean()

# pieces that get lost are asked for again, once as often as the link is worth it

board = Offering()
board.lost = (3, 4, 9)
wants = meet(board)
got = list(range(0, len(CONTENT), piece))
assert wants == got[:4]  # this link has one try: the rest comes the next time
assert files() == ["offer", "part.pkg"] and not board.state().package
while not board.state().package:
    meet(board)
assert board.wants == got[:4] + [got[3]] + got[3:8] + got[7:], board.wants
clean()

# no deadline is missed for it, and what has come is kept


class Slow(Offering):
    def send(self, data):
        super().send(data)
        if data[0] & 15 == WANT:
            self.transmit(2500000)


board = Slow()
sessions, whole = 0, False
while not whole:
    meet(board)
    sessions += 1
    assert board.wants == got[:len(board.wants)], board.wants
    whole = board.state().package
assert sessions > 3 and not board.events(DEADLINE_MISSED), sessions
clean()

# another one in the middle of it: from the beginning

board = Slow()
meet(board)
assert 0 < len(board.wants) < len(got)
board.number = 8
board.down = ((OFFER, pack("<IIB", 8, len(CONTENT), fetch.FORCED)),)
assert meet(board)[0] == 0 and fetch.noted() == (8, len(CONTENT), fetch.FORCED)
clean()

# not in CRITICAL; in SAFE, where it may be what the node is waiting for

board = Offering(critical_pct=90)
board.mv = 3000
assert meet(board) == [] and board.state().modes.mode == CRITICAL
board = Offering()
offer = board.down
board.down = ((COMMAND, pack("<IB", 1, orders.SAFE)),)
meet(board)
board.down = offer
assert len(meet(board)) == len(got) and board.state().modes.mode == SAFE
wake(board)
assert board.events(UPDATE)[0][1] == NO_KEY
clean()

# not while something is on trial, and not what is there already

board = Offering(trial=100)
assert meet(board) == []
board = Offering(model=dict(MODEL, package=7))
assert meet(board) == []
assert files() == [] and EVENT == 1

if "models" in os.listdir():
    os.rmdir("models")
for name in ("settings.old",):
    if name in os.listdir():
        os.remove(name)
done()
