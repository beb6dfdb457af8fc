"""One relocatable object to a native MicroPython module (.mpy), for every architecture.

Reachable sections are laid out one after another, every relocation is carried out or refused by
the name of its symbol, and what only the loader can know is left to it as fixups. Why there is
a linker of our own, and what it doesn't do, is told in docs/native-module.md.
"""

import functools
import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile
from elftools.elf.relocation import RelocationSection

from outpost import compile as compiler
from outpost import mpy
from outpost.compile import Architecture
from outpost.errors import OutpostError

ENTRY = "outpost_module"
NAMES = ".mpy.names"  # the section that lists the module's names; not part of the code
TEXT, RODATA, BSS = "text", "rodata", "bss"  # the regions a loader places
TARGETS = {TEXT: mpy.TO_TEXT, RODATA: mpy.TO_RODATA, BSS: mpy.TO_BSS}
TABLE_NAME = re.compile(r"mp_(slot|object)_(\d+|qstrs)")  # see firmware/native/abi.h
MAX_ALIGNMENT = 16  # MicroPython's heap gives no more


class LinkError(OutpostError):
    """The object holds something that can't become part of a module."""


@dataclass(eq=False)
class Symbol:
    """A place in a section; without one, something the loader or another object has to give."""

    name: str
    section: "Section | None" = None
    value: int = 0
    target: int | None = None  # what the loader calls it, mpy.TABLE + n


@dataclass(frozen=True)
class Relocation:
    """An order to write the address of `symbol` plus `addend` at `offset`, as `kind` says."""

    offset: int
    kind: int
    symbol: Symbol
    addend: int | None  # None: it is in the place itself


@dataclass(eq=False)
class Section:
    """Bytes that stay together; `offset` is where they lie in their region."""

    name: str
    data: bytearray
    region: str
    alignment: int
    relocations: list[Relocation] = field(default_factory=list)
    offset: int = 0


@dataclass
class Object:
    """One ELF file: its loadable sections hang on the symbols."""

    globals: dict[str, Symbol]
    names: bytes  # of section NAMES


@dataclass
class Site:
    """One relocation at work: the bytes to change, and where everything lies."""

    link: "_Link"
    section: Section
    relocation: Relocation

    @property
    def at(self) -> int:
        """The address of the bytes, within their region."""
        return self.section.offset + self.relocation.offset

    def get(self, size: int) -> int:
        """Return the little-endian word at the site."""
        place = self.relocation.offset
        return int.from_bytes(self.section.data[place:place + size], "little")

    def put(self, value: int, size: int) -> None:
        """Write a little-endian word at the site, cut to `size` bytes."""
        place = self.relocation.offset
        self.section.data[place:place + size] = (value % (1 << 8 * size)).to_bytes(size, "little")

    def patch(self, mask: int, bits: int, size: int) -> None:
        """Replace the bits of `mask` in the word at the site."""
        self.put(self.get(size) & ~mask | bits & mask, size)

    def distance(self, addend: int, symbol: Symbol | None = None) -> int:
        """Return how far the symbol plus `addend` is from the site; both must be in the text."""
        symbol = self.link.resolve(symbol or self.relocation.symbol)
        section = symbol.section
        if section is None or section.region != self.section.region:
            what = ("a writable variable" if section is not None and section.region == BSS
                    else "loaded somewhere else")
            raise self.refused(f"it is {what} and can't be reached from where the code is; make "
                               "it const, or refer to it by a pointer in constant data")
        return section.offset + symbol.value + addend - self.at

    def within(self, value: int, bits: int) -> int:
        """Return `value` if it fits a signed field of `bits` bits."""
        if not -(1 << bits - 1) <= value < 1 << bits - 1:
            raise self.refused(f"it is {value} bytes away and the instruction reaches "
                               f"{1 << bits - 1}")
        return value

    def refused(self, why: str) -> LinkError:
        """Return the error that names the symbol and the place it is used at."""
        name = self.relocation.symbol.name
        return LinkError(f"{name}, used in {self.section.name} at {self.relocation.offset:#x}: "
                         f"{why}")


# The ways of relocating, by family; the numbers are those of each processor's ELF supplement.


def _nothing(site: Site) -> None:
    """A hint that needs no action."""


