# The node's word on itself: items of its condition, in as many frames as they need. An item is a
# tag, a length and a body; one that is not known is passed over. Bytes: docs/frame-format.md

from struct import pack, pack_into

from micropython import const

from node.frame import HEARTBEAT, TAIL, varint, varint_size
from node.latency import COUNTERS

ASK = const(1)  # nonce, node's time, CRC-32 of its settings and of those it refused, its frames'
# length, number of the last command obeyed
CAUSE = const(2)  # of this wake
WAKES = const(3)  # by cause
MISSES = const(4)  # deadlines missed
POWER = const(5)  # battery (mV), temperature (deg C), state of charge (%), days left, pace (s)
MODE = const(6)  # mode, reason of the last change, how long ago (s)
JOULES = const(7)  # uJ of today, by phase
FAULTS = const(8)  # a bit for each reason of an event
WAITING = const(9)  # records, by lane
DROPPED = const(10)  # records, by lane
TROUBLED = const(11)  # openings since a sector failed, by lane
LATENCY = const(12)  # stage, first counter, counts
LONGEST = const(13)  # us, by stage
UNLINKED = const(14)  # uplinks that failed in a row before this one
CONFIG = const(15)  # settings: version, problem or 255
BYTES = const(16)  # of today's: spent, left (4294967295: no limit); records held back
MODEL = const(17)  # processor as in a .mpy's header, good wakes on trial or 0, version, name
WORN = const(18)  # times that each sector was erased, by lane

MOST = const(20)  # bytes of an item, so that it fits the smallest frame


class Heartbeat:
    """Lays items into frames in `buf`; (epoch, seq, wakes) is its identity, and only grows."""

    def __init__(self, buf, node, seal, epoch, seq, wakes):
        self._buf, self._view = buf, memoryview(buf)
        self._seal = seal
        at = seal.begin(buf, HEARTBEAT, node)
        pack_into("<I", buf, at, epoch)
        self._part = varint(buf, varint(buf, at + 4, seq), wakes)
        buf[self._part] = 0
        self._end = len(buf) - TAIL

    def frames(self, items):
        """Yield the length of one frame in `buf` after the other."""
        first = at = self._part + 1
        for tag, body in items:
            size = len(body)
            if at + 2 + size > self._end:
                yield self._seal.close(self._buf, at)
                self._buf[self._part] += 1
                at = first
            self._buf[at], self._buf[at + 1] = tag, size
            self._view[at + 2:at + 2 + size] = body
            at += 2 + size
        if at > first:
            yield self._seal.close(self._buf, at)


def ask(nonce, now_s, settings, refused, frame, order):
    """The last item; who has heard it answers with all there is for this node, TIME in the end."""
    return ASK, pack("<IIIIHH", nonce, now_s, settings, refused, frame, order)


def model(mpy, spec, trial):
    """Which model this node has, and what it could run."""
    name = spec.get("of", spec["name"]).encode()[:MOST - 6] if spec else b""
    return MODEL, pack("<BBI", mpy, trial, spec.get("version", 0) if spec else 0) + name


def pairs(tag, values, most):
    """Yield items of (index, value) for all values that aren't 0, at most `most` bytes long."""
    body, at = bytearray(most), 0
    for index, value in enumerate(values):
        if value == 0:
            continue
        if at + 1 + varint_size(value) > most:
            yield tag, body[:at]
            at = 0
        body[at] = index
        at = varint(body, at + 1, value)
    if at:
        yield tag, body[:at]


def latency(rows, most):
    """Yield items of the histograms' counts that aren't 0, at most `most` bytes long."""
    most -= 2
    for stage in range(len(rows) // COUNTERS):
        row = memoryview(rows)[stage * COUNTERS:(stage + 1) * COUNTERS]
        at = 0
        while at < COUNTERS:
            end = at
            while end < COUNTERS and end - at < most and row[end]:
                end += 1
            if end > at:
                yield LATENCY, bytes((stage, at)) + bytes(row[at:end])
            at = max(end, at + 1)


def condition(board, settings, state, outbox):
    """Yield what there is to say of the node itself."""
    energy, modes, lanes = state.energy, state.modes, outbox.lanes
    yield CAUSE, bytes((board.cause,))
    yield from pairs(WAKES, state.causes, MOST)
    yield MISSES, pack("<H", state.misses)
    yield POWER, pack("<HbBHI", board.battery_mv(), board.temperature_c(), energy.soc(),
                      energy.days_left(), energy.pace_s)
    yield MODE, pack("<BBI", modes.mode, modes.reason,
                     max(0, board.now_s() - modes.since_s) if modes.since_s else 0)
    yield from pairs(JOULES, [nj // 1000 for nj in energy.today], MOST)
    yield FAULTS, pack("<H", state.faults)
    yield from pairs(WAITING, [ring.next_seq - 1 - ring.acked for ring in lanes], MOST)
    yield from pairs(DROPPED, [ring.dropped for ring in lanes], MOST)
    yield from pairs(TROUBLED, [ring.troubled() for ring in lanes], MOST)
    yield from latency(state.latency.rows, MOST)
    yield from pairs(LONGEST, state.latency.longest_us, MOST)
    yield UNLINKED, bytes((max(0, state.unlinked - 1),))  # the one under way is counted already
    left = max(0, settings.day_bytes - state.spent) if settings.day_bytes else 0xFFFFFFFF
    yield BYTES, pack("<III", state.spent, left, state.held)
    yield from pairs(WORN, [ring.worn() for ring in lanes], MOST)
    problem = settings.problem
    yield CONFIG, pack("<IB", settings.version, 255 if problem is None else problem)
