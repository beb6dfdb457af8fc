"""Smoothing: majorities, fading votes, ties, and what is not yet decided."""

from node import post
from node.record import NO_CLASS


def smooth(decisions, weights):
    history = bytearray(bytes((NO_CLASS,)) * post.SIZE)
    current, outcomes = NO_CLASS, []
    for decision in decisions:
        post.remember(history, decision)
        current = post.vote(history, weights, current)
        outcomes.append(current)
    return outcomes


# one decision: what it says
assert smooth([3, 1, 2], (1,)) == [3, 1, 2]
# a majority of three: one outlier is outvoted, two of a kind are not
assert smooth([0, 0, 0, 1, 0, 1, 1], (1, 1, 1)) == [0, 0, 0, 0, 0, 1, 1]
# a tie leaves things as they are
assert smooth([0, 1, 0, 1], (1, 1)) == [0, 0, 0, 0]
# a three-way tie as well
assert smooth([0, 0, 1, 2], (1, 1, 1)) == [0, 0, 0, 0]
# fading votes: two new ones against three old ones that together weigh less
assert smooth([0, 0, 0, 1, 1], (256, 128, 64, 32, 16)) == [0, 0, 0, 1, 1]
assert smooth([0, 0, 0, 1, 1], (4, 3, 3, 3, 3)) == [0, 0, 0, 0, 0]
# only as many as have a weight count, and the history holds no more than SIZE
assert smooth([2] * 40 + [1] * 8, [1] * post.SIZE)[-2:] == [2, 1]
# zero weight is no vote
assert smooth([1], (0,)) == [NO_CLASS]

history = bytearray(range(post.SIZE))
post.remember(history, 99)
assert history == bytes([99]) + bytes(range(post.SIZE - 1))
print("OK")
