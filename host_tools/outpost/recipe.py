"""Recipes: `models/<name>/model.toml`, read into typed dataclasses and checked to the last key.

Every error names the file and the key and says what is allowed there.
"""

import re
import tomllib
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from outpost import kinds
from outpost.errors import OutpostError
from outpost.paths import MODELS
from outpost.tables import Table, meant

STANDARD_GRAVITY = 9.80665  # m/s² in one g

# What one count means at each range: the LSM6DSOX's datasheet, and ST's driver lsm6dsox_reg.c.
LSM6DSOX_MG = {2: 0.061, 4: 0.122, 8: 0.244, 16: 0.488}
LSM6DSOX_MDPS = {125: 4.375, 250: 8.75, 500: 17.5, 1000: 35.0, 2000: 70.0}
LSM6DSOX_RATES_HZ = (12.5, 26.0, 52.0, 104.0, 208.0, 417.0, 833.0, 1667.0, 3333.0, 6667.0)

# Units of recordings, as multiples of the unit the sensor's datasheet counts in.
ACCEL_UNITS_MG = {"mg": 1.0, "g": 1e3, "m/s2": 1e3 / STANDARD_GRAVITY}
GYRO_UNITS_MDPS = {"mdps": 1.0, "dps": 1e3, "rad/s": 1e3 * 57.29577951308232}

# In the order of the bits in firmware/native/features.h, which is the order they come out in.
STATISTICS = ("mean", "deviation", "mad", "min", "max", "energy", "peak_to_peak", "crossings",
              "jerk")
MAX_FEATURES = 127
MAX_WINDOW = 1024
MAX_SHIFT = 10
SOURCES = ("aeon:BasicMotions", "aeon:Daphnet", "uci:Daphnet", "sklearn:digits")
VOTES = ("hard", "soft")
FORMS = ("fast", "compact")
POST_METHODS = ("majority", "decay")
CONTRACT_KEYS = ("accuracy", "worst_class", "bytes", "heap", "heap_peak", "instructions",
                 "latency_us", "awake_ms", "energy_uj", "life_days", "awake_p99_ms",
                 "joules_per_day", "detected", "false_alarms_per_hour", "delay_s", "drift")
SHARES = ("accuracy", "worst_class", "detected")
BY_NAME = ("bytes", "life_days", "awake_p99_ms", "joules_per_day")
NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")


class RecipeError(OutpostError):
    """A model.toml that does not say what it must, or says it wrongly."""


@dataclass(frozen=True)
class Channel:
    """One column of the recordings; `counts` is how many sensor counts one of its units is."""

    name: str
    unit: str
    counts: float


@dataclass(frozen=True)
class Signal:
    """What the node samples: channels in order, rate and the window a decision looks at."""

    channels: tuple[Channel, ...]
    window: int  # samples
    hop: int  # samples from the start of one window to the next
    rate_hz: float | None  # None: rows without time, such as images
    sensor: str | None
    accel_range_g: int | None
    gyro_range_dps: int | None

    @property
    def names(self) -> tuple[str, ...]:
        """The channels' names, in order."""
        return tuple(channel.name for channel in self.channels)


@dataclass(frozen=True)
class FeatureRow:
    """Statistics of one signal: a channel (count 1) or the magnitude of `count` neighbours."""

    name: str
    first: int
    count: int
    statistics: tuple[str, ...]


@dataclass(frozen=True)
class Features:
    """What the forest sees of a window: its samples as they are, or statistics of signals."""

    raw: bool
    rows: tuple[FeatureRow, ...]
    shift: int = 0  # bits that amplitudes (all statistics but crossings) lose


@dataclass(frozen=True)
class Data:
    """Where the recordings come from and how they are split."""

    source: str | None
    path: Path | None
    also: Path | None  # a folder of recordings that are trained on, and never held out
    rate_hz: float | None  # of recordings that do not say it themselves
    test: float  # share of recordings held out, where the source has no published split
    seed: int


