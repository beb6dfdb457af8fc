# The first step of the cascade: is anything going on at all? A few comparisons in Python, on the
# first samples of a window, so that a quiet one is neither sampled to its end nor classified.


def quiet(window, channels, spec):
    """Whether no channel that `spec` (settings' "gate") names moves by more than its span.

    `window` is interleaved by channel, and only its first `spec["samples"]` are looked at.
    """
    span, end = spec["span"], spec["samples"] * channels
    for channel in spec["channels"]:
        low = high = window[channel]
        for i in range(channel, end, channels):
            value = window[i]
            if value < low:
                low = value
            elif value > high:
                high = value
        if high - low > span:
            return False
    return True
