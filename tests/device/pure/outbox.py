"""The outbox: which lane's turn it is, what is acknowledged, what waits in retained memory."""

from node.batch import Batch
from node.frame import Seal
from node.outbox import ALERT, DIAGNOSTIC, EVENT, LANES, SAVED, TELEMETRY, Outbox
from ram import Flash, outbox

SHARES = (3, 3, 3, 3)


def on_flash(box, lane):
    return [bytes(payload) for _, _, _, payload in box.lanes[lane].records()]


def again(flash, box, clean):
    """The outbox after a sleep (clean) or a reset, and only retained memory and flash are left."""
    kept = bytearray(SAVED)
    box.save(kept)
    return remount(flash, kept, clean)


def remount(flash, kept, clean):
    box = Outbox((flash, 0, 12, 1), lambda: 77, SHARES)
    box.mount(kept, clean)
    return box


# --- an alert is on flash when put() returns; telemetry gathers, a page at a program ---

flash = Flash(12)
box = outbox(flash)
box.put(ALERT, 3, 100, b"alert")
assert on_flash(remount(flash, None, False), ALERT) == [b"alert"]
box.prepare()
flash.programs = 0
sizes = []
for i in range(40):
    box.gather(2, 100 + i, bytes((i, 7, 7)))
    sizes.append(flash.programs)
assert sizes[0] == 0 and flash.programs < 6, sizes
assert box.depth() == 41
box.flush()
assert on_flash(box, TELEMETRY) == [bytes((i, 7, 7)) for i in range(40)]
assert box.depth() == 41 and not list(box.gathered())
# what is put into telemetry's lane does not overtake what is gathered
box.gather(2, 200, b"first")
box.put(TELEMETRY, 2, 201, b"second")
assert on_flash(box, TELEMETRY)[-2:] == [b"first", b"second"]

# --- after a sleep only the lanes that are asked for are looked at, and mounted once ---

flash = Flash(12)
box = outbox(flash)
for lane in range(LANES):
    box.put(lane, 3, 100, b"%d" % lane)
box.prepare()
for _ in range(2):  # what was not looked at is known after a second sleep, too
    flash.looked.clear()
    box = again(flash, box, True)
    assert (box.depth(), box.dropped(), box.waits(EVENT)) == (LANES, 0, True)
    box.rewind()
    box.prepare()
    assert not flash.looked
box.put(EVENT, 3, 101, b"more")
assert flash.looked <= {3, 4, 5}, flash.looked
assert box.ring(EVENT) is box.ring(EVENT) and box.depth() == LANES + 1
box = again(flash, box, False)
assert [on_flash(box, lane) for lane in range(LANES)] == [
    [b"0"], [b"1", b"more"], [b"2"], [b"3"]]

# a lane that could not be prepared is prepared after the next sleep
flash = Flash(12)
box = again(flash, outbox(flash), True)
box.prepare()
assert flash.looked == set(range(12)) and flash.programs == LANES

# --- what is gathered outlives a sleep, and a reset at any program, once ---

for clean in (True, False):
    flash = Flash(12)
    box = outbox(flash)
    for i in range(9):
        box.gather(2, 300 + i, bytes((i,) * (i + 1)))
    box = again(flash, box, clean)
    assert box.depth() == 9
    assert [bytes(payload) for _, _, payload in box.gathered()] == [
        bytes((i,) * (i + 1)) for i in range(9)]
    box.flush()
    assert on_flash(box, TELEMETRY) == [bytes((i,) * (i + 1)) for i in range(9)]

for done in range(10):  # so many had reached the ring when the node went down
    flash = Flash(12)
    box = outbox(flash)
    box.put(TELEMETRY, 2, 299, b"before")
    for i in range(9):
        box.gather(2, 300 + i, bytes((i, done)))
    kept = bytearray(SAVED)
    box.save(kept)
    for i in range(done):
        box.lanes[TELEMETRY].append(2, 300 + i, bytes((i, done)))
    box = remount(flash, kept, False)
    assert box.depth() == 10, (done, box.depth())
    box.flush()
    assert on_flash(box, TELEMETRY) == [b"before"] + [bytes((i, done)) for i in range(9)], done

