# FULL, DEGRADED, CRITICAL, SAFE: what each mode allows, and what demands it. Pure.
# The same tables with their reasons: docs/power.md.

from micropython import const

FULL = const(0)
DEGRADED = const(1)
CRITICAL = const(2)
SAFE = const(3)

# How much of the cascade a mode allows
NONE = const(0)  # neither sensor nor model is touched
COUNT = const(1)  # wakes by motion are counted
MAIN = const(2)  # gate, and the model on the device, the larger one if there is one
CASCADE = const(3)  # gate, main, and heavy at the gateway

# mode: (tier, wakes at the slowest pace, radio by schedule, nothing gathers in retained memory)
ALLOWED = (
    (CASCADE, False, True, False),
    (MAIN, False, True, False),
    (COUNT, True, False, True),
    (NONE, True, True, True),
)

# Inputs, in this order
LINK = const(0)  # uplinks failed in a row
FLASH = const(1)  # wakes in a row with a failed flash operation
BUDGET = const(2)  # budget in % of what the slowest pace takes
CHARGE = const(3)  # %
HEAT = const(4)  # deg C
FAILED = const(5)  # passes in a row
ORDER = const(6)  # 1: the gateway wants it SAFE
INPUTS = const(7)

# Reasons of a change
LINK_LOST = const(1)
FLASH_BAD = const(2)
BUDGET_SHORT = const(3)
BATTERY_LOW = const(4)
HOT = const(5)
COLD = const(6)
FAILING = const(7)
ORDERED = const(8)
OVER = const(128)  # added: what demanded the old mode is over

_SAFE_DWELLS = const(24)  # SAFE is left so much later than other modes


def rows(settings):
    """The table: (reason, mode demanded, input, on from, off from).

    A row whose input is high when it is bad goes on at `on` or above and off at `off` or below;
    for the others it is the other way round.
    """
    low, hot, cold = settings.critical_pct, settings.hot_c, settings.cold_c
    return (
        (LINK_LOST, DEGRADED, LINK, 3, 0),
        (FLASH_BAD, DEGRADED, FLASH, 1, 0),
        (BUDGET_SHORT, CRITICAL, BUDGET, 79, 110),
        (BATTERY_LOW, CRITICAL, CHARGE, low, low + 5),
        (HOT, CRITICAL, HEAT, hot, hot - 5),
        (COLD, CRITICAL, HEAT, cold, cold + 5),
        (FAILING, SAFE, FAILED, 5, 0),
        (ORDERED, SAFE, ORDER, 1, 0),
    )


class Modes:
    def __init__(self):
        self.mode = FULL
        self.reason = 0  # of the last change
        self.since_s = 0  # when that was
        self.on = 0  # rows that are on, a bit for each reason
        self.ended = 0  # the last reason to go off of those that demanded this mode

    def step(self, inputs, settings, now_s):
        """Take in how things stand; return the mode before if it changes, else None."""
        demanded, reason = FULL, 0
        for row in rows(settings):
            bit, mode = 1 << row[0], row[1]
            if self._on(row, inputs[row[2]]):
                self.on |= bit
                if mode > demanded:
                    demanded, reason = mode, row[0]
            elif self.on & bit:
                self.on &= ~bit
                if mode == self.mode:
                    self.ended = row[0]
        before = self.mode
        dwell_s = settings.dwell_s * (_SAFE_DWELLS if before == SAFE else 1)
        if demanded == before or self.since_s and now_s - self.since_s < dwell_s:
            return None
        self.reason = reason if demanded > before else self.ended | OVER
        self.mode, self.since_s, self.ended = demanded, now_s, 0
        return before

    def _on(self, row, value):
        _, _, _, on, off = row
        if self.on >> row[0] & 1:
            return value > off if on > off else value < off
        return value >= on if on > off else value <= on
