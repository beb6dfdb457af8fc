"""What a run came to in figures: energy by phase, latency by stage, modes, life.

All of it is read from the run's journal, which the world kept; of what the node says of itself
only its modes are in it.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

import outpost.device  # noqa: F401  # firmware/ on the path
from node.board import unix as wire
from outpost.boards import STAGES
from outpost.words import MODES
from outpost.world import battery, journal
from outpost.world.audit import Audit
from outpost.world.run import Plan
from outpost.world.schedule import DAY_S

LONGEST_DAYS = 36525.0  # a life that nothing ends is told as a hundred years

_LAP = np.dtype({"names": ["stage", "at", "doze", "flash", "radio"],
                 "formats": ["u1", "<u4", "<u4", "<u4", "<u4"], "offsets": [0, 1, 5, 9, 13],
                 "itemsize": journal.LAP.size})
assert wire.LAP == "<BIIII"


@dataclass
class Life:
    """A run's journal in arrays; one entry a wake, `took_us` NaN where a stage was not reached."""

    plan: Plan
    clock_s: np.ndarray  # when each wake began
    length_s: np.ndarray  # until the next began
    cause: np.ndarray
    slept: np.ndarray  # whether it ended in sleep
    broken: dict[str, int]  # how the others ended
    took_us: np.ndarray  # (wakes, stages + 1), the last is the whole wake
    drained_mj: np.ndarray  # (wakes, phases)
    harvest_mj: np.ndarray
    battery_mj: np.ndarray  # at its end
    carried: np.ndarray  # bytes over the link
    decision: np.ndarray
    depth: np.ndarray
    mode: np.ndarray
    told: dict[str, np.ndarray]  # what the node believes: left_mj, rate_uw, pace_s
    flat: list[tuple[float, float]]  # seconds without power, battery empty
    capacity_mj: float

    @property
    def days(self) -> float:
        """Virtual days that were lived."""
        flat_end = self.flat[-1][1] if self.flat else 0.0
        end_s = max(float(self.clock_s[-1] + self.length_s[-1]), flat_end)
        return (end_s - self.plan.schedule.start_s) / DAY_S

    @property
    def seconds(self) -> float:
        """The same in seconds."""
        return self.days * DAY_S


def read(plan: Plan) -> Life:
    """Read the journal of a run that is over."""
    db = journal.read(plan.folder / "world.db")
    rows = db.execute(
        "SELECT clock_us, cause, ended, awake_us, laps, drained, harvest_mj, battery_mj, decision,"
        " depth, mode, left_mj, rate_uw, pace_s, carried FROM wakes ORDER BY n").fetchall()
    flat = [(row[0] / 1e6, row[1] / 1e6) for row in db.execute("SELECT * FROM flat")]
    end_us = db.execute("SELECT clock_us FROM state").fetchone()[0]
    db.close()
    (clock_us, cause, ended, awake_us, laps, drained, harvest, left, decision, depth, mode,
     told_left, rate, pace, carried) = zip(*map(tuple, rows), strict=True)
    clock_s = np.array(clock_us) / 1e6
    # a time without power is nobody's
    ends = np.append(clock_s[1:], min([end_us / 1e6, *(a for a, _ in flat if a > clock_s[-1])]))
    for begin, until in flat:
        ends[ends == until] = begin
    slept = np.array([how == "slept" for how in ended])
    broken: dict[str, int] = {}
    for how in ended:
        if how != "slept":
            broken[how] = broken.get(how, 0) + 1
    return Life(
        plan=plan, clock_s=clock_s, length_s=ends - clock_s, cause=np.array(cause), slept=slept,
        broken=broken, took_us=_took(laps, awake_us),
        drained_mj=np.frombuffer(b"".join(drained)).reshape(len(rows), len(battery.PHASES)),
        harvest_mj=np.array(harvest), battery_mj=np.array(left),
        carried=np.nan_to_num(_numbers(carried)),
        decision=_numbers(decision), depth=_numbers(depth), mode=_held(mode),
        told={"left_mj": _numbers(told_left), "rate_uw": _numbers(rate), "pace_s": _numbers(pace)},
        flat=flat, capacity_mj=battery.capacity_mj(plan.battery))