def _absolute(site: Site) -> None:
    """A word that holds an address: the loader adds what only it knows."""
    size, addend = site.link.arch.word, site.relocation.addend
    if site.at % size:
        raise site.refused(f"its address isn't stored on a multiple of {size}")
    symbol = site.link.resolve(site.relocation.symbol)
    value = site.get(size) if addend is None else addend
    if symbol.section is None:
        target = symbol.target
    else:
        target = TARGETS[symbol.section.region]
        value += symbol.section.offset + symbol.value
    site.put(value, size)
    site.link.fixups.append(mpy.Fixup(site.section.region == RODATA, site.at, target))


def _relative(site: Site, symbol: Symbol | None = None) -> None:
    """A 32-bit word that holds a distance."""
    addend = site.relocation.addend
    addend = site.get(4) if addend is None else addend
    site.put(site.distance(addend, symbol), 4)


def _relative_slot(site: Site) -> None:
    """A 32-bit word that holds the distance to a slot with the symbol's address."""
    _relative(site, site.link.slots[site.relocation.symbol])


def _thumb_branch(site: Site) -> None:
    """`bl` or `b.w`: the two halves of the instruction share a distance."""
    high, low = site.get(4) & 0xFFFF, site.get(4) >> 16
    sign = high >> 10 & 1
    addend = ((high & 0x3FF) << 12 | (low & 0x7FF) << 1
              | (~(low >> 13 ^ sign) & 1) << 23 | (~(low >> 11 ^ sign) & 1) << 22)
    far = site.within(site.distance(addend - (sign << 24)) & ~1, 25)
    sign = far >> 24 & 1
    high = high & ~0x7FF | sign << 10 | far >> 12 & 0x3FF
    low = (low & ~0x2FFF | (~(far >> 23 ^ sign) & 1) << 13 | (~(far >> 22 ^ sign) & 1) << 11
           | far >> 1 & 0x7FF)
    site.put(low << 16 | high, 4)


def _riscv_high(site: Site) -> None:
    """`auipc`: the upper 20 bits, rounded for the signed lower 12 that follow."""
    site.patch(0xFFFFF000, _riscv_far(site) + 0x800, 4)


def _riscv_far(site: Site) -> int:
    """Return the distance an `auipc` and its partner span together."""
    relocation = site.relocation
    slot = site.link.slots.get(relocation.symbol) if relocation.kind == 20 else None
    return site.distance(relocation.addend, slot)


def _riscv_partner(site: Site) -> int:
    """Return the distance of the `auipc` that this lower half names."""
    label = site.link.resolve(site.relocation.symbol)
    for other in label.section.relocations if label.section else ():
        if other.offset == label.value and other.kind in (20, 23):
            return _riscv_far(Site(site.link, label.section, other))
    raise site.refused("there is no auipc at that label")


def _riscv_low_load(site: Site) -> None:
    site.patch(0xFFF00000, _riscv_partner(site) << 20, 4)


def _riscv_low_store(site: Site) -> None:
    low = _riscv_partner(site)
    site.patch(0xFE000F80, (low & 0xFE0) << 20 | (low & 0x1F) << 7, 4)


def _riscv_call(site: Site) -> None:
    """`auipc` and `jalr`, one after the other."""
    far = site.distance(site.relocation.addend)
    site.put(site.get(8) & ~0xFFF00000_FFFFF000
             | (far + 0x800) & 0xFFFFF000 | (far & 0xFFF) << 52, 8)


def _riscv_jump(site: Site) -> None:
    far = site.within(site.distance(site.relocation.addend), 21)
    site.patch(0xFFFFF000, (far >> 20 & 1) << 31 | (far >> 1 & 0x3FF) << 21
               | (far >> 11 & 1) << 20 | far & 0xFF000, 4)


def _riscv_branch(site: Site) -> None:
    far = site.within(site.distance(site.relocation.addend), 13)
    site.patch(0xFE000F80, (far >> 12 & 1) << 31 | (far >> 5 & 0x3F) << 25
               | (far >> 1 & 0xF) << 8 | (far >> 11 & 1) << 7, 4)


