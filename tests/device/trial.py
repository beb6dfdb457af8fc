"""Settings with a new model on trial: kept after so many good wakes, undone by a bad one."""

import json
import os
import sys

from desk import SETTINGS, Board, Fake, wake
from node import model, update
from node.board import BROWNOUT, TIMER, WATCHDOG
from node.latency import UPLINK
from node.outbox import EVENT
from node.record import SETTING, UNDONE, UPDATE
from node.settings import Settings
from node.verdict import CRASHED, CUT_OFF, FAILED, KEPT, LATE

OLD, NEW = dict(SETTINGS["model"], version=1), dict(SETTINGS["model"], name="slot_a", version=2)


def begin(trial=3, changes=None, **settings):
    board = Board(model=OLD, **settings)
    wake(board)
    try:
        os.mkdir("models")
    except OSError:
        pass
    update.begin(changes or {"model": NEW}, trial)
    sys.modules["slot_a"] = board.model
    return board


def stands():
    with open("settings.json") as file:
        given = json.load(file)
    return given["model"]["name"], given.get("trial", 0)


def told(what, number=0):
    """The event: the version's low byte, and the package's number."""
    return UPDATE, what, 2, number, 0, 0, 0


# three good wakes, and it is kept
board = begin()
for _ in range(2):
    wake(board)
    assert stands() == ("slot_a", 3) and not board.events(UPDATE)
wake(board)
assert stands() == ("slot_a", 0)
assert board.events(UPDATE) == [told(KEPT)]
assert "settings.old" not in os.listdir()
wake(board)
assert board.events(UPDATE) == [told(KEPT)]

# a reset by the watchdog undoes it, and the wake goes on with the old one
board = begin()
wake(board)
board.cause = WATCHDOG
wake(board)
assert stands() == ("fake", 0) and board.events(UPDATE) == [told(CRASHED)]
assert len(board.decisions()) == 3

# so does a model that does not load any more
board = begin()
wake(board)
load = model.load


def refuse(spec, verified=False):
    if spec["name"] == "slot_a":
        raise model.Refused(model.CORRUPT)
    return load(spec, verified)


model.load = refuse
wake(board)
assert stands() == ("fake", 0) and board.events(UPDATE) == [told(FAILED)]
model.load = load

# and one that raises
board = begin()
votes = Fake.predict


def fail(self, features, votes):
    raise RuntimeError("a bug")


Fake.predict = fail
wake(board)
Fake.predict = votes
assert stands() == ("fake", 0) and board.events(UPDATE) == [told(FAILED)]

# a brown-out is not the model's fault: it begins to count again
board = begin()
wake(board)
wake(board)
board.cause = BROWNOUT
board.kept = b""
for _ in range(2):
    wake(board)
    board.cause = TIMER
    assert stands() == ("slot_a", 3)
wake(board)
assert stands() == ("slot_a", 0)

# a wake whose sensor is silent proves nothing either way
board = begin(1)
board.silent = True
wake(board)
assert stands() == ("slot_a", 1) and not board.events(UPDATE)

# what came by radio is kept once an uplink has gone well with it
board = begin(changes={"model": dict(NEW, package=7)})
while board.state().uplink_s > board.now_s():
    assert stands() == ("slot_a", 3)
    wake(board)
wake(board)
assert board.laps[-1] == UPLINK
assert stands() == ("slot_a", 0) and board.events(UPDATE) == [told(KEPT, 7)]

# --- settings of the gateway, the same way ---


def settings(trial=3, changes=None, **more):
    return begin(trial, {"document": 99, "changes": changes or {"unsure": [2, 9]}}, **more)


def undone(board):
    """Why, and whether the node knows what not to take again."""
    told = [payload for _, _, kind, payload in board.records(EVENT) if kind == SETTING]
    assert all(payload[0] == UNDONE for payload in told)
    now = Settings("settings.json")
    if told:
        assert board.state().refused == 99 and not now.trial and not now.document
    return [int(payload[6:]) for payload in told], now.changes


board = settings()
while Settings("settings.json").trial:
    wake(board)
assert board.laps[-1] == UPLINK and undone(board) == ([], {"unsure": [2, 9]})
assert Settings("settings.json").document == 0 and board.state().refused == 0

# a window that the model does not know
board = settings(changes={"window": [2, 32]})
wake(board)
assert undone(board) == ([FAILED], {}) and len(board.decisions()) == 1
wake(board)
assert len(board.decisions()) == 2

# a deadline that leaves no time for one
board = settings(changes={"awake_ms": [2, 2000]})
wake(board)
assert undone(board) == ([LATE], {})

# a wake that ends in a reset
board = settings()
board.cause = WATCHDOG
wake(board)
assert undone(board) == ([CRASHED], {})

# nobody answers any more; but an outage later is no reason
board = settings(changes={"uplink_s": [2, 60]}, uplink_most_s=60)
board.linked = False
while not undone(board)[0]:
    assert board.state().unlinked < 3
    wake(board)
assert undone(board) == ([CUT_OFF], {})
board = settings(100, changes={"uplink_s": [2, 60]}, uplink_most_s=60)
while not board.state().trial & 128:
    wake(board)
board.linked = False
while Settings("settings.json").trial:
    wake(board)
assert board.state().unlinked > 3 and undone(board) == ([], {"uplink_s": [2, 60]})

# later ones while these are on trial: both go together
board = settings()
wake(board)
update.begin({"document": 99, "changes": {"unsure": [4, 8], "window": [4, 32]}})
wake(board)
assert undone(board) == ([FAILED], {})

for name in ("settings.json", "settings.old"):
    if name in os.listdir():
        os.remove(name)
os.rmdir("models")
print("OK")
