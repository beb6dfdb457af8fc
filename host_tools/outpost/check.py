"""`outpost check`: every line of a model's contract on one board, and what costs what.

Measured where a machine for it is present: answers by the compiled code on MicroPython, times on
the emulated RP2040, instructions in QEMU. The rest is modelled from the board's cost table and
says so.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from outpost import boards, build, contract, convert, costs, drift, honesty, recipe
from outpost import measure as machines
from outpost.boards import Battery, Board
from outpost.console import steps
from outpost.contract import EMULATED, MODELLED, Line
from outpost.drift import Drift
from outpost.errors import OutpostError
from outpost.recipe import Recipe

BATTERY = "li-ion-18650"
MOST_TIMED = 30  # windows: times hardly depend on them
STEPS = 6


class CheckError(OutpostError):
    """A model that breaks its contract, or can't be held against one."""


@dataclass(frozen=True)
class Checked:
    """What `outpost check` found: the lines, and the model they are about."""

    what: Recipe
    board: Board
    battery: Battery
    lines: list[Line]
    fitted: build.Fitted
    sizes: dict[str, int]  # bytes of the module, and of what it is made of
    drift: Drift | None = None

    @property
    def ok(self) -> bool:
        """Whether every line is met."""
        return all(line.ok for line in self.lines)

    @property
    def broken(self) -> list[str]:
        """A sentence for each line that is not."""
        return [line.broken for line in self.lines if not line.ok]

    def json(self) -> dict[str, Any]:
        """Return the object of `--json`."""
        return {"model": self.what.name, "board": self.board.name, "battery": self.battery.key,
                "lines": [line.json() for line in self.lines], "ok": self.ok,
                "data": asdict(honesty.splits(self.fitted)),
                "drift": None if self.drift is None else asdict(self.drift)}


def check(model: str, board_name: str, battery: str = BATTERY, fetch: bool = False,
          pulled: Path | None = None, world: str | None = None, days: float = 7) -> Checked:
    """Train a model, compile it for a board and hold it against its contract.

    With `fetch`, machines to measure on are built if they are not there yet. Windows in `pulled`
    are held against the training windows; in `world` the node lives so many days. Raises
    OutpostError if the model can't be built; a broken contract is in the result.
    """
    what = recipe.load(recipe.find(model))
    board = boards.load(board_name)
    cells = boards.batteries()
    if battery not in cells:
        raise CheckError(f"no battery {battery!r}; boards/batteries.toml has {', '.join(cells)}")
    if fetch:
        _fetch(board)
    with steps(f"{what.name} on {board.name}", STEPS) as step, \
            tempfile.TemporaryDirectory(prefix="outpost-check-") as scratch:
        folder = Path(scratch)
        fitted = build.fit(what, step)
        step("compiling, and running it on MicroPython")
        convert.emit(what, fitted.model, folder)
        expected = fitted.forest.answer(fitted.x_test)
        host = build.make_module(what, build.HOST, folder)
        build.prove(what, host, folder, fitted.test, fitted.x_test, expected)
        arch = board.architecture
        module = host if arch == build.HOST else build.make_module(what, arch, folder)
        content = (folder / module["file"]).read_bytes()
        lines = [contract.of_bytes(what, arch, len(content))]
        step("measuring")
        measured = list(_measured(what, board, fitted, content))
        step("what it is made of")
        sizes = _sizes(what, fitted, arch, len(content), folder)
    ran = [line for line in measured if line.name == "accuracy"]
    if not ran:
        lines = contract.of_answers(what, fitted.dataset.classes, expected.chosen,
                                    fitted.test) + lines
    lines += contract.of_events(what, fitted.dataset.classes, fitted.dataset.test,
                                expected.chosen, fitted.test)
    lines += measured
    found = drift.of_folder(what, pulled, fitted) if pulled else None
    if found is not None:
        lines.append(drift.line(what, found))
    if world is not None:
        lines += _lived(model, board, world, battery, days)
    lines += _modelled(what, board, cells[battery], fitted, {line.name for line in lines})
    order = list(contract.TERMS)
    lines.sort(key=lambda line: order.index(line.name))
    return Checked(what, board, cells[battery], lines, fitted, sizes, found)


def _lived(model: str, board: Board, world: str, battery: str, days: float) -> list[Line]:
    """Let the firmware live in a world, and return the lines that decides."""
    from outpost import simulate
    from outpost.paths import BUILD
    from outpost.world import scenario

    case = simulate.Case(world, model, board, scenario.load(world), battery)
    (outcome,) = simulate.live([case], BUILD / "check" / f"{board.name}-{world}", days, 1)
    if not outcome.told["ok"]:
        raise CheckError(f"{model} in {world}: records don't add up; see {outcome.plan.folder}")
    return simulate.lines(outcome)


def _fetch(board: Board) -> None:
    """Build what the measurements need, for minutes the first time."""
    from outpost import firmware
    from outpost.emulator import parts
    from outpost.toolchain import qemu

    if board.chip["name"] == "RP2040" and not machines.Pico.present():
        built = build.build("motion", (build.HOST, board.architecture))
        firmware.build([built.folder])
        parts.rp2040js()
    for machine in qemu.MACHINES.values():
        if machine.arch == board.architecture:
            qemu.firmware(machine)


