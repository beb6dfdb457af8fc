"""The world's loop: wake the node, answer what it asks, take what it hands over, let it sleep."""

import fcntl
import json
import signal
from array import array
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any, BinaryIO

import outpost.device  # noqa: F401  # firmware/ on the path
from node import board as causes
from node.board import unix as wire
from node.state import State as NodeState
from outpost.errors import OutpostError
from outpost.world import scenario
from outpost.world.battery import LEAK, LISTEN, LOST, PHASES, SLEEP, Drain, voltage_mv
from outpost.world.journal import Journal, State
from outpost.world.node import REPLY, WAKE, Ask, Asleep, Hung, Node, ProtocolError
from outpost.world.schedule import Fault, Schedule

OFF_US = 60_000_000  # power stays away so long after a brown-out, and the watchdog takes as long
PASSED_S = 6 * 3600  # a fault that nothing has given an occasion to is over
RESTART_PCT = 2  # of charge, before a flat battery is asked for a wake again
FLAT_US = 600_000_000  # in steps of which the sun is given time to bring it
CRASHES = 5  # so many in a row, and the firmware is at fault
DRAIN_WAKES = 300  # so many at most after the last day, to bring home what waits


class WorldError(OutpostError):
    """A run that can't go on."""


class World:
    """The world of one run, whose folder holds run.json, the node's files and the journal."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config: dict[str, Any] = json.loads((folder / "run.json").read_text())
        self.schedule = Schedule(**self.config["schedule"] | {
            "scenario": scenario.restore(self.config["schedule"]["scenario"])})
        self.drain = Drain(**self.config["drain"])
        self.battery = self.config["battery"]
        self.recordings = _recordings(folder, self.config["recordings"])
        self.journal = Journal(folder / "world.db", self.config["batch"])
        self.log = (folder / "node.log").open("ab")
        self.flash: BinaryIO = (folder / "flash.img").open("r+b")
        # A node inherits this lock, so one that outlived an earlier world is waited for here.
        fcntl.flock(self.flash, fcntl.LOCK_EX)
        state = self.journal.load()
        if state is None:
            charge = self.schedule.scenario.charge_pct / 100
            state = State(self.schedule.start_s * 1_000_000, 0, causes.COLD, b"",
                          charge * self.battery["capacity_mj"], 0, 0, False)
        elif not state.done:
            # Whatever node was awake when the last world ended has gone with it, and its wake
            # keeps its number.
            state.wakes += 1
            state.clock_us += OFF_US
            state.cause, state.retained = causes.BROWNOUT, b""
        self.state = state
        self._node: Node | None = None  # that waits for its next wake
        self._retained = NodeState()  # as the last whole wake left it
        self._pass_mj = 0.0  # what the last whole pass took
        self._resets = 0  # by the watchdog, in a row
        self._operations = 0  # of the flash, since the next fault has been due
        self.struck: Counter[str] = Counter()  # faults, by kind
        self.links = 0  # uplinks that found a way home
        self._crashes = 0  # in a row
        self._over = 0  # wakes after the last day
        self.journal.save(state)

    def live(self) -> None:
        """Live until the days are over, and if so configured until nothing waits at the node."""
        while self.step():
            pass

    def step(self) -> bool:
        """Live one wake, or wait for the sun to make one possible; False once all is over.

        Raises WorldError if the node keeps crashing, or doesn't get rid of its records.
        """
        state, end_us = self.state, self.schedule.end_s * 1_000_000
        if state.done:
            return False
        if state.battery_mj <= 0:
            state.done = not self._recharge(end_us)
            self.journal.save(state)
            return not state.done
        wake = self.wake()
        self._crashes = self._crashes + 1 if wake["ended"] == "crashed" else 0
        if self._crashes == CRASHES:
            raise WorldError(f"the node crashed {CRASHES} times in a row; its last words, in "
                             f"{self.folder / 'node.log'}: {self._last_words()}")
        if self.config["bring_home"]:
            self._over += wake["clock_us"] >= end_us
            state.done = bool(self._over and wake["ended"] == "slept" and wake["depth"] == 0)
        else:
            state.done = state.clock_us >= end_us
        self.journal.save(state, wake)
        if self._over > DRAIN_WAKES and not state.done:
            raise WorldError(f"records still wait at the node {DRAIN_WAKES} wakes after the "
                             f"last day, with the link up; see {self.folder / 'node.log'}")
        return not state.done

    def wake(self) -> dict[str, Any]:
        """Boot the node once; set the state for its next wake and return the journal's row."""
        state = self.state
        begin_us, fault = state.clock_us, self._fault()
        state.wakes += 1
        wake: dict[str, Any] = {"n": state.wakes, "clock_us": begin_us, "cause": state.cause,
                                "ended": "killed", "link": None}
        node = self._node or self._boot()
        node.send(self._wake_message(fault))
        last, at_us = None, 0
        try:
            while (heard := node.receive()) is not None:
                at_us = heard.at_us
                if isinstance(heard, Asleep):
                    last = heard
                    break
                if not self._answer(node, heard, fault, wake):
                    wake["ended"] = "cut"
                    break
        except Hung:
            wake["ended"] = "hung"
        if last is None or not node.again:
            self._node = None
            code = node.end(kill=wake["ended"] in ("cut", "hung"))
            if last is None and wake["ended"] == "killed" and code not in (0, -signal.SIGKILL):
                wake["ended"] = "crashed"  # by itself; its last words are in node.log
        self._resets = self._resets + 1 if wake["ended"] in ("hung", "crashed") else 0
        if last is not None:
            self._asleep(wake, last)
            self._operations += last.operations if fault else 0
        else:
            self._broken_off(wake, at_us)
        if fault and wake["ended"] in ("cut", "hung"):
            self.struck[fault.kind] += 1
            state.faults += 1
            self._operations = 0
        return wake

    def _fault(self) -> Fault | None:
        """Return the fault that is due, if any."""
        faults, now_s = self.schedule.faults, self.state.clock_us // 1_000_000
        while self.state.faults < len(faults) and now_s >= faults[self.state.faults].time_s:
            fault = faults[self.state.faults]
            if now_s < fault.time_s + PASSED_S and fault.kind != "asleep":
                return fault
            self.state.faults += 1
            self._operations = 0
        return None

    def _wake_message(self, fault: Fault | None) -> bytes:
        """Return what the node is told when it wakes."""
        state, schedule = self.state, self.schedule
        now_s = state.clock_us / 1e6
        cut = 0
        if fault and fault.kind == "cut":
            cut = max(1, fault.operation - self._operations)
        elif state.battery_mj < self._pass_mj:
            cut = 1  # the battery will not last through another pass
        charge = 100 * state.battery_mj / self.battery["capacity_mj"]
        random = Random(f"{schedule.seed}/node/{state.wakes}").getrandbits(32)
        return WAKE.pack(state.clock_us + state.skew_us, random, cut,
                         voltage_mv(self.battery["curve"], charge),
                         round(schedule.temperature_c(now_s)), state.cause, self._resets,
                         len(state.retained)) + state.retained

    def _answer(self, node: Node, heard: Ask, fault: Fault | None, wake: dict[str, Any]) -> bool:
        """Answer the node; False if its power goes instead. Raises Hung if its sensor hangs."""
        now_us = self.state.clock_us + heard.at_us
        kind = fault.kind if fault else ""
        if heard.what == wire.CAPTURE:
            if kind == "hang":
                raise Hung
            if kind == "brownout":
                return False
            window = self._window(now_us, heard.detail)
            node.send(REPLY.pack(window is not None, len(window or b"")) + (window or b""))
            return True
        if heard.what == wire.LINK:
            wake["link"] = self.schedule.link_up(now_us / 1e6)
            self.links += wake["link"]
            if kind == "uplink":
                return False
            node.send(REPLY.pack(wake["link"], self.config["port"]))
            return True
        return False

    def close(self) -> None:
        """End the node that waits for its next wake, and let go of the files."""
        if self._node is not None:
            self._node.end()
        self.journal.close()
        self.flash.close()
        self.log.close()

    def _boot(self) -> Node:
        """Start a node's process; one that is taken back is there for the wakes to come, too."""
        node = Node(Path(self.config["micropython"]), Path(self.config["bytecode"]),
                    self.folder / "node", self.flash, self.log, self.config["isolation"])
        self._node = node if node.again else None
        return node

    def _asleep(self, wake: dict[str, Any], last: Asleep) -> None:
        """Set the next wake: when the timer ends, or at the motion before it."""
        state, schedule, node = self.state, self.schedule, self._retained
        if not node.load(last.retained):
            raise ProtocolError(f"the node retains {len(last.retained)} bytes that node/state.py "
                                f"doesn't understand; {self.folder / 'node.log'} ends: "
                                f"{self._last_words()}")
        wake |= {"ended": "slept", "awake_us": last.at_us, "laps": last.laps,
                 "depth": node.depth, "decision": node.decision,
                 "share": node.share, "smoothed": node.smoothed,
                 "programmed": last.programmed, "erases": last.erases,
                 "mode": node.modes.mode, "left_mj": node.energy.left_nj / 1e6,
                 "rate_uw": node.energy.rate_nw / 1e3, "pace_s": node.energy.pace_s,
                 "spent_mj": node.energy.spent_nj / 1e6, "carried": node.carried}
        asleep_us = state.clock_us + last.at_us
        ppm = schedule.drift_ppm(asleep_us / 1e6)
        until_us = asleep_us + round(last.ms * 1000 / (1 + ppm / 1e6))
        motion_us = schedule.next_motion_s(asleep_us / 1e6) * 1e6
        next_us, state.cause, state.retained = until_us, causes.TIMER, last.retained
        if last.event and motion_us < until_us:
            next_us, state.cause = int(motion_us), causes.EVENT
        on_us = next_us
        if state.faults < len(schedule.faults):
            fault = schedule.faults[state.faults]
            off_us = max(asleep_us, fault.time_s * 1_000_000)
            if fault.kind == "asleep" and off_us < next_us:
                next_us, on_us = off_us + OFF_US, off_us
                state.cause, state.retained = causes.BROWNOUT, b""
                self.struck[fault.kind] += 1
                state.faults += 1
        drained = self.drain.awake(last.laps)
        self._pass_mj = sum(drained)
        drained[SLEEP], drained[LISTEN] = self.drain.asleep(on_us - asleep_us, last.event)
        wake["asleep_us"] = on_us - asleep_us
        state.skew_us += round((next_us - asleep_us) * ppm / 1e6)
        self._pass_on(wake, next_us, drained)

    def _broken_off(self, wake: dict[str, Any], at_us: int) -> None:
        """Set the next wake after one that did not end in sleep."""
        state, drained = self.state, [0.0] * len(PHASES)
        drained[LOST] = self.drain.broken_off(at_us)
        if wake["ended"] in ("hung", "crashed"):
            state.cause = causes.WATCHDOG
            drained[LOST] = self.drain.broken_off(at_us + OFF_US)
        else:
            state.cause, state.retained = causes.BROWNOUT, b""
        self._pass_on(wake, state.clock_us + at_us + OFF_US, drained)

    def _pass_on(self, wake: dict[str, Any], next_us: int, drained: list[float]) -> None:
        """Let time pass until the next wake: drain the battery, and let the sun fill it."""
        state = self.state
        drained[LEAK] = self.drain.leak * (next_us - state.clock_us) / 1e6
        harvest = self.schedule.harvest_mj(state.clock_us / 1e6, next_us / 1e6)
        left = state.battery_mj - sum(drained) + harvest
        state.battery_mj = min(max(0.0, left), self.battery["capacity_mj"])
        state.clock_us = next_us
        wake |= {"drained": array("d", drained).tobytes(), "battery_mj": state.battery_mj,
                 "harvest_mj": harvest}

    def _recharge(self, end_us: int) -> bool:
        """Wait until the sun has brought enough for another wake; False if the days end first."""
        state, from_us = self.state, self.state.clock_us
        enough = self.battery["capacity_mj"] * RESTART_PCT / 100
        while state.battery_mj < enough and state.clock_us < end_us:
            until_us = state.clock_us + FLAT_US
            state.battery_mj += self.schedule.harvest_mj(state.clock_us / 1e6, until_us / 1e6)
            state.clock_us = until_us
        state.cause, state.retained = causes.COLD, b""
        self.journal.flat(from_us, state.clock_us)
        return state.battery_mj >= enough

    def _last_words(self) -> str:
        lines = (self.folder / "node.log").read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "none"

    def _window(self, clock_us: int, samples: int) -> bytes | None:
        """Return a window of what goes on now, None if the sensor is silent."""
        time_s = clock_us / 1e6
        if self.schedule.silent(time_s):
            return None
        random = self.schedule.random("window", clock_us)
        label = self.schedule.label(time_s)
        name, recording, channels = random.choice(self.recordings[label])
        size = 2 * channels
        start = random.randint(0, len(recording) // size - samples)
        node_s = (clock_us + self.state.skew_us) // 1_000_000
        self.journal.captured(self.state.wakes, node_s, label, name, start)
        return recording[start * size:(start + samples) * size]


def _recordings(folder: Path, index: list[dict[str, Any]]
                ) -> dict[str, list[tuple[str, bytes, int]]]:
    """Read the test recordings: label → [(name, interleaved int16, channels)]."""
    data = (folder / "recordings.bin").read_bytes()
    found: dict[str, list[tuple[str, bytes, int]]] = {}
    for entry in index:
        part = data[entry["offset"]:entry["offset"] + entry["bytes"]]
        found.setdefault(entry["label"], []).append((entry["name"], part, entry["channels"]))
    return found
