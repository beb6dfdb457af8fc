"""Modes as the cycle lives them: what each allows is all that happens, and each change is told."""

from desk import Board, done, hang, wake
from node import record
from node.board import EVENT
from node.latency import BOOT, CAPTURE, INFER, POST, PRE, STORE, UPLINK
from node.modes import CRITICAL, DEGRADED, FULL, SAFE
from node.outbox import ALERT, DIAGNOSTIC, TELEMETRY
from node.outbox import EVENT as EVENTS
from node.record import BY_LARGE, BY_MAIN, COUNT, DECISION, MODE_CHANGED

LARGE = {"name": "fake_large", "crc32": 0, "abi": 1, "window": 64, "channels": 6, "features": 2,
         "classes": 3}
ALL = [BOOT, CAPTURE, PRE, INFER, POST, STORE]

# --- FULL: all of it, and an uplink by schedule only ---

board = Board(large=LARGE)
assert wake(board) == 60 - 1000 % 60 - board.us // 1000000  # to the grid
assert board.laps == ALL + [UPLINK] and board.state().modes.mode == FULL
wake(board)
assert board.laps == ALL and len(board.attempts) == 1

# --- the link goes: after three failures the larger model alone, until one succeeds ---

board.linked = False
while len(board.attempts) < 4:
    wake(board)
    assert board.state().modes.mode == FULL
assert board.large.asked == 0
wake(board)
assert board.state().modes.mode == DEGRADED and board.events(MODE_CHANGED) == [(9, 1, 1)]
assert board.large.asked == 1 and board.decisions()[-1][3] == DEGRADED << 4 | BY_LARGE
assert board.decisions()[-2][3] == FULL << 4 | BY_MAIN
board.linked = True
while board.state().unlinked:
    wake(board)
wake(board)
assert board.state().modes.mode == FULL and board.events(MODE_CHANGED)[-1] == (9, 16, 129)
assert {lane for lane, _, kind, payload in board.records() if payload[:1] == b"\x09"} == {EVENTS}

# --- the battery runs low: nothing is sensed, motion is counted, only alerts go out ---

board.mv = 2700  # it takes a while to be believed
wakes, asked = 0, board.model.asked
while board.state().modes.mode != CRITICAL:
    wake(board)
    wakes += 1
    assert wakes < 100
assert (9, 2, 4) in board.events(MODE_CHANGED)
assert [lane for lane, _, _, payload in board.records(ALERT) if payload[:3] == b"\x09\x02\x04"]
assert board.laps[-1] == UPLINK  # the news of it is an alert, and goes out at once
assert board.state().depth == 0
since_s, attempts = board.now_s(), len(board.attempts)
asked = board.model.asked + board.large.asked
assert wake(board) > 3500  # the slowest pace
assert board.laps == [BOOT, STORE] and board.listened
for _ in range(5):  # motion, far from the timer
    before = board.clock_us
    board.clock_us = before - 3000 * 1000000
    wake(board, EVENT)
    assert board.laps == [BOOT, STORE]
assert board.state().motions == 5
while board.state().motions:
    wake(board)
counts = [payload for _, time_s, kind, payload in board.records(TELEMETRY) if kind == COUNT]
assert counts[-1][:2] == b"\x05\0" and board.state().energy.soc() <= 20
assert len(board.attempts) == attempts and board.model.asked + board.large.asked == asked
# on flash at once: nothing waits in retained memory for a brown-out to take
assert board.state().depth == len([1 for found in board.records() if found[1] >= since_s - 2]) > 0

# it is charged again: 5 % more than what began it
board.mv = 4032
while board.state().modes.mode == CRITICAL:
    wake(board)
assert board.events(MODE_CHANGED)[-1] == (9, 2 << 4, 4 | 128)
assert board.state().energy.soc() >= 25
wake(board)
assert CAPTURE in board.laps

# --- too hot, too cold ---

for celsius, back, reason in ((75, 70, 5), (-30, -25, 6)):
    board.celsius = celsius
    wake(board)
    assert board.state().modes.mode == CRITICAL and CAPTURE not in board.laps
    assert board.events(MODE_CHANGED)[-1] == (9, 2, reason)
    board.celsius = back
    wake(board)
    assert board.state().modes.mode == FULL and CAPTURE in board.laps

# --- flash fails: FULL no longer, though nothing can be told of it before it is well again ---

