# When the node wakes and when it reports: the pace it keeps, and what failures put off. Pure.
# The rules, and what they cost: docs/power.md.

from micropython import const

from node.modes import ALLOWED

_ALERT_S = const(60)  # what uplink_s is while an alert waits


def timer_s(state, settings, now_s):
    """When the timer's next wake is due; motion before it doesn't put it off."""
    pace_s = state.energy.pace_s
    if ALLOWED[state.modes.mode][1]:
        pace_s = max(settings.wake_s, settings.wake_most_s)
    if not now_s < state.timer_s <= now_s + pace_s:
        if pace_s == settings.wake_s:
            state.timer_s = now_s - now_s % pace_s + pace_s
        else:
            state.timer_s = max(now_s + 1, state.energy.began_s + pace_s)
    return state.timer_s


def backoff_s(state, settings, alert, lot):
    """Until the next attempt after `unlinked` that failed; a quarter more or less by `lot`.

    `alert`: one waits. `lot` is any number of 32 bits.
    """
    wait_s = _ALERT_S if alert else state.energy.uplink_s(settings)
    wait_s = min(wait_s << min(state.unlinked - 1, 16), settings.uplink_most_s)
    return wait_s - wait_s // 4 + lot % (wait_s // 2 + 1)


def uplink_s(state, settings):
    """Until the next session after one that succeeded."""
    wait_s = state.energy.uplink_s(settings)
    if settings.day_bytes:
        from node.budget import apart_s

        wait_s = max(wait_s, apart_s(settings.day_bytes, state.hello))
    return wait_s


def is_due(state, settings, now_s, alert, news, lot):
    """Whether to report now; `news`: an alert has just been recorded, `alert`: one waits."""
    if settings.day_bytes:
        from node.budget import affords

        if not affords(settings.day_bytes, state.spent, state.hello, alert or news):
            return False
    if news:
        if not state.unlinked:
            return True
        state.uplink_s = min(state.uplink_s, now_s + backoff_s(state, settings, True, lot))
    return now_s >= state.uplink_s and (alert or ALLOWED[state.modes.mode][2])
