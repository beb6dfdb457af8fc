# The gateway's settings document has come: is it allowed, what wins, and who is told of what lost?
# It holds from the next wake on, and on trial. Only a session in which one comes imports this.

import json
from struct import pack

from micropython import const

from node import document, record, settings, update
from node.outbox import EVENT

_MOST = const(200)  # bytes of a value in a record


def take(whole, crc, now, state, outbox, now_s):
    """Merge the document `whole` into the Settings `now` and onto flash.

    Returns whether the gateway lacks some of what came of it. A document that breaks a rule, or
    did not stand its trial, changes nothing and is remembered by its `crc`. Cut at any moment, the
    file has the old or the new.
    """
    if now.trial and not now.document or crc == state.refused:
        return False  # a package is on trial: it comes again
    try:
        theirs = json.loads(whole)
        both, lost, won = document.merge(now.changes, theirs)
        problem = update.problem({"changes": both}) if now.problem is None else now.problem
    except (ValueError, TypeError, AttributeError, IndexError):
        theirs, problem = {}, settings.READABLE
    if problem is None and len(document.text(both)) > document.LONGEST:
        problem = settings.number("changes")
    if problem is not None:
        state.refused = crc
        name = settings.called(problem)
        whole = settings.are_changes(theirs) and name in theirs
        _tell(outbox, now_s, record.REFUSED, problem, theirs[name] if whole else [0])
        return False
    for name in won:
        _tell(outbox, now_s, record.GATEWAY_LOST, settings.number(name), theirs[name])
    for name in lost:
        if now.changes[name][0] % 2 == document.NODE:
            _tell(outbox, now_s, record.NODE_LOST, settings.number(name), now.changes[name])
    if both != now.changes:
        update.begin({"changes": both, "document": crc})
        now.changes, state.trial = both, 0
    return document.text(both) != whole


def _tell(outbox, now_s, what, which, change):
    value = document.text(change[1]) if len(change) > 1 else b""
    outbox.put(EVENT, record.SETTING, now_s,
               pack(record.SETTING_FORMAT, what, which, change[0]) + value[:_MOST])
