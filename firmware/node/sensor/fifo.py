# Words of the LSM6DSOX's FIFO to the rows of a window: machine code, a fiftieth of the time.

import micropython

WORD = 7  # bytes of a word: tag and three axes


@micropython.viper
def place(raw: ptr8, words: int, buf: ptr16, rows: int, placed: ptr16):  # noqa: F821
    """Put `words` words to where they belong in `buf`, rows of (acceleration, rotation).

    `placed` counts the rows so far, of rotation and of acceleration; what is beyond `rows` goes.
    """
    at = 0
    for _ in range(words):
        kind = (int(raw[at]) >> 3) - 1  # tag 1 is rotation, 2 acceleration
        if kind == 0 or kind == 1:
            row = int(placed[kind])
            if row < rows:
                placed[kind] = row + 1
                to = 6 * row + 3 - 3 * kind
                for byte in range(at + 1, at + 7, 2):
                    buf[to] = int(raw[byte]) | int(raw[byte + 1]) << 8
                    to += 1
        at += 7
