"""Retained memory: what is saved comes back, and nothing else is believed."""

from node import outbox, post, state
from node.record import NO_CLASS
from node.state import State


class Box:
    """An outbox that saves a pattern."""

    def save(self, buf):
        buf[:] = bytes(i & 255 for i in range(len(buf)))


kept = State()
kept.causes = [1, 70000, 3, 4, 5]
kept.wakes, kept.uplink_s, kept.state_s, kept.depth = 70013, 1767571200, 1767571201, 9
kept.faults, kept.misses = 0x1FE, 65535
kept.decision, kept.share, kept.smoothed, kept.verified = 2, 254, 1, 1
kept.history[:] = bytes(range(post.SIZE))
kept.latency.lap(3, 1234)
blob = kept.save(Box())
assert len(blob) == state.SIZE <= 2048, state.SIZE

found = State()
assert found.load(blob)
for name in ("causes", "wakes", "uplink_s", "state_s", "depth", "faults", "misses", "decision",
             "share", "smoothed", "verified", "history"):
    assert getattr(found, name) == getattr(kept, name), name
assert found.latency.rows == kept.latency.rows
assert bytes(found.outbox(blob)) == bytes(i & 255 for i in range(outbox.SAVED))

# a byte changed anywhere, a piece missing, nothing at all, another layout
for i in range(len(blob)):
    bad = bytearray(blob)
    bad[i] ^= 1 << i % 8
    fresh = State()
    assert not fresh.load(bytes(bad)) and fresh.wakes == 0 and fresh.smoothed == NO_CLASS
for bad in (b"", blob[:-1], blob + b"\0", bytes(state.SIZE), b"\xff" * state.SIZE):
    assert not State().load(bad)
print("OK")
