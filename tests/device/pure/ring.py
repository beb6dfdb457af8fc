"""The ring: what is appended is read in order, acknowledged, dropped by age and found again."""

from node.ring import Ring
from ram import SECTOR, Flash


def ring_on(flash, saved=None, epoch=77, tag=0):
    ring = Ring(flash, 0, len(flash.data) // SECTOR, tag, 1, lambda: epoch)
    ring.mount(saved)
    return ring


def all_of(ring, seq=1):
    return [(found, kind, time_s, bytes(payload)) for found, kind, time_s, payload
            in ring.records(seq)]


# --- records of every length come back whole, after a mount cold or warm ---

flash = Flash(4)
ring = ring_on(flash)
assert all_of(ring) == [] and ring.epoch == 77 and ring.next_seq == 1
wanted = []
for i in range(40):
    record = (1 + i % 15, 1000003 * i, bytes((i,) * (i * 6)))
    assert ring.append(*record) == i + 1
    wanted.append((i + 1,) + record)
assert all_of(ring) == wanted
assert all_of(ring_on(flash, ring.save(), 78)) == wanted
again = ring_on(flash, None, 78)
assert all_of(again) == wanted and again.epoch == 77 and again.next_seq == 41
for seq in (1, 2, 17, 40, 41):
    assert all_of(ring, seq) == wanted[seq - 1:]
part = ring.records()
assert [next(part)[0], next(part)[0]] == [1, 2]
assert next(ring.records(3))[0] == 3  # goes on where it was

# --- many in a program; what can't be is refused before anything is written ---

flash = Flash(3)
ring = ring_on(flash)
ring.extend([(2, i, bytes((i,))) for i in range(25)])
assert flash.programs == 1 and [record[3] for record in all_of(ring)] == [
    bytes((i,)) for i in range(25)]
for kind, size in ((0, 1), (16, 1), (1, 248)):
    try:
        ring.append(kind, 0, bytes(size))
    except ValueError:
        continue
    raise AssertionError((kind, size))
assert ring.append(15, 0, bytes(247)) == 26 and flash.programs == 2

# --- acknowledgements are durable and cumulative ---

ring.acknowledge(9)
ring.acknowledge(7)  # older
ring.acknowledge(99)  # not given yet
assert ring.acked == 9
ring = ring_on(flash)
assert ring.acked == 9 and ring.next_seq >= 27

# --- a full ring drops its oldest, and counts those that were not acknowledged ---

flash = Flash(3)
ring = ring_on(flash)
for i in range(500):
    ring.append(1, i, bytes(32))
    if i == 20:
        ring.acknowledge(15)
for one in (ring, ring_on(flash, ring.save()), ring_on(flash)):
    found = all_of(one)
    assert found[-1][0] == 500 and [record[0] for record in found] == list(
        range(found[0][0], 501))
    assert one.dropped == found[0][0] - 1 - 15, (one.dropped, found[0][0])

# --- prepared, an append erases nothing; state that is old is not believed ---

erases = []
erase = flash.ioctl
flash.ioctl = lambda operation, sector: erases.append(sector) or erase(operation, sector)
ring = ring_on(flash)
saved = ring.save()
for i in range(300):
    ring.prepare()
    erases.clear()
    ring.append(1, i, bytes(32))
    assert not erases
assert not ring.prepare() or not ring.prepare()
assert ring_on(flash, saved).next_seq == ring.next_seq

# --- another lane's sectors, another ring's, and random bytes are nothing to read ---

assert all_of(ring_on(flash, None, 78, tag=1)) == []
noise = Flash(3)
state = 1
for i in range(len(noise.data)):
    state = state * 1664525 + 1013904223 & 0xFFFFFFFF
    noise.data[i] = state >> 24
ring = ring_on(noise, None, 99)
assert all_of(ring) == [] and ring.epoch == 99 and ring.append(3, 4, b"first") == 1
assert all_of(ring_on(noise)) == [(1, 3, 4, b"first")]

# --- geometries that can't be ---

for sectors, unit, page in ((2, 1, 256), (4097, 1, 256), (3, 512, 256), (3, 1, 512)):
    try:
        Ring(flash, 0, sectors, 0, unit, None, SECTOR, page)
    except ValueError:
        continue
    raise AssertionError((sectors, unit, page))
print("OK")
