"""A power profiler's capture of wakes, turned into figures of a board file.

The capture is a CSV as Nordic's Power Profiler Kit II writes it: time in ms, current in µA, and
eight logic inputs, of which one is wired to each phase pin of the board. What is measured, how,
and what it can't tell: docs/power.md.
"""

import datetime
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from outpost import boards
from outpost.boards import STAGES, Board
from outpost.errors import OutpostError

KIND = "measured on hardware"
AWAKE = 20.0  # times the quiet current: what lies above is awake
GAP_MS = 300.0  # asleep at least so long between two wakes
EDGE_MS = 2.0  # around a wake, left out of what is called sleep
LEAST = 5  # samples that a stage must last to be believed
BOOT_PARTS = ("nvs", "mount", "import")  # what the time before the first pin is made of, and reset


class CalibrateError(OutpostError):
    """A capture that can't be read, or in which what is looked for can't be found."""


@dataclass(frozen=True)
class Capture:
    """A capture: time from its start in ms, current in µA, and which stage's pin is high.

    `stage` is -1 where none is; the arrays are of one length.
    """

    ms: np.ndarray
    ua: np.ndarray
    stage: np.ndarray

    @property
    def step_ms(self) -> float:
        """Time between two samples."""
        return float(self.ms[-1] - self.ms[0]) / (len(self.ms) - 1)


@dataclass(frozen=True)
class Found:
    """One figure that was measured: `old` and `value` in the unit of the board file."""

    key: str
    old: float
    value: float
    unit: str
    source: str


def read(file: Path, inputs: dict[str, int] | None = None) -> Capture:
    """Read a capture; `inputs` maps stages to logic inputs, D0 to D6 in their order by default.

    The inputs are a column of eight 0s and 1s, D0 first, or a column each. Raises CalibrateError.
    """
    inputs = inputs or {stage: number for number, stage in enumerate(STAGES)}
    try:
        with file.open(encoding="utf-8") as lines:
            head = [name.strip() for name in lines.readline().split(",")]
        together = "D0-D7" in head
        if head[:2] != ["Timestamp(ms)", "Current(uA)"] or not (together or "D0" in head):
            raise CalibrateError(
                f"{file}: the first line is {','.join(head)!r}; a capture of the PPK2 with its "
                "logic inputs begins with Timestamp(ms),Current(uA),D0-D7")
        if together:
            at = head.index("D0-D7")
            data = np.loadtxt(file, delimiter=",", skiprows=1, usecols=(0, 1, at),
                              dtype=[("ms", "f8"), ("ua", "f8"), ("bits", "U8")], ndmin=1)
            ms, ua = data["ms"], data["ua"]
            letters = np.ascontiguousarray(data["bits"]).view("U1").reshape(len(data), 8)
            high = letters == "1"
        else:
            columns = [head.index(f"D{i}") for i in range(8) if f"D{i}" in head]
            table = np.loadtxt(file, delimiter=",", skiprows=1, usecols=(0, 1, *columns), ndmin=2)
            ms, ua, high = table[:, 0], table[:, 1], table[:, 2:] > 0
    except (OSError, UnicodeDecodeError) as error:
        raise CalibrateError(f"{file}: {error}") from error
    except ValueError as error:
        raise CalibrateError(f"{file}: not a capture: {error}") from error
    if len(ms) < 1000:
        raise CalibrateError(f"{file}: {len(ms)} samples are too few to tell a wake from sleep")
    stage = np.full(len(ms), -1)
    for number, name in enumerate(STAGES):
        if inputs.get(name, 99) < high.shape[1]:
            stage[high[:, inputs[name]]] = number
    return Capture(ms - ms[0], ua, stage)


