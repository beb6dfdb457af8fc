"""What the gateway tells a node on real MicroPython: the time, and what to do."""

from struct import pack, unpack

from desk import SETTINGS, Board, done, wake
from node import orders
from node.board import TIMER
from node.frame import COMMAND, HEARTBEAT
from node.modes import FULL, ORDERED, OVER, SAFE
from node.outbox import DIAGNOSTIC, EVENT, TELEMETRY
from node.record import CLOCK, DAY, MODE_CHANGED, RESULT, STATE


def meet(board, *down):
    """Wakes until one with an uplink is over, in which `down` comes."""
    board.down = down
    wake(board)
    while not board.sent(HEARTBEAT):
        wake(board)
    board.down = ()


def told(board, kind, lane):
    return [payload for _, _, found, payload in board.records(lane) if found == kind]


def results(board):
    return [(unpack("<HBB", payload[:4]), payload[4:].decode()) for payload in
            told(board, RESULT, EVENT)]


def command(number, code, argument=b""):
    return COMMAND, pack("<IB", number, code) + argument


# --- the time ---

board = Board()
meet(board)
assert not told(board, CLOCK, DIAGNOSTIC)  # nobody told it any
for _ in range(3):
    wake(board)
spent_mj = board.state().energy.spent_nj // 1000000
board.tells_s = 1767600000
before_s = board.now_s()
meet(board)
assert abs(board.now_s() - 1767600000) < 120
(clock,) = told(board, CLOCK, DIAGNOSTIC)
showed_s, by_s, since_s = unpack("<IiI", clock)
assert before_s <= showed_s < before_s + 700 and showed_s + by_s == 1767600000 and since_s == 0
# nothing else noticed: the pace, the ledger, what was due
for _ in range(3):
    assert 30 < wake(board) <= 60
energy = board.state().energy
assert energy.spent_nj // 1000000 - spent_mj < 2000 and not told(board, DAY, DIAGNOSTIC)
assert board.state().unlinked == 0 and board.state().uplink_s - board.now_s() <= 600
assert len(told(board, STATE, DIAGNOSTIC)) == 1

# a clock that is right to two seconds is left alone
for off_s in (-2, 0, 2):
    board.tells_s = 0
    while board.state().uplink_s > board.now_s() + 61:
        wake(board)
    board.tells_s = board.now_s() + 60 + off_s
    meet(board)
count = len(told(board, CLOCK, DIAGNOSTIC))
# and one that loses 1 % is set each time, and how wrong it was is on record
board.tells_s = 0
for _ in range(4):
    real_s = board.now_s()
    attempts = len(board.attempts)
    while len(board.attempts) == attempts:
        began_s = board.now_s()
        board.tells_s = began_s + (began_s - real_s) // 99 + 6
        wake(board)
    real_s = board.now_s()
clocks = [unpack("<IiI", one) for one in told(board, CLOCK, DIAGNOSTIC)[count:]]
assert len(clocks) == 4 and all(by_s > 2 for _, by_s, _ in clocks), clocks
assert all(500 < since_s < 800 for _, _, since_s in clocks[1:]), clocks

# --- what to do: each once ---

board = Board()
meet(board)
states = len(told(board, STATE, DIAGNOSTIC))
meet(board, command(5, orders.REPORT), command(5, orders.REPORT), command(4, orders.SAFE))
assert len(told(board, STATE, DIAGNOSTIC)) == states + 1 and board.state().order == 5
assert results(board) == [((5, orders.REPORT, orders.DONE), "")]
assert board.heard.get(DIAGNOSTIC) and board.heard.get(EVENT)  # in the same session
meet(board, command(5, orders.REPORT))
assert len(results(board)) == 1

meet(board, command(6, 99), command(7, orders.RESEND, b"\x09"))
assert [result for result, _ in results(board)[1:]] == [
    (6, 99, orders.UNKNOWN), (7, orders.RESEND, orders.MALFORMED)]

meet(board, command(8, orders.IDENTIFY))
assert "MicroPython" in results(board)[-1][1] and "settings" in results(board)[-1][1]
meet(board, command(9, orders.TEST))
(number, code, result), text = results(board)[-1]
assert (number, code, result) == (9, orders.TEST, orders.FAILED), text
assert text.startswith("model: ") and ";" not in text, text  # a fake has no golden windows

# what is on flash comes again, all of it and once

while len(board.records(TELEMETRY)) < 100:
    wake(board)
meet(board)
board.heard = {}
meet(board, command(10, orders.RESEND, pack("<BI", TELEMETRY, 1)))
assert board.heard[TELEMETRY] >= 3 and board.state().depth <= 3, (board.heard, board.state().depth)
meet(board)
assert board.heard.get(TELEMETRY, 0) <= 1

# into SAFE, where it can still be reached, and out of it

board = Board(dwell_s=900)
meet(board)
meet(board, command(1, orders.SAFE))
wake(board)
assert board.state().modes.mode == SAFE and board.state().modes.reason == ORDERED
asked = board.model.asked
for _ in range(40):
    wake(board)
assert board.model.asked == asked and board.state().modes.mode == SAFE
meet(board, command(2, orders.IDENTIFY))
assert results(board)[-1][0] == (2, orders.IDENTIFY, orders.DONE)
meet(board, command(3, orders.RESUME))
wake(board)
assert board.state().modes.mode == FULL and board.state().modes.reason == ORDERED | OVER
wake(board)
assert board.model.asked > asked
assert [value for _, _, value in board.events(MODE_CHANGED)] == [ORDERED, ORDERED | OVER]

# after five failed passes as well

board = Board()
meet(board)
board.model.predict = None
while board.state().modes.mode != SAFE:
    wake(board)
board.model = None
meet(board, command(1, orders.REPORT))
assert results(board) == [((1, orders.REPORT, orders.DONE), "")]

# a reset: from flash alone, and it knows that it has obeyed

board = Board(wake_s=60)
for _ in range(5):
    wake(board)
meet(board, command(1, orders.RESET))
assert board.slept_ms == 1000 and len(board.kept) < 20
decided = len(board.decisions())
meet(board, command(1, orders.RESET))
assert board.state().order == 1 and board.slept_ms > 1000 and board.state().wakes < 5
assert len(board.decisions()) > decided and board.cause == TIMER
assert len(results(board)) == 1
assert SETTINGS["wake_s"] == 60
done()