def _riscv_short_branch(site: Site) -> None:
    far = site.within(site.distance(site.relocation.addend), 9)
    site.patch(0x1C7C, (far >> 8 & 1) << 12 | (far >> 3 & 3) << 10 | (far >> 6 & 3) << 5
               | (far >> 1 & 3) << 3 | (far >> 5 & 1) << 2, 2)


def _riscv_short_jump(site: Site) -> None:
    far = site.within(site.distance(site.relocation.addend), 12)
    site.patch(0x1FFC, (far >> 11 & 1) << 12 | (far >> 4 & 1) << 11 | (far >> 8 & 3) << 9
               | (far >> 10 & 1) << 8 | (far >> 6 & 1) << 7 | (far >> 7 & 1) << 6
               | (far >> 1 & 7) << 3 | (far >> 5 & 1) << 2, 2)


def _xtensa_slot(site: Site) -> None:
    """An instruction that reaches for a literal, calls or jumps."""
    word, at, addend = site.get(3), site.at, site.relocation.addend
    if word & 0xF == 1:  # l32r counts words back from where it stands, rounded up
        far = site.distance(addend) + at - (at + 3 & ~3)
        if far % 4 or not -(1 << 18) <= far < 0:
            raise site.refused(f"its literal is {far} bytes away and 262144 back can be reached")
        site.patch(0xFFFF00, far >> 2 << 8, 3)
    elif word & 0xF == 5:  # call0 … call12 count words from the next but one, rounded down
        far = site.within(site.distance(addend) + at - (at & ~3) - 4, 20)
        site.patch(0xFFFFC0, far >> 2 << 6, 3)
    elif word & 0x3F == 6:  # j
        site.patch(0xFFFFC0, site.within(site.distance(addend) - 4, 18) << 6, 3)
    elif site.link.resolve(site.relocation.symbol).section is not site.section:
        raise site.refused("a branch can't leave its section")


def _difference(sign: int) -> Callable[[Site], None]:
    """A 32-bit word that is the difference of two labels, added and subtracted in turn."""
    def apply(site: Site) -> None:
        symbol = site.link.resolve(site.relocation.symbol)
        if symbol.section is None:
            raise site.refused("only the loader knows its address")
        address = symbol.section.offset + symbol.value + site.relocation.addend
        site.put(site.get(4) + sign * address, 4)
    return apply


FAMILIES: dict[str, dict[int, Callable[[Site], None]]] = {
    "EM_X86_64": {1: _absolute, 2: _relative, 4: _relative, 9: _relative_slot,
                  41: _relative_slot, 42: _relative_slot},
    "EM_ARM": {0: _nothing, 2: _absolute, 3: _relative, 10: _thumb_branch, 30: _thumb_branch,
               96: _relative_slot},
    "EM_RISCV": {1: _absolute, 16: _riscv_branch, 17: _riscv_jump, 18: _riscv_call,
                 19: _riscv_call, 20: _riscv_high, 23: _riscv_high, 24: _riscv_low_load,
                 25: _riscv_low_store, 35: _difference(1), 39: _difference(-1),
                 44: _riscv_short_branch, 45: _riscv_short_jump, 51: _nothing,
                 57: _relative},
    "EM_XTENSA": {0: _nothing, 1: _absolute, 11: _nothing, 20: _xtensa_slot},
}
SLOTTED = {"EM_X86_64": {9, 41, 42}, "EM_ARM": {96}, "EM_RISCV": {20}, "EM_XTENSA": set()}
ABSOLUTE = {"EM_X86_64": 1, "EM_ARM": 2, "EM_RISCV": 1, "EM_XTENSA": 1}

# An Xtensa core may read its code's memory by whole words only, so constants lie elsewhere, and
# literals, which it only reaches backwards, come before the code, behind a jump to its start.
APART = {"EM_XTENSA"}
JUMP = bytes([0x06, 0, 0, 0])


def link(obj: Path, arch: str, name: str) -> bytes:
    """Link the relocatable object `obj` for `arch` to the bytes of the module `name`.

    Raises LinkError for undefined symbols, writable data, and relocations that can't be carried
    out, each with the symbol's name.
    """
    architecture = compiler.architecture(arch)
    return mpy.encode(_Link(architecture).run(obj, name), architecture.word)