board.flash_fails, wakes = True, 0
while board.state().modes.mode == FULL:  # as soon as there is something to program
    wake(board)
    wakes += 1
    assert wakes < 30
assert board.state().modes.mode == DEGRADED and board.state().modes.reason == 2
board.flash_fails = False
while board.state().modes.mode == DEGRADED:
    wake(board)
    wakes += 1
    assert wakes < 60
assert board.events(MODE_CHANGED)[-1] == (9, 16, 2 | 128)

# --- CRITICAL with a life to plan: motion is counted, as long as timer wakes are not starved ---

board = Board(life_days=30)
wake(board)
board.mv = 2700
while board.state().modes.mode != CRITICAL:
    wake(board)
asked, board.mv, counted = board.model.asked + board.large.asked, 3300, 0  # 17 %
for _ in range(60):
    assert wake(board) > 3000  # the slowest pace, by the timer
    assert board.state().modes.mode == CRITICAL
    if board.listened:
        board.clock_us -= 1800 * 1000000  # motion comes before it
        wake(board, EVENT)
        counted += 1
        assert board.laps == [BOOT, STORE]
assert counted > 50 and board.model.asked + board.large.asked == asked
wakes, counts = 0, [payload for _, _, kind, payload in board.records(TELEMETRY) if kind == COUNT]
for payload in counts:
    wakes += payload[0] | payload[1] << 8
assert counted - 3 <= wakes + board.state().motions <= counted, (wakes, counted)
# shaken without end, it stops listening before it has spent what timer wakes are for
board.cause, shaken = EVENT, 0
while True:
    wake(board, EVENT)
    if not board.listened:
        break
    board.clock_us -= board.slept_ms * 1000 - 1000000  # again after a second
    shaken += 1
    assert shaken < 20000
assert shaken > 5 and board.state().energy.credit_uj <= 0

# --- a sensor whose bus hangs: five resets, then SAFE, which touches neither sensor nor model ---

board = Board(dwell_s=900)
wake(board)
board.hangs = True
for _ in range(5):
    hang(board)
wake(board)  # cause: watchdog
assert board.laps == [BOOT, STORE] and board.state().modes.mode == SAFE
assert board.events(MODE_CHANGED) == [(9, 3, 7)] and not board.listened
asked = board.model.asked
# SAFE lasts 24 times as long, at the slowest pace, and reports by schedule
since_s, attempts = board.state().modes.since_s, len(board.attempts)
while board.state().modes.mode == SAFE:
    board.hangs = board.now_s() < since_s + 3600
    wake(board)
assert 24 * 900 <= board.now_s() - since_s < 24 * 900 + 3 * 3600
assert len(board.attempts) > attempts and board.model.asked == asked + 1
assert board.events(MODE_CHANGED)[-1] == (9, 48, 7 | 128)

# an uplink that hangs: in SAFE it is not tried in the wake after a reset
board.linked = lambda now_s: bad()


def bad():
    raise KeyboardInterrupt


while True:
    board.hangs = False
    try:
        attempts = len(board.attempts)
        wake(board)
    except KeyboardInterrupt:
        board.clock_us += 120000000
        board.cause, board.resets = 3, board.resets + 1
        continue
    if board.state().modes.mode == SAFE:
        break
assert len(board.attempts) == attempts and board.laps == [BOOT, STORE]
assert board.state().uplink_s >= board.now_s()

# --- a stage that fails in a way nobody foresaw, again and again ---

board = Board()
board.model.predict = lambda features, votes: 1 // 0
for _ in range(5):
    wake(board)
    assert board.state().modes.mode == FULL
wake(board)
assert board.state().modes.mode == SAFE and INFER not in board.laps
assert (8, INFER, 1) in board.events(record.STAGE_FAILED)

# --- a bug of the cycle: later each time, and SAFE when enough of it is left to say so ---

board = Board(dwell_s=900)
wake(board)
whole, board.battery_mv = board.battery_mv, None
board.now_s, now_s = lambda: 1 // 0, board.now_s
slept = [wake(board) for _ in range(9)]
assert slept == [60, 120, 240, 480, 960, 1920, 3840, 3840, 3840], slept
board.now_s, board.battery_mv = now_s, whole
wake(board)
assert board.laps[:2] == [BOOT, STORE] and board.state().modes.mode == SAFE
assert DIAGNOSTIC == 3 and DECISION == 2
done()
