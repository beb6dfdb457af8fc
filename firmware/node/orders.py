# Commands of the gateway. Each is obeyed once: its number is above that of the one before, and it
# names the session it is for. What came of it is a record. Only who gets one imports this.

from struct import pack, unpack

from micropython import const

from node import record
from node.board import Late
from node.outbox import DIAGNOSTIC, EVENT, LANES

REPORT = const(1)  # a STATE record now
RESET = const(2)  # begin anew from flash alone, after this session
SAFE = const(3)  # into SAFE mode, and stay there
RESUME = const(4)  # out of it
TEST = const(5)  # selftest(); in text
IDENTIFY = const(6)  # what runs here; in text
RESEND = const(7)  # lane u8, sequence u32: all from there on that can still be read

# What came of it
DONE = const(0)
UNKNOWN = const(1)  # this node knows no such command
MALFORMED = const(2)  # its argument
FAILED = const(3)  # and the text tells how

_MOST = const(200)  # bytes of text in a record


def obey(board, settings, state, outbox, number, code, argument):
    """Obey one; raises Late when it is time, and then it has failed."""
    state.order = number  # whatever happens: not again
    result, text = FAILED, "cut short"
    try:
        result, text = _obey(board, settings, state, outbox, code, argument)
    except Late:
        raise
    except Exception as error:
        text = "%s: %s" % (type(error).__name__, error)
    finally:
        outbox.put(EVENT, record.RESULT, board.now_s(),
                   pack(record.RESULT_FORMAT, number, code, result) + text.encode()[:_MOST])


def _obey(board, settings, state, outbox, code, argument):
    if code == REPORT:
        from node import summary

        outbox.put(DIAGNOSTIC, record.STATE, board.now_s(), summary.state(board, state, outbox))
    elif code == RESET:
        state.reset = True
    elif code == SAFE or code == RESUME:
        state.safe = int(code == SAFE)
        state.modes.since_s = 0  # at the next wake, whatever the dwell
        if code == RESUME:
            state.failed = 0
    elif code == TEST:
        from node import debug

        found = list(debug.tests(board, settings, outbox))
        bad = ["%s: %s" % (name, detail) for name, good, detail in found if not good]
        return (FAILED if bad else DONE), "; ".join(bad or [
            "%s %s" % (name, detail) for name, _, detail in found])
    elif code == IDENTIFY:
        from node import debug

        return DONE, debug.identify(board, settings)
    elif code == RESEND:
        if len(argument) != 5 or argument[0] >= LANES:
            return MALFORMED, ""
        lane, seq = unpack("<BI", argument)
        outbox.resend(lane, seq)
    else:
        return UNKNOWN, ""
    return DONE, ""
