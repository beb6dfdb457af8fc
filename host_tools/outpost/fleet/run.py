"""A fleet's life from beginning to end: the processes, the kills of servers, and the verdict."""

import json
import os
import selectors
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any

from outpost.errors import OutpostError
from outpost.fleet.plan import Plan
from outpost.fleet.servers import PREFIX, Echo, Gateway, environment
from outpost.toolchain.servers import Mosquitto
from outpost.world import journal

CROWD = 4  # workers on a core: others live while the node of one waits for an answer
TICK_S = 0.05
LOOK_S = 0.5  # between two looks into the database
EVERY = 10  # of so many nodes the frames of one are doubled
PROMPT_S = 30.0  # for a gateway to start
STAGES = ("living", "bringing home", "checking")


class FleetError(OutpostError):
    """A fleet that can't live, or whose records don't add up."""


@dataclass
class Now:
    """How things stand."""

    stage: str = STAGES[0]
    clock_s: float = 0.0  # virtual: all nodes have lived until then
    boots: int = 0
    links: int = 0
    killed: Counter[str] = field(default_factory=Counter)  # by what: nodes by fault, servers
    doubled: int = 0  # frames that were sent once more
    stored: int = 0  # records in the database
    checked: int = 0  # nodes
    found: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    @property
    def kills(self) -> int:
        """Processes killed: those of nodes, gateway and broker."""
        return sum(n for kind, n in self.killed.items() if kind != "asleep")


def live(plan: Plan, show: Callable[[Now], None] = lambda now: None,
         gateway: Sequence[str] | None = None) -> dict[str, Any]:
    """Live the fleet's days, kill what is to be killed, bring all home and check it.

    Returns what --json prints; `gateway` is another command to start one. Raises OutpostError
    when a process ends that nobody has killed.
    """
    return _Fleet(plan, show, gateway).live()


