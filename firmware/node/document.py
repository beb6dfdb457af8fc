# What was changed of a node's settings since they were written, by whom ever: one document, in
# which each change has a stamp. The node's own stamps are odd and the gateway's even, so no two
# are alike; of two changes to one setting the higher stamp wins. The host uses this file too.
# Bytes and reasons: docs/frame-format.md

import json
from binascii import crc32
from struct import pack_into

from micropython import const

from node.frame import DOCUMENT, TAIL

LONGEST = const(2048)  # bytes of text()
NODE = const(1)  # its stamps are odd
GATEWAY = const(0)  # and its are even
_HEAD = const(8)  # of a piece: CRC-32 and length of the whole, offset


def text(changes):
    """The one way to write them down: names in order, no spaces."""
    return _text(changes).encode()


def _text(value):
    if isinstance(value, dict):
        return "{" + ",".join(['"%s":%s' % (name, _text(value[name]))
                               for name in sorted(value)]) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join([_text(item) for item in value]) + "]"
    return json.dumps(value)


def crc(changes):
    """What two sides compare to see whether they have the same."""
    return crc32(text(changes))


def stamp(version, whose):
    """The next stamp above `version`."""
    return version + 1 + (version + 1 + whose) % 2


def merge(ours, theirs):
    """Return (what both come to, names where ours gave way, names where theirs did)."""
    both, lost, won = dict(ours), [], []
    for name, change in theirs.items():
        mine = both.get(name)
        if mine is None:
            both[name] = change
        elif _order(mine) < _order(change):
            both[name] = change
            if mine[1:] != change[1:]:
                lost.append(name)
        elif mine[1:] != change[1:]:
            won.append(name)
    return both, lost, won


def _order(change):
    return change[0], _text(change)


def frames(buf, node, seal, changes):
    """Yield the length of one DOCUMENT frame in `buf` after the other."""
    whole = text(changes)
    name, offset = crc32(whole), 0
    while offset < len(whole):
        at = seal.begin(buf, DOCUMENT, node)
        piece = whole[offset:offset + len(buf) - at - _HEAD - TAIL]
        pack_into("<IHH", buf, at, name, len(whole), offset)
        at += _HEAD
        buf[at:at + len(piece)] = piece
        yield seal.close(buf, at + len(piece))
        offset += len(piece)


class Pieces:
    """A document that comes in pieces, in any order; it is named by its CRC."""

    def __init__(self):
        self._name = self._done = None
        self._pieces = {}

    def add(self, name, total, offset, data):
        """Keep a piece; return the whole once all are there, b"" before, None if it is no news."""
        if total > LONGEST or name == self._done or (
                name == self._name and offset in self._pieces):
            return None
        if name != self._name:
            self._name, self._pieces = name, {}
        self._pieces[offset] = data
        if sum([len(piece) for piece in self._pieces.values()]) < total:
            return b""
        whole = b"".join([self._pieces[at] for at in sorted(self._pieces)])
        self._name, self._done, self._pieces = None, name, {}
        return whole if len(whole) == total and crc32(whole) == name else None
