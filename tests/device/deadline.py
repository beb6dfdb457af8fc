"""The awake deadline ends a pass wherever it stands; what is stored is stored, and it sleeps."""

from desk import Board, done, wake
from node.frame import RECORDS
from node.latency import BOOT, CAPTURE, INFER, POST, PRE, STORE, UPLINK
from node.outbox import TELEMETRY
from node.record import DEADLINE_MISSED, STATE

# in the middle of sampling
board = Board(awake_ms=3000)
wake(board)
assert board.laps == [BOOT, CAPTURE, STORE], board.laps
assert board.us <= 3000000 + 35000 + 3000 + 500000  # what follows is stored, sectors are erased
assert board.events(DEADLINE_MISSED) == [(7, CAPTURE, 1)]
state = board.state()
assert state.misses == 2 and state.wakes == 1  # sampling, and the uplink that was left out
assert any(kind == STATE for _, _, kind, _ in board.records())
assert 0 < board.slept_ms <= 60000
wake(board)  # told once
assert board.events(DEADLINE_MISSED) == [(7, CAPTURE, 1)] and board.state().misses == 4

# at every instant of a wake: it sleeps, in time, and what was decided in time is kept
lasts, kept = [], set()
for awake_ms in range(100, 7500, 97):
    board = Board(awake_ms=awake_ms)
    wake(board)
    assert board.laps[0] == BOOT and STORE in board.laps
    assert board.us <= max(435000, awake_ms * 1000) + 600000, (awake_ms, board.us)
    decided = len(board.decisions())
    assert decided == (POST in board.laps or INFER in board.laps)
    lasts.append(decided)
    kept.add(tuple(board.laps))
assert lasts == sorted(lasts) and set(lasts) == {0, 1}
assert {(BOOT, STORE), (BOOT, CAPTURE, STORE),
        (BOOT, CAPTURE, PRE, INFER, POST, STORE, UPLINK)} <= kept

# in the middle of an uplink to somebody who says nothing
board = Board(awake_ms=8000)
board.receives = False
wake(board)
assert board.laps[-1] == UPLINK and 8000000 <= board.us < 8010000
assert (7, UPLINK, 1) in board.events(DEADLINE_MISSED) and board.state().unlinked == 1
assert board.state().depth > 0 and not board.radio
assert board.records(TELEMETRY)  # flushed before the link was asked for

# an uplink that is cut short has reached somebody all the same
board = Board(awake_ms=9000)
send = board.send


def once(data):
    send(data)
    if data[0] & 15 == RECORDS:
        board.receives = False


board.send = once
wake(board)
assert board.laps[-1] == UPLINK and not board.receives
assert board.state().unlinked == 0 and board.state().depth > 0
done()
