# Decisions smoothed over time: the last ones vote, and only a change of the outcome is an event.
# weights[0] is the newest decision's say: (1, 1, 1) is a majority of three, (256, 128, 64) fades.

from micropython import const

from node.record import NO_CLASS

SIZE = const(15)  # decisions remembered


def remember(history, decision):
    """Put the newest decision first."""
    for i in range(len(history) - 1, 0, -1):
        history[i] = history[i - 1]
    history[0] = decision


def vote(history, weights, current):
    """The class with most weight behind it; `current` stays unless another has more."""
    scores = {}
    for decision, weight in zip(history, weights):
        if decision != NO_CLASS:
            scores[decision] = scores.get(decision, 0) + weight
    best = current
    for decision in history[:len(weights)]:
        if scores.get(decision, 0) > scores.get(best, 0):
            best = decision
    return best
