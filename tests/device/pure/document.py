"""Documents of settings: one way to write them, and two sides that agree whatever they did."""

import random
from binascii import crc32

from node import document
from node.document import GATEWAY, NODE, Pieces, merge, stamp, text

assert text({}) == b"{}"
assert text({"wake_s": [4, 60], "post": [2, [1, 2]], "gate": [6, {"span": 3, "channels": [0]}],
             "unsure": [8], "a": [10, None]}) == (
    b'{"a":[10,null],"gate":[6,{"channels":[0],"span":3}],"post":[2,[1,2]],"unsure":[8],'
    b'"wake_s":[4,60]}')
assert document.crc({}) == crc32(b"{}")
for version in range(20):
    for whose in (NODE, GATEWAY):
        after = stamp(version, whose)
        assert version < after <= version + 2 and after % 2 == whose

# the higher stamp wins, different settings both stay, and who gave way is named
ours, theirs = {"a": [3, 1], "b": [5, 2], "c": [7, 9]}, {"a": [4, 2], "b": [4, 3], "d": [2, 4]}
both, lost, won = merge(ours, theirs)
assert both == {"a": [4, 2], "b": [5, 2], "c": [7, 9], "d": [2, 4]}
assert (lost, won) == (["a"], ["b"])
assert merge({"a": [3, 5]}, {"a": [4, 5]}) == ({"a": [4, 5]}, [], [])  # nobody lost anything
assert merge({"a": [4, 5]}, {"a": [6]}) == ({"a": [6]}, ["a"], [])

# in any order, any number of times
random.seed(1)


def some():
    return {random.choice("abcd"): [random.randrange(1, 9), random.randrange(3)]
            for _ in range(random.randrange(6))}


for _ in range(500):
    a, b, c = some(), some(), some()
    assert merge(a, b)[0] == merge(b, a)[0] and merge(a, a)[0] == a
    assert merge(merge(a, b)[0], c)[0] == merge(a, merge(b, c)[0])[0]
    assert merge(merge(a, b)[0], b)[0] == merge(a, b)[0]

# in pieces
whole = text({"wake_s": [4, 60], "post": [6, [1] * 15]})
name = crc32(whole)
for size in (1, 7, 28, 500):
    pieces = [(name, len(whole), at, whole[at:at + size]) for at in range(0, len(whole), size)]
    for _ in range(3):
        order = sorted(pieces, key=lambda _: random.random())
        found = Pieces()
        for piece in order[:-1]:
            assert found.add(*piece) == b""
            assert found.add(*piece) is None  # no news
        assert found.add(*order[-1]) == whole
        for piece in order:
            assert found.add(*piece) is None  # nor is any of it now
found = Pieces()
assert found.add(name ^ 1, len(whole), 0, whole) is None  # not what it is called
assert found.add(name, document.LONGEST + 1, 0, b"x") is None
assert found.add(5, 9, 0, b"xxxx") == b""  # the other of which nothing more comes
assert found.add(name, len(whole), 0, whole) == whole
print("OK")
