"""Retained memory: what is saved comes back, and nothing else is believed."""

from node import outbox, post, state
from node.record import NO_CLASS
from node.state import State

NAMES = ("causes", "wakes", "uplink_s", "state_s", "timer_s", "depth", "faults", "misses",
         "decision", "share", "smoothed", "verified", "history", "unlinked", "unflashed", "failed",
         "windows", "motions", "counted_s", "trial")
MODES = ("mode", "reason", "since_s", "on", "ended")


class Box:
    """An outbox that saves a pattern."""

    def save(self, buf):
        buf[:] = bytes(i & 255 for i in range(len(buf)))


kept = State()
kept.causes = [1, 70000, 3, 4, 5]
kept.wakes, kept.uplink_s, kept.state_s, kept.depth = 70013, 1767571200, 1767571201, 9
kept.faults, kept.misses, kept.timer_s = 0x1FE, 65535, 1767571202
kept.decision, kept.share, kept.smoothed, kept.verified = 2, 254, 1, 6
kept.history[:] = bytes(range(post.SIZE))
kept.unlinked, kept.unflashed, kept.failed, kept.windows = 255, 254, 253, 8
kept.trial = 7
kept.motions, kept.counted_s = 65535, 1767571203
for number, name in enumerate(MODES):
    setattr(kept.modes, name, 100 + number)
kept.latency.lap(3, 1234)
kept.energy.today[9] = 1 << 50
kept.energy.credit_uj = -5
blob = kept.save(Box())
assert len(blob) == state.SIZE <= 2048 - 1, state.SIZE  # a byte is the board's

found = State()
assert found.load(blob)
for name in NAMES:
    assert getattr(found, name) == getattr(kept, name), name
for name in MODES:
    assert getattr(found.modes, name) == getattr(kept.modes, name), name
assert found.latency.rows == kept.latency.rows and found.latency.longest_us[3] == 1234
assert found.energy.today == kept.energy.today and found.energy.credit_uj == -5
assert bytes(found.outbox(blob)) == bytes(i & 255 for i in range(outbox.SAVED))
assert found.save(Box()) == blob

# a byte changed anywhere, a piece missing, nothing at all, another layout
for i in range(len(blob)):
    bad = bytearray(blob)
    bad[i] ^= 1 << i % 8
    fresh = State()
    assert not fresh.load(bytes(bad)) and fresh.wakes == 0 and fresh.smoothed == NO_CLASS
for bad in (b"", blob[:-1], blob + b"\0", bytes(state.SIZE), b"\xff" * state.SIZE):
    assert not State().load(bad)

# what is kept after a bug: how many passes have failed, and nothing else
remains = kept.remains()
found = State()
assert not found.load(remains) and found.failed == 253 and found.wakes == 0
for i in range(len(remains)):
    bad = bytearray(remains)
    bad[i] ^= 1 << i % 8
    fresh = State()
    assert not fresh.load(bytes(bad)) and fresh.failed == 0

# a clock put forward, or back to before anything was planned
found = State()
found.load(blob)
found.modes.since_s = 1767571204
found.clock_set(60)
assert (found.uplink_s, found.state_s, found.timer_s, found.counted_s, found.modes.since_s) == (
    1767571260, 1767571261, 1767571262, 1767571263, 1767571264)
found.clock_set(-1767571262)
assert (found.uplink_s, found.timer_s, found.modes.since_s) == (0, 0, 2)
found.save(Box())
print("OK")
