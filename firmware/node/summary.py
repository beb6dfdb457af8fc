# Records that most wakes don't write, and what is imported only by those that do.

from struct import pack

from node import record
from node.latency import AWAKE
from node.outbox import DIAGNOSTIC


def state(board, kept, outbox):
    """Payload of a STATE: how the node fares."""
    energy, counter = kept.energy, kept.latency.counter
    return pack(record.STATE_FORMAT, board.cause, kept.faults, board.battery_mv(),
                board.temperature_c(), kept.wakes, outbox.depth(), outbox.dropped(), kept.misses,
                counter(AWAKE, 50), counter(AWAKE, 99), *kept.causes, kept.modes.mode,
                energy.soc(), energy.days_left(), energy.pace_s, energy.rate_nw // 1000)


def day(energy, number, nj, carried):
    """Payload of a DAY: what day `number` took, by phase, and the bytes it carried."""
    return pack(record.DAY_FORMAT, number, *[phase // 1000000 for phase in nj],
                energy.left_nj // 1000000, carried)


def clock(kept, outbox, before_s, now_s):
    """The clock was set: put off what is told in its time, and record how wrong it was."""
    since_s = before_s - kept.set_s if kept.set_s else 0
    kept.clock_set(now_s - before_s)
    kept.set_s = now_s
    outbox.put(DIAGNOSTIC, record.CLOCK, now_s,
               pack(record.CLOCK_FORMAT, before_s, now_s - before_s, max(0, since_s)))


def parts(window):
    """Yield payloads of the WINDOW records that `window` fills."""
    data, size = memoryview(bytes(window)), record.PART
    count = (len(data) + size - 1) // size
    for number in range(count):
        yield bytes((number, count)) + data[number * size:(number + 1) * size]


def means(window, channels):
    """The mean of each channel: a reading where there is no model."""
    rows = len(window) // channels
    found = []
    for channel in range(min(channels, 16)):
        total = 0
        for i in range(channel, len(window), channels):
            total += window[i]
        found.append(total // rows)
    return found
