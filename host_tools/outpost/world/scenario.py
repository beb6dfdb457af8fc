"""Scenarios: `worlds/<name>.toml`, the surroundings of a node, read and checked.

What each key means is told in docs/world.md. Every error names the file and the key.
"""

import tomllib
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from outpost.errors import OutpostError
from outpost.paths import WORLDS
from outpost.tables import Table, meant

Pairs = tuple[tuple[float, ...], ...]


class ScenarioError(OutpostError):
    """A scenario that says what it must not, or doesn't say what it must."""


class _Table(Table):
    error = ScenarioError


@dataclass(frozen=True)
class Solar:
    """A small panel: power into the battery, at noon of midsummer under a clear sky."""

    noon_mw: float
    latitude: float
    overcast: float = 0.0  # share of days
    through: float = 0.2  # of the power, on such days
    fails: Pairs = ()  # (from day, to day)


@dataclass(frozen=True)
class Temperature:
    """Sines of a year and a day, and weather that comes and goes over days; half amplitudes."""

    mean_c: float = 20.0
    year_c: float = 0.0
    day_c: float = 0.0
    weather_c: float = 0.0


@dataclass(frozen=True)
class Activity:
    """What there is to sense: stretches of one label each, and motions that wake the node."""

    hours: Pairs = ((0.0, 0.5),)  # (from hour, share of stretches that are not the quiet label)
    stretch_min: tuple[float, float] = (30.0, 90.0)
    motions_per_hour: float = 4.0
    rest_days: tuple[int, ...] = ()  # days of the week that are quiet throughout, 0 is Monday


@dataclass(frozen=True)
class Link:
    """When there is a way home: in bursts each day, or always but for outages."""

    bursts: Pairs = ()  # (earliest hour, latest hour, shortest, longest minutes)
    skip: float = 0.0  # share of days without bursts
    up_h: float = 0.0  # means of a link that comes and goes; 0: bursts only
    down_h: float = 0.0
    gone: Pairs = ()  # (from day, to day) without any link


@dataclass(frozen=True)
class Faults:
    """How often things go wrong, a day on average."""

    cuts: float = 0.0
    brownouts: float = 0.0
    asleep: float = 0.0
    uplinks: float = 0.0
    hangs: float = 0.0
    silences: float = 0.0
    silence_min: tuple[float, float] = (10.0, 60.0)


@dataclass(frozen=True)
class Clock:
    """How much faster than true time the node's clock goes."""

    drift_ppm: float = 0.0
    drift_ppm_c: float = 0.0  # more for each degree above 25


@dataclass(frozen=True)
class Scenario:
    """A whole scenario. `start_s` is midnight of its first day, in seconds since 1970."""

    name: str
    start_s: int
    battery: str
    charge_pct: float = 100.0
    solar: Solar | None = None
    temperature: Temperature = field(default_factory=Temperature)
    activity: Activity = field(default_factory=Activity)
    link: Link = field(default_factory=Link)
    faults: Faults = field(default_factory=Faults)
    clock: Clock = field(default_factory=Clock)
    node: dict[str, Any] = field(default_factory=dict)  # settings the node has here

    def dump(self) -> dict[str, Any]:
        """Return it as what JSON can hold; `restore` takes that back."""
        return asdict(self)


def names() -> list[str]:
    """Names of the scenarios that come with the project."""
    return sorted(file.stem for file in WORLDS.glob("*.toml"))