class _Fleet:
    def __init__(self, plan: Plan, show: Callable[[Now], None],
                 gateway: Sequence[str] | None) -> None:
        self.plan, self.show, self.now = plan, show, Now(clock_s=plan.start_s)
        self._begun = time.monotonic()
        self._strikes = list(plan.strikes)
        self._command = {} if gateway is None else {"command": gateway}
        self._told: dict[int, dict[str, Any]] = {}
        self._share = min(CROWD * len(os.sched_getaffinity(0)), (plan.nodes + 1) // 2)  # workers
        self._begun_lines = [b""] * self._share
        self._look_s = 0.0

    def live(self) -> dict[str, Any]:
        plan = self.plan
        with ExitStack() as stack:
            self.broker = stack.enter_context(Mosquitto())
            port = self.broker.port
            self.gateway = Gateway(plan.folder, plan.database, [
                "--broker", f"mqtt://127.0.0.1:{port}/{PREFIX}"], **self._command)
            stack.callback(self.gateway.kill)
            self.gateway.start()
            self._await_gateway()
            file = plan.folder / "fleet.json"
            file.write_text(json.dumps(json.loads(file.read_text()) | {"port": port}))
            self.echo = stack.enter_context(
                Echo(port, range(1, plan.nodes + 1, EVERY), plan.seed))
            self._db = journal.read(plan.database)
            stack.callback(self._db.close)
            self._ear = stack.enter_context(selectors.DefaultSelector())
            self.workers = [self._worker(k) for k in range(self._share)]
            stack.callback(self._end_workers)
            self._stage(self._strike)
            self._await_gateway()
            self._go_on("bringing home")
            self._stage()
            self.gateway.stop()
            self._go_on("checking")
            self._stage()
        return self._verdict()

    def _worker(self, k: int) -> subprocess.Popen[bytes]:
        with (self.plan.folder / "workers.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "outpost.fleet", self.plan.folder, str(k + 1),
                 str(self._share)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=environment())
        self._ear.register(process.stdout, selectors.EVENT_READ, k)
        return process

    def _end_workers(self) -> None:
        for process in self.workers:
            process.kill()
            process.wait()

    def _await_gateway(self) -> None:
        if not self.gateway.look(PROMPT_S):
            raise FleetError(f"the gateway doesn't start within {PROMPT_S:.0f} s; see "
                             f"{self.plan.folder / 'gateway.log'}")

    def _go_on(self, stage: str) -> None:
        self.now.stage = stage
        for process in self.workers:
            process.stdin.write(b"\n")
            process.stdin.flush()

    def _stage(self, meanwhile: Callable[[], bool] = lambda: False) -> None:
        """Listen to the workers until all are through with what they do.

        `meanwhile` is called again and again, and says whether it has more to do.
        """
        over, more = 0, True
        while over < len(self.workers) or more:
            for key, _ in self._ear.select(TICK_S):
                for told in self._hear(key.data):
                    self._told[key.data] = told
                    over += told["over"]
            more = meanwhile()
            self._sum_up()
            self.show(self.now)

    def _hear(self, k: int) -> list[dict[str, Any]]:
        """Read what has come from a worker."""
        data = os.read(self.workers[k].stdout.fileno(), 1 << 16)
        if not data:
            raise FleetError(self._last_words())
        *lines, self._begun_lines[k] = (self._begun_lines[k] + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def _strike(self) -> bool:
        """Kill the gateway or the broker if it is time, and the gateway has come up again.

        Return whether more is to be killed, which a small fleet's days may be too short for.
        """
        up = self.gateway.look()
        if up and self._strikes and self.now.clock_s >= self._strikes[0][0]:
            _, victim = self._strikes.pop(0)
            server = self.gateway if victim == "gateway" else self.broker
            server.kill()
            server.start()
            self.now.killed[victim] += 1
        return bool(self._strikes)

    def _sum_up(self) -> None:
        now, told = self.now, self._told.values()
        for name in ("boots", "links", "checked"):
            setattr(now, name, sum(one[name] for one in told))
        servers = {name: now.killed[name] for name in ("gateway", "broker")}
        now.killed = sum((Counter(one["killed"]) for one in told), Counter(servers))
        now.found = sum((Counter(one["found"]) for one in told), Counter())
        if len(told) == len(self.workers) and now.stage == "living":
            now.clock_s = max(now.clock_s, min(
                self.plan.end_s if one["over"] else one["clock_s"] for one in told))
        now.doubled = self.echo.sent
        now.seconds = time.monotonic() - self._begun
        if now.seconds >= self._look_s:
            self._look_s = now.seconds + LOOK_S
            with suppress(sqlite3.OperationalError):
                now.stored = self._db.execute("SELECT total(head) FROM lanes").fetchone()[0]

    def _last_words(self) -> str:
        log = self.plan.folder / "workers.log"
        words = log.read_text(errors="replace").strip().splitlines()
        return f"{words[-1].removeprefix('error: ') if words else 'a worker ended'} ({log})"

    def _verdict(self) -> dict[str, Any]:
        now, found, plan = self.now, self.now.found, self.plan
        told = {
            "nodes": plan.nodes, "days": plan.days, "seed": plan.seed, "model": plan.model,
            "board": plan.board.name, "world": plan.world.name,
            "boots": now.boots, "links": now.links, "kills": now.kills,
            "killed": {name: now.killed[name] for name in (
                "cut", "brownout", "uplink", "hang", "asleep", "gateway", "broker")},
            "doubled_frames": now.doubled,
            **{name: found[name] for name in (
                "appended", "acknowledged", "stored", "duplicates", "lost", "dropped", "waiting",
                "phantoms", "compared", "differing", "unflushed", "decisions", "crashes")},
            "accuracy": round(found["right"] / max(1, found["decisions"]), 6),
            "ok": now.checked == plan.nodes and found["lost"] == found["duplicates"] == 0
            and found["phantoms"] == found["differing"] == found["waiting"] == 0
            and found["crashes"] == 0
            and found["appended"] == found["stored"] + found["dropped"],
            "wall_s": round(now.seconds, 2)}
        scratch = plan.folder / ".summary.json"
        scratch.write_text(json.dumps(told, indent=1) + "\n")
        scratch.replace(plan.folder / "summary.json")
        return told