@dataclass(frozen=True)
class Forest:
    """Limits of the forest, None leaves scikit-learn's default; and how it becomes code."""

    trees: int
    depth: int | None
    leaves: int | None
    leaf_samples: int
    seed: int
    vote: str = "hard"
    early_exit: bool = False
    form: str = "fast"
    kind: str = "RandomForestClassifier"
    prune: float = 0.0  # what a split must take of the impurity to stay: cost-complexity


@dataclass(frozen=True)
class Estimator:
    """Another kind of model than a forest, by scikit-learn's name, and what comes before it.

    `usual` is the class that a detector is trained on; below its score of `contamination` of these
    windows a window is of the other class.
    """

    kind: str
    scale: str | None
    select: int | None  # features that SelectKBest keeps
    usual: str | None
    contamination: float
    seed: int
    parameters: dict[str, Any]  # scikit-learn's own


@dataclass(frozen=True)
class Post:
    """Smoothing of decisions: majority of the last `window`, or votes that fade by `decay`."""

    method: str
    window: int
    decay: float

    @property
    def weights(self) -> list[int]:
        """The say of each of the last `window` decisions, newest first."""
        if self.method == "majority":
            return [1] * self.window
        return [max(round(256 * self.decay**i), 1) for i in range(self.window)]


@dataclass(frozen=True)
class Events:
    """Which class is an event that shall be noticed, and how long after its end is soon enough."""

    label: str
    tolerance_s: float


@dataclass(frozen=True)
class Gate:
    """When main need not run: `label` if `channels` move by `span` counts at most over `samples`.

    Without a span the training data says how little that is.
    """

    samples: int
    channels: tuple[str, ...]
    label: str
    span: int | None


@dataclass(frozen=True)
class Tiers:
    """Who else decides: a gate before main, a larger model when there is no link, and the
    gateway's heavy when winner and next are less than `unsure` of all votes apart.
    """

    gate: Gate | None = None
    large: str | None = None
    unsure: float = 0.0


@dataclass(frozen=True)
class Search:
    """What `outpost search` may choose from; None: whatever there is."""

    statistics: tuple[str, ...] = STATISTICS
    signals: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Recipe:
    """A whole model.toml."""

    file: Path
    name: str
    version: int
    classes: tuple[str, ...] | None
    data: Data
    signal: Signal
    features: Features
    forest: Forest
    post: Post
    tiers: Tiers = Tiers()
    contract: dict[str, Any] = field(default_factory=dict)
    search: Search = Search()
    estimator: Estimator | None = None
    events: Events | None = None

    @property
    def feature_names(self) -> list[str]:
        """Names of the features in the order in which the C code writes them."""
        if self.features.raw:
            names = self.signal.names
            return [f"{name}[{i}]" for i in range(self.signal.window) for name in names]
        return [f"{row.name}.{statistic}" for row in self.features.rows
                for statistic in row.statistics]


def keep(recipe: Recipe, names: Collection[str]) -> Recipe:
    """Return `recipe` with those of its statistics that are called so, and no others."""
    rows = (replace(row, statistics=tuple(name for name in row.statistics
                                          if f"{row.name}.{name}" in names))
            for row in recipe.features.rows)
    return replace(recipe, features=replace(
        recipe.features, rows=tuple(row for row in rows if row.statistics)))


class _Table(Table):
    error = RecipeError


def find(model: str) -> Path:
    """Return the model.toml meant by `model`: a name under models/, a folder, or the file itself.

    Raises RecipeError with the names there are when nothing fits.
    """
    for path in (Path(model), Path(model) / "model.toml", MODELS / model / "model.toml"):
        if path.is_file():
            return path
    names = sorted(path.parent.name for path in MODELS.glob("*/model.toml"))
    raise RecipeError(f"no model {model!r}{meant(model, names)}; there are: {', '.join(names)} "
                      "(or give the path of a model.toml)")


