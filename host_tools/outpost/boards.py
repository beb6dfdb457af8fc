"""Boards: `boards/<name>.toml`, what each chip has, draws and takes, read and checked.

Every figure says where it comes from: `{ value = 5, unit = "uA", kind = "cited", source = "…" }`.
One without a kind or a source is refused, and so is a key that the schema does not know.
The schema, told for people: docs/boards.md.
"""

import difflib
import os
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import tomlkit

from outpost.errors import OutpostError
from outpost.paths import BOARDS

KINDS = ("cited", "modelled", "measured on emulator", "measured on hardware")
ARCHITECTURES = ("x64", "armv6m", "armv7m", "armv7emsp", "armv7emdp", "rv32imc", "xtensawin")
REGIONS = ("firmware", "littlefs", "ring")  # what every flash map must have, besides its own
STAGES = ("boot", "capture", "pre", "infer", "post", "store", "uplink")  # as in node/latency.py

# dimension: unit: how many of the smallest unit it is. Powers of ten, and of two for sizes.
UNITS: dict[str, dict[str, int]] = {
    "time": {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9},
    "current": {"nA": 1, "uA": 10**3, "mA": 10**6},
    "voltage": {"mV": 1, "V": 10**3},
    "charge": {"mAh": 1},
    "size": {"B": 1, "KiB": 2**10, "MiB": 2**20},
    "frequency": {"Hz": 1, "kHz": 10**3, "MHz": 10**6},
    "temperature": {"degC": 1},
    "ratio": {"%": 1},
    "count": {"cycles": 1, "1": 1},
    "curve": {"%, mV": 1},
    "pins": {"GPIO": 1},
}
_LISTS = ("curve", "pins")

# What a board file may say: str, int or a tuple of choices is plain, a dimension is a figure (with
# what it may be per after a slash), a dict is a table. "?" may be absent, "*" is any name.
_COSTS = {
    "boot": {"*": "time/reset"},
    "capture": {"*": "time/sample,value,B"},
    "pre": {"*": "time/row,value,vector,bound,energy,jerk,centred,deviation,mad,crossings,root,"
                 "division,copy"},
    "infer": {"*": "time/tree,node,signed,look,clamp,walk,step,wide,class,entry,rival,check,"
                   "line,square,far,margin,product,row,together,item,apart,move,nearest,mac,"
                   "neuron,logit"},
    "post": {"*": "time"},
    "store": {"*": "time/page,sector,B,record"},
    "uplink": {"*": {"session": "time", "failed": "time/failure", "byte": "time/B"}},
}
_SCHEMA: dict[str, Any] = {
    "chip": {"name": str, "board": str, "cpu": str, "architecture": ARCHITECTURES,
             "micropython": str, "clock": "frequency", "wake_pins": "pins", "adc_pins": "pins",
             "taken_pins": "pins"},
    "memory": {"ram": "size", "heap": "size", "retained": "size"},
    "pins": {"event": int, "hold?": int, "awake?": int, "battery": int, "sda": int, "scl": int,
             "tx": int, "rx": int, "phase": dict.fromkeys(STAGES, int)},
    "flash": {"part": str, "size": "size", "sector": "size", "program_unit": "size",
              "endurance": "count", "region": {"*": {"offset": int, "size": int}}},
    "lanes": {"alert": int, "event": int, "telemetry": int, "diagnostic": int},
    "power": {"deep_sleep": "current", "light_sleep": "current", "active": "current",
              "boot?": "current", "flash": "current",
              "sensor": {"off": "current", "watch": "current", "on": "current"},
              "radio": {"*": {"session": "current", "peak": "current"}}},
    "costs": _COSTS,
    "supply": {"regulator": str, "voltage": "voltage", "minimum": "voltage",
               "brownout": "voltage", "efficiency": "ratio", "quiescent": "current",
               "limit": "current"},
}
_BATTERY: dict[str, Any] = {
    "name": str, "capacity": "charge", "nominal": "voltage", "limit": "current",
    "self_discharge": "ratio/year", "curve": "curve",
}


class BoardError(OutpostError):
    """A board file that does not say what it must, or says what cannot be."""


@dataclass(frozen=True)
class Figure:
    """One number (or list of them) with its unit, what kind of figure it is, and its source.

    `per` is what it is for one of: a cost in "us/sample" has unit "us" and per "sample".
    """

    value: Any
    unit: str
    kind: str
    source: str
    per: str = ""

    def to(self, unit: str) -> float:
        """Return the value in `unit`; ValueError if it is a unit of something else."""
        for units in UNITS.values():
            if self.unit in units and unit in units:
                return self.value * units[self.unit] / units[unit]
        raise ValueError(f"{self.unit} is not to be had in {unit}")

    def __str__(self) -> str:
        """Return value and unit as a person writes them."""
        unit = self.unit.replace("uA", "µA").replace("us", "µs").replace("degC", "°C")
        number = f"{self.value:,}" if isinstance(self.value, int) else str(self.value)
        return (f"{number}{'' if unit in ('%', '1') else ' '}{'' if unit == '1' else unit}"
                f"{'/' if self.per else ''}{self.per}")