class _Link:
    """One link: what has been taken in so far and where it goes."""

    def __init__(self, arch: Architecture) -> None:
        self.arch = arch
        self.sections: list[Section] = []
        self.globals: dict[str, Symbol] = {}
        self.slots: dict[Symbol, Symbol] = {}  # symbol → the word that holds its address
        self.fixups: list[mpy.Fixup] = []

    def run(self, path: Path, name: str) -> mpy.Module:
        main = read_object(path, self.arch)
        self.globals.update(main.globals)
        if ENTRY not in main.globals:
            raise LinkError(f"{path}: no function {ENTRY}, which a module starts at")
        entry = main.globals[ENTRY]
        start = entry.section
        if self.arch.machine in APART:
            start = Section("start", bytearray(JUMP), TEXT, 4, [Relocation(0, 20, entry, 0)])
        elif entry.value & ~1:
            raise LinkError(f"{path}: {ENTRY} isn't the first in its section; compile with "
                            "-ffunction-sections")
        self.gather(start)
        regions = self.layout()
        for section in self.sections:
            for relocation in section.relocations:
                self.relocate(Site(self, section, relocation))
        contents = {TEXT: bytearray(regions[TEXT]), RODATA: bytearray(regions[RODATA])}
        for section in self.sections:
            if section.region != BSS:
                end = section.offset + len(section.data)
                contents[section.region][section.offset:end] = section.data
        names = [part.decode() for part in main.names.split(b"\0") if part]
        return mpy.Module(self.arch.code, [name, *names], bytes(contents[TEXT]),
                          bytes(contents[RODATA]), regions[BSS], self.fixups)

    def resolve(self, symbol: Symbol) -> Symbol:
        """Return the definition of `symbol`."""
        if symbol.section is None and symbol.target is None:
            return self.globals[symbol.name]
        return symbol

    def gather(self, entry: Section) -> None:
        """Take in the section `entry` and all that is reached from it, its relocations first."""
        wanted = [entry]
        undefined = {}
        while wanted:
            section = wanted.pop(0)
            if section in self.sections:
                continue
            self.sections.append(section)
            if section.alignment > MAX_ALIGNMENT:
                raise LinkError(f"{section.name} wants to lie on a multiple of "
                                f"{section.alignment}; the loader gives {MAX_ALIGNMENT}")
            for relocation in section.relocations:
                symbol = self.define(relocation.symbol)
                if symbol is None:
                    undefined.setdefault(relocation.symbol.name, section.name)
                    continue
                if relocation.kind in SLOTTED[self.arch.machine]:
                    symbol = self.slot(relocation.symbol, symbol)
                if symbol.section is not None:
                    wanted.append(symbol.section)
        if undefined:
            lines = (f"  {name}, used in {section}" for name, section in undefined.items())
            raise LinkError("neither the module nor the runtime library defines:\n"
                            + "\n".join(lines))

    def define(self, symbol: Symbol) -> Symbol | None:
        """Return the definition of `symbol`, fetched from the runtime library if need be."""
        if symbol.section is not None or symbol.target is not None:
            return symbol
        if symbol.name not in self.globals:
            for found in _runtime_symbols(self.arch.name, symbol.name, self.globals):
                self.globals.setdefault(found.name, found)
        if symbol.name not in self.globals and (table := TABLE_NAME.fullmatch(symbol.name)):
            kind, entry = table.groups()
            target = mpy.TO_QSTRS if entry == "qstrs" else mpy.TABLE + int(entry)
            given = Symbol(symbol.name, target=target)
            self.globals[symbol.name] = given if kind == "object" else self.slot(given, given)
        return self.globals.get(symbol.name)

    def slot(self, symbol: Symbol, definition: Symbol) -> Symbol:
        """Return the word that holds the address of `symbol`, made the first time."""
        definition = self.slots.get(definition, definition)
        if symbol not in self.slots:
            word = self.arch.word
            order = Relocation(0, ABSOLUTE[self.arch.machine], definition, 0)
            region = RODATA if self.arch.machine in APART else TEXT
            made = Section(f"slot of {symbol.name}", bytearray(word), region, word, [order])
            self.slots[symbol] = self.slots[definition] = Symbol(symbol.name, made)
        return self.slots[symbol]

    def layout(self) -> dict[str, int]:
        """Give every section its offset; return how many bytes each region has."""
        sizes = {TEXT: 0, RODATA: 0, BSS: 0}
        first = self.sections[0]
        # slots side by side need no address of their own in the loader's relocation program
        for section in sorted(self.sections, key=lambda s: (
                s is not first, not s.name.startswith(".literal"), -s.alignment, s.name)):
            size = sizes[section.region]
            section.offset = -size % section.alignment + size
            sizes[section.region] = section.offset + len(section.data)
        return sizes

    def relocate(self, site: Site) -> None:
        """Carry out one relocation."""
        apply = FAMILIES[self.arch.machine].get(site.relocation.kind)
        if apply is None:
            raise site.refused(f"relocation {site.relocation.kind} of {self.arch.machine} isn't "
                               "known to this linker")
        apply(site)