def load(file: Path) -> Recipe:
    """Read and check one model.toml.

    Raises RecipeError naming the file and the key, and what is allowed there.
    """
    try:
        values = tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        raise RecipeError(f"{file}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{file}: not valid TOML: {error}") from error
    top = _Table(file, "", values)

    model = top.table("model")
    name = model.take("name", str)
    if not NAME.fullmatch(name):
        raise model.fail("name", f"is {name!r}; allowed: small letters, digits and _, at most 32, "
                                 "a letter first")
    version = model.number("version", int, 1, 65535)
    classes = model.strings("classes", default=None)
    if classes is not None and not 2 <= len(classes) <= 255:
        raise model.fail("classes", f"has {len(classes)} names; allowed: 2 to 255")
    model.finish()

    signal = _signal(top.table("signal"))
    if "estimator" in values and "forest" in values:
        raise top.fail("estimator", "stands beside [forest]; give one of the two")
    recipe = Recipe(
        file=file, name=name, version=version, classes=classes,
        data=_data(top.table("data"), file.parent), signal=signal,
        features=_features(top.table("features"), signal),
        forest=_forest(top.table("forest", required=False)),
        post=_post(top.table("post", required=False)),
        tiers=_tiers(top.table("tiers", required=False), signal),
        contract=_contract(top.table("contract", required=False)),
        search=_search(top.table("search", required=False)),
        estimator=_estimator(top.table("estimator", required=False), classes),
        events=_events(top.table("events", required=False), signal),
    )
    top.finish()
    features = recipe.feature_names
    if len(features) > MAX_FEATURES:
        raise RecipeError(f"{file}: [features] makes {len(features)} features; at most "
                          f"{MAX_FEATURES} are allowed: {features[MAX_FEATURES]!r} is the first "
                          "too many")
    return recipe


def _data(table: _Table, folder: Path) -> Data:
    source = table.choice("source", str, SOURCES, None)
    path, also = table.take("path", str, None), table.take("also", str, None)
    if source == "uci:Daphnet":
        if path is None:
            raise table.fail("path", "is missing: the folder with S01R01.txt and so on")
    elif (source is None) == (path is None):
        raise table.fail("source", "give either source or path; allowed sources: "
                                   f"{', '.join(SOURCES)}; path is a folder of .csv or .npz files")
    data = Data(source=source, path=None if path is None else folder / path,
                also=None if also is None else folder / also,
                rate_hz=table.number("rate_hz", float, 0.01, 1e6, None),
                test=table.number("test", float, 0.05, 0.95, 0.3),
                seed=table.number("seed", int, 0, 2**32 - 1, 1))
    table.finish()
    return data


def _signal(table: _Table) -> Signal:
    sensor = table.choice("sensor", str, ("lsm6dsox",), None)
    accel = gyro = None
    if sensor == "lsm6dsox":
        accel = table.choice("accel_range_g", int, LSM6DSOX_MG, 4)
        gyro = table.choice("gyro_range_dps", int, LSM6DSOX_MDPS, 2000)
        rate_hz = table.choice("rate_hz", float, LSM6DSOX_RATES_HZ)
    else:
        rate_hz = table.number("rate_hz", float, 0.01, 1e6, None)
    window = table.number("window", int, 1, MAX_WINDOW)
    hop = table.number("hop", int, 1, MAX_WINDOW, window)
    columns = table.table("channels")
    channels = tuple(_channel(columns, name, accel, gyro) for name in list(columns.values))
    if not 1 <= len(channels) <= 255:
        raise table.fail("channels", f"has {len(channels)} channels; allowed: 1 to 255")
    columns.finish()
    table.finish()
    return Signal(channels, window, hop, rate_hz, sensor, accel, gyro)


