"""Settings changed by the gateway on real MicroPython: from the next wake on, and cut anywhere."""

import json

from desk import Board, done, wake
from disk import blank, cut_everywhere, on
from node import document, sync
from node.frame import DOCUMENT, HEARTBEAT, SETTINGS
from node.outbox import EVENT
from node.record import SETTING
from node.settings import Settings
from node.state import State
from ram import outbox


def meet(board):
    """Wakes until one with an uplink is over."""
    wake(board)
    while not board.sent(HEARTBEAT):
        wake(board)


# a session brings them, the next wake lives by them

board = Board()
wake(board)
assert Settings("settings.json").wake_s == 60
whole = document.text({"wake_s": [2, 300], "uplink_s": [2, 900]})
board.down = [(SETTINGS, document.crc32(whole).to_bytes(4, "little")
               + len(whole).to_bytes(2, "little") + at.to_bytes(2, "little")
               + whole[at:at + 20]) for at in range(0, len(whole), 20)]
meet(board)
assert Settings("settings.json").changes == {"wake_s": [2, 300], "uplink_s": [2, 900]}
assert not board.sent(DOCUMENT)  # the gateway knows it all
wake(board)
slept_s = [wake(board), wake(board)]
assert max(slept_s) > 240, slept_s
assert board.state().refused == 0

# the node's own are told in return

import node  # noqa: E402

node.change(state_s=3600)
for name, value in (("wake_s", 1), ("model", None), ("nonsense", 1)):
    try:
        node.change(**{name: value})
        raise AssertionError(name)
    except ValueError as error:
        assert name in str(error), error
meet(board)
assert board.sent(DOCUMENT)
assert Settings("settings.json").changes == {
    "wake_s": [2, 300], "uplink_s": [2, 900], "state_s": [3, 3600]}

# what breaks a rule is told, once

whole = document.text({"wake_s": [4, 1]})
board.down = [(SETTINGS, document.crc32(whole).to_bytes(4, "little")
               + len(whole).to_bytes(2, "little") + bytes(2) + whole)]
meet(board)
meet(board)
assert board.state().refused == document.crc32(whole)
assert Settings("settings.json").wake_s == 300
told = [payload for _, _, kind, payload in board.records(EVENT) if kind == SETTING]
assert told == [b"\x00\x02\x04\x00\x00\x001"], told
board.down = []

# old or new, whatever is cut

start = blank()


def begin():
    with open("settings.json", "w") as file:
        json.dump({"wake_s": 60, "post": [1] * 15}, file)


def take():
    now = Settings("settings.json")
    whole = document.text({"wake_s": [2, 300], "post": [2, [2] * 15]})
    assert not sync.take(whole, 1, now, State(), outbox(), 0)


def look():
    now = Settings("settings.json")
    assert now.problem is None, now.problem
    assert (now.wake_s, now.post) in ((60, [1] * 15), (300, [2] * 15)), (now.wake_s, now.post)
    take()  # and it can be done again
    assert Settings("settings.json").wake_s == 300


on(start, begin)
cuts = cut_everywhere(start, take, look)
assert cuts >= 4, cuts
done()
