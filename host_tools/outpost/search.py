"""`outpost search`: the best models that a board, a battery and a contract allow.

Optuna chooses (NSGA-II: accuracy against joules of a wake, under hard bounds), space.py says what
a choice is worth, several processes or machines share one study through Optuna's own storage. What
was found is then validated again with other folds, compiled, and only at the very end shown the
held-out recordings: docs/search.md.
"""

import hashlib
import json
import multiprocessing
import os
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import tomlkit
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.exc import IntegrityError, ProgrammingError

from outpost import boards, build, contract, convert, costs, events, measure, recipe, sizes, tiers
from outpost.contract import Share
from outpost.events import Events
from outpost.paths import BUILD
from outpost.recipe import Recipe
from outpost.space import SearchError, Space, Worth

POPULATION = 40
REPEATS = 4  # of the cross-validation of what is on the front, with other folds
MOST_ON_FRONT = 12
CANDIDATES = 40  # for the front, validated again
SAME = 0.01  # of energy: the cost model knows no better
POLL_S = 0.5
ATTEMPTS = 5
DIRECTIONS = ["maximize", "minimize"]

optuna.logging.set_verbosity(optuna.logging.WARNING)


@dataclass(frozen=True)
class Found:
    """One model of the front.

    `accuracy` is cross-validated on training recordings, `held_out` of the compiled code on the
    recordings nobody looked at before; costs are modelled but for `bytes`, the compiled file's.
    """

    recipe: Recipe
    accuracy: float
    worst_class: float
    energy_uj: float
    latency_us: float
    bytes: int
    bytes_modelled: float
    held_out: Share
    events: Events | None = None  # cross-validated
    events_held_out: Events | None = None
    gated: float = 0.0  # share of training windows that the gate decides
    measured_us: float | None = None

    def json(self) -> dict[str, Any]:
        """Return the object of `--json`."""
        signal, forest = self.recipe.signal, self.recipe.forest
        return {"accuracy": self.accuracy, "energy_uj": self.energy_uj, "bytes": self.bytes,
                "latency_us": self.latency_us, "worst_class": self.worst_class,
                "held_out": asdict(self.held_out), "bytes_modelled": self.bytes_modelled,
                "measured_us": self.measured_us, "rate_hz": signal.rate_hz,
                "window": signal.window, "hop": signal.hop,
                "gated": self.gated, "features": self.recipe.feature_names,
                "forest": asdict(forest),
                **_events(self.events, ""), **_events(self.events_held_out, "_held_out")}


def _events(found: Events | None, suffix: str) -> dict[str, Any]:
    """Return the keys that event-wise scores add to `--json`."""
    if found is None:
        return {}
    return {f"detected{suffix}": found.share, f"false_alarms_per_hour{suffix}": found.per_hour,
            f"delay_s{suffix}": found.delay_s if found.delays_s else None}


@dataclass(frozen=True)
class Outcome:
    """What a search found; `front` from the cheapest to the most accurate."""

    space: Space
    folder: Path
    front: list[Found]
    best: Found
    knee: Found
    baseline: Found  # the model.toml it began with
    trials: int
    refused: int  # trials that missed a hard bound
    seconds: float
    rate: float  # trials a second of this run

    @property
    def dominates(self) -> bool:
        """Whether the best is at least as right as what it began with, for fewer joules."""
        return (self.best.accuracy >= self.baseline.accuracy
                and self.best.energy_uj < self.baseline.energy_uj)

    def json(self) -> dict[str, Any]:
        """Return the object of `--json`."""
        return {"model": self.space.base.name, "board": self.space.board.name,
                "front": [one.json() for one in self.front], "best": self.best.json(),
                "knee": self.knee.json(), "baseline": self.baseline.json(),
                "dominates": self.dominates, "trials": self.trials, "refused": self.refused,
                "seconds": round(self.seconds, 1), "trials_per_s": round(self.rate, 1),
                "model_toml": str(self.folder / "model.toml")}


@dataclass(frozen=True)
class Job:
    """What a worker needs to take part in a study."""

    model: str
    board: str
    battery: str
    storage: str
    study: str
    trials: int
    seed: int


