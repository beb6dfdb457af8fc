"""An ESP32 image in the form of MicroPython's releases: boot loader, table, application."""

import hashlib
import struct

TABLE, APPLICATION = 0x8000, 0x10000


def part(chip: int, body: bytes) -> bytes:
    """Return an ESP application image of one segment, with checksum and digest."""
    body = body.ljust(-(-len(body) // 4) * 4, b"\0")
    head = struct.pack("<BBBBI", 0xE9, 1, 2, 0x20, 0x40080000) + bytes(4) + struct.pack("<H", chip)
    head = head.ljust(23, b"\0") + b"\1"
    image = head + struct.pack("<II", 0x3F400020, len(body)) + body
    checksum = 0xEF
    for byte in body:
        checksum ^= byte
    image = image.ljust(len(image) // 16 * 16 + 15, b"\0") + bytes([checksum])
    return image + hashlib.sha256(image).digest()


def application(chip: int = 0, version: str = "1.25.0", size: int = 20000) -> bytes:
    """Return an application that says it is MicroPython."""
    body = struct.pack("<I", 0xABCD5432) + bytes(252) + f"MicroPython v{version} on ".encode()
    filler = b"".join(hashlib.sha256(bytes([i & 255, i >> 8])).digest() for i in range(size // 32))
    return part(chip, body + filler)


def combined(chip: int = 0, start: int = 0x1000, app: bytes | None = None) -> bytes:
    """Return the whole file, as it begins at `start` in flash."""
    loader = part(chip, b"second stage" * 100)
    image = loader.ljust(TABLE - start, b"\xff") + b"\xaa\x50"
    return image.ljust(APPLICATION - start, b"\xff") + (app or application(chip))
