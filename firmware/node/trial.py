# Settings on trial, as a wake sees them: was it a good one, and what if it was not?
# Only a wake with a trial imports this. What becomes of the files: node/update.py

from struct import pack

from micropython import const

from node import record, update
from node.modes import MAIN
from node.outbox import EVENT
from node.settings import current
from node.verdict import CUT_OFF, FAILED, KEPT, LATE

_BAD = 1 << record.MODEL_REFUSED | 1 << record.STAGE_FAILED
_HEARD = const(128)  # in state.trial, beside the good wakes: the gateway has answered since
_UNLINKED = const(3)  # uplinks that fail in a row after new settings, and they are to blame


def judge(wake):
    """A good wake is one from capture to flash with what is on trial.

    What came by radio is kept only once an uplink has gone well with it.
    """
    state, settings = wake.state, wake.settings
    decided = wake.decision is not None
    if wake.reported:
        state.trial |= _HEARD
    if wake.seen & _BAD:
        undo(wake, FAILED)
    elif (wake.seen >> record.DEADLINE_MISSED & 1 and wake.tier >= MAIN and settings.window
            and not decided):
        undo(wake, LATE)
    elif settings.document and state.unlinked >= _UNLINKED and not state.trial & _HEARD:
        undo(wake, CUT_OFF)
    elif wake.tier >= MAIN and not wake.seen >> record.FLASH_FAILED & 1 and _whole(wake, decided):
        good = min((state.trial & ~_HEARD) + 1, settings.trial)
        state.trial = state.trial & _HEARD | good
        if good == settings.trial and (state.trial & _HEARD or not _by_radio(settings)):
            update.keep()
            _told(wake, KEPT)


def _whole(wake, decided):
    # A new model must have decided by itself; what else decides is as good for other settings.
    if wake.settings.document:
        return decided or not (wake.settings.window and wake.settings.model)
    return decided and wake.model and wake.by == record.BY_MAIN


def _by_radio(settings):
    return settings.document or settings.model and settings.model.get("package")


def undo(wake, why):
    """Go on with what was before."""
    if update.undo():
        _told(wake, why)
        wake.settings = current(update.CURRENT)
        wake.state.verified = 0


def _told(wake, what):
    settings = wake.settings
    wake.state.trial = 0
    if settings.document:
        if what != KEPT:
            wake.state.refused = settings.document
            wake.tell(EVENT, record.SETTING, pack(record.SETTING_FORMAT, record.UNDONE, 0,
                                                  settings.version) + b"%d" % what)
        return
    spec = settings.model or {}
    wake.tell(EVENT, record.EVENT, pack(record.UPDATE_FORMAT, record.UPDATE, what,
                                        spec.get("version", 0) & 255, spec.get("package", 0)))