@dataclass(frozen=True)
class Region:
    """One part of the flash, in bytes from its start."""

    name: str
    offset: int
    size: int

    @property
    def end(self) -> int:
        """The first byte after it."""
        return self.offset + self.size


@dataclass(frozen=True)
class Flash:
    """The flash chip and what lies where; `regions` in the order of their offsets."""

    part: str
    size: Figure
    sector: Figure
    program_unit: Figure
    endurance: Figure  # erases a sector survives
    regions: tuple[Region, ...]

    def region(self, name: str) -> Region:
        """Return the region of that name; KeyError if there is none."""
        return {region.name: region for region in self.regions}[name]


@dataclass(frozen=True)
class Battery:
    """A cell or pack; `curve` is (state of charge in %, voltage in mV) from empty to full."""

    key: str
    name: str
    capacity: Figure
    nominal: Figure
    limit: Figure  # current it can give for the length of an uplink
    self_discharge: Figure
    curve_figure: Figure

    @property
    def curve(self) -> tuple[tuple[int, int], ...]:
        """Pairs (%, mV) without load at 20–25 °C, both rising."""
        return tuple((percent, mv) for percent, mv in self.curve_figure.value)


@dataclass(frozen=True)
class Board:
    """A whole board file.

    `costs` is stage (a name of node/latency.py in small letters) → what → Figure of time; uplink
    has one more level, the kind of link. `power` is state → Figure of current at the supply's
    voltage; `sensor` and `radio` nest likewise.
    """

    file: Path
    name: str
    chip: dict[str, Any]
    memory: dict[str, Figure]
    pins: dict[str, Any]
    flash: Flash
    lanes: dict[str, int]  # sectors of the ring
    power: dict[str, Any]
    costs: dict[str, dict[str, Any]]
    supply: dict[str, Any]

    @property
    def architecture(self) -> str:
        """What native modules must be compiled for."""
        return self.chip["architecture"]

    def figures(self) -> Iterator[tuple[str, Figure]]:
        """Yield (dotted key, figure) of every figure in the file."""
        for section in ("chip", "memory", "flash", "power", "costs", "supply"):
            table = getattr(self, section)
            for key, value in _flat(section, vars(table) if section == "flash" else table):
                if isinstance(value, Figure):
                    yield key, value

    def lane_records(self, lane: str, payload_bytes: int = 32) -> int:
        """Return how many records of `payload_bytes` a lane holds at the least."""
        return (self.lanes[lane] - 1) * records_per_sector(payload_bytes, self._sector_bytes)

    def lane_years(self, lane: str, records_per_day: float, payload_bytes: int = 32) -> float:
        """Return `ring_lifetime_years` of a lane that gets all these records."""
        return ring_lifetime_years(self.flash.endurance.value,
                                   self.lanes[lane] * self._sector_bytes, records_per_day,
                                   payload_bytes, sector_bytes=self._sector_bytes)

    @property
    def _sector_bytes(self) -> int:
        return int(self.flash.sector.to("B"))

    def stage_us(self, stage: str, **counts: float) -> float:
        """Return what a stage takes in µs: the sum of its costs, each times what it is per.

        `stage` is a key of `costs`, with the link's kind after a dot for uplink; a cost "per
        sample" is taken `counts["sample"]` times (0 if not given), one per nothing once:
        `stage_us("store", page=2, sector=1)`, `stage_us("boot", reset=1)`.
        """
        table = self.costs
        for key in stage.split("."):
            table = table[key]
        return sum(figure.to("us") * (counts.get(figure.per, 0) if figure.per else 1)
                   for figure in table.values())


def names() -> list[str]:
    """Names of the boards that come with the project."""
    return sorted(file.stem for file in BOARDS.glob("*.toml") if file.stem != "batteries")


def load(name: str) -> Board:
    """Read and check a board: a name from `names()`, or the path of somebody's own .toml file.

    Raises BoardError with the file and the key.
    """
    file = Path(name) if name.endswith(".toml") else BOARDS / f"{name}.toml"
    if not file.is_file() or file.name == "batteries.toml":
        near = difflib.get_close_matches(name, names(), 1)
        raise BoardError(f"no board {name!r}{f'; did you mean {near[0]!r}?' if near else ''} "
                         f"(there are {', '.join(names())}, or give a .toml file)")
    return _board(file, _read(file))