def _channel(columns: _Table, name: str, accel: int | None, gyro: int | None) -> Channel:
    """Read `name = "unit"` of a known sensor, or `name = { unit = "V", lsb = 0.001 }`."""
    if not NAME.fullmatch(name) or name in ("time_ms", "label", "subject"):
        raise columns.fail(name, "is not a name for a channel; allowed: small letters, digits and "
                                 "_, at most 32, a letter first, not time_ms, label or subject")
    if isinstance(columns.values[name], dict):
        table = columns.table(name)
        unit = table.take("unit", str)
        lsb = table.take("lsb", float)
        if lsb <= 0:
            raise table.fail("lsb", f"is {lsb}; it is the size of one sensor count in {unit}, "
                                    "greater than 0")
        table.finish()
        return Channel(name, unit, 1 / lsb)
    unit = columns.take(name, str)
    if unit == "count":
        return Channel(name, unit, 1.0)
    if accel is not None and unit in ACCEL_UNITS_MG:
        return Channel(name, unit, ACCEL_UNITS_MG[unit] / LSM6DSOX_MG[accel])
    if gyro is not None and unit in GYRO_UNITS_MDPS:
        return Channel(name, unit, GYRO_UNITS_MDPS[unit] / LSM6DSOX_MDPS[gyro])
    units = [*ACCEL_UNITS_MG, *GYRO_UNITS_MDPS] if accel is not None else []
    raise columns.fail(name, f"is {unit!r}; allowed: {', '.join(['count', *units])}, or a table "
                             "with unit and lsb (the size of one sensor count in that unit)")


def _features(table: _Table, signal: Signal) -> Features:
    if table.choice("kind", str, ("statistics", "raw"), "statistics") == "raw":
        table.finish()
        return Features(raw=True, rows=())
    if signal.window < 2:
        raise table.fail("kind", "statistics need a window of at least 2 samples")
    names = signal.names
    rows = []
    shift = table.number("shift", int, 0, MAX_SHIFT, 0)
    channels = table.table("channels", required=False)
    default = channels.strings("*", STATISTICS, ())
    for i, name in enumerate(names):
        rows.append(FeatureRow(name, i, 1, channels.strings(name, STATISTICS, default)))
    channels.finish()
    magnitudes = table.table("magnitudes", required=False)
    for name in list(magnitudes.values):
        if not NAME.fullmatch(name) or name in names:
            raise magnitudes.fail(name, "is not a name for a magnitude; allowed: small letters, "
                                        "digits and _, at most 32, not a channel's name")
        row = magnitudes.table(name)
        of = row.strings("of", names)
        first = names.index(of[0])
        if not 2 <= len(of) <= 3 or of != names[first:first + len(of)]:
            raise row.fail("of", f"is {', '.join(of)}; allowed: two or three channels that stand "
                                 f"side by side in [signal.channels] ({', '.join(names)})")
        rows.append(FeatureRow(name, first, len(of), row.strings("statistics", STATISTICS)))
        row.finish()
    table.finish()
    order = STATISTICS.index
    rows = [FeatureRow(row.name, row.first, row.count, tuple(sorted(row.statistics, key=order)))
            for row in rows if row.statistics]
    if not rows:
        raise table.fail("channels", "no statistic is asked for; allowed: "
                                     f"{', '.join(STATISTICS)}")
    return Features(raw=False, rows=tuple(rows), shift=shift)


def _forest(table: _Table) -> Forest:
    forest = Forest(trees=table.number("trees", int, 1, 255, 10),
                    depth=table.number("depth", int, 1, 32, None),
                    leaves=table.number("leaves", int, 2, 65536, None),
                    leaf_samples=table.number("leaf_samples", int, 1, 65536, 1),
                    seed=table.number("seed", int, 0, 2**32 - 1, 1),
                    vote=table.choice("vote", str, VOTES, "hard"),
                    early_exit=table.take("early_exit", bool, False),
                    form=table.choice("form", str, FORMS, "fast"),
                    kind=table.choice("kind", str, kinds.TREES, kinds.TREES[0]),
                    prune=table.number("prune", float, 0.0, 1.0, 0.0))
    table.finish()
    return forest


