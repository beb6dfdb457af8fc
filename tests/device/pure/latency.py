"""The stopwatch's histograms: counters, percentiles, the longest, and rows that fill up."""

from node import latency
from node.latency import AWAKE, BOOT, CAPTURE, COUNTERS, INFER, PRE, Latency, edge_us

watch = Latency()
assert watch.lap(BOOT, 70000) == 70000
assert watch.lap(CAPTURE, 70000 + 5120000) == 5120000
assert watch.lap(INFER, 70000 + 5120000) == 0  # no time at all
assert watch.end() == 5190000
assert watch.counter(BOOT, 50) == watch.counter(BOOT, 99)
assert edge_us(watch.counter(BOOT, 50) - 1) <= 70000 < edge_us(watch.counter(BOOT, 50))
assert watch.counter(INFER, 50) == 0
assert list(watch.longest_us) == [70000, 5120000, 0, 0, 0, 0, 0, 5190000]

# every duration is counted below its edge and not below the one before; edges are half an octave
for counter in range(1, COUNTERS):
    for us in (edge_us(counter - 1), edge_us(counter) - 1):
        watch = Latency()
        watch.lap(PRE, us)
        assert watch.counter(PRE, 50) == counter, (counter, us)
    assert 130 < 100 * edge_us(counter) // edge_us(counter - 1) <= 150
assert edge_us(0) == 16 and edge_us(COUNTERS - 1) > 200 * 1000000

# the next wake begins at zero again
watch = Latency()
watch.lap(BOOT, 70000)
watch.end()
watch.lap(BOOT, 1)
assert watch.counter(BOOT, 50) == 0 and edge_us(watch.counter(BOOT, 51)) == 98304

# one in a hundred is the 99th percentile's business, not the median's
watch = Latency()
for i in range(100):
    watch.lap(BOOT, 100000 if i == 50 else 1000)
    watch.end()
assert edge_us(watch.counter(BOOT, 50)) == edge_us(watch.counter(BOOT, 99)) == 1024
assert edge_us(watch.counter(BOOT, 100)) == 131072 and watch.longest_us[BOOT] == 100000

# a full counter halves its row: the shape stays, and so does the longest
watch = Latency()
for i in range(1000):
    watch.lap(BOOT, 1000 if i % 4 else 4000)
    watch.end()
row = bytes(watch.rows[:COUNTERS])
assert max(row) <= 255 and 2 < row[watch.counter(BOOT, 50)] / row[watch.counter(BOOT, 99)] < 4
# longer than the last counter, longer than a number
watch.lap(CAPTURE, 1 << 40)
assert watch.counter(CAPTURE, 50) == COUNTERS - 1 and watch.longest_us[CAPTURE] == 0x3FFFFFFF
assert watch.counter(AWAKE, 99) and Latency().counter(BOOT, 99) == 0  # nothing measured

# retained memory
kept = bytearray(latency.SIZE)
watch.save(memoryview(kept))
found = Latency()
found.load(memoryview(kept))
assert found.rows == watch.rows and found.longest_us == watch.longest_us
print("OK")
