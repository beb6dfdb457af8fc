"""NOR flash in RAM, and an outbox on it."""

from node.outbox import Outbox

SECTOR = 4096


class Flash:
    def __init__(self, sectors):
        self.data = bytearray(b"\xff" * SECTOR * sectors)
        self.programs = 0
        self.looked = set()  # sectors read

    def readblocks(self, n, buf, offset=0):
        self.looked.add(n)
        start = n * SECTOR + offset
        buf[:] = self.data[start:start + len(buf)]

    def writeblocks(self, n, buf, offset=0):
        self.programs += 1
        start = n * SECTOR + offset
        for i in range(len(buf)):
            assert self.data[start + i] & buf[i] == buf[i], "program sets bits"
            self.data[start + i] = buf[i]

    def ioctl(self, operation, n):
        if operation == 6:
            self.data[n * SECTOR:(n + 1) * SECTOR] = b"\xff" * SECTOR
        return 0


def outbox(flash=None, epoch=0xCAFE0001):
    box = Outbox((flash or Flash(12), 0, 12, 1), lambda: epoch, (3, 3, 3, 3))
    box.mount()
    return box