def _estimator(table: _Table, classes: tuple[str, ...] | None) -> Estimator | None:
    """Read [estimator]; keys that are not ours are scikit-learn's, and checked when it trains."""
    if not table.values:
        return None
    kind = table.take("kind", str)
    if kind in kinds.TREES:
        raise table.fail("kind", f"is {kind!r}, which belongs into [forest] kind")
    if kind in kinds.REGRESSIONS:
        raise table.fail("kind", f"is {kind!r}, and a node decides between classes; "
                                 "outpost.convert converts it, for firmware of your own")
    try:
        kinds.check(kind)
    except kinds.KindError as error:
        raise table.fail("kind", str(error)) from error
    detector = kind in kinds.DETECTORS
    usual = table.choice("usual", str, classes, *(() if detector else (None,))) if classes else (
        table.take("usual", str, *(() if detector else (None,))))
    if usual is not None and not detector:
        raise table.fail("usual", f"is for detectors ({', '.join(kinds.DETECTORS)}); {kind} "
                                  "learns all classes")
    scale = table.take("scale", str, None)
    if scale is not None and scale not in kinds.SCALERS:
        raise table.fail("scale", str(kinds.refusal(scale, kinds.SCALERS)))
    estimator = Estimator(
        kind=kind, scale=scale, select=table.number("select", int, 1, MAX_FEATURES, None),
        usual=usual, contamination=table.number("contamination", float, 0.0001, 0.5, 0.02),
        seed=table.number("seed", int, 0, 2**32 - 1, 1), parameters=dict(table.values))
    table.values.clear()
    return estimator


def _post(table: _Table) -> Post:
    post = Post(method=table.choice("method", str, POST_METHODS, "majority"),
                window=table.number("window", int, 1, 15, 1),
                decay=table.number("decay", float, 0.0, 1.0, 0.5))
    table.finish()
    return post


def _tiers(table: _Table, signal: Signal) -> Tiers:
    gate = None
    if "gate" in table.values:
        inner = table.table("gate")
        gate = Gate(samples=inner.number("samples", int, 2, signal.window - 1),
                    channels=inner.strings("channels", signal.names),
                    label=inner.take("class", str), span=inner.number("span", int, 1, 65535, None))
        inner.finish()
    tiers = Tiers(gate=gate, large=table.take("large", str, None),
                  unsure=table.number("unsure", float, 0.0, 1.0, 0.0))
    table.finish()
    return tiers


def _contract(table: _Table) -> dict[str, Any]:
    """Demands by name; some may be tables, `bytes` by architecture and the others by board."""
    contract: dict[str, Any] = {}
    for key in CONTRACT_KEYS:
        if isinstance(table.values.get(key), dict) and key in BY_NAME:
            each = table.table(key)
            kind, least = (int, 1) if key == "bytes" else (float, 0)
            contract[key] = {name: each.number(name, kind, least, 2**24)
                             for name in list(each.values)}
        else:
            most = 1.0 if key in SHARES else 1e9
            value = table.number(key, float, 0.0, most, None)
            if value is not None:
                contract[key] = value
    table.finish()
    return contract


def _search(table: _Table) -> Search:
    search = Search(statistics=table.strings("statistics", STATISTICS, STATISTICS),
                    signals=table.strings("signals", default=None))
    table.finish()
    return search


def _events(table: _Table, signal: Signal) -> Events | None:
    if not table.values:
        return None
    events = Events(label=table.take("class", str),
                    tolerance_s=table.number("tolerance_s", float, 0.0, 3600.0, 0.0))
    if signal.rate_hz is None:
        raise table.fail("class", "events happen in time, and [signal] has no rate_hz")
    table.finish()
    return events