def _took(laps: tuple[bytes | None, ...], awake_us: tuple[int | None, ...]) -> np.ndarray:
    took = np.full((len(laps), len(STAGES) + 1), np.nan)
    took[:, -1] = _numbers(awake_us)
    counts = np.array([len(blob or b"") // _LAP.itemsize for blob in laps])
    flat = np.frombuffer(b"".join(blob or b"" for blob in laps), _LAP)
    wake = np.repeat(np.arange(len(laps)), counts)
    at = flat["at"].astype(float)
    before = np.concatenate(([0.0], at[:-1]))
    before[np.concatenate(([True], wake[1:] != wake[:-1]))] = 0.0
    took[wake, flat["stage"]] = at - before
    return took


def _numbers(values: tuple[Any, ...]) -> np.ndarray:
    """Return values as floats, None as NaN."""
    return np.array(values, float)


def _held(values: tuple[int | None, ...]) -> np.ndarray:
    """Return values as integers; None is as it was before."""
    held, last = [], 0
    for value in values:
        last = last if value is None else value
        held.append(last)
    return np.array(held)


def percentiles(life: Life) -> dict[str, dict[str, int]]:
    """Return p50, p99 and max in µs of each stage that was reached, and of the whole wake."""
    found = {}
    for i, name in enumerate((*STAGES, "awake")):
        took = np.sort(life.took_us[~np.isnan(life.took_us[:, i]), i])
        if len(took):
            found[name] = {label: int(took[max(0, math.ceil(len(took) * percent / 100) - 1)])
                           for label, percent in (("p50", 50), ("p99", 99), ("max", 100))}
    return found


def mean_power_mw(life: Life) -> float:
    """Return the mean power out of the battery while there was something in it."""
    return float(life.drained_mj.sum() / life.length_s.sum())


def life_days(life: Life) -> float:
    """Return how long the battery lasts from full: until it was empty, or at the mean net power.

    Net of what the sun brought; `LONGEST_DAYS` where the sun brought as much as was spent.
    """
    if life.flat:
        return (life.flat[0][0] - life.plan.schedule.start_s) / DAY_S
    first = life.capacity_mj * life.plan.scenario.charge_pct / 100
    net_mw = float(first - life.battery_mj[-1]) / life.length_s.sum()
    if net_mw <= 0:
        return LONGEST_DAYS
    return min(LONGEST_DAYS, life.capacity_mj / net_mw / DAY_S)


def lasts(told: dict[str, Any]) -> str:
    """Return a battery's life, of a summary, as a person says it."""
    days = told["life_days"]
    if told["flat_s"]:
        return f"flat after {days:,.1f} days"
    if days >= LONGEST_DAYS:
        return "no end: the sun brings what is spent"
    return f"{days:,.0f} days ({days / 365.25:,.1f} years)"


def summary(life: Life, found: Audit, wall_s: float) -> dict[str, Any]:
    """Return the object of `outpost simulate --json`."""
    plan = life.plan
    energy = life.drained_mj.sum(axis=0)
    spans = {name: float(life.length_s[life.mode == mode].sum()) for mode, name in MODES.items()}
    flat_s = sum(until - begin for begin, until in life.flat)
    return {
        "model": plan.model.model, "board": plan.board.name, "world": plan.scenario.name,
        "battery": plan.battery.key, "seed": plan.schedule.seed,
        "wakes": len(life.clock_s), "days": round(life.days, 3),
        "average_current_ua": round(
            mean_power_mw(life) * 1e3 / plan.battery.nominal.to("V"), 3),
        "life_days": round(life_days(life), 2),
        "battery_pct": round(float(100 * life.battery_mj[-1] / life.capacity_mj), 2),
        "joules_per_day": round(float(energy.sum()) / 1e3 / (life.length_s.sum() / DAY_S), 4),
        "bytes_per_day": round(float(life.carried.sum()) / (life.length_s.sum() / DAY_S)),
        "harvest_mj": round(float(life.harvest_mj.sum()), 3),
        "energy_mj": {name: round(float(mj), 4)
                      for name, mj in zip(battery.PHASES, energy, strict=True)},
        "latency_us": percentiles(life),
        "modes": {name: round(span, 1) for name, span in spans.items() if span},
        "flat_s": round(flat_s, 1),
        "appended": found.appended, "stored": found.stored, "waiting": found.waiting,
        "dropped": found.dropped, "lost": found.lost, "duplicates": found.duplicates,
        "phantoms": found.phantoms, "differing": found.differing, "unflushed": found.unflushed,
        "decisions": found.decisions, "accuracy": round(found.accuracy, 6),
        "broken_off": life.broken, "ok": found.ok and not life.broken.get("crashed"),
        "wall_s": round(wall_s, 2)}
