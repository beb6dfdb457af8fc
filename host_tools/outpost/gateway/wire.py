"""The gateway's half of the frames: what nodes send, read; what they are answered, written.

The envelope is firmware/node/frame.py itself. Bytes and reasons: docs/frame-format.md.
"""

import struct
from binascii import crc32
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from node import document, frame, heartbeat
from node.frame import FrameError, Seal
from node.outbox import EVENT

FLOOR = 0x80
LONG = 15
SECONDS = range(1 << 32)
PIECE = frame.LONGEST - frame.HEAD - frame.TAIL - 12  # bytes of a package in a frame, at most


@dataclass(frozen=True, slots=True)
class Records:
    """Records of one lane, as (seq, kind, time_s, payload).

    No sequence between `after` and the first exists at the node; with `floor`, all up to `after`
    is acknowledged or gone there.
    """

    node: int
    lane: int
    epoch: int
    after: int
    floor: bool
    records: list[tuple[int, int, int, bytes]]


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes `offset`… of something `total` long that is known by `name` at its node."""

    node: int
    name: tuple[int, ...]
    total: int
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of one record's payload; `whole` has the record, its payload still empty."""

    whole: Records
    piece: Piece

    @property
    def node(self) -> int:
        """Whose it is."""
        return self.whole.node


def events(batch: Iterable[Records | Part], kind: int) -> Iterator[tuple[int, bytes]]:
    """Yield (node, payload) of the records of a kind in the event lane that came in one piece."""
    for one in batch:
        if isinstance(one, Records) and one.lane == EVENT:
            for _, found, _, payload in one.records:
                if found == kind:
                    yield one.node, payload


@dataclass(frozen=True, slots=True)
class Ask:
    """A node waits for what there is for it, and for TIME with this `nonce`."""

    nonce: int
    time_s: int
    settings: int  # CRC-32 of what it has
    refused: int  # CRC-32 of what it last refused
    frame: int  # bytes of its frames
    order: int  # number of the last command it obeyed


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """One frame of a node's word on itself; (epoch, seq, wakes) grows from one to the next."""

    node: int
    epoch: int
    seq: int
    wakes: int
    part: int
    items: dict[str, Any]
    ask: Ask | None


@dataclass(frozen=True, slots=True)
class Want:
    """A node lacks a package's bytes from `offset` on: `count` pieces of `size` bytes, please."""

    node: int
    number: int  # of the package
    offset: int
    size: int
    count: int


@dataclass(frozen=True, slots=True)
class Document:
    """A piece of what was changed of the node's settings: firmware/node/document.py."""

    piece: Piece

    @property
    def node(self) -> int:
        """Whose it is."""
        return self.piece.node


Message = Records | Part | Heartbeat | Want | Document


def read(kind: int, data: bytes) -> Message:
    """Read a frame whose seal has been opened. Raises FrameError if it is malformed."""
    node, = struct.unpack_from("<I", data, 1)
    end = len(data) - frame.TAIL
    try:
        match kind:
            case frame.RECORDS:
                return _records(node, data, end)
            case frame.PART:
                return _part(node, data, end)
            case frame.HEARTBEAT:
                return _heartbeat(node, data, end)
            case frame.WANT:
                return _want(node, data, end)
            case frame.DOCUMENT:
                return _document(node, data, end)
    except struct.error as error:
        raise FrameError(f"frame of {len(data)} bytes is cut short") from error
    raise FrameError(f"type {kind} has no business here")


def _lane(node: int, data: bytes, end: int) -> tuple[Records, int, int]:
    """Return a Records without records, the time of its first and where that begins."""
    lane, epoch = struct.unpack_from("<BI", data, frame.HEAD)
    after, at = frame.read_varint(data, frame.HEAD + 5, end)
    if at + 4 >= end:
        raise FrameError("frame without a record")
    time_s, = struct.unpack_from("<I", data, at)
    return Records(node, lane & ~FLOOR, epoch, after, bool(lane & FLOOR), []), time_s, at + 4


