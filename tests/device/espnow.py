"""ESP-NOW on real MicroPython with a made-up air: nodes' wakes through a bridge and back."""

import random

from bridge import Bridge
from desk import SEAL, Board, done, wake
from node.frame import ACK, HEAD, TAIL
from node.outbox import TELEMETRY
from node.uplink.espnow import Espnow
from node.uplink.serial import decode, encode

BRIDGE = b"BRIDGE"


class Air:
    """Radios by address, and what gets lost between them."""

    def __init__(self, lose=0):
        self.radios, self.lose, self.longest = {}, lose, 0


class Radio:
    """espnow.ESPNow, as MicroPython 1.25's documentation has it."""

    def __init__(self, air, address, idle=None):
        self.air, self.address, self.idle = air, address, idle
        self.peers, self.came, self.on = [], [], True
        air.radios[address] = self

    def active(self, on):
        self.on = on
        if not on:
            self.peers, self.came = [], []

    def add_peer(self, address):
        if address in self.peers or len(self.peers) == 20:
            raise OSError(-12395)
        self.peers.append(address)

    def del_peer(self, address):
        self.peers.remove(address)

    def send(self, address, data, sync=True):
        if len(data) > 250:
            raise ValueError("message too long")
        if address not in self.peers:
            raise OSError(-12393)
        self.air.longest = max(self.air.longest, len(data))
        other = self.air.radios.get(address)
        if other is None or not other.on or random.random() < self.air.lose:
            return False
        other.came.append((self.address, bytes(data)))
        return True

    def recv(self, ms):
        if not self.came and ms and self.idle:
            self.idle(ms)
        return self.came.pop(0) if self.came else (None, None)


class Cable:
    """A bridge's cable, and at its other end a gateway that acknowledges: desk.Board.send()."""

    def __init__(self, boards):
        self.boards, self.back, self.line = boards, bytearray(b"\0noise\0"), bytearray()

    def write(self, data):
        for byte in data:
            if byte:
                self.line.append(byte)
                continue
            frame = self.line[:decode(self.line, len(self.line))]
            self.line = bytearray()
            board = self.boards[int.from_bytes(frame[1:5], "little")]
            board.send(frame)
            while board.answers:
                answer = board.answers.pop(0)
                out = bytearray(len(answer) + 8)
                self.back += out[:encode(answer, len(answer), out)]

    def read(self):
        data, self.back = self.back, bytearray()
        return data


def node(air, number, bridge, **settings):
    """A board whose link is ESP-NOW; while it waits, the bridge works."""
    board = Board(**settings)
    board.node_id = number

    def idle(ms):
        board.transmit(2000)
        bridge.step()
        if not board.air.came:
            board.transmit(ms * 1000)

    def link():
        board.attempts.append(board.now_s())
        board.radio, board.answers, board.carried = True, [], 0
        board.air = Radio(air, b"NODE%02d" % number, idle)
        made = Espnow(board.air, BRIDGE)
        close = made.close

        def closed():
            close()
            board.radio = False

        made.close = closed
        return made

    board.link = link
    return board


random.seed(3)

# --- a node's wakes: all of it comes home, in frames of 250 bytes at most ---

for lose in (0, 0.1):
    air, boards = Air(lose), {}
    bridge = Bridge(Radio(air, BRIDGE), Cable(boards))
    boards[7] = board = node(air, 7, bridge, wake_s=60)
    for _ in range(80):
        wake(board)
    while board.state().unlinked:  # the last attempt may have failed
        wake(board)
    assert board.records(TELEMETRY) and board.state().depth < 40, board.state().depth
    assert 100 < air.longest <= 250 and board.state().spent > 1000
    assert len(board.attempts) >= 8 and not board.air.on

# --- no bridge, one on another channel, one that is unplugged: as no link ---

air = Air()
board = node(air, 7, bridge)
wake(board)
assert board.state().unlinked == 1 and board.radio_us < 3000000
air = Air()
bridge = Bridge(Radio(air, BRIDGE), Cable({}))
bridge._stream.write = lambda data: None  # hears, and nobody behind it answers
board = node(air, 7, bridge)
wake(board)
assert board.state().unlinked == 1 and board.radio_us < 4000000

# --- more nodes than ESP-NOW knows peers; noise and strangers; each answer to whom it is for ---

air, boards = Air(), {}
bridge = Bridge(Radio(air, BRIDGE), Cable(boards))
for _ in range(2):
    for number in range(1, 31):
        boards[number] = board = node(air, number, bridge)
        wake(board)
        assert board.state().unlinked == 0, number
        board.air.idle = boards[number] = None  # its flash takes room
bridge._radio.came += [(b"NOBODY", b"x" * 40), (b"NOBODY", b"")]
bridge.step()
assert bridge.dropped == 3  # and the noise on the cable
stranger = bytearray(HEAD + 9 + TAIL)
SEAL.begin(stranger, ACK, 99)  # a node that was never heard
SEAL.close(stranger, HEAD + 9)
out = bytearray(60)
bridge._stream.back += out[:encode(stranger, len(stranger), out)]
bridge._stream.back += b"\x55" * 5000 + b"\0"
bridge.step()
assert bridge.dropped == 4 and len(bridge._line) == 0
assert len(bridge._peers) == 20 == len(bridge._radio.peers)

# --- somebody else's packets are not taken for answers ---

link = Espnow(Radio(air, b"NODE98"), BRIDGE)
air.radios[b"NODE98"].came = [(b"OTHERS", b"abc"), (BRIDGE, b"x" * 300), (BRIDGE, b"mine")]
buf = bytearray(250)
assert link.receive(buf, 10) == 4 and bytes(buf[:4]) == b"mine"
assert link.receive(buf, 10) == 0
done()
