"""What a search may choose, and what a choice is worth: cross-validated, costed, never built.

A choice is a recipe: rate, window and hop, signals and statistics and how many of them are kept,
the forest. Windows and all their features are computed once for a rate, window and hop. The
held-out recordings are not looked at here.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from outpost import contract, costs, data, features, kinds, reference, sizes, tiers
from outpost.boards import Battery, Board
from outpost.errors import OutpostError
from outpost.events import Events, score
from outpost.grow import grown, importance
from outpost.recipe import (
    FORMS,
    LSM6DSOX_RATES_HZ,
    STATISTICS,
    VOTES,
    FeatureRow,
    Features,
    Forest,
    Gate,
    Recipe,
    Tiers,
)

FOLDS = 5
WINDOWS = tuple(size for power in range(3, 10) for size in (
    2**power, 5 * 2**power // 4, 3 * 2**power // 2, 7 * 2**power // 4)) + (1024,)
SHORTEST_S = 0.25  # of a window
HOPS = (1, 2, 4)  # a hop is the window divided by one of these
MOST_WINDOWS = 1000  # to train on; a hop is longer rather than that there are more
RATES = (1, 2, 4)  # of a sensor that isn't known: the rate divided by one of these
MOST_KEPT = 24  # features
MOST_TREES = 24
PRUNES = (0.0, 0.005, 0.02)
SHIFTS = (0, 2, 4, 6)
GATES = (0.0, 0.125, 0.25, 0.5)  # share of the window that a gate looks at; 0: no gate
CAUTIONS = (1.25, 2.0, 4.0)  # a gate's span stays so many times below what other classes show
RANKING = Forest(60, None, None, 1, 1, kind="ExtraTreesClassifier")
HEAP_BYTES = 1000  # what loading takes beside the file, twice: measured on emulator, motion


class SearchError(OutpostError):
    """A model that can't be searched for, or a study that is of something else."""


@dataclass(frozen=True)
class Worth:
    """What a choice is worth: `right` is the share of each fold's held-out training windows."""

    recipe: Recipe
    accuracy: float
    worst_class: float
    energy_uj: float
    bytes: float
    latency_us: float
    limits: dict[str, float]  # by how much each hard bound is missed, in shares of it; ≤ 0: met
    events: Events | None = None
    gated: float = 0.0  # share of windows that the gate decides


@dataclass(frozen=True)
class Grid:
    """The training windows of one rate, window and hop, with every feature there is."""

    wide: Recipe  # with all of them
    x: np.ndarray
    windows: data.Windows

    def columns(self, names: list[str], shift: int) -> np.ndarray:
        """Return int16 (windows, names), amplitudes without their lowest `shift` bits."""
        index = {name: i for i, name in enumerate(self.wide.feature_names)}
        shifts = [0 if name.endswith(".crossings") else shift for name in names]
        return self.x[:, [index[name] for name in names]] >> np.array(shifts, np.int16)