def read_object(path: Path, arch: Architecture) -> Object:
    """Read the relocatable ELF object `path`; raise LinkError if it isn't one for `arch`."""
    try:
        elf = ELFFile(io.BytesIO(path.read_bytes()))
        machine = elf["e_machine"]
    except (ELFError, OSError) as error:
        raise LinkError(f"{path}: no object file ({error})") from error
    if machine != arch.machine or elf["e_type"] != "ET_REL":
        raise LinkError(f"{path}: {machine} {elf['e_type']}, and {arch.name} needs a relocatable "
                        f"object of {arch.machine}")
    sections = dict(_sections(elf, path, arch))
    symbols = []
    table = elf.get_section_by_name(".symtab")
    for entry in table.iter_symbols() if table else ():
        name = entry.name
        if entry["st_info"]["type"] == "STT_SECTION":
            index = entry["st_shndx"]
            name = elf.get_section(index).name if isinstance(index, int) else name
        symbol = Symbol(name, sections.get(entry["st_shndx"]), entry["st_value"])
        symbols.append((symbol, entry["st_info"]["bind"] != "STB_LOCAL"))
    for part in elf.iter_sections():
        if isinstance(part, RelocationSection) and part["sh_info"] in sections:
            sections[part["sh_info"]].relocations += [
                Relocation(r["r_offset"], r["r_info_type"], symbols[r["r_info_sym"]][0],
                           r["r_addend"] if part.is_RELA() else None)
                for r in part.iter_relocations()]
    names = elf.get_section_by_name(NAMES)
    return Object({symbol.name: symbol for symbol, is_global in symbols
                   if is_global and symbol.section is not None},
                  names.data() if names else b"")


def _sections(elf: ELFFile, path: Path, arch: Architecture) -> Iterator[tuple[int, Section]]:
    """Yield (index, section) of all that ends up in memory."""
    for index, part in enumerate(elf.iter_sections()):
        flags = part["sh_flags"]
        if (not flags & 2 or part.name == NAMES  # SHF_ALLOC
                or part["sh_type"] not in ("SHT_PROGBITS", "SHT_NOBITS")):
            continue
        code = flags & 4 or arch.machine not in APART  # SHF_EXECINSTR
        region = BSS if part["sh_type"] == "SHT_NOBITS" else TEXT if code else RODATA
        constant = not flags & 1 or part.name.startswith(".data.rel.ro")  # SHF_WRITE
        if region != BSS and not constant and part["sh_size"]:
            raise LinkError(f"{path}: {part.name} is writable data with a start value, which a "
                            "module can't have; make it const")
        data = bytearray(part["sh_size"]) if region == BSS else bytearray(part.data())
        least = 4 if part.name.startswith(".literal") else 1  # LLVM forgets to say so
        yield index, Section(part.name, data, region, max(part["sh_addralign"], least))


def _runtime_symbols(arch: str, name: str, known: dict[str, Symbol]) -> Iterator[Symbol]:
    """Yield the global symbols of the runtime's object that defines `name`, read afresh."""
    path = _runtime_index(arch).get(name)
    if path is not None:
        yield from read_object(path, compiler.architecture(arch)).globals.values()


@functools.cache
def _runtime_index(arch: str) -> dict[str, Path]:
    """Return which object of the runtime library defines which symbol."""
    architecture = compiler.architecture(arch)
    return {name: path for path in compiler.runtime(arch)
            for name in read_object(path, architecture).globals}