def _measured(what: Recipe, board: Board, fitted: build.Fitted, content: bytes) -> Iterator[Line]:
    """Yield the lines that a machine which is present can measure."""
    forest, x, arch = fitted.forest, fitted.x_test, board.architecture
    made = np.concatenate([x, [costs.longest_window(forest, x)]])
    nodes = costs.path_lengths(forest, made)
    longest = sum(map(costs.longest_path, forest.trees))
    path = f": {nodes.max()} of the {longest} nodes of all longest paths" if longest else ""
    worst, these = (board.stage_us("infer", **costs.infer_work(what, forest, of))
                    for of in (None, made))
    beyond = f"measured, times {worst:.1f} over {these:.1f} µs, as the model has it"
    timed = np.argsort(nodes)[::-1][:MOST_TIMED]
    if board.chip["name"] == "RP2040" and machines.Pico.present():
        with machines.Pico() as pico:
            yield from _heap(what, pico.name, *pico.load(content))
            pre, found = pico.features(fitted.test.x)
            infer, chosen, votes = pico.predict(made)
        _same(what, pico.name, found, chosen, votes, fitted, made)
        yield from contract.of_answers(
            what, fitted.dataset.classes, chosen[:-1], fitted.test, EMULATED,
            f"{arch} on the {pico.name}")
        most = pre.max() + infer.max()
        wanted = contract.demand(what, "latency_us")
        yield Line("latency_us", wanted, float(most), EMULATED,
                   f"features {pre.max():.1f} + model {infer.max():.1f} on the {pico.name}, "
                   f"calls included, {len(made)} windows, one made to be long{path}")
        yield Line("latency_bound_us", wanted, float(pre.max() + infer.max() * worst / these),
                   MODELLED, beyond)
    if machines.Counter.present(arch):
        with machines.Counter(arch) as counter:
            heap = counter.load(content)
            counts, chosen, votes = counter.predict(made[timed])
        if board.chip["name"] != "RP2040" or not machines.Pico.present():
            yield from _heap(what, counter.name, *heap)
        _same(what, counter.name, None, chosen, votes, fitted, made[timed])
        wanted = contract.demand(what, "instructions", arch)
        yield Line("instructions", wanted, float(counts.max()), EMULATED,
                   f"predict() in {counter.name}, the {len(timed)} longest windows{path}")
        yield Line("instructions_bound", wanted, float(counts.max() * worst / these), MODELLED,
                   beyond)


def _same(what: Recipe, machine: str, found: np.ndarray | None, chosen: np.ndarray,
          votes: np.ndarray, fitted: build.Fitted, x: np.ndarray) -> None:
    """Raise CheckError if a machine answered otherwise than the reference."""
    expected = fitted.forest.answer(x)
    wrong = int(((votes != expected.votes).any(axis=1) | (chosen != expected.chosen)).sum())
    if found is not None:
        wrong += int((found != fitted.x_test).any(axis=1).sum())
    if wrong:
        raise CheckError(f"{what.name}: on {machine} {wrong} of {len(x)} windows are answered "
                         "otherwise than by the integer reference")


def _heap(what: Recipe, machine: str, held: int, peak: int) -> Iterator[Line]:
    yield Line("heap", contract.demand(what, "heap"), held, EMULATED,
               f"gc.mem_alloc() after import, collected: {machine}")
    yield Line("heap_peak", contract.demand(what, "heap_peak"), peak, EMULATED,
               f"gc.mem_alloc() after import, the file in RAM, not collected: {machine}")


def _modelled(what: Recipe, board: Board, battery: Battery, fitted: build.Fitted,
              there: set[str]) -> Iterator[Line]:
    """Yield the lines that come from the board's cost table."""
    table = f"boards/{board.name}.toml"
    if "latency_us" not in there:
        pre, infer = costs.latency_us(board, what, fitted.forest)
        wanted = contract.demand(what, "latency_us")
        yield Line("latency_bound_us", wanted, pre + infer, MODELLED,
                   f"features {pre:.1f} + model {infer:.1f}, [costs] of {table}")
    if what.signal.rate_hz is None:
        return
    phases = costs.wake(board, battery, what, fitted.forest)
    first = max(phases, key=lambda phase: phase.uj)
    yield Line("awake_ms", contract.demand(what, "awake_ms"), costs.awake_ms(phases), MODELLED,
               f"[costs] of {table}: all stages but an uplink")
    yield Line("energy_uj", contract.demand(what, "energy_uj"), costs.wake_uj(phases), MODELLED,
               f"[power] and [costs] of {table}, at the battery, no uplink; "
               f"{100 * first.uj / costs.wake_uj(phases):.0f} % of it: {first.name}")
    if "life_days" in there:
        return
    yield Line("life_days", contract.demand(what, "life_days", board.name),
               costs.life_days(board, battery, phases), MODELLED,
               f"{battery.name}, a wake every {costs.WAKE_S} s, uplink every {costs.UPLINK_S} s")


def _sizes(what: Recipe, fitted: build.Fitted, arch: str, whole: int, folder: Path
           ) -> dict[str, int]:
    """Return what of the module is the forest, and what the rest: by a module without trees."""
    from outpost import train

    stump = train.fit(recipe.Forest(1, 1, None, 1, 1), fitted.x_train, fitted.train.y)
    bare = folder / "bare"
    convert.emit(what, stump, bare)
    rest = build.make_module(what, arch, bare)["bytes"]
    return {"module": whole, "forest": whole - rest, "rest": rest}
