"""A run: its folder, and the two processes (gateway and world) that are kept alive through it.

Each may be killed at any moment; it is started again and goes on from what it had stored.
"""

import fcntl
import json
import secrets
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, TextIO

import numpy as np

import outpost.device  # noqa: F401  # firmware/ on the path
from node.settings import Settings
from outpost import boards, build, bytecode, data, power, provision, recipe, tiers
from outpost.boards import Battery, Board
from outpost.errors import OutpostError
from outpost.gateway import store
from outpost.gateway.keys import enrol
from outpost.paths import BUILD
from outpost.tables import meant
from outpost.toolchain import unix
from outpost.world.battery import Drain, capacity_mj
from outpost.world.scenario import Scenario
from outpost.world.schedule import Schedule

NODE = 1
SECTOR = 4096
READING = 16  # features in a record of kind READING, at most


class RunError(OutpostError):
    """A run that can't be prepared, or whose processes don't stay alive."""


@dataclass(frozen=True)
class Kit:
    """What nodes of one kind are laid out from: model, board, world, settings."""

    model: build.Result
    meta: dict[str, Any]  # the model's model.json
    board: Board
    battery: Battery
    radio: str  # the kind of uplink
    world: Scenario
    settings: dict[str, Any]  # a node's
    modules: list[Path]  # the files of its models
    recordings: list[data.Recording]


@dataclass(frozen=True)
class Plan:
    """What a run is of."""

    folder: Path
    model: build.Result
    meta: dict[str, Any]  # the model's model.json
    schedule: Schedule
    board: Board
    battery: Battery
    radio: str  # the kind of uplink
    settings: dict[str, Any]  # the node's
    recordings: list[data.Recording]  # what there is to sense
    lock: TextIO  # held as long as the plan is in use

    @property
    def scenario(self) -> Scenario:
        """The world that the node lives in."""
        return self.schedule.scenario


def prepare(folder: Path, model: str, board: Board, world: Scenario, days: float, seed: int, *,
            changes: dict[str, Any] | None = None, battery: str | None = None,
            isolation: str = "process", bring_home: bool = True, batch: int = 1) -> Plan:
    """Build what is needed and lay out a new run in `folder`, in place of what was there.

    `changes` are settings beside the model's and the world's; `bring_home` goes on after the days
    until nothing waits at the node; `batch` is wakes in a transaction of the journal. Raises
    OutpostError if the model can't be built or isn't sampled over time.
    """
    kit = gather(model, board, world, changes, battery)
    lock = claim(folder)
    if folder.exists():
        shutil.rmtree(folder)
    key = secrets.token_bytes(provision.KEY_BYTES)
    schedule = lay_out(folder, kit, days, seed, provision.Node(NODE, key, "unix"),
                       isolation=isolation, bring_home=bring_home, batch=batch)
    admit(folder / "gateway.db", {NODE: key})
    return Plan(folder, kit.model, kit.meta, schedule, board, kit.battery, kit.radio,
                kit.settings, kit.recordings, lock)


def gather(model: str, board: Board, world: Scenario, changes: dict[str, Any] | None = None,
           battery: str | None = None) -> Kit:
    """Build what a node is made of. Raises OutpostError as `prepare` does."""
    built = build.build(model)
    if built.violations:
        raise RunError(f"{built.model} breaks its contract: {'; '.join(built.violations)}")
    meta = json.loads((built.folder / "model.json").read_text())
    if meta["rate_hz"] is None:
        raise RunError(f"{built.model} has no rate_hz: there is nothing to sample over time; "
                       "models/motion has")
    cells = boards.batteries()
    cell = cells.get(battery or world.battery)
    if cell is None:
        raise RunError(f"no battery {battery or world.battery!r} in boards/batteries.toml; there "
                       f"are {', '.join(cells)}")
    modules = [built.folder / meta["modules"][build.HOST]["file"]]
    large = tiers.large(meta, [build.HOST])
    if large:
        modules.append(Path(large["folder"]) / large["modules"][build.HOST]["file"])
    chosen = settings(meta, large=large) | world.node | (changes or {})
    _check_settings(chosen)
    return Kit(built, meta, board, cell, next(iter(board.costs["uplink"])), world, chosen, modules,
               data.load(recipe.load(recipe.find(model))).test)


