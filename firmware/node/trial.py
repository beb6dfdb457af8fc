# Settings on trial, as a wake sees them: was it a good one, and what if it was not?
# Only a wake with a trial imports this. What becomes of the files: node/update.py

from struct import pack

from node import record, settings, update
from node.outbox import EVENT
from node.verdict import FAILED, KEPT

_BAD = 1 << record.MODEL_REFUSED | 1 << record.STAGE_FAILED


def judge(wake):
    """A good wake is one from capture to flash with the model that is on trial."""
    state = wake.state
    if wake.seen & _BAD:
        undo(wake, FAILED)
    elif (wake.model and wake.by == record.BY_MAIN and wake.decision is not None
            and not wake.seen & 1 << record.FLASH_FAILED):
        state.trial += 1
        if state.trial >= wake.settings.trial:
            update.keep()
            _told(wake, KEPT)


def undo(wake, why):
    """Go on with what was before."""
    if update.undo():
        _told(wake, why)
        wake.settings = settings.current(update.CURRENT)
        wake.state.verified = 0


def _told(wake, what):
    spec = wake.settings.model or {}
    wake.state.trial = 0
    wake.event(EVENT, record.UPDATE, what, spec.get("version", 0) & 255,
               pack("<I", spec.get("package", 0)))
