# Bytes cost money: what may still go today, by lane and by age. Pure; only a node with a budget
# imports this. The rules and their reasons: docs/gateway.md

from micropython import const

from node.outbox import ALERT, EVENT, LANES

_DAY_S = const(86400)
_RESERVE = const(8)  # a part of so many is kept for alerts
_TALK = const(4)  # and of so many is all that may go for sessions themselves


def barred(day_bytes, left, cost, now_s, since_s):
    """The lanes, a bit each, of which no frame of `cost` bytes may go now.

    `left`: of the day's bytes; `since_s`: of what time a lane's oldest record is, None if it is
    empty. Alerts may have all that is left, events all but a reserve. The others may have as much
    of the day's bytes as of the day is over, so that the morning can't take from the evening; what
    has waited for a day is let through like events.
    """
    mask, reserve = 0, day_bytes // _RESERVE
    ahead = (day_bytes - reserve) * (_DAY_S - now_s % _DAY_S) // _DAY_S
    for lane in range(LANES):
        kept = 0 if lane == ALERT else reserve
        if lane > EVENT and since_s[lane] is not None and now_s - since_s[lane] < _DAY_S:
            kept += ahead
        if left - cost < kept:
            mask |= 1 << lane
    return mask


def affords(day_bytes, spent, hello, alert):
    """Whether a session, of which its beginning takes `hello` bytes, is worth beginning."""
    left = day_bytes - spent - hello
    return left >= (0 if alert else day_bytes // _RESERVE)


def apart_s(day_bytes, hello):
    """How far apart sessions must be for their beginnings to take a quarter of it at most."""
    return hello * _TALK * _DAY_S // day_bytes