def batteries(file: Path = BOARDS / "batteries.toml") -> dict[str, Battery]:
    """Read and check the batteries, by key. Raises BoardError."""
    found = {}
    for key, table in _read(file).items():
        values = _check(file, key, table, _BATTERY)
        values["curve_figure"] = values.pop("curve")
        battery = Battery(key=key, **values)
        curve = battery.curve
        if curve[0][0] != 0 or curve[-1][0] != 100:
            raise BoardError(f"{file}: {key}.curve must go from 0 to 100 %")
        for before, after in zip(curve, curve[1:], strict=False):
            if before[0] >= after[0] or before[1] >= after[1]:
                raise BoardError(f"{file}: {key}.curve must rise: {list(after)} "
                                 f"follows {list(before)}")
        found[key] = battery
    return found


def set_figure(file: Path, key: str, value: Any, kind: str, source: str,
               unit: str | None = None) -> None:
    """Rewrite one figure of a board file in place; comments and all else stay as they are.

    `key` is dotted ("costs.boot.reset"); the unit stays unless given. The new file is checked
    before it takes the old one's place. Raises BoardError.
    """
    document = tomlkit.parse(file.read_text(encoding="utf-8"))
    table: Any = document
    for part in key.split("."):
        if part not in table:
            raise BoardError(f"{file}: no figure {key}")
        table = table[part]
    if "value" not in table:
        raise BoardError(f"{file}: {key} is not a figure")
    table["value"] = value
    table["unit"] = unit or table["unit"]
    table["kind"], table["source"] = kind, source
    text = tomlkit.dumps(document)
    _board(file, tomllib.loads(text))
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(file)


# --- the ring's lifetime ---

RECORD_OVERHEAD = 9  # bytes of a record around its payload: docs/ring-format.md
SECTOR_HEADER = 36
ACK_RECORD = 13
ACKS_PER_RECORD = 0.1  # a frame acknowledges about ten records of 32 bytes
DAYS_A_YEAR = 365.25


def records_per_sector(payload_bytes: int, sector_bytes: int = 4096) -> int:
    """Return how many records a sector takes, with their share of acknowledgements."""
    record = payload_bytes + RECORD_OVERHEAD + ACK_RECORD * ACKS_PER_RECORD
    return int((sector_bytes - SECTOR_HEADER) / record)


def ring_lifetime_years(endurance: int, ring_bytes: int, records_per_day: float,
                        payload_bytes: int = 32, sector_bytes: int = 4096) -> float:
    """Return how long a ring lasts, in years, until each sector has been erased `endurance` times.

        years = endurance × ring bytes / (record bytes × records a year × write amplification)

    A record is its payload and 9 bytes. Amplification is what the ring spends beyond that: the
    header of a sector, its end that is too short for another record, and acknowledgements. Wear
    is even, because sectors are used in turn.
    """
    record = payload_bytes + RECORD_OVERHEAD
    amplification = sector_bytes / (records_per_sector(payload_bytes, sector_bytes) * record)
    return endurance * ring_bytes / (record * records_per_day * DAYS_A_YEAR * amplification)