# retained memory that is another flash's is appended whole, and nonsense is passed over
kept = bytearray(SAVED)
box = outbox(Flash(12), epoch=5)
box.gather(2, 1, b"here")
box.save(kept)
assert remount(Flash(12), kept, False).depth() == 1
assert remount(Flash(12), bytearray(b"\xff" * SAVED), False).depth() == 0
box = remount(Flash(12), None, False)
assert box.depth() == 0 and box.lanes[ALERT].epoch == 77

# --- whose turn it is: by priority, and every fourth batch to the lower lanes in turn ---

box = outbox()
for lane in range(LANES):
    for i in range(12):
        box.put(lane, 1, 1000 + i, bytes(12))
batch = Batch(bytearray(51), 9, Seal(b"k"))  # one record a frame
box.rewind()
turns = []
while True:
    size, lane, seq = box.batch(batch)
    if size == 0:
        break
    turns.append(lane)
assert len(turns) == 48 and box.sent == [12] * LANES
assert turns[:16] == [0, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 3]
assert turns[16:20] == [1, 1, 1, 2]
assert box.depth() == 48  # sent is not arrived

# --- acknowledgements: cumulative, of this epoch, never beyond what there is, and durable ---

epoch = box.lanes[EVENT].epoch
for what in ((EVENT, epoch + 1, 5), (LANES, epoch, 5), (200, epoch, 5)):
    box.acknowledge(*what)
assert box.acked == [0, 0, 0, 0]
box.acknowledge(EVENT, epoch, 5)
box.acknowledge(EVENT, epoch, 3)  # an older one comes late
box.acknowledge(DIAGNOSTIC, epoch, 1 << 31)
assert box.acked == [0, 5, 0, 12]
assert box.depth() == 48  # not noted yet
box.settle()
assert box.depth() == 48 - 17
box.settle()  # nothing new: nothing to note
flash = box.lanes[0].device
assert flash.programs == 48 + 2, flash.programs
for clean in (True, False):
    box = again(flash, box, clean)
    assert box.depth() == 48 - 17 and box.lanes[EVENT].acked == 5
    box.rewind()
    assert box.sent == [0, 5, 0, 12]

# whose turn it is outlives sleep: the lower lanes get theirs though a link lasts for one batch
lived = box
turns = []
for _ in range(12):
    box = again(flash, box, True)
    box.rewind()
    turns.append(box.batch(batch)[1])
assert sorted(turns) == [ALERT] * 10 + [EVENT, TELEMETRY], turns  # nothing of diagnostic waits
box = lived

# numbers that jumped are no records: what is gathered is not taken for written
flash = Flash(12)
box = outbox(flash)
box.put(TELEMETRY, 2, 299, b"before")
box.gather(2, 300, b"after")
kept = bytearray(SAVED)
box.save(kept)


class Jumping(Outbox):
    def _regather(self, saved):
        self.lanes[TELEMETRY].next_seq += 7280  # as after damage
        super()._regather(saved)


box = Jumping((flash, 0, 12, 1), lambda: 77, SHARES)
box.mount(kept, False)
assert [bytes(payload) for _, _, payload in box.gathered()] == [b"after"]
box, flash = lived, lived.lanes[0].device

# an attempt that got no answer is made again from the last acknowledgement
assert box.batch(batch)[1:] == (ALERT, 1)
assert box.batch(batch)[1:] == (ALERT, 2)
box.rewind()
assert box.batch(batch)[1:] == (ALERT, 1)

# --- a full lane drops its own oldest, counts them, and no other lane's ---

box = outbox()
box.put(ALERT, 3, 1, b"kept")
for i in range(600):
    box.put(DIAGNOSTIC, 4, i, bytes((i & 255,)) * 24)
assert on_flash(box, ALERT) == [b"kept"]
left = [seq for seq, _, _, _ in box.lanes[DIAGNOSTIC].records()]
assert left[-1] == 600 and left == list(range(left[0], 601)) and left[0] > 100
assert box.dropped() == left[0] - 1
box.rewind()
while True:
    size, lane, seq = box.batch(batch)
    if size == 0:
        break
    box.acknowledge(lane, box.lanes[lane].epoch, seq)
box.settle()
assert box.depth() == 0 and box.dropped() == left[0] - 1

# --- a division of the flash that can't be ---

for shares in ((3, 3, 3), (3, 3, 3, 4), (12,)):
    try:
        Outbox((Flash(12), 0, 12, 1), None, shares)
    except ValueError:
        continue
    raise AssertionError(shares)
print("OK")