def _records(node: int, data: bytes, end: int) -> Records:
    found, time_s, at = _lane(node, data, end)
    records, seq = found.records, found.after
    # A number below 128 is its byte. What runs past `end` into the tail is noticed once a record.
    while at < end:
        step, delta = data[at], data[at + 1]
        at += 2
        if step > 127 or delta > 127:
            step, at = frame.read_varint(data, at - 2, end)
            delta, at = frame.read_varint(data, at, end)
        kind, size = data[at] >> 4, data[at] & 15
        at += 1
        if size == LONG:
            size += data[at]
            at += 1
        seq += step
        time_s += -(delta + 1 >> 1) if delta & 1 else delta >> 1
        stop = at + size
        if step == 0 or kind == 0 or stop > end:
            raise FrameError(f"record at byte {at} is malformed")
        if seq >> 32 or time_s not in SECONDS:
            raise FrameError(f"record at byte {at} is out of range")
        records.append((seq, kind, time_s, data[at:stop]))
        at = stop
    return found


def _part(node: int, data: bytes, end: int) -> Part:
    found, time_s, at = _lane(node, data, end)
    step, at = frame.read_varint(data, at, end)
    kind, total, offset = struct.unpack_from("<BBB", data, at)
    part = data[at + 3:end]
    seq = found.after + step
    if step == 0 or not 0 < kind < 16 or not part or offset + len(part) > total or seq >> 32:
        raise FrameError(f"part of {len(part)} bytes is malformed")
    found.records.append((seq, kind, time_s, b""))
    return Part(found, Piece(node, (found.lane, found.epoch, seq), total, offset, part))


def _want(node: int, data: bytes, end: int) -> Want:
    found = Want(node, *struct.unpack("<IIHB", data[frame.HEAD:end]))
    if not 0 < found.size <= PIECE:
        raise FrameError(f"pieces of {found.size} bytes")
    return found


def _document(node: int, data: bytes, end: int) -> Document:
    name, total, offset = struct.unpack_from("<IHH", data, frame.HEAD)
    piece = data[frame.HEAD + 8:end]
    if not piece or total > document.LONGEST or offset + len(piece) > total:
        raise FrameError(f"piece of {len(piece)} bytes is malformed")
    return Document(Piece(node, (name,), total, offset, piece))


# --- heartbeat ---


def _heartbeat(node: int, data: bytes, end: int) -> Heartbeat:
    epoch, = struct.unpack_from("<I", data, frame.HEAD)
    seq, at = frame.read_varint(data, frame.HEAD + 4, end)
    wakes, at = frame.read_varint(data, at, end)
    items: dict[str, Any] = {}
    ask = None
    part = at
    at += 1
    while at < end:
        if at + 2 > end or at + 2 + data[at + 1] > end:
            raise FrameError(f"item at byte {at} is malformed")
        tag, body = data[at], data[at + 2:at + 2 + data[at + 1]]
        at += 2 + len(body)
        if tag == heartbeat.ASK:
            ask = Ask(*struct.unpack("<IIIIHH", body))
            items |= {"clock_s": ask.time_s, "document": ask.settings, "refused": ask.refused,
                      "order": ask.order}
        else:
            _item(items, tag, body)
    if at == part + 1:
        raise FrameError("heartbeat without an item")
    return Heartbeat(node, epoch, seq, wakes, data[part], items, ask)


# items that are lists of (index, number): name
PAIRS = {heartbeat.WAKES: "wakes_by_cause", heartbeat.WAITING: "waiting",
         heartbeat.DROPPED: "dropped", heartbeat.TROUBLED: "troubled",
         heartbeat.JOULES: "today_uj", heartbeat.LONGEST: "longest_us",
         heartbeat.WORN: "worn"}