# --- reading and checking ---


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise BoardError(f"{file}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BoardError(f"{file}: not TOML: {error}") from error


def _board(file: Path, text: dict[str, Any]) -> Board:
    values = _check(file, "", text, _SCHEMA)
    flash = values["flash"]
    regions = [Region(name, **where) for name, where in flash.pop("region").items()]
    values["flash"] = Flash(regions=tuple(sorted(regions, key=lambda r: r.offset)), **flash)
    board = Board(file=file, name=file.stem, **values)
    for problem in chain(_flash_problems(board), _pin_problems(board)):
        raise BoardError(f"{file}: {problem}")
    return board


def _check(file: Path, path: str, table: Any, schema: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(table, dict):
        raise BoardError(f"{file}: {path} must be a table")
    any_name = schema.get("*")
    known = {key.rstrip("?"): kind for key, kind in schema.items() if key != "*"}
    found = {}
    for key, value in table.items():
        where = f"{path}.{key}" if path else key
        if key not in known and any_name is None:
            near = difflib.get_close_matches(key, known, 1)
            raise BoardError(f"{file}: {where} is unknown"
                             f"{f'; did you mean {near[0]!r}?' if near else ''} "
                             f"(known here: {', '.join(known)})")
        found[key] = _value(file, where, value, known.get(key, any_name))
    for key in schema:
        if key not in found and key != "*" and not key.endswith("?"):
            raise BoardError(f"{file}: {path + '.' if path else ''}{key} is missing")
    if any_name is not None and not found:
        raise BoardError(f"{file}: {path} is empty")
    return found


def _value(file: Path, path: str, value: Any, kind: Any) -> Any:
    if isinstance(kind, dict):
        return _check(file, path, value, kind)
    if isinstance(kind, str):
        return _figure(file, path, value, kind)
    if isinstance(kind, tuple):
        if value not in kind:
            raise BoardError(f"{file}: {path} is {value!r}; allowed: {', '.join(kind)}")
        return value
    if not isinstance(value, kind) or isinstance(value, bool) or value == "":
        what = "a whole number" if kind is int else "a string"
        raise BoardError(f"{file}: {path} is {value!r}; it must be {what}")
    return value


def _figure(file: Path, path: str, table: Any, kind: str) -> Figure:
    form = '{ value = …, unit = "…", kind = "…", source = "…" }'
    if not isinstance(table, dict):
        raise BoardError(f"{file}: {path} is {table!r}; a figure is written {form}")
    for key in ("value", "unit", "kind", "source"):
        if table.get(key) in (None, "", []):
            raise BoardError(f"{file}: {path} has no {key}; a figure is written {form}")
    for key in table.keys() - {"value", "unit", "kind", "source"}:
        raise BoardError(f"{file}: {path}.{key} is unknown; a figure is written {form}")
    if table["kind"] not in KINDS:
        raise BoardError(f"{file}: {path}.kind is {table['kind']!r}; allowed: {', '.join(KINDS)}")
    if not isinstance(table["source"], str):
        raise BoardError(f"{file}: {path}.source must be a string")
    dimension, _, pers = kind.partition("/")
    unit, _, per = str(table["unit"]).partition("/")
    if unit not in UNITS[dimension] or (per and per not in pers.split(",")):
        allowed = ", ".join(UNITS[dimension]) + (f", each perhaps per {pers}" if pers else "")
        raise BoardError(f"{file}: {path}.unit is {table['unit']!r}; allowed: {allowed}")
    _check_number(file, path, table["value"], dimension)
    return Figure(table["value"], unit, table["kind"], table["source"], per)


def _check_number(file: Path, path: str, value: Any, dimension: str) -> None:
    if dimension in _LISTS:
        shape = ((lambda item: isinstance(item, list) and len(item) == 2
                  and all(type(number) is int for number in item)) if dimension == "curve"
                 else (lambda item: type(item) is int and item >= 0))
        if not isinstance(value, list) or not all(map(shape, value)):
            what = "pairs [%, mV]" if dimension == "curve" else "numbers of pins"
            raise BoardError(f"{file}: {path}.value must be a list of {what}")
    elif type(value) not in (int, float) or value < 0:
        raise BoardError(f"{file}: {path}.value is {value!r}; it must be a number, not negative")


def _flat(path: str, tree: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from _flat(f"{path}.{key}", value)
    else:
        yield path, tree


def _flash_problems(board: Board) -> Iterator[str]:
    flash = board.flash
    size, sector = int(flash.size.to("B")), int(flash.sector.to("B"))
    present = [region.name for region in flash.regions]
    for name in REGIONS:
        if name not in present:
            yield f"flash.region has no {name!r}; every board needs {', '.join(REGIONS)}"
    for region in flash.regions:
        if region.size <= 0 or region.offset < 0:
            yield f"flash.region.{region.name}: offset {region.offset}, size {region.size}"
        if region.offset % sector or region.size % sector:
            yield (f"flash.region.{region.name}: {region.offset:#x} + {region.size:#x} is not "
                   f"on sectors of {sector}")
        if region.end > size:
            yield (f"flash.region.{region.name} ends at {region.end:#x}, "
                   f"the flash at {size:#x}")
    for before, after in zip(flash.regions, flash.regions[1:], strict=False):
        if before.end > after.offset:
            yield (f"flash.region.{after.name} begins at {after.offset:#x}, inside "
                   f"{before.name}, which ends at {before.end:#x}")
    sectors = flash.region("ring").size // sector
    if sum(board.lanes.values()) > sectors:
        yield f"lanes take {sum(board.lanes.values())} sectors, the ring has {sectors}"
    for lane, share in board.lanes.items():
        if share < 3:
            yield f"lanes.{lane} is {share}; a ring needs at least 3 sectors"


def _pin_problems(board: Board) -> Iterator[str]:
    used: dict[int, str] = {}
    for key, pin in _flat("pins", board.pins):
        if pin in used:
            yield f"{key} is GPIO {pin}, and so is {used[pin]}"
        used[pin] = key
        if pin in board.chip["taken_pins"].value:
            yield f"{key} is GPIO {pin}, which is not free on {board.chip['board']}"
    for key, able in (("event", "wake_pins"), ("battery", "adc_pins")):
        if board.pins[key] not in board.chip[able].value:
            yield (f"pins.{key} is GPIO {board.pins[key]}; chip.{able} are "
                   f"{', '.join(map(str, board.chip[able].value))}")
