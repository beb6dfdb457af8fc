"""Uplinks: one bounded attempt per schedule, backoff with jitter across sleeps, alerts first."""

from desk import Board, done, wake
from node.latency import UPLINK
from node.modes import CRITICAL
from node.outbox import ALERT
from node.record import BAD_SETTINGS, SENSOR_SILENT, UPLINK_FAILED

DAY_S = 86400


def live(board, until_s):
    """Wake after wake; the times of attempts."""
    first = len(board.attempts)
    while board.now_s() < until_s:
        wake(board)
        board.us = 0
    return board.attempts[first:]


def gaps(times):
    return [after - before for before, after in zip(times, times[1:])]


# --- by schedule, and never twice in a wake ---

board = Board()
times = live(board, 1000 + DAY_S // 4)
assert all(600 <= gap <= 600 + 60 for gap in gaps(times)) and len(times) >= 34, gaps(times)

# --- a broker that is dead for a week ---

for dead in ("link", "receives"):
    board = Board(awake_ms=20000)
    wake(board)
    if dead == "link":
        board.linked = False
    else:
        board.receives = False
    began_s = board.now_s()
    times = live(board, began_s + 7 * DAY_S)
    # doubling, from uplink_s to uplink_most_s, a quarter more or less, up to the next wake
    waited = gaps(times)
    for n in range(len(waited)):
        wait_s = min(600 << n, 7200)
        assert wait_s * 3 // 4 <= waited[n] <= wait_s * 5 // 4 + 60, (n, waited[n])
    # docs/power.md: 4 on the way up, then one every two hours on average
    assert 80 <= len(times) <= 4 + 7 * DAY_S // 7200 * 5 // 4, len(times)
    assert len(set(waited[5:])) > len(waited) // 2  # not in step with anybody
    state = board.state()
    assert state.unlinked == len(times) and state.faults >> UPLINK_FAILED & 1
    assert [event[2] for event in board.events(UPLINK_FAILED)] == [1]  # told once
    cost = 1600000 if dead == "link" else 5704000 + 30000
    assert board.radio_us == 0 or board.radio_us <= cost
    # it comes back: the next attempt succeeds, sends all, and the schedule is the old one
    board.linked = board.receives = True
    times = live(board, board.now_s() + 7200 * 2)
    assert board.state().unlinked == 0 and gaps(times)[-1] <= 660
    assert board.state().depth < 30

# --- nodes that share a fate do not share their attempts ---

all_times = []
for seed in range(5):
    board = Board()
    board.random, board.linked = seed, False
    all_times.append(tuple(live(board, 1000 + DAY_S)))
assert len(set(all_times)) == 5

# --- an alert goes out at once, and when that fails within minutes ---

board = Board()
wake(board)
board.silent = True
wake(board)
assert board.laps[-1] == UPLINK and board.state().unlinked == 0
assert board.records(ALERT) and board.state().depth == 0
board.silent = False
wake(board)  # that it is over is an alert as well
assert board.laps[-1] == UPLINK and board.events(SENSOR_SILENT)[-1] == (3, 0, 0)

board.linked = False
while not board.state().unlinked:
    wake(board)
while board.state().unlinked < 5:  # hours until the next attempt
    wake(board)
assert board.state().uplink_s - board.now_s() > 4000
attempts, since_s = len(board.attempts), board.now_s()
board.silent = True
wake(board)
assert len(board.attempts) == attempts  # not at once: the last attempts failed
times = live(board, since_s + 3600)
assert 1 <= len(times) <= 4 and times[0] - since_s <= 60 * 16 * 5 // 4 + 120, times
board.linked = True
while board.state().unlinked:
    wake(board)
assert board.state().depth <= 1  # that there is a link again is told the next time

# alerts that come and go each wake don't become attempts each wake
board = Board()
wake(board)
board.linked = False
board.silent = True
attempts = len(board.attempts)
for n in range(600):
    board.silent = not board.silent
    wake(board)
assert len(board.attempts) - attempts < 30, len(board.attempts) - attempts

# --- in CRITICAL nothing goes out but alerts ---

board = Board(critical_pct=90)
board.mv = 3000
wake(board)
assert board.state().modes.mode == CRITICAL and board.laps[-1] == UPLINK  # to say so
attempts = len(board.attempts)
live(board, board.now_s() + 3 * DAY_S)
assert len(board.attempts) == attempts and board.state().depth > 10
with open("settings.json", "w") as file:
    file.write("{")
wake(board)
assert board.events(BAD_SETTINGS) == [(2, 0, 1)] and len(board.attempts) == attempts + 1

# --- how long the radio may be on follows the budget: what waits is sent a part at a time ---

board = Board(life_days=140, uplink_s=10, wake_most_s=60)
board.linked = False
live(board, board.now_s() + DAY_S)
waiting = board.state().depth
assert waiting > 1000
send = board.send


def slow(data):
    send(data)
    board.transmit(400000)


board.send, board.linked = slow, True
while board.state().unlinked:
    wake(board)
assert 0 < board.state().depth < waiting and board.radio_us < 3000000 + 500000
while board.state().depth > 20:
    before = board.state().depth
    wake(board)
    assert board.radio_us < 3500000
done()
