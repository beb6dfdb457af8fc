# What comes down to the node: each body read as far as it is what it should be, or refused whole.
# Bytes: docs/frame-format.md

from struct import unpack_from

from micropython import const

from node.frame import ACK, COMMAND, HEAD, OFFER, PACKAGE, SETTINGS, TAIL, TIME, FrameError

_ENTRY = const(9)  # of an acknowledgement


def read(kind, frame):
    """Return the body of a frame whose seal has been opened, as a tuple:

    ACK ((lane, epoch, seq), ...) · SETTINGS (nonce, id, total, offset, data) ·
    PACKAGE (id, total, offset, data) · TIME (nonce, time_s) ·
    COMMAND (nonce, number, code, argument) · OFFER (nonce, number, total, forced)
    """
    size = len(frame) - HEAD - TAIL
    if kind == ACK:
        if size == 0 or size % _ENTRY:
            raise FrameError("acknowledgement of %d bytes" % size)
        return tuple([unpack_from("<BII", frame, HEAD + at) for at in range(0, size, _ENTRY)])
    if kind == SETTINGS:
        return _piece(frame, "<IIHH", 12, size)
    if kind == PACKAGE:
        return _piece(frame, "<III", 12, size)
    if kind == TIME and size == 8:
        return unpack_from("<II", frame, HEAD)
    if kind == COMMAND and size >= 9:
        return unpack_from("<IIB", frame, HEAD) + (bytes(frame[HEAD + 9:HEAD + size]),)
    if kind == OFFER and size == 13:
        return unpack_from("<IIIB", frame, HEAD)
    raise FrameError("type %d of %d bytes has no business here" % (kind, size))


def _piece(frame, head, least, size):
    if size <= least:
        raise FrameError("piece of %d bytes" % size)
    numbers = unpack_from(head, frame, HEAD)
    total, offset = numbers[-2:]
    if offset + size - least > total:
        raise FrameError("piece runs past its end")
    return numbers + (bytes(frame[HEAD + least:HEAD + size]),)