def wakes(capture: Capture) -> list[tuple[int, int]]:
    """Return (first, behind the last sample) of each whole wake.

    A wake begins where the current leaves the quiet level or a pin goes high, and ends where both
    are back for `GAP_MS`.
    """
    quiet = float(np.percentile(capture.ua, 5))
    busy = np.flatnonzero((capture.ua > max(quiet, 1.0) * AWAKE) | (capture.stage >= 0))
    if not len(busy):
        raise CalibrateError("the current never rises: there is no wake in this capture")
    breaks = np.flatnonzero(np.diff(capture.ms[busy]) > GAP_MS)
    begins = busy[np.concatenate(([0], breaks + 1))]
    ends = busy[np.concatenate((breaks, [len(busy) - 1]))] + 1
    whole = [(int(a), int(b)) for a, b in zip(begins, ends, strict=True)
             if a > 0 and b < len(capture.ms) and (capture.stage[a:b] >= 0).any()]
    if not whole:
        raise CalibrateError("no whole wake with a phase pin high: is each logic input wired to "
                             "its pin (outpost boards NAME), and was the node flashed with "
                             "--phase-pins?")
    return whole


def measure(capture: Capture, board: Board, radio: str, *, listening: bool = True,
            battery_mv: float | None = None, source: str = "") -> list[Found]:
    """Return the figures that `capture` tells of `board`.

    `battery_mv` is the voltage at which the current was measured if that was on the battery's side
    of the converter; else it was the rail's. `listening`: the sensor watched for motion asleep.
    Raises CalibrateError.
    """
    found = list(wakes(capture))
    rail = _rail(capture.ua, board, battery_mv)
    told = f"{source}; {len(found)} wakes of a PPK2 capture"
    step_us = capture.step_ms * 1e3
    power, costs = board.power, board.costs
    results: list[Found] = []

    def figure(key: str, table: dict[str, Any], name: str, value: float, how: str) -> None:
        old = table.get(name)
        if old is not None and value >= 0:
            unit = "uA" if key.startswith("power") else "us"
            scaled = value / boards.Figure(1, old.unit, "", "").to(unit)
            results.append(Found(f"{key}.{name}", old.value, _neat(scaled), _unit(old),
                                 f"{told}: {how}"))

    asleep = np.ones(len(rail), bool)
    edge = max(1, int(EDGE_MS / capture.step_ms))
    for begin, end in found:
        asleep[max(0, begin - edge):end + edge] = False
    asleep[:max(0, found[0][0] - edge)] &= found[0][0] > 10 * edge
    sensor = power["sensor"]["watch" if listening else "off"].to("uA")
    if asleep.sum() > 100:
        figure("power", power, "deep_sleep", float(rail[asleep].mean()) - sensor,
               f"mean asleep less the sensor's {sensor:g} uA")

    first = [begin + int(np.argmax(capture.stage[begin:end] >= 0)) for begin, end in found]
    figure("costs.boot", costs["boot"], "reset",
           float(np.mean([(b - a[0]) * step_us for a, b in zip(found, first, strict=True)])),
           "from the rise of the current to the first pin, all of boot")
    for part in BOOT_PARTS:
        figure("costs.boot", costs["boot"], part, 0.0, "part of reset, which is all of boot")
    booting = np.concatenate([rail[a:b] for (a, _), b in zip(found, first, strict=True)])
    if len(booting) >= LEAST:
        figure("power", power, "boot", float(booting.mean()), "mean of that time")

    stages = {name: _spans(capture, found, number) for number, name in enumerate(STAGES)}
    working = _levels(rail, stages, ("pre", "infer", "post"))
    active = float(working.mean()) if len(working) >= LEAST else power["active"].to("uA")
    if len(working) >= LEAST:
        figure("power", power, "active", active, "mean of pre, infer and post")
    if stages["capture"]:
        sampling = np.concatenate([rail[a:b] for a, b in stages["capture"]])
        dozing = sampling[sampling < active / 2]
        if len(dozing) >= LEAST:
            on = power["sensor"]["on"].to("uA")
            figure("power", power, "light_sleep", float(dozing.mean()) - on,
                   f"mean of the quiet part of capture, less the sensor's {on:g} uA")
    if _long(stages["post"]):
        figure("costs.post", costs["post"], "smooth", _mean_us(stages["post"], step_us),
               "mean of post")
    if _long(stages["pre"]):
        figure("costs.boot", costs["boot"], "model", _mean_us(stages["pre"], step_us),
               "mean of pre, which loads the model; computing features is a hundredth of it")
    if _long(stages["store"]):
        lengths = sorted(b - a for a, b in stages["store"])
        figure("costs.store", costs["store"], "append",
               lengths[len(lengths) // 2] * step_us / 2,
               "half the median of store, in which two records are laid out")
    if stages["uplink"]:
        on = np.concatenate([rail[a:b] for a, b in stages["uplink"]])
        figure(f"power.radio.{radio}", power["radio"][radio], "session", float(on.mean()),
               "mean of uplink")
        figure(f"costs.uplink.{radio}", costs["uplink"][radio], "session",
               _mean_us(stages["uplink"], step_us), "mean of uplink, the bytes' time in it")
    return results


def apply(board: Board, results: list[Found], out: Path) -> None:
    """Write `board`'s file with the figures in `results` to `out`, whole or not at all."""
    scratch = out.with_name(f".{out.stem}-{os.getpid()}.toml")
    try:
        shutil.copy(board.file, scratch)
        for one in results:
            boards.set_figure(scratch, one.key, one.value, KIND, one.source)
        scratch.replace(out)
    finally:
        scratch.unlink(missing_ok=True)


def source_of(file: Path) -> str:
    """Return what a figure's source says of the capture: its name and the day it was taken."""
    taken = datetime.date.fromtimestamp(file.stat().st_mtime)
    return f"{file.name} of {taken.isoformat()}"


def _rail(ua: np.ndarray, board: Board, battery_mv: float | None) -> np.ndarray:
    """Return the rail's current, through the converter's efficiency if need be."""
    if battery_mv is None:
        return ua
    supply = board.supply
    through = np.maximum(0.0, ua - supply["quiescent"].to("uA"))
    share = supply["efficiency"].value / 100 * battery_mv / supply["voltage"].to("mV")
    return np.asarray(through * share)


def _spans(capture: Capture, found: list[tuple[int, int]], number: int) -> list[tuple[int, int]]:
    """Return where a stage's pin is high, within the wakes."""
    spans = []
    for begin, end in found:
        high = np.flatnonzero(capture.stage[begin:end] == number)
        if len(high):
            spans.append((begin + int(high[0]), begin + int(high[-1]) + 1))
    return spans


def _levels(rail: np.ndarray, stages: dict[str, list[tuple[int, int]]],
            names: tuple[str, ...]) -> np.ndarray:
    """Return the currents of some stages, without the samples at their edges."""
    parts = [rail[a + 1:b - 1] for name in names for a, b in stages[name] if b - a >= LEAST]
    return np.concatenate(parts) if parts else np.empty(0)


def _long(spans: list[tuple[int, int]]) -> bool:
    return bool(spans) and float(np.mean([b - a for a, b in spans])) >= LEAST


def _mean_us(spans: list[tuple[int, int]], step_us: float) -> float:
    return float(np.mean([b - a for a, b in spans])) * step_us


def _unit(figure: boards.Figure) -> str:
    return f"{figure.unit}/{figure.per}" if figure.per else figure.unit


def _neat(value: float) -> float | int:
    """Return a number with four digits that mean something; whole ones as such."""
    rounded = float(f"{value:.4g}")
    return int(rounded) if rounded.is_integer() else rounded


def table(results: list[Found]) -> Iterator[tuple[str, str, str, str]]:
    """Yield (key, old, new, change) of each figure as a person reads it."""
    for one in results:
        change = f"{100 * (one.value / one.old - 1):+.0f} %" if one.old else ""
        yield one.key, f"{one.old:,} {one.unit}", f"{one.value:,} {one.unit}", change
