"""MQTT 3.1.1's packets at QoS 0 and 1, and what a broker reads in them.

What is no such packet raises PacketError; the numbers in brackets are those of the standard.
"""

import re
import struct
from typing import NamedTuple

CONNECT, CONNACK, PUBLISH, PUBACK = 0x10, 0x20, 0x30, 0x40
SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK = 0x82, 0x90, 0xA2, 0xB0
PINGREQ, PINGRESP, DISCONNECT = 0xC0, 0xD0, 0xE0
QOS1 = 2  # among the flags of a PUBLISH
REFUSED = 0x80  # a subscription
LARGEST = 1 << 16  # bytes of a packet; a frame is at most 1,024
SHORT = struct.Struct(">H")

_ASKED = (CONNECT, PUBACK, SUBSCRIBE, UNSUBSCRIBE, PINGREQ, DISCONNECT)  # besides PUBLISH


class PacketError(ValueError):
    """Bytes that are no packet, or one that is not spoken here; the connection ends."""


class Message(NamedTuple):
    """What somebody publishes."""

    topic: str
    payload: bytes
    qos: int


class Hello(NamedTuple):
    """A CONNECT. `refused`: the code to answer with, 0 if it is welcome."""

    name: str
    keepalive_s: int
    will: Message | None
    refused: int = 0


def packet_at(data: bytes, at: int) -> tuple[int, int, int] | None:
    """Return (first byte, where the body begins, where it ends) of the packet at `at`.

    None while it isn't whole.
    """
    size = shift = 0
    for i in range(at + 1, min(at + 5, len(data))):
        size |= (data[i] & 127) << shift
        if data[i] < 128:
            if size > LARGEST:
                raise PacketError(f"a packet of {size} bytes")
            end = i + 1 + size
            return (data[at], i + 1, end) if end <= len(data) else None
        shift += 7
    if shift == 28:
        raise PacketError("a length of more than four bytes")  # [2.2.3]
    return None


def expect(first: int) -> None:
    """Refuse a packet that no client sends, by its first byte; of PUBLISH there is more to see."""
    if first & 0xF0 != PUBLISH and first not in _ASKED:
        raise PacketError(f"a packet that begins with {first:#04x}")  # [2.2.2-2]


def hello(body: bytes) -> Hello:
    """Read a CONNECT."""
    name, at = _bytes(body, 0)
    if name != b"MQTT":
        raise PacketError("another protocol")  # [3.1.2-1]
    if len(body) < at + 4:
        raise PacketError("a CONNECT cut short")
    level, flags, keepalive_s = body[at], body[at + 1], _number(body, at + 2)
    if level != 4:
        return Hello("", 0, None, refused=1)  # [3.1.2-2]
    clean, has_will, qos = flags & 2, flags & 4, flags >> 3 & 3
    if flags & 1 or qos == 3 or (not has_will and flags & 0x38) or flags & 0xC0 == 0x40:
        raise PacketError(f"connect flags of {flags:#04x}")  # [3.1.2-3, -11, -13…-15, -22]
    client, at = _text(body, at + 4)
    will = None
    if has_will:
        topic, at = _text(body, at)
        payload, at = _bytes(body, at)
        will = Message(_plain(topic), payload, min(qos, 1))
    if flags & 0x80:
        _, at = _text(body, at)
    if flags & 0x40:
        _, at = _bytes(body, at)
    _ends(body, at)
    return Hello(client, keepalive_s, will, refused=0 if client or clean else 2)  # [3.1.3-8]


def message(first: int, body: bytes) -> tuple[Message, bytes]:
    """Read a PUBLISH; return also the PUBACK it wants, or nothing."""
    qos = first >> 1 & 3
    if qos > 1 or first & 14 == 8:
        raise PacketError("QoS 2, or 3, or 0 twice")  # [3.3.1-2, -4]; 2 isn't spoken here
    topic, at = _text(body, 0)
    if qos:
        number = identifier(body, at)
        return Message(_plain(topic), body[at + 2:], 1), packet(PUBACK, SHORT.pack(number))
    return Message(_plain(topic), body[at:], 0), b""