class Space:
    """All that may be chosen for one model on one board."""

    def __init__(self, base: Recipe, board: Board, battery: Battery) -> None:
        if base.features.raw:
            raise SearchError(f"{base.file}: [features] kind is raw: there is neither a window "
                              "nor a statistic to choose; search is for signals")
        if base.estimator is not None:
            raise SearchError(f"{base.file}: [estimator] is a {base.estimator.kind}; search is "
                              f"for {', '.join(kinds.TREES)}")
        if base.signal.rate_hz is None:
            raise SearchError(f"{base.file}: [signal] has no rate_hz, so a window has no length "
                              "in time and no joules")
        self.base, self.board, self.battery = base, board, battery
        self.signals = _signals(base)
        self.statistics = base.search.statistics
        self._sets: dict[float, data.Dataset] = {}
        self._grids: dict[tuple[float, int, int], Grid] = {}
        self._rankings: dict[tuple, list[str]] = {}
        self._spans: dict[tuple, np.ndarray] = {}
        self._folds: dict[tuple[float, int], np.ndarray] = {}
        self.rates = self._rates()
        first = self.dataset(base.signal.rate_hz)
        self.classes = first.classes
        self.shortest = min(len(one.samples) for one in first.train) / base.signal.rate_hz
        self.windows = self._windows()
        self.folds_of(base.signal.rate_hz, 0)  # fails here and not in the middle of a search

    # --- what there is to choose from ---

    def _rates(self) -> tuple[float, ...]:
        own = self.base.signal.rate_hz
        if self.base.signal.sensor == "lsm6dsox":
            recorded = self.base.data.rate_hz or own
            found = [rate for rate in LSM6DSOX_RATES_HZ if rate <= max(own, recorded)]
        else:
            found = [own / part for part in RATES]
        return tuple(sorted({*found, own}))

    def _windows(self) -> tuple[int, ...]:
        """Return window lengths in samples at the highest rate that leave recordings whole."""
        most = self.shortest * min(self.rates)
        found = {size for size in WINDOWS
                 if SHORTEST_S * max(self.rates) <= size <= most}
        return tuple(sorted(found | {self.base.signal.window}))

    def dataset(self, rate_hz: float) -> data.Dataset:
        """Return the recordings at a rate; only those to train on are used."""
        if rate_hz not in self._sets:
            signal = replace(self.base.signal, rate_hz=rate_hz, window=2, hop=2)
            self._sets[rate_hz] = data.load(replace(self.base, signal=signal))
        return self._sets[rate_hz]

    def grid(self, rate_hz: float, window: int, hop: int) -> Grid:
        """Return the training windows; computed once."""
        key = rate_hz, window, hop
        if key not in self._grids:
            wide = self._wide(rate_hz, window, hop)
            dataset = self.dataset(rate_hz)
            cut = data.windows(dataset.train, dataset.classes, window, hop)
            self._grids[key] = Grid(wide, features.compute(wide, cut.x), cut)
        return self._grids[key]

    def _wide(self, rate_hz: float, window: int, hop: int) -> Recipe:
        rows = [FeatureRow(name, first, count, STATISTICS)
                for name, (first, count) in self.signals.items()]
        return replace(self.base, features=Features(False, tuple(rows)), signal=replace(
            self.base.signal, rate_hz=rate_hz, window=window, hop=hop))

    @functools.cached_property
    def _sensors(self) -> dict[str, tuple[str, ...]]:
        """The channels of each sensor: those that are named alike."""
        found: dict[str, tuple[str, ...]] = {}
        for name in self.base.signal.names:
            sensor = name.rpartition("_")[0] or name
            found[sensor] = (*found.get(sensor, ()), name)
        return found

    @functools.cached_property
    def groups(self) -> dict[str, tuple[str, ...]]:
        """Named sets of signals: sensors and their magnitudes, alone and together."""
        sensors: dict[str, list[str]] = {}
        vectors: dict[str, list[str]] = {}
        for name, (first, count) in self.signals.items():
            channel = self.base.signal.names[first]
            sensor = channel.rpartition("_")[0] or channel
            for kind in (sensors, vectors):
                kind.setdefault(sensor, [])
            (sensors if count == 1 else vectors)[sensor].append(name)
        found = {}
        for many in range(1, min(len(sensors), 3) + 1):
            for some in combinations(sensors, many):
                channels = [name for sensor in some for name in sensors[sensor]]
                lengths = [name for sensor in some for name in vectors[sensor]]
                told = "+".join(some)
                if channels:
                    found[told] = tuple(channels)
                if lengths:
                    found[f"|{told}|"] = tuple(lengths)
                if channels and lengths:
                    found[f"{told}, |{told}|"] = (*channels, *lengths)
        if len(sensors) > 3:
            found["all"] = tuple(name for channels in sensors.values() for name in channels)
        return found

    # --- choosing ---

    def suggest(self, trial: object) -> dict[str, object]:
        """Ask an Optuna trial for every parameter."""
        choose, whole = trial.suggest_categorical, trial.suggest_int
        return {
            "rate_hz": choose("rate_hz", self.rates),
            "window": choose("window", self.windows),
            "hop": choose("hop", HOPS),
            "signals": choose("signals", tuple(self.groups)),
            **{f"statistic_{i}": choose(f"statistic_{i}", (*self.statistics, *["none"] * (i > 1)))
               for i in (1, 2, 3)},
            "kept": whole("kept", 1, MOST_KEPT),
            "kind": choose("kind", kinds.TREES),
            "trees": whole("trees", 1, MOST_TREES, log=True),
            "depth": whole("depth", 2, 8),
            "leaf_samples": whole("leaf_samples", 1, 8),
            "prune": choose("prune", PRUNES),
            "shift": choose("shift", SHIFTS),
            "gate": choose("gate", GATES),
            "caution": choose("caution", CAUTIONS),
            "vote": choose("vote", VOTES),
            "form": choose("form", FORMS),
        }

    def names(self, params: dict[str, object]) -> list[str]:
        """Return the features that signals and statistics of a choice make, before any is left."""
        chosen = {params[f"statistic_{i}"] for i in (1, 2, 3)}
        return [f"{signal}.{statistic}" for signal in self.groups[params["signals"]]
                for statistic in STATISTICS if statistic in chosen]

    def starts(self) -> list[dict[str, object]]:
        """Return the choice nearest to model.toml, with every window: where a search begins."""
        base, forest = self.base, self.base.forest
        used = [name for name in self.statistics
                if any(name in row.statistics for row in base.features.rows)]
        named = {row.name for row in base.features.rows}
        group = min(self.groups, key=lambda name: len(named ^ set(self.groups[name])))
        fixed = {
            "rate_hz": base.signal.rate_hz, "signals": group,
            "hop": min(HOPS, key=lambda part: abs(base.signal.window / part - base.signal.hop)),
            **{f"statistic_{i}": (used or self.statistics)[i - 1] if i <= len(used) or i == 1
               else "none" for i in (1, 2, 3)},
            "kept": min(MOST_KEPT, len(base.feature_names)),
            "kind": forest.kind, "trees": min(MOST_TREES, forest.trees),
            "depth": min(max(forest.depth or 8, 2), 8),
            "leaf_samples": min(forest.leaf_samples, 8),
            "prune": min(PRUNES, key=lambda prune: abs(prune - forest.prune)),
            "shift": min(SHIFTS, key=lambda shift: abs(shift - base.features.shift)),
            "gate": 0.25 if base.tiers.gate is not None else 0.0, "caution": CAUTIONS[1],
            "vote": forest.vote, "form": forest.form}
        return [{**fixed, "window": window} for window in self.windows]

    def recipe(self, params: dict[str, object]) -> Recipe:
        """Return the recipe a choice stands for, its features chosen on all training windows."""
        grid = self._grid_of(params)
        kept = self._kept(grid, params, np.arange(len(grid.windows.y)), "all")
        rows = [FeatureRow(name, first, count, tuple(
            statistic for statistic in STATISTICS if f"{name}.{statistic}" in kept))
            for name, (first, count) in self.signals.items()]
        rows = [row for row in rows if row.statistics]
        trees = 1 if params["kind"] == "DecisionTreeClassifier" else params["trees"]
        forest = replace(self.base.forest, kind=params["kind"], trees=trees, depth=params["depth"],
                         leaves=None, leaf_samples=params["leaf_samples"],
                         prune=params["prune"], vote=params["vote"], form=params["form"])
        what = replace(grid.wide, features=Features(False, tuple(rows), params["shift"]),
                       forest=forest, tiers=self._tiers(params))
        if what.tiers.gate is None:
            return what
        span = self._span(grid, what, np.arange(len(grid.windows.y)), params["caution"])
        if span < 1:
            return replace(what, tiers=replace(what.tiers, gate=None))
        return replace(what, tiers=replace(what.tiers, gate=replace(what.tiers.gate, span=span)))

    @functools.cached_property
    def quietest(self) -> str:
        """The class a gate is for: model.toml's, or the one that moves least."""
        if self.base.tiers.gate is not None:
            return self.base.tiers.gate.label
        grid = self.grid(self.base.signal.rate_hz, self.base.signal.window, self.base.signal.hop)
        moved = grid.windows.x.std(axis=1).mean(axis=1)
        means = [moved[grid.windows.y == i].mean() if (grid.windows.y == i).any() else np.inf
                 for i in range(len(self.classes))]
        return self.classes[int(np.argmin(means))]

    def _tiers(self, params: dict[str, object]) -> Tiers:
        """Return the base's tiers with the gate of a choice, its span still open."""
        base = self.base.tiers
        samples = round(params["window"] * params["gate"])
        if samples < 2:
            return replace(base, gate=None)
        channels = (base.gate.channels if base.gate is not None else
                    next(iter(self._sensors.values())))
        return replace(base, gate=Gate(samples, channels, self.quietest, None))

    def _span(self, grid: Grid, what: Recipe, rows: np.ndarray, caution: float) -> int:
        """Return what a gate may take for still, from the training windows in `rows`."""
        shown = self._shown(grid, what)[rows]
        others = shown[grid.windows.y[rows] != self.classes.index(what.tiers.gate.label)]
        return min(int(others.min() / caution), tiers.MOST_SPAN)

    def _shown(self, grid: Grid, what: Recipe) -> np.ndarray:
        """Return how much each training window moves, as a gate sees it."""
        gate = what.tiers.gate
        key = (grid.wide.signal, gate.samples, gate.channels)
        if key not in self._spans:
            channels = [what.signal.names.index(name) for name in gate.channels]
            self._spans[key] = tiers.spans(grid.windows.x, gate.samples, channels)
        return self._spans[key]

    def _grid_of(self, params: dict[str, object]) -> Grid:
        rate, window = params["rate_hz"], params["window"]
        samples = sum(len(one.samples) for one in self.dataset(rate).train)
        return self.grid(rate, window, max(window // params["hop"], samples // MOST_WINDOWS, 1))

    def _kept(self, grid: Grid, params: dict[str, object], rows: np.ndarray, fold: object
              ) -> list[str]:
        """Return the features to keep: those that extremely random trees on `rows` use most."""
        names = self.names(params)
        if len(names) <= params["kept"]:
            return names
        key = (grid.wide.signal, fold)
        if key not in self._rankings:
            looked_at = importance(RANKING, grid.x[rows], grid.windows.y[rows])
            order = np.argsort(-looked_at, kind="stable")
            self._rankings[key] = [grid.wide.feature_names[i] for i in order]
        wanted = set(names)
        best = [name for name in self._rankings[key] if name in wanted][:params["kept"]]
        return [name for name in names if name in best]

    # --- what it is worth ---

    def folds_of(self, rate_hz: float, seed: int) -> np.ndarray:
        """Return the fold of each training recording: stratified, files whole."""
        if (rate_hz, seed) not in self._folds:
            self._folds[rate_hz, seed] = self._split(self.dataset(rate_hz), seed)
        return self._folds[rate_hz, seed]

    def _split(self, dataset: data.Dataset, seed: int) -> np.ndarray:
        labels = np.array([one.label for one in dataset.train])
        groups = np.array([one.group for one in dataset.train])
        few = min(len(set(groups[labels == label])) for label in set(labels))
        if few < 2:
            raise SearchError(f"{self.base.name}: a class has one recording to train on; "
                              "cross-validation by recording needs two at least")
        fold = np.zeros(len(labels), int)
        splitter = StratifiedGroupKFold(min(FOLDS, few), shuffle=True, random_state=seed)
        for number, (_, held) in enumerate(splitter.split(labels, labels, groups)):
            fold[held] = number
        return fold

    def worth(self, params: dict[str, object], seed: int = 0) -> Worth:
        """Cross-validate a choice by recording, and model what it costs.

        The features that are kept are chosen anew in each fold, so that no fold's held-out windows
        have a say in them. Forests of the folds stand for the final one's size.
        """
        grid = self._grid_of(params)
        what = self.recipe(params)
        fold_of = self.folds_of(params["rate_hz"], seed)[grid.windows.recording]
        return self._worth(grid, what, fold_of,
                           lambda rows, fold: self._kept(grid, params, rows, (seed, fold)),
                           params["caution"])

    def worth_of(self, what: Recipe, seed: int = 0) -> Worth:
        """Return the same of a recipe as it stands, its features fixed."""
        signal = what.signal
        grid = self.grid(signal.rate_hz, signal.window, signal.hop)
        fold_of = self.folds_of(signal.rate_hz, seed)[grid.windows.recording]
        return self._worth(grid, what, fold_of, lambda rows, fold: what.feature_names)

    def _worth(self, grid: Grid, what: Recipe, fold_of: np.ndarray,
               kept: Callable[[np.ndarray, int], list[str]], caution: float | None = None
               ) -> Worth:
        y, gate = grid.windows.y, what.tiers.gate
        answers, gated = np.zeros(len(y), int), np.zeros(len(y), bool)
        forests = []
        for fold in np.unique(fold_of):
            held = fold_of == fold
            x = grid.columns(kept(np.flatnonzero(~held), int(fold)), what.features.shift)
            forest, classes = grown(what.forest, x[~held], y[~held])
            answers[held] = classes[forest.answer(x[held]).chosen]
            if gate is not None:
                span = gate.span if caution is None and gate.span is not None else self._span(
                    grid, what, np.flatnonzero(~held), caution or tiers.CAUTION)
                gated |= held & (self._shown(grid, what) <= span)
            forests.append(forest)
        if gate is not None:
            answers[gated] = self.classes.index(gate.label)
        right = answers == y
        found = None
        if what.events is not None:
            dataset = self.dataset(what.signal.rate_hz)
            found = score(what, dataset.classes, dataset.train, grid.windows, answers)
        return self._costed(what, float(right.mean()),
                            min(float(right[y == label].mean()) for label in np.unique(y)),
                            forests, found, float(gated.mean()))

    def _costed(self, what: Recipe, accuracy: float, worst: float,
                forests: list[reference.Forest], found: Events | None, gated: float) -> Worth:
        """Put the costs beside an accuracy: each the mean over the folds' forests."""
        def mean(figure: Callable[[reference.Forest], float]) -> float:
            return float(np.mean([figure(forest) for forest in forests]))

        board, battery = self.board, self.battery
        model = sizes.fitted(board.architecture)
        size = mean(lambda forest: model.module(what, forest))
        phases = [costs.wake(board, battery, what, forest) for forest in forests]
        energy = float(np.mean([costs.wake_uj(one) for one in phases]))
        latency = mean(lambda forest: sum(costs.latency_us(board, what, forest)))
        got = {"accuracy": accuracy, "worst_class": worst, "bytes": size, "heap": size,
               "heap_peak": size + HEAP_BYTES, "latency_us": latency, "energy_uj": energy,
               "awake_ms": float(np.mean([costs.awake_ms(one) for one in phases])),
               "life_days": float(np.mean([costs.life_days(board, battery, one)
                                           for one in phases]))}
        if found is not None:
            got |= {"detected": found.share, "false_alarms_per_hour": found.per_hour,
                    "delay_s": min(found.delay_s, 1e6)}
        limits = self._limits(got)  # of a whole wake: no bound counts on the gate
        if gated:
            energy += gated * (costs.gated_uj(board, battery, what, forests[0]) - energy)
        return Worth(what, accuracy, worst, energy, size, latency, limits, found, gated)

    def _limits(self, got: dict[str, float]) -> dict[str, float]:
        """Return by how much each bound of the contract, and the board's heap, is missed."""
        missed = {"memory": got["heap_peak"] / self.board.memory["heap"].to("B") - 1}
        for name, value in got.items():
            where = self.board.architecture if name == "bytes" else self.board.name
            wanted = contract.demand(self.base, name, where)
            if wanted:
                least = contract.TERMS[name].least
                missed[name] = (wanted - value if least else value - wanted) / wanted
        return missed


def _signals(base: Recipe) -> dict[str, tuple[int, int]]:
    """Return every signal: the channels, and the magnitudes of neighbours named …_x, …_y, …_z."""
    names = base.signal.names
    found = {name: (i, 1) for i, name in enumerate(names)}
    found |= {row.name: (row.first, row.count) for row in base.features.rows if row.count > 1}
    for i, name in enumerate(names):
        sensor, _, axis = name.rpartition("_")
        if axis == "x" and names[i:i + 3] == (name, f"{sensor}_y", f"{sensor}_z"):
            found.setdefault(sensor, (i, 3))
    for name in base.search.signals or ():
        if name not in found:
            raise SearchError(f"{base.file}: [search] signals has {name!r}; there are "
                              f"{', '.join(found)}")
    return {name: where for name, where in found.items()
            if base.search.signals is None or name in base.search.signals}