def lay_out(folder: Path, kit: Kit, days: float, seed: int, node: provision.Node, *,
            isolation: str, bring_home: bool, batch: int, patience_pct: int = 500) -> Schedule:
    """Lay out the folder of one node, which is not there yet, and draw its days.

    `patience_pct` is how long the node waits for an answer, of what it would in the field.
    """
    board, meta = kit.board, kit.meta
    schedule = Schedule(kit.world, seed, days, sorted({one.label for one in kit.recordings}),
                        quietest(kit.recordings))
    (folder / "node" / "models").mkdir(parents=True)
    for module in kit.modules:
        shutil.copy(module, folder / "node" / "models")
    (folder / "node" / "settings.json").write_text(json.dumps(kit.settings))
    (folder / "node" / "identity.json").write_text(json.dumps(node.identity()))
    lanes = [board.lanes[name] for name in ("alert", "event", "telemetry", "diagnostic")]
    (folder / "flash.img").write_bytes(b"\xff" * SECTOR * sum(lanes))
    index, offset = [], 0
    with (folder / "recordings.bin").open("wb") as file:
        for one in kit.recordings:
            samples = one.samples.astype("<i2").tobytes()
            file.write(samples)
            index.append({"name": one.name, "label": one.label, "offset": offset,
                          "bytes": len(samples), "channels": one.samples.shape[1]})
            offset += len(samples)
    took = costs(board, meta)
    took["uplink"]["patience_pct"] = patience_pct
    (folder / "node" / "board.json").write_text(json.dumps(
        {"lanes": lanes} | took | power.figures(board, kit.battery, kit.radio)))
    config = {"isolation": isolation, "bring_home": bring_home, "batch": batch,
              "micropython": str(unix.micropython()), "bytecode": str(bytecode.build()),
              "schedule": {key: getattr(schedule, key)
                           for key in ("seed", "days", "classes", "quiet")}
              | {"scenario": kit.world.dump()},
              "drain": Drain.of(board, kit.battery, kit.radio).dump(),
              "battery": {"capacity_mj": capacity_mj(kit.battery), "curve": kit.battery.curve},
              "recordings": index}
    (folder / "run.json").write_text(json.dumps(config, indent=1))
    return schedule


def _check_settings(chosen: dict[str, Any]) -> None:
    """Raise RunError for settings that the node would refuse, or pass over."""
    known = [name for name in vars(Settings("")) if name != "problem"]
    for name in chosen:
        if name not in known:
            raise RunError(f"there is no setting {name!r}{meant(name, known)}; there are "
                           f"{', '.join(known)} (docs/wake.md)")
    with NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(chosen, file)
        file.flush()
        problem = Settings(file.name).problem
    if problem is not None:
        name = known[problem - 1]
        raise RunError(f"the node refuses {name} = {chosen.get(name)!r}; docs/wake.md tells what "
                       "is allowed")


def admit(database: Path, keys: dict[int, bytes]) -> None:
    """Have the gateway's database believe these nodes: number → key."""
    engine = store.connect(database)
    with engine.begin() as db:
        for number, key in keys.items():
            enrol(db, number, key)
    engine.dispose()


def claim(folder: Path) -> TextIO:
    """Lock `folder`, which may be emptied, against a second run.

    RunError if one is under way there, or if it holds anything but a run.
    """
    if folder.exists() and not _is_free(folder.resolve()):
        raise RunError(f"{folder} holds something else than a run, and it would be lost; choose "
                       "another folder with --out")
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = (folder.parent / f".{folder.name}.lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise RunError(f"another run is under way in {folder}; wait for it, or choose another "
                       "folder with --out") from None
    return lock


def _is_free(folder: Path) -> bool:
    if not folder.is_dir():
        return False
    return folder.is_relative_to(BUILD) or not any(folder.iterdir()) or any(
        (folder / name).is_file() for name in ("run.json", "fleet.json"))


def settings(meta: dict[str, Any], arch: str = build.HOST, large: dict[str, Any] | None = None
             ) -> dict[str, Any]:
    """Return the settings of a node that carries the model of which `meta` is the model.json.

    `large` is that of the model which stands in for it without a link, if there is one.
    """
    return {
        "version": 1,
        "window": meta["window"], "channels": len(meta["channels"]),
        "period_us": round(1e6 / meta["rate_hz"]),
        "awake_ms": round(1e3 * meta["window"] / meta["rate_hz"]) + 15000,
        "post": meta["post"]["weights"],
        "reading": list(range(min(READING, len(meta["features"])))),
        "model": _shape(meta, arch), "large": _shape(large, arch) if large else None,
        "gate": meta["tiers"]["gate"], "unsure": meta["tiers"]["unsure"]}