def load(name: str) -> Scenario:
    """Read and check a scenario: a name from `names()`, or the path of a .toml file.

    Raises ScenarioError with the file and the key.
    """
    file = Path(name) if name.endswith(".toml") else WORLDS / f"{name}.toml"
    if not file.is_file():
        raise ScenarioError(f"no world {name!r}{meant(name, names())}; there are: "
                            f"{', '.join(names())} (or give a .toml file)")
    try:
        top = _Table(file, "", tomllib.loads(file.read_text("utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ScenarioError(f"{file}: not valid TOML: {error}") from error
    world, supply = top.table("world"), top.table("supply")
    start = world.take("start", str)
    try:
        start_s = int(datetime.fromisoformat(start).replace(tzinfo=UTC).timestamp())
    except ValueError:
        raise world.fail("start", f"is {start!r}; it must be a date such as 2026-01-05") from None
    world.finish()
    scenario = Scenario(
        name=file.stem, start_s=start_s, battery=supply.take("battery", str),
        charge_pct=supply.number("charge_pct", float, 1, 100, 100.0),
        solar=_solar(top.table("solar")) if "solar" in top.values else None,
        temperature=_temperature(top.table("temperature", required=False)),
        activity=_activity(top.table("activity")), link=_link(top.table("link", required=False)),
        faults=_faults(top.table("faults", required=False)),
        clock=_clock(top.table("clock", required=False)), node=top.take("node", dict, {}))
    supply.finish()
    top.finish()
    return scenario


def restore(values: dict[str, Any]) -> Scenario:
    """Return the scenario that `Scenario.dump` gave."""
    parts = {"temperature": Temperature, "activity": Activity, "link": Link, "faults": Faults,
             "clock": Clock, "solar": Solar}
    return Scenario(**{
        key: parts[key](**{name: _tuples(one) for name, one in value.items()})
        if key in parts and value is not None else value for key, value in values.items()})


def _tuples(value: Any) -> Any:
    """Return lists as the tuples they were before JSON had them."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


_DAYS = ((0, 0), (36600, 36600))


def _solar(table: Table) -> Solar:
    solar = Solar(noon_mw=table.number("noon_mw", float, 0, 1e6),
                  latitude=table.number("latitude", float, -66, 66),
                  overcast=table.number("overcast", float, 0, 1, 0.0),
                  through=table.number("through", float, 0, 1, 0.2),
                  fails=table.pairs("fails", *_DAYS, default=[]))
    table.finish()
    return solar


def _temperature(table: Table) -> Temperature:
    found = Temperature(mean_c=table.number("mean_c", float, -60, 100, 20.0),
                        **{key: table.number(key, float, 0, 60, 0.0)
                           for key in ("year_c", "day_c", "weather_c")})
    table.finish()
    return found


def _activity(table: Table) -> Activity:
    hours = table.pairs("hours", (0, 0), (24, 1))
    if not hours or hours[0][0] != 0 or sorted(hours) != list(hours):
        raise table.fail("hours", "must begin at hour 0 and rise")
    rest = table.take("rest_days", list, [])
    if any(day not in range(7) for day in rest):
        raise table.fail("rest_days", f"is {rest!r}; days of the week are 0 (Monday) to 6")
    found = Activity(hours=hours, rest_days=tuple(rest),
                     stretch_min=table.numbers("stretch_min", 1, 10000, 2),
                     motions_per_hour=table.number("motions_per_hour", float, 0, 360, 4.0))
    table.finish()
    return found


def _link(table: Table) -> Link:
    found = Link(bursts=table.pairs("bursts", (0, 0, 1, 1), (24, 24, 1440, 1440), default=[]),
                 skip=table.number("skip", float, 0, 1, 0.0),
                 up_h=table.number("up_h", float, 0, 1e5, 0.0),
                 down_h=table.number("down_h", float, 0, 1e5, 0.0),
                 gone=table.pairs("gone", *_DAYS, default=[]))
    table.finish()
    return found


def _faults(table: Table) -> Faults:
    rates = {key: table.number(key, float, 0, 100, 0.0)
             for key in ("cuts", "brownouts", "asleep", "uplinks", "hangs", "silences")}
    minutes = (table.numbers("silence_min", 1, 10000, 2) if "silence_min" in table.values
               else Faults.silence_min)
    table.finish()
    return Faults(**rates, silence_min=minutes)


def _clock(table: Table) -> Clock:
    found = Clock(**{key: table.number(key, float, -50000, 50000, 0.0)
                     for key in ("drift_ppm", "drift_ppm_c")})
    table.finish()
    return found
