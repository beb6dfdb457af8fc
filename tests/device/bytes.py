"""Bytes a day: never more than allowed, alerts before events before the rest, old before new."""

from struct import unpack

from desk import Board, done, wake
from node.budget import affords, apart_s, barred
from node.debug import mount
from node.frame import HEARTBEAT
from node.outbox import ALERT, DIAGNOSTIC, TELEMETRY
from node.record import DAY

DAY_S = 86400
ALL, LOW = 0b1111, 1 << TELEMETRY | 1 << DIAGNOSTIC

# --- the rules ---

NEW = [None, None, 999 * DAY_S, 999 * DAY_S]
OLD = [None, None, 998 * DAY_S - 1, 999 * DAY_S]
at = 999 * DAY_S
assert barred(8000, 8000, 100, at, NEW) == LOW  # nothing of the day is over
assert barred(8000, 8000, 100, at + DAY_S // 2, NEW) == 0
assert barred(8000, 4600, 100, at + DAY_S // 2, NEW) == 0
assert barred(8000, 4599, 100, at + DAY_S // 2, NEW) == LOW  # the other half is for the evening
assert barred(8000, 4599, 100, at + DAY_S // 2, OLD) == 1 << DIAGNOSTIC
assert barred(8000, 1099, 100, at + DAY_S - 1, OLD) == ALL & ~(1 << ALERT)
assert barred(8000, 100, 100, at, NEW) == ALL & ~(1 << ALERT)
assert barred(8000, 99, 100, at, NEW) == ALL
assert affords(8000, 6500, 500, False) and not affords(8000, 6501, 500, False)
assert affords(8000, 7500, 500, True) and not affords(8000, 7501, 500, True)
assert apart_s(20000, 500) == DAY_S // 10

# --- lived: days with less than there is to say ---

LIMIT = 9000
board = limited = Board(day_bytes=LIMIT, wake_s=60)
board.clock_us = 1000 * DAY_S * 1000000
spent, hours = {}, {}
alerts = sent = 0
wake(board)
spent[1000] = board.carried
for n in range(4 * 1440):
    today_s = board.now_s()
    if n % 360 == 200:  # six hours apart something is wrong, and over again
        board.silent = not board.silent
        alerts += 1
    board.carried, board.heard = 0, {}
    wake(board)
    board.us = 0
    if board.carried:
        spent[today_s // DAY_S] = spent.get(today_s // DAY_S, 0) + board.carried
        hours.setdefault(today_s // DAY_S, set()).add(today_s % DAY_S // 3600)
    sent += board.heard.get(ALERT, 0)
whole = sorted(spent)[:-1]
assert all(LIMIT // 2 < spent[day] <= LIMIT for day in whole), spent
assert all(max(hours[day]) >= 18 and min(hours[day]) <= 4 for day in whole), hours
assert sent >= alerts * 3 // 4, (sent, alerts)  # mostly at once, and all of them:
assert len(board.records(ALERT)) == alerts
outbox = mount(board)
assert not outbox.waits(ALERT) and outbox.waits(TELEMETRY)
state = board.state()
assert state.held > 500 and state.depth >= state.held, (state.held, state.depth)
told = [unpack("<I10III", payload) for _, _, kind, payload in board.records(DIAGNOSTIC)
        if kind == DAY]
for one in told:
    assert one[0] not in whole or one[-1] == spent[one[0]], (one, spent)

# --- a clock set across midnight: what a day took is told once, and the next has its own ---


def until(when_s):
    """Live until then; return the bytes of it, and the last wake's."""
    board.tells_s = carried = 0
    while board.now_s() < when_s:
        board.carried, board.heard = 0, {}
        wake(board)
        board.us = 0
        carried += board.carried
    return carried


def told_days():
    return [(one[0], one[-1]) for one in (
        unpack("<I10III", payload) for _, _, kind, payload in board.records(DIAGNOSTIC)
        if kind == DAY)]


def set_clock(to_s):
    """Live until the gateway has said what time it is; return the bytes of it."""
    board.tells_s, before_s, carried = to_s, board.now_s(), 0
    while abs(board.now_s() - before_s) < 900:
        before_s, board.carried, board.heard = board.now_s(), 0, {}
        wake(board)
        board.us = 0
        carried += board.carried
    board.tells_s = 0
    return carried


board, midnight_s = Board(day_bytes=100 * LIMIT, wake_s=60), 2000 * DAY_S
board.clock_us = (midnight_s - 3 * 3600) * 1000000
before = until(midnight_s - 1800) + set_clock(midnight_s + 1200)  # it was slow
assert before > 1000
after = until(midnight_s + 3600)
assert told_days() == [(1999, before)], (told_days(), before)
assert board.state().spent == after, (board.state().spent, after)

after += set_clock(midnight_s - 1200)  # and now it is fast: that day has begun all the same
after += until(midnight_s + 2 * 3600)
assert told_days() == [(1999, before)], told_days()
assert board.state().spent == after, (board.state().spent, after)
after += until(midnight_s + DAY_S)
until(midnight_s + DAY_S + 3600)
assert told_days() == [(1999, before), (2000, after)], told_days()

# a clock that was never right tells of no day: 1970 is none
board = Board(day_bytes=100 * LIMIT, wake_s=60)
board.clock_us = 5000 * 1000000
carried = until(9000) + set_clock(midnight_s + 3600)
carried += until(midnight_s + 2 * 3600)
assert told_days() == [] and board.state().spent == carried

# --- and with enough for all of it, all of it goes ---

board = limited

import json  # noqa: E402

with open("settings.json") as file:
    given = json.load(file)
given["day_bytes"] = 0
with open("settings.json", "w") as file:
    json.dump(given, file)
for _ in range(200):
    wake(board)
    board.us = 0
    if board.sent(HEARTBEAT) and board.state().depth < 10:
        break
assert board.state().depth < 10 and board.state().held == 0
done()
