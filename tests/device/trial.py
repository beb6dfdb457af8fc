"""Settings with a new model on trial: kept after so many good wakes, undone by a bad one."""

import json
import os
import sys

from desk import SETTINGS, Board, Fake, wake
from node import model, update
from node.board import BROWNOUT, TIMER, WATCHDOG
from node.record import UPDATE
from node.verdict import CRASHED, FAILED, KEPT

OLD, NEW = dict(SETTINGS["model"], version=1), dict(SETTINGS["model"], name="slot_a", version=2,
                                                    package=0x01020304)


def begin(trial=3):
    board = Board(model=OLD)
    wake(board)
    try:
        os.mkdir("models")
    except OSError:
        pass
    update.begin({"model": NEW}, trial)
    sys.modules["slot_a"] = board.model
    return board


def stands():
    with open("settings.json") as file:
        given = json.load(file)
    return given["model"]["name"], given.get("trial", 0)


def told(what):
    """The event: the version's low byte, and the package's number."""
    return UPDATE, what, 2, 4, 3, 2, 1


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

for name in ("settings.json", "settings.old"):
    if name in os.listdir():
        os.remove(name)
os.rmdir("models")
print("OK")
