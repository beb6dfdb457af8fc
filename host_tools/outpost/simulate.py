"""Simulations: a case to try, lived to its end, its figures, and whether they are within budget.

The real firmware lives in a world of `worlds/`, as `outpost run` lets it, but one process lives
all wakes and the journal is written in large pieces: months in minutes. docs/world.md,
docs/power.md.
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from outpost import boards, contract, recipe
from outpost.boards import Board
from outpost.errors import OutpostError
from outpost.world import audit, figures, scenario
from outpost.world.audit import Audit
from outpost.world.figures import Life
from outpost.world.run import Plan, Run, prepare
from outpost.world.scenario import Scenario
from outpost.world.watch import Watch

BATCH = 500  # wakes in a transaction of the journal
TICK_S = 0.1


class SimulateError(OutpostError):
    """A case that can't be tried, or a budget that is exceeded."""


@dataclass(frozen=True)
class Case:
    """A configuration to try: where, on what, and which settings differ from the model's."""

    name: str
    model: str
    board: Board
    world: Scenario
    battery: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass
class Outcome:
    """What came of a case."""

    case: Case
    plan: Plan
    life: Life
    audit: Audit
    told: dict[str, Any]  # the object of --json


def vary(base: Case, text: str) -> Case:
    """Return `base` changed as `text` says: a world, then `key=value` after commas.

    Keys are board, battery and the node's settings: `factory,uplink_s=60`. Raises SimulateError.
    """
    world, *changes = text.split(",")
    case = replace(base, name=text,
                   world=scenario.load(world) if world else base.world)
    settings = dict(base.settings)
    for change in changes:
        key, equals, value = change.partition("=")
        if not equals:
            raise SimulateError(f"{change!r} in {text!r} is no key=value")
        if key == "board":
            case = replace(case, board=boards.load(value))
        elif key == "battery":
            case = replace(case, battery=value)
        else:
            settings[key] = setting(value)
    return replace(case, settings=settings)


def setting(text: str) -> Any:
    """Return the value of a setting: JSON, or the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def live(cases: list[Case], folder: Path, days: float, seed: int, isolation: str = "rewind",
         tick: Callable[[list[float]], None] = lambda shares: None) -> list[Outcome]:
    """Live each case in a folder of its own below `folder`, side by side.

    `tick` is called now and then with the share of the days that each has behind it. Raises
    OutpostError if one can't be prepared or goes wrong.
    """
    begun = time.monotonic()
    places = [folder] if len(cases) == 1 else [folder / "a", folder / "b"]
    plans = [prepare(place, case.model, case.board, case.world, days, seed,
                     changes=case.settings, battery=case.battery, isolation=isolation,
                     bring_home=False, batch=BATCH)
             for case, place in zip(cases, places, strict=True)]
    with ExitStack() as stack:
        watches = [stack.enter_context(Watch(plan)) for plan in plans]
        alive = [stack.enter_context(Run(plan, restart=False)) for plan in plans]
        while alive := [run for run in alive if run.alive()]:
            tick([watch.look().share for watch in watches])
            time.sleep(TICK_S)
    return [_outcome(case, plan, time.monotonic() - begun)
            for case, plan in zip(cases, plans, strict=True)]


def _outcome(case: Case, plan: Plan, wall_s: float) -> Outcome:
    found = audit.audit(plan.folder, plan.meta["classes"])
    life = figures.read(plan)
    told = figures.summary(life, found, wall_s) | {"warnings": list(_warnings(plan))}
    scratch = plan.folder / ".summary.json"
    scratch.write_text(json.dumps(told, indent=1) + "\n")
    scratch.replace(plan.folder / "summary.json")
    return Outcome(case, plan, life, found, told)


def _warnings(plan: Plan) -> Iterator[str]:
    """Yield what a simulation does not show and a person should know."""
    supply, battery = plan.board.supply, plan.battery
    peak = plan.board.power["radio"][plan.radio]["peak"].to("mA")
    drawn = (peak * supply["voltage"].to("mV") / battery.nominal.to("mV")
             / (supply["efficiency"].value / 100))
    if drawn > battery.limit.to("mA"):
        yield (f"{plan.radio} peaks at {drawn:,.0f} mA where {battery.name} gives "
               f"{battery.limit}: it needs a capacitor beside it, which is not modelled")


def budget(outcome: Outcome) -> list[contract.Line]:
    """Return the lines of the model's contract that a simulation decides.

    Raises SimulateError if the contract has none of them for this board.
    """
    found = lines(outcome)
    if all(line.demanded is None for line in found):
        file = recipe.find(outcome.case.model)
        names = ", ".join(line.name for line in found)
        raise SimulateError(f"{file}: [contract] has none of {names} for "
                            f"{outcome.plan.board.name}, so there is no budget to check; "
                            "docs/power.md tells how to write one")
    return found


def lines(outcome: Outcome) -> list[contract.Line]:
    """Return life, time awake and joules a day of a simulation, beside what is demanded."""
    what = recipe.load(recipe.find(outcome.case.model))
    told, board = outcome.told, outcome.plan.board.name
    got = {"life_days": told["life_days"], "joules_per_day": told["joules_per_day"],
           "awake_p99_ms": told["latency_us"]["awake"]["p99"] / 1e3}
    how = (f"{told['days']:g} days of {told['world']} on {board}, {outcome.plan.battery.name}: "
           "the board file's figures")
    return [contract.Line(name, contract.demand(what, name, board), value, contract.MODELLED, how)
            for name, value in got.items()]