# items of a fixed layout: layout and names
FIELDS = {heartbeat.CAUSE: ("<B", ("cause",)), heartbeat.MISSES: ("<H", ("misses",)),
          heartbeat.POWER: ("<HbBHI", ("battery_mv", "temperature_c", "soc", "days_left",
                                       "pace_s")),
          heartbeat.MODE: ("<BBI", ("mode", "mode_reason", "mode_age_s")),
          heartbeat.BYTES: ("<III", ("bytes_spent", "bytes_left", "held_back")),
          heartbeat.FAULTS: ("<H", ("faults",)), heartbeat.UNLINKED: ("<B", ("unlinked",)),
          heartbeat.CONFIG: ("<IB", ("settings", "settings_problem"))}


def _item(items: dict[str, Any], tag: int, body: bytes) -> None:
    """Add an item; one of a later node's is kept as it came."""
    if tag in FIELDS:
        layout, names = FIELDS[tag]
        items.update(zip(names, struct.unpack(layout, body), strict=True))
    elif tag in PAIRS:
        numbers = items.setdefault(PAIRS[tag], {})
        at = 0
        while at < len(body):
            value, after = frame.read_varint(body, at + 1, len(body))
            numbers[str(body[at])] = value
            at = after
    elif tag == heartbeat.LATENCY and len(body) > 2:
        counts = items.setdefault("latency", {}).setdefault(str(body[0]), {})
        counts.update({str(body[1] + i): count for i, count in enumerate(body[2:])})
    elif tag == heartbeat.MODEL and len(body) >= 6:
        mpy, trial, version = struct.unpack_from("<BBI", body)
        items["model"] = {"mpy": mpy, "trial": trial, "version": version,
                          "name": body[6:].decode(errors="replace")}
    else:
        items[f"item {tag}"] = body.hex()


# --- downward ---


def acknowledgements(seal: Seal, node: int, heads: Sequence[tuple[int, int, int]]
                     ) -> Iterator[bytes]:
    """Yield frames that acknowledge (lane, epoch, seq), everything up to seq, of each lane."""
    for first in range(0, len(heads), 4):
        yield write(seal, frame.ACK, node, b"".join(
            struct.pack("<BII", *head) for head in heads[first:first + 4]))


def time(seal: Seal, node: int, nonce: int, time_s: int) -> bytes:
    """Return the frame that ends an answer; `time_s` 0 tells no time."""
    return write(seal, frame.TIME, node, struct.pack("<II", nonce, time_s))


def offer(seal: Seal, node: int, nonce: int, number: int, total: int, forced: bool) -> bytes:
    """Return the frame that offers a package of `total` bytes to who asked with `nonce`."""
    return write(seal, frame.OFFER, node, struct.pack("<IIIB", nonce, number, total, forced))


def package(seal: Seal, node: int, number: int, total: int, offset: int, data: bytes) -> bytes:
    """Return the frame with a package's bytes from `offset` on."""
    return write(seal, frame.PACKAGE, node, struct.pack("<III", number, total, offset) + data)


def command(seal: Seal, node: int, nonce: int, number: int, code: int, argument: bytes) -> bytes:
    """Return the frame with a command for who asked with `nonce`."""
    return write(seal, frame.COMMAND, node, struct.pack("<IIB", nonce, number, code) + argument)


def document_pieces(seal: Seal, ask: Ask, node: int, whole: bytes) -> Iterator[bytes]:
    """Yield the frames of a settings document, as long as the node's frames are at most."""
    room = ask.frame - frame.HEAD - frame.TAIL - 12
    name = crc32(whole)
    for offset in range(0, len(whole), room):
        yield settings_piece(seal, node, ask.nonce, name, len(whole), offset,
                             whole[offset:offset + room])


def settings_piece(seal: Seal, node: int, nonce: int, name: int, total: int, offset: int,
                   piece: bytes) -> bytes:
    """Return a frame with a piece of the settings document whose CRC-32 is `name`."""
    return write(seal, frame.SETTINGS, node,
                 struct.pack("<IIHH", nonce, name, total, offset) + piece)


def write(seal: Seal, kind: int, node: int, body: bytes) -> bytes:
    """Return a whole frame."""
    data = bytearray(frame.HEAD + len(body) + frame.TAIL)
    at = seal.begin(data, kind, node)
    data[at:at + len(body)] = body
    seal.close(data, at + len(body))
    return bytes(data)
