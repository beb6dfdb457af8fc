# A sensor that plays recordings: its windows come from the world around the unix board.

import errno


class Replay:
    def __init__(self, fetch, wait, channels):
        self._fetch = fetch  # fetch(buf) fills it and returns the number of bytes that came
        self._wait = wait  # wait(rows) lets the time pass that so many samples take
        self._channels = channels

    def capture(self, buf, first=0, enough=None):
        """Fill `buf` (int16, interleaved by channel) and return the number of rows.

        After `first` rows `enough()` is asked whether these will do.
        """
        rows = len(buf) // self._channels
        came = self._fetch(buf)
        if enough:
            self._wait(first)
            if came and enough():
                return first
            first = rows - first
        else:
            first = rows
        self._wait(first)
        if came != 2 * len(buf):
            raise OSError(errno.ENODEV)
        return rows