def search(model: str, board: str, trials: int, jobs: int = 1, storage: str | None = None,
           battery: str = "li-ion-18650", seed: int = 1, out: Path | None = None,
           progress: Callable[[int, int, str], None] = lambda done, of, told: None) -> Outcome:
    """Search until the study has `trials` finished trials; goes on with one that has fewer.

    `storage` is a file, or the URL of a database that several machines share. `progress` is told
    finished trials, how many there will be, and what goes on. Raises SearchError.
    """
    begun = time.monotonic()
    space = open_space(model, board, battery)
    folder = out or BUILD / "search" / f"{space.base.name}-{space.board.name}"
    folder.mkdir(parents=True, exist_ok=True)
    place = storage or str(folder / "study.log")
    progress(0, trials, "sizes of modules")
    sizes.fitted(space.board.architecture)
    study = _study(space, place, seed)
    before = len(_done(study))
    job = Job(model, board, battery, place, study.study_name, trials, seed)
    if before < trials:
        _run(job, space, study, jobs, lambda done, told: progress(done, trials, told))
    spent = time.monotonic() - begun
    done = _done(study)
    progress(len(done), trials, "what was found")
    front = _front(space, study, lambda told: progress(len(done), trials, told))
    return _conclude(space, folder, front, done, begun, (len(done) - before) / max(spent, 1e-9))


def open_space(model: str, board: str, battery: str) -> Space:
    """Return the space of a model on a board; raises OutpostError if something isn't there."""
    cells = boards.batteries()
    if battery not in cells:
        raise SearchError(f"no battery {battery!r}; boards/batteries.toml has {', '.join(cells)}")
    return Space(recipe.load(recipe.find(model)), boards.load(board), cells[battery])


# --- the study ---


def open_storage(place: str) -> BaseStorage:
    """Return Optuna's storage: a database by its URL, or a journal in a file."""
    if "://" in place:
        for left in reversed(range(ATTEMPTS)):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                    return RDBStorage(place, heartbeat_interval=60)
            except Exception as error:  # whatever SQLAlchemy or the driver has to say
                if left and isinstance(error, (IntegrityError, ProgrammingError)):
                    time.sleep(1)  # another machine makes the tables at this moment
                    continue
                first = str(error).strip().splitlines()[0]
                raise SearchError(f"{place.rpartition('@')[2]}: {first}") from error
    return JournalStorage(JournalFileBackend(place))


def _study(space: Space, place: str, seed: int) -> optuna.Study:
    """Open the study, or create it; one that is of something else is refused."""
    name = f"{space.base.name}-{space.board.name}"
    study = optuna.create_study(study_name=name, storage=open_storage(place),
                                directions=DIRECTIONS, load_if_exists=True,
                                sampler=_sampler(seed))
    of = _fingerprint(space)
    if study.user_attrs.get("of", of) != of:
        raise SearchError(f"{place} holds a search of other data, another contract or another "
                          f"version: give another --storage, or remove it to begin anew")
    if "of" not in study.user_attrs:
        study.set_user_attr("of", of)
        for start in space.starts():
            study.enqueue_trial(start)
    return study


def _fingerprint(space: Space) -> str:
    """Return a hash of what the worth of a choice depends on."""
    from outpost import data

    here = Path(__file__).parent
    parts = [repr(data.fingerprint(space.base)), repr(space.base.signal),
             repr(space.base.contract), repr(space.rates), repr(space.windows),
             repr(space.groups), repr(space.statistics), space.battery.key,
             space.board.file.read_text(), (here / "space.py").read_text(),
             (here / "costs.py").read_text()]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _sampler(seed: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.NSGAIISampler(population_size=POPULATION, seed=seed)


def _done(study: optuna.Study) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def _run(job: Job, space: Space, study: optuna.Study, jobs: int,
         progress: Callable[[int, str], None]) -> None:
    """Work on the study until it has its trials, in this process or in several."""
    if jobs <= 1:
        def tell(study: optuna.Study, trial: FrozenTrial) -> None:
            done = _done(study)
            progress(len(done), _told(done))

        _work(job, space, study, [tell])
        return
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_worker, args=(replace(job, seed=job.seed + 1000 * number),),
                               daemon=True) for number in range(jobs)]
    for worker in workers:
        worker.start()
    try:
        while any(worker.is_alive() for worker in workers):
            done = _done(study)
            progress(len(done), _told(done))
            for worker in workers:
                worker.join(POLL_S / jobs)
    finally:
        for worker in workers:
            worker.terminate()
    failed = [worker for worker in workers if worker.exitcode]
    if failed and len(_done(study)) < job.trials:
        raise SearchError(f"{len(failed)} of {jobs} processes failed; what they said is above. "
                          "What is done is kept: the same command goes on")


