# Settings on trial, as a wake sees them: was it a good one, and what if it was not?
# Only a wake with a trial imports this. What becomes of the files: node/update.py

from micropython import const

from node import record, update
from node.outbox import EVENT
from node.settings import Settings

CRASHED = const(13)  # why it was undone: as in node/package.py
_KEPT = const(0)
_FAILED = const(16)

_BAD = 1 << record.MODEL_REFUSED | 1 << record.STAGE_FAILED


def judge(wake):
    """A good wake is one from capture to flash with the model that is on trial."""
    state = wake.state
    if wake.seen & _BAD:
        undo(wake, _FAILED)
    elif (wake.model and wake.by == record.BY_MAIN and wake.decision is not None
            and not wake.seen & 1 << record.FLASH_FAILED):
        state.trial += 1
        if state.trial >= wake.settings.trial:
            update.keep()
            _told(wake, _KEPT)


def undo(wake, why):
    """Go on with what was before."""
    if update.undo():
        _told(wake, why)
        wake.settings = Settings(update.CURRENT)
        wake.state.verified = 0


def _told(wake, what):
    spec = wake.settings.model or {}
    wake.state.trial = 0
    wake.event(EVENT, record.UPDATE, what, spec.get("version", 0) & 255)
