"""The stopwatch's histograms: buckets, percentiles, and rows that fill up."""

from node import latency
from node.latency import AWAKE, BOOT, CAPTURE, INFER, Latency

watch = Latency()
watch.lap(BOOT, 70000)  # 17 bits
watch.lap(CAPTURE, 70000 + 5120000)  # 23 bits
watch.lap(INFER, 70000 + 5120000)  # no time at all
watch.end()
assert watch.bits(BOOT, 50) == watch.bits(BOOT, 99) == 17
assert watch.bits(CAPTURE, 50) == 23
assert watch.bits(INFER, 50) == 0
assert watch.bits(AWAKE, 50) == 23
assert len(watch.rows) == latency.SIZE == (AWAKE + 1) * 26

# the next wake begins at zero again
watch.lap(BOOT, 1)
assert watch.bits(BOOT, 50) == 1 and watch.bits(BOOT, 51) == 17

# one in a hundred is the 99th percentile's business, not the median's
watch = Latency()
for i in range(100):
    watch.lap(BOOT, 100000 if i == 50 else 1000)
    watch.end()
assert watch.bits(BOOT, 50) == 10
assert watch.bits(BOOT, 99) == 10 and watch.bits(BOOT, 100) == 17

# a full bucket halves its row: the shape stays
watch = Latency()
for i in range(1000):
    watch.lap(BOOT, 1000 if i % 4 else 4000)
    watch.end()
row = bytes(watch.rows[:26])
assert max(row) <= 255 and 2 < row[10] / row[12] < 4, row
# longer than the last bucket
watch.lap(CAPTURE, 1 << 40)
assert watch.bits(CAPTURE, 50) == 25
# nothing measured
assert Latency().bits(BOOT, 99) == 0
print("OK")