def _worker(job: Job) -> None:
    """Take part in a study, in a process of its own."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    space = open_space(job.model, job.board, job.battery)
    study = optuna.load_study(study_name=job.study, storage=open_storage(job.storage),
                              sampler=_sampler(job.seed))
    _work(job, space, study, [])


def _work(job: Job, space: Space, study: optuna.Study,
          callbacks: list[Callable[[optuna.Study, FrozenTrial], None]]) -> None:
    def objective(trial: Trial) -> tuple[float, float]:
        worth = space.worth(space.suggest(trial))
        for name, missed in worth.limits.items():
            trial.set_constraint(name, missed)
        return worth.accuracy, worth.energy_uj

    study.optimize(objective, callbacks=[
        optuna.study.MaxTrialsCallback(job.trials, states=(TrialState.COMPLETE,)), *callbacks])


def _missed(trial: FrozenTrial) -> float:
    """Return by how much a trial misses the hard bound that it misses most; ≤ 0: none."""
    return max(trial.constraints.values())


def _told(done: list[FrozenTrial]) -> str:
    allowed = [trial for trial in done if _missed(trial) <= 0]
    if not allowed:
        return "nothing within the bounds yet"
    best = max(allowed, key=lambda trial: (trial.values[0], -trial.values[1]))
    return f"{100 * best.values[0]:.2f} % for {best.values[1] / 1e3:.1f} mJ"


# --- what was found ---


def pareto(points: list[tuple[float, float]], same: float = 0.0) -> list[int]:
    """Return the places of the points that no other beats in accuracy and energy, by energy.

    Energies that differ by a share below `same` count as equal: the most accurate of those stays.
    """
    order = sorted(range(len(points)), key=lambda i: (points[i][1], -points[i][0]))
    kept: list[int] = []
    for i in order:
        if not kept or points[i][0] > points[kept[-1]][0]:
            if kept and points[i][1] <= points[kept[-1]][1] * (1 + same):
                kept.pop()
            kept.append(i)
    return kept


def knee(points: list[tuple[float, float]]) -> int:
    """Return the place of the point farthest above the line from the first to the last.

    Points (accuracy, energy) as `pareto` orders them, both scaled to the span they cover; energy
    by its logarithm.
    """
    table = np.array([(accuracy, -np.log(energy)) for accuracy, energy in points])
    span = np.ptp(table, axis=0)
    scaled = (table - table.min(axis=0)) / np.where(span > 0, span, 1)
    return int(scaled.sum(axis=1).argmax())


def _front(space: Space, study: optuna.Study, told: Callable[[str], None]) -> list[Worth]:
    """Validate the best trials again with other folds; return the front of these and the base."""
    allowed = [trial for trial in _done(study) if _missed(trial) <= 0]
    if not allowed:
        least = min(_done(study), key=lambda trial: _missed(trial))
        raise SearchError(f"none of {len(_done(study))} trials keeps the contract's bounds; the "
                          f"nearest misses one by {100 * _missed(least):.1f} %: "
                          f"ask for less in [contract] of {space.base.file}, or for more --trials")
    chosen: dict[str, dict[str, Any]] = {}
    rest = allowed
    while rest and len(chosen) < CANDIDATES:  # the front, and what comes right behind it
        layer = pareto([tuple(trial.values) for trial in rest])
        for i in layer:
            chosen.setdefault(repr(space.recipe(rest[i].params)), rest[i].params)
        gone = set(layer)
        rest = [trial for i, trial in enumerate(rest) if i not in gone]
    worths = []
    for number, params in enumerate(chosen.values()):
        told(f"validating again, {number + 1} of {len(chosen)}")
        worths.append(again(space, lambda seed, params=params: space.worth(params, seed)))
    told("validating model.toml as it is")
    worths.append(again(space, lambda seed: space.worth_of(space.base, seed)))
    points = [(worth.accuracy, worth.energy_uj) for worth in worths]
    return [worths[i] for i in pareto(points, SAME)][-MOST_ON_FRONT:]


def again(space: Space, worth: Callable[[int], Worth]) -> Worth:
    """Return the mean worth over other folds than the search has seen."""
    found = [worth(1 + repeat) for repeat in range(REPEATS)]
    return replace(found[0], accuracy=float(np.mean([one.accuracy for one in found])),
                   worst_class=float(np.mean([one.worst_class for one in found])))


def _conclude(space: Space, folder: Path, front: list[Worth], done: list[FrozenTrial],
              begun: float, rate: float) -> Outcome:
    """Compile what is on the front, show it the held-out recordings, write the best down."""
    found = [_compiled(space, worth) for worth in front]
    base = again(space, lambda seed: space.worth_of(space.base, seed))
    baseline = next((one for one in found if one.recipe == space.base),
                    None) or _compiled(space, base)
    points = [(one.accuracy, one.energy_uj) for one in found]
    bend = found[knee(points)]
    best = next(one for one in found if one.accuracy >= baseline.accuracy)
    if space.board.chip["name"] == "RP2040" and measure.Pico.present():
        best = replace(best, measured_us=_measured(best.recipe))
    refused = sum(_missed(trial) > 0 for trial in done)
    outcome = Outcome(space, folder, [best if one.recipe == best.recipe else one for one in found],
                      best, bend, baseline, len(done), refused, time.monotonic() - begun, rate)
    write_toml(best.recipe, folder / "model.toml")
    return outcome


def _compiled(space: Space, worth: Worth) -> Found:
    """Train on all training recordings, compile, and answer the held-out ones with that code."""
    what = worth.recipe
    fitted = build.fit(what)
    with tempfile.TemporaryDirectory(prefix="outpost-search-") as scratch:
        convert.emit(what, fitted.model, Path(scratch))
        host = build.make_module(what, build.HOST, Path(scratch))
        build.prove(what, host, Path(scratch), fitted.test, fitted.x_test,
                    fitted.forest.answer(fitted.x_test))
        size = build.make_module(what, space.board.architecture, Path(scratch))["bytes"]
    answers = fitted.forest.answer(fitted.x_test).chosen
    gate = tiers.fit(what, list(fitted.dataset.classes), fitted.train)
    if gate is not None:
        answers = np.where(tiers.quiet(gate, fitted.test.x), gate["class"], answers)
    held_out = contract.accuracy(answers, fitted.test)
    noticed = None if what.events is None else events.score(
        what, fitted.dataset.classes, fitted.dataset.test, fitted.test, answers)
    return Found(what, worth.accuracy, worth.worst_class, worth.energy_uj,
                 sum(costs.latency_us(space.board, what, fitted.forest)), size,
                 sizes.fitted(space.board.architecture).module(what, fitted.forest), held_out,
                 worth.events, noticed, worth.gated)


def _measured(what: Recipe) -> float:
    """Return µs of the worst window on the emulated RP2040."""
    fitted = build.fit(what)
    with tempfile.TemporaryDirectory(prefix="outpost-search-") as scratch, \
            measure.Pico() as pico:
        convert.emit(what, fitted.model, Path(scratch))
        module = build.make_module(what, "armv6m", Path(scratch))
        pico.load((Path(scratch) / module["file"]).read_bytes())
        made = np.concatenate([fitted.x_test,
                               [costs.longest_window(fitted.forest, fitted.x_test)]])
        return float(pico.features(fitted.test.x[:20])[0].max() + pico.predict(made)[0].max())


def write_toml(what: Recipe, file: Path) -> None:
    """Write a found model as a model.toml that `outpost build` takes, from what it began with."""
    document = tomlkit.parse(what.file.read_text("utf-8"))
    signal, forest = what.signal, what.forest
    if what.data.path is not None:
        document["data"]["path"] = os.path.relpath(what.data.path, file.parent)
    if what.data.also is not None:
        document["data"]["also"] = os.path.relpath(what.data.also, file.parent)
    document["signal"].update({"rate_hz": signal.rate_hz, "window": signal.window,
                               "hop": signal.hop})
    channels = tomlkit.table()
    magnitudes = tomlkit.table()
    for row in what.features.rows:
        if row.count == 1:
            channels[row.name] = list(row.statistics)
        else:
            of = tomlkit.table()
            of["of"] = list(signal.names[row.first:row.first + row.count])
            of["statistics"] = list(row.statistics)
            magnitudes[row.name] = of
    table = tomlkit.table(is_super_table=not what.features.shift)
    if what.features.shift:
        table["shift"] = what.features.shift
    for name, part in (("channels", channels), ("magnitudes", magnitudes)):
        if part:
            table[name] = part
    document["features"] = table
    document.setdefault("tiers", tomlkit.table()).pop("gate", None)
    if what.tiers.gate is not None:
        gate = what.tiers.gate
        document["tiers"]["gate"] = {"samples": gate.samples, "channels": list(gate.channels),
                                     "class": gate.label,
                                     **({} if gate.span is None else {"span": gate.span})}
    document["forest"] = {key: value for key, value in asdict(forest).items() if value is not None}
    text = tomlkit.dumps(document)
    scratch = file.with_name(f".{file.name}.{os.getpid()}")
    scratch.write_text(f"# Found by outpost search; it began with {what.file.name} of "
                       f"{what.name}.\n{text}")
    again = recipe.load(scratch)
    if (again.signal, again.features, again.forest, again.tiers) != (
            signal, what.features, forest, what.tiers):
        raise SearchError(f"{scratch}: what was written does not read as what was found")
    scratch.replace(file)


def write_json(outcome: Outcome) -> Path:
    """Write all that was found beside the model."""
    file = outcome.folder / "front.json"
    file.write_text(json.dumps(outcome.json(), indent=1, default=float) + "\n")
    return file


