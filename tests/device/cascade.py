"""Gate, main, heavy: who is asked in which mode, what is told of it, and what it spares."""

from desk import Board, done, wake
from node.latency import BOOT, CAPTURE, INFER, POST, PRE, STORE, UPLINK
from node.modes import DEGRADED
from node.outbox import DIAGNOSTIC, TELEMETRY
from node.record import (
    BY_GATE,
    BY_LARGE,
    BY_MAIN,
    EVENT,
    FEATURES,
    MEANS,
    MODEL_REFUSED,
    PART,
    READING,
    WINDOW,
)

GATE = {"samples": 16, "channels": [0, 2], "span": 100, "class": 2}
MODEL = {"name": "fake", "crc32": 0, "abi": 1, "window": 64, "channels": 6, "features": 2,
         "classes": 3}
LARGE = dict(MODEL, name="fake_large")


def readings(board):
    return [payload for _, _, kind, payload in board.records(TELEMETRY) if kind == READING]


def windows(board):
    return [(time_s, payload) for _, time_s, kind, payload in board.records(DIAGNOSTIC)
            if kind == WINDOW]


# --- the gate: a still window ends early, costs less, and is decided without main ---

board = Board(gate=GATE, post=[1, 1, 1])
board.value = lambda row: row * 6  # 90 in 16 samples, 378 in 64
wake(board)
assert board.laps == [BOOT, CAPTURE, POST, STORE, UPLINK] and board.model.asked == 0
assert board.decisions() == [bytes((2, 255, 2, BY_GATE))] and not readings(board)
assert board.doze_us == 16 * 80000
cheap = board.state().energy.today[CAPTURE]
state = board.state()
assert state.decision == 2 and state.history[0] == 2

board.value = lambda row: row * 7  # 105 in 16 samples
wake(board)
assert board.laps == [BOOT, CAPTURE, PRE, INFER, POST, STORE] and board.model.asked == 1
assert board.decisions()[-1] == bytes((0, 204, 2, BY_MAIN))
assert board.doze_us == 64 * 80000
assert board.state().energy.today[CAPTURE] - cheap > 2 * cheap

# the gate looks at its own samples only: what comes later is main's business
board.value = lambda row: 0 if row < 16 else 30000
wake(board)
assert board.model.asked == 1 and board.state().decision == 2

# --- heavy: an unsure window goes up whole, in parts; a sure one stays ---

board = Board(unsure=60)
board.value = lambda row: row - 5
board.model.votes = [4, 3, 3]  # 1 of 10 apart: 25 of 255
wake(board)
parts = windows(board)
size = 2 * 64 * 6
assert len(parts) == (size + PART - 1) // PART == 4
assert [payload[:2] for _, payload in parts] == [bytes((n, 4)) for n in range(4)]
data = b"".join([payload[2:] for _, payload in parts])
assert len(data) == size and data[:12] == b"\xfb\xff" * 6 and data[-12:] == b"\x3a\0" * 6
assert {time_s for time_s, _ in parts} == {1000}
assert [time_s for _, time_s, kind, _ in board.records(TELEMETRY)][-1] == 1000  # its decision
board.model.votes = [5, 3, 2]  # 51 of 255: still unsure
wake(board)
assert len(windows(board)) == 8
board.model.votes = [5, 2, 2]  # 85 of 255
wake(board)
board.model.votes = [1, 6, 3]  # the winner is not the first
wake(board)
assert len(windows(board)) == 8 and board.decisions()[-1][0] == 1
# a tie is as unsure as can be; only so many go up between two uplinks
board.model.votes = [5, 5, 0]
for _ in range(12):
    wake(board)
    if board.laps[-1] == UPLINK:
        break
    assert len(windows(board)) <= (1 + 8) * 4  # one went up at power on
assert board.laps[-1] == UPLINK and board.state().windows == 0
assert len(windows(board)) == (1 + 8) * 4
wake(board)
assert board.state().windows == 1
# nobody asks for it: 0 is never
board = Board()
board.model.votes = [5, 5, 0]
wake(board)
assert not windows(board)

# --- without a link: gate and the larger model, and no window waits for a heavy one ---

board = Board(gate=GATE, unsure=255, large=LARGE)
board.value = lambda row: row * 7
board.linked = False
while board.state().modes.mode != DEGRADED if board.kept else True:
    wake(board)
asked, many = board.large.asked, len(windows(board))
wake(board)
assert board.large.asked == asked + 1 and len(windows(board)) == many
assert board.decisions()[-1][0] == 1 and board.decisions()[-1][3] == DEGRADED << 4 | BY_LARGE
board.value = 0
wake(board)
assert board.large.asked == asked + 1 and board.decisions()[-1][3] == DEGRADED << 4 | BY_GATE
# and without a larger one it is main
board = Board(gate=GATE)
board.value = lambda row: row * 7
board.linked = False
while board.state().modes.mode != DEGRADED if board.kept else True:
    wake(board)
wake(board)
assert board.model.asked and board.decisions()[-1][3] == DEGRADED << 4 | BY_MAIN

# --- a refused model costs its own decisions; the other one is checked on its own ---

board = Board(large=dict(LARGE, abi=7))
board.value = 3
wake(board)
assert board.decisions()[-1][3] == BY_MAIN and board.state().verified == 1 << BY_MAIN
board.linked = False
while board.state().modes.mode != DEGRADED:
    wake(board)
wake(board)
assert (MODEL_REFUSED, 4, 1) in board.events() and board.state().verified == 1 << BY_MAIN
many = len(board.decisions())
wake(board)
assert len(board.decisions()) == many and INFER not in board.laps
while not readings(board) or readings(board)[-1][0] != MEANS:
    wake(board)
assert readings(board)[-1] == bytes((MEANS,)) + b"\x03\0" * 6
board.linked = True
while INFER not in board.laps:
    wake(board)
assert (MODEL_REFUSED, 0, 0) in board.events() and board.decisions()[-1][3] == BY_MAIN
assert FEATURES == BY_MAIN and EVENT == 3
done()
