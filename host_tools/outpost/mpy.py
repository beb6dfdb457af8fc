"""The bytes of a native .mpy file, version 6.3: written, and read back to check them.

The format is told in docs/native-module.md; the loader it has to please is MicroPython's
py/persistentcode.c.
"""

from dataclasses import dataclass, field

from outpost.errors import OutpostError

VERSION = 6
SUB_VERSION = 3
SMALL_INT_BITS = 31  # what the constants need at most; every port has as many
VIPER = 2  # kind of code: machine code, called as f(self, arguments, keywords, values)

RELOCATE, RODATA, BSS = 0x10, 0x20, 0x40  # scope flags

# Where a relocated word points to; from TABLE on, entry 0, 1, 2 … of the runtime's table.
TO_TEXT, TO_RODATA, TO_BSS, TO_QSTRS, TABLE = 0, 1, 2, 6, 9
TABLE_ENTRIES = 87
END = 0xFF


class MpyError(OutpostError):
    """Bytes that are no native .mpy file, or that a loader would choke on."""


@dataclass(frozen=True, order=True)
class Fixup:
    """The loader adds the address of `target` to the word at `offset` of text or rodata."""

    in_rodata: bool
    offset: int
    target: int


@dataclass
class Module:
    """What one native .mpy file holds.

    `qstrs` are the names the code uses: qstrs[0] is the source file's. Execution starts at the
    first byte of `text`.
    """

    arch: int
    qstrs: list[str]
    text: bytes
    rodata: bytes = b""
    bss: int = 0  # bytes
    fixups: list[Fixup] = field(default_factory=list)


def encode(module: Module, word: int) -> bytes:
    """Return `module` as the bytes of a file; `word` is the bytes of a pointer."""
    out = bytearray([ord("M"), VERSION, module.arch << 2 | SUB_VERSION, SMALL_INT_BITS])
    out += _uint(len(module.qstrs)) + _uint(0)
    for name in module.qstrs:
        out += _uint(len(name.encode()) << 1) + name.encode() + b"\0"
    out += _uint(len(module.text) << 3 | VIPER) + module.text
    # The flag is set even without fixups: the loader keeps only relocated code from its collector.
    out += _uint(RELOCATE | (RODATA if module.rodata else 0) | (BSS if module.bss else 0))
    if module.rodata:
        out += _uint(len(module.rodata))
    if module.bss:
        out += _uint(module.bss)
    out += module.rodata
    return bytes(out + _fixups(sorted(module.fixups), word))


def _uint(value: int) -> bytes:
    """Return `value` in groups of seven bits, highest first; all but the last have bit 7 set."""
    groups = [value & 0x7F]
    while value := value >> 7:
        groups.append(value & 0x7F | 0x80)
    return bytes(reversed(groups))


def _fixups(fixups: list[Fixup], word: int) -> bytes:
    """Return the relocation program: runs of neighbours with the same target take one entry."""
    out = bytearray()
    follows = None  # where the next fixup needs no address
    index = 0
    while index < len(fixups):
        first = fixups[index]
        count = 1
        while (index + count < len(fixups) and first.target <= TO_BSS
               and fixups[index + count] == Fixup(first.in_rodata, first.offset + count * word,
                                                  first.target)):
            count += 1
        jump = follows != (first.in_rodata, first.offset)
        many = count > 1
        code = first.target << 1 | many if first.target <= TO_BSS else first.target
        out.append(code << 1 | jump)
        if jump:
            out += _uint(first.offset // word << 1 | first.in_rodata)
        if many:
            out += _uint(count)
        follows = (first.in_rodata, first.offset + count * word)
        index += count
    return bytes(out + bytes([END]))


class _Reader:
    """Bytes taken from the front; reading past the end is an MpyError."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def bytes(self, length: int) -> bytes:
        if self.at + length > len(self.data):
            raise MpyError(f".mpy file ends at byte {len(self.data)}, "
                           f"{self.at + length - len(self.data)} too early")
        self.at += length
        return self.data[self.at - length:self.at]

    def uint(self) -> int:
        value = 0
        while True:
            byte = self.bytes(1)[0]
            value = value << 7 | byte & 0x7F
            if not byte & 0x80:
                return value


def decode(data: bytes, word: int) -> Module:
    """Read a native .mpy file as the loader does, and check what the loader takes on trust."""
    reader = _Reader(data)
    magic, version, feature, small_int = reader.bytes(4)
    if (magic, version, feature & 3, small_int) != (ord("M"), VERSION, SUB_VERSION,
                                                    SMALL_INT_BITS):
        raise MpyError(f"header {data[:4].hex()} is none of a native .mpy file, "
                       f"version {VERSION}.{SUB_VERSION}")
    names, objects = reader.uint(), reader.uint()
    if objects:
        raise MpyError(f"{objects} constant objects, and a module of ours has none")
    qstrs = []
    for _ in range(names):
        length = reader.uint()
        text = reader.bytes((length >> 1) + 1)
        if length & 1 or text[-1]:
            raise MpyError(f"name {len(qstrs)} isn't spelt out and ended by a zero byte")
        qstrs.append(text[:-1].decode())
    kind = reader.uint()
    if kind & 7 != VIPER:
        raise MpyError(f"code is of kind {kind & 7}, not native ({VIPER})")
    text = reader.bytes(kind >> 3)
    flags = reader.uint()
    if not flags & RELOCATE or flags & ~(RELOCATE | RODATA | BSS):
        raise MpyError(f"scope flags are {flags:#x}")
    rodata_length = reader.uint() if flags & RODATA else 0
    bss = reader.uint() if flags & BSS else 0
    module = Module(feature >> 2, qstrs, text, reader.bytes(rodata_length), bss)
    module.fixups = _read_fixups(reader, module, word)
    if reader.at != len(data):
        raise MpyError(f"{len(data) - reader.at} bytes follow the end of the file")
    return module


def _read_fixups(reader: _Reader, module: Module, word: int) -> list[Fixup]:
    """Read the relocation program and check that every word and every target exists."""
    fixups: list[Fixup] = []
    targets = {TO_TEXT, TO_QSTRS, *range(TABLE, TABLE + TABLE_ENTRIES)}
    targets |= {TO_RODATA} if module.rodata else set()
    targets |= {TO_BSS} if module.bss else set()
    in_rodata, offset = False, None
    while (code := reader.bytes(1)[0]) != END:
        if code & 1:
            place = reader.uint()
            in_rodata, offset = bool(place & 1), (place >> 1) * word
        if offset is None:
            raise MpyError("the first relocation has no address")
        target, count = code >> 1, 1
        if target <= 5:
            count = reader.uint() if target & 1 else 1
            target >>= 1
        size = len(module.rodata if in_rodata else module.text)
        for _ in range(count):
            if offset + word > size or target not in targets:
                raise MpyError(f"relocation of word {offset:#x} of {size:#x} bytes to "
                               f"target {target}")
            fixups.append(Fixup(in_rodata, offset, target))
            offset += word
    if len({(fixup.in_rodata, fixup.offset) for fixup in fixups}) != len(fixups):
        raise MpyError("a word is relocated twice")
    return fixups