def _shape(meta: dict[str, Any], arch: str) -> dict[str, Any]:
    """Return what settings say of a model: which it is, and what its module must be."""
    return {"name": meta["name"], "of": meta["name"], "version": meta["version"],
            "crc32": meta["modules"][arch]["crc32"], "abi": meta["abi"],
            "window": meta["window"], "channels": len(meta["channels"]),
            "features": len(meta["features"]), "classes": len(meta["classes"])}


def costs(board: Board, meta: dict[str, Any]) -> dict[str, Any]:
    """Return the time everything takes on `board`, as docs/world.md has it in board.json."""
    values = meta["window"] * len(meta["channels"])

    def each(stage: str, unit: str) -> float:
        return board.stage_us(stage, **{unit: 1}) - board.stage_us(stage)

    kind = next(iter(board.costs["uplink"]))
    link = f"uplink.{kind}"
    window = board.stage_us("capture", sample=meta["window"], value=values, B=2 * values)
    stages = (board.stage_us("boot"), board.stage_us("capture"),
              board.stage_us("pre", **meta["work"]["pre"]),
              board.stage_us("infer", **meta["work"]["infer"]),
              board.stage_us("post"), board.stage_us("store", record=2), 0)
    return {"stage_us": [round(us) for us in stages], "reset_us": round(each("boot", "reset")),
            "sample_us": round((window - board.stage_us("capture")) / meta["window"]),
            "flash": {"program_us": round(each("store", "page")),
                      "program_byte_ns": round(1e3 * each("store", "B")),
                      "erase_us": round(each("store", "sector"))},
            "uplink": {"session_us": round(board.stage_us(link)),
                       "failed_us": round(board.costs["uplink"][kind]["failed"].to("us")),
                       "byte_ns": round(1e3 * each(link, "B"))}}


def quietest(recordings: list[data.Recording]) -> str:
    """Return the label whose recordings move least."""
    moved: dict[str, list[float]] = {}
    for one in recordings:
        moved.setdefault(one.label, []).append(float(np.std(one.samples, axis=0).mean()))
    return min(moved, key=lambda label: float(np.mean(moved[label])))


class Run:
    """The processes of a run, started again whenever they end early. Use as a context manager.

    Without `restart` it is an error that the world ends early, and the gateway need not see to it
    that a power cut of this machine costs nothing.
    """

    def __init__(self, plan: Plan, restart: bool = True) -> None:
        self.plan = plan
        self.restart = restart
        self.restarts = {"world": 0, "gateway": 0}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._port = 0

    def __enter__(self) -> "Run":
        self._start_gateway()
        config = json.loads((self.plan.folder / "run.json").read_text())
        config["port"] = self._port
        scratch = self.plan.folder / ".run.json"
        scratch.write_text(json.dumps(config, indent=1))
        scratch.replace(self.plan.folder / "run.json")
        self._start_world()
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()

    def alive(self) -> bool:
        """Start again what was killed; False once the world has come to its end.

        Raises RunError with the last words of a process that ended by itself.
        """
        for name, process in tuple(self.processes.items()):
            code = process.poll()
            if code is None:
                continue
            if name == "world" and code == 0:
                return False
            if code >= 0 or (name == "world" and not self.restart):
                log = self.plan.folder / f"{name}.log"
                words = log.read_text(errors="replace").strip().splitlines()
                raise RunError(f"{words[-1].removeprefix('error: ') if words else name + ' ended'}"
                               f" ({log})")
            self.restarts[name] += 1
            self._start_world() if name == "world" else self._start_gateway()
        return True

    def _start_world(self) -> None:
        with (self.plan.folder / "world.log").open("ab") as log:
            self.processes["world"] = subprocess.Popen(
                [sys.executable, "-m", "outpost.world", self.plan.folder],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def _start_gateway(self) -> None:
        """Start the gateway, on the port it had before; the first time, wait until it listens."""
        with (self.plan.folder / "gateway.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "outpost", "gateway", "--listen", f"127.0.0.1:{self._port}",
                 "--database", self.plan.folder / "gateway.db", "--no-time", "--no-provisioned",
                 *([] if self.restart else ["--volatile"]), "--json"],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log)
        self.processes["gateway"] = process
        if not self._port:
            assert process.stdout is not None
            told = process.stdout.readline()
            if not told:
                raise RunError("the gateway doesn't start; see "
                               f"{self.plan.folder / 'gateway.log'}")
            self._port = json.loads(told)["port"]