def subscriptions(body: bytes) -> list[tuple[str, int]]:
    """Read what a SUBSCRIBE asks for, after its identifier: (filter, QoS)."""
    found: list[tuple[str, int]] = []
    at = 2
    while at < len(body) or not found:  # [3.8.3-3]
        topic, at = _text(body, at)
        if at == len(body) or body[at] > 2:
            raise PacketError("a subscription without QoS")  # [3.8.3-4]
        found.append((topic, body[at]))
        at += 1
    return found


def unsubscriptions(body: bytes) -> list[str]:
    """Read what an UNSUBSCRIBE asks for, after its identifier."""
    found: list[str] = []
    at = 2
    while at < len(body) or not found:  # [3.10.3-2]
        topic, at = _text(body, at)
        found.append(topic)
    return found


def identifier(body: bytes, at: int = 0) -> int:
    """Read a packet's identifier."""
    found = _number(body, at)
    if not found:
        raise PacketError("an identifier of 0")  # [2.3.1-1]
    return found


def pattern(topic_filter: str) -> re.Pattern[str] | None:
    """Return what topics of a filter with wildcards look like, None for one without any."""
    if not topic_filter:
        raise PacketError("an empty filter")  # [4.7.3-1]
    levels = topic_filter.split("/")
    if any(level not in ("+", "#") and ("+" in level or "#" in level) for level in levels) \
            or "#" in levels[:-1]:
        raise PacketError("a wildcard in the midst of a filter")  # [4.7.1-2, -3]
    if "+" not in levels and "#" not in levels:
        return None
    parts = ["[^/]*" if level == "+" else re.escape(level) for level in levels if level != "#"]
    tail = "" if levels[-1] != "#" else "(?:/.*)?" if parts else ".*"
    mine = r"(?!\$)" if levels[0] in ("+", "#") else ""  # [4.7.2-1]
    return re.compile(mine + "/".join(parts) + tail, re.DOTALL)


def published(topic: str, payload: bytes, number: int = 0) -> bytes:
    """Return a PUBLISH: at QoS 1 with an identifier, at QoS 0 without one."""
    if number:
        return packet(PUBLISH | QOS1, text(topic) + SHORT.pack(number) + payload)
    return packet(PUBLISH, text(topic) + payload)


def packet(first: int, body: bytes = b"") -> bytes:
    """Return a packet."""
    size, head = len(body), bytearray((first,))
    while size > 127:
        head.append(size & 127 | 128)
        size >>= 7
    head.append(size)
    return bytes(head) + body


def text(word: str) -> bytes:
    """Return a string with its length before it."""
    coded = word.encode()
    return SHORT.pack(len(coded)) + coded


def _text(body: bytes, at: int) -> tuple[str, int]:
    """Read a string; return where it ends, too."""
    found, at = _bytes(body, at)
    try:
        said = found.decode()
    except UnicodeDecodeError:
        raise PacketError("a string that is no UTF-8") from None  # [1.5.3-1]
    if "\0" in said:
        raise PacketError("a string with a zero in it")  # [1.5.3-2]
    return said, at


def _plain(topic: str) -> str:
    """Return a topic to publish to."""
    if not topic or "+" in topic or "#" in topic:
        raise PacketError("a topic with wildcards, or none")  # [3.3.2-2, 4.7.3-1]
    return topic


def _bytes(body: bytes, at: int) -> tuple[bytes, int]:
    end = at + 2 + _number(body, at)
    if end > len(body):
        raise PacketError("a string cut short")
    return body[at + 2:end], end


def _number(body: bytes, at: int) -> int:
    if at + 2 > len(body):
        raise PacketError("a packet cut short")
    return int(SHORT.unpack_from(body, at)[0])


def _ends(body: bytes, at: int) -> None:
    if at != len(body):
        raise PacketError("more bytes than belong to a packet")
