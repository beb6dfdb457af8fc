"""The world's loop: wake the node, answer what it asks, take what it hands over, let it sleep."""

import fcntl
import json
from pathlib import Path
from random import Random
from typing import Any, BinaryIO

import outpost.device  # noqa: F401  # firmware/ on the path
from node import board as causes
from node.board import unix as wire
from node.state import State as NodeState
from outpost.errors import OutpostError
from outpost.world.journal import Journal, State
from outpost.world.node import REPLY, WAKE, Asleep, Hung, Node, ProtocolError
from outpost.world.schedule import START_S, Schedule

OFF_US = 60_000_000  # power stays away so long after a brown-out, and the watchdog takes as long
CRASHES = 5  # so many in a row, and the firmware is at fault
DRAIN_WAKES = 300  # so many at most after the last day, to bring home what waits


class WorldError(OutpostError):
    """A run that can't go on."""


class World:
    """The world of one run, whose folder holds run.json, the node's files and the journal."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config: dict[str, Any] = json.loads((folder / "run.json").read_text())
        self.schedule = Schedule(**self.config["schedule"])
        self.recordings = _recordings(folder, self.config["recordings"])
        self.journal = Journal(folder / "world.db")
        self.log = (folder / "node.log").open("ab")
        self.flash: BinaryIO = (folder / "flash.img").open("r+b")
        # A node inherits this lock, so one that outlived an earlier world is waited for here.
        fcntl.flock(self.flash, fcntl.LOCK_EX)
        state = self.journal.load()
        if state is None:
            state = State(START_S * 1_000_000, causes.COLD, b"", 0, 0, False)
        elif not state.done:
            # Whatever node was awake when the last world ended has gone with it, and its wake
            # keeps its number.
            state.wakes += 1
            state.clock_us += OFF_US
            state.cause, state.retained = causes.BROWNOUT, b""
        self.state = state
        self._node: Node | None = None  # that waits for its next wake
        self._operations = 0  # of the flash, since the next fault has been due
        self.journal.save(state)

    def live(self) -> None:
        """Live until the days are over and nothing waits at the node any more.

        Raises WorldError if the node doesn't get rid of its records.
        """
        end_us = self.schedule.end_s * 1_000_000
        over = crashes = 0
        while not self.state.done:
            wake = self.wake()
            crashes = crashes + 1 if wake["ended"] == "crashed" else 0
            if crashes == CRASHES:
                raise WorldError(f"the node crashed {CRASHES} times in a row; its last words, in "
                                 f"{self.folder / 'node.log'}: {self._last_words()}")
            if wake["clock_us"] >= end_us:
                over += 1
                self.state.done = wake["ended"] == "slept" and wake["depth"] == 0
            self.journal.save(self.state, wake)
            if over > DRAIN_WAKES and not self.state.done:
                raise WorldError(f"records still wait at the node {DRAIN_WAKES} wakes after the "
                                 f"last day, with the link up; see {self.folder / 'node.log'}")

    def wake(self) -> dict[str, Any]:
        """Boot the node once; set the state for its next wake and return the journal's row."""
        state, schedule = self.state, self.schedule
        now_s = state.clock_us // 1_000_000
        fault = None
        if state.faults < len(schedule.faults) and now_s >= schedule.faults[state.faults].time_s:
            fault = schedule.faults[state.faults]
        cut = fault.operation - self._operations if fault and fault.kind == "cut" else None
        state.wakes += 1
        node = self._node or self._boot()
        node.send(WAKE.pack(
            state.clock_us, Random(f"{schedule.seed}/node/{state.wakes}").getrandbits(32),
            0 if cut is None else max(1, cut), schedule.battery_mv(now_s),
            schedule.temperature_c(now_s), state.cause, len(state.retained)) + state.retained)
        wake: dict[str, Any] = {"n": state.wakes, "clock_us": state.clock_us,
                                "cause": state.cause, "ended": "killed", "link": None}
        at_us = 0
        try:
            while (heard := node.receive()) is not None:
                at_us = heard.at_us
                if isinstance(heard, Asleep):
                    self._asleep(wake, heard)
                    self._operations += heard.operations if fault else 0
                    break
                if heard.what == wire.CAPTURE:
                    if fault and fault.kind == "hang":
                        raise Hung
                    if fault and fault.kind == "brownout":
                        wake["ended"] = "cut"
                        break
                    window = self._window(state.clock_us + at_us, heard.detail)
                    node.send(REPLY.pack(window is not None, len(window or b"")) + (window or b""))
                elif heard.what == wire.LINK:
                    wake["link"] = schedule.link_up((state.clock_us + at_us) / 1e6)
                    node.send(REPLY.pack(wake["link"], self.config["port"]))
                else:
                    wake["ended"] = "cut"
                    break
        except Hung:
            wake["ended"] = "hung"
        if not (node.forks and wake["ended"] == "slept"):
            self._node = None
            code = node.end(kill=wake["ended"] in ("cut", "hung"))
            if wake["ended"] == "killed" and code > 0:
                wake["ended"] = "crashed"  # by itself; its last words are in node.log
        if wake["ended"] != "slept":
            state.clock_us += at_us + OFF_US
            watchdog = wake["ended"] in ("hung", "crashed")
            state.cause = causes.WATCHDOG if watchdog else causes.BROWNOUT
            state.retained = state.retained if watchdog else b""
        if fault and wake["ended"] in ("cut", "hung"):
            state.faults += 1
            self._operations = 0
        return wake

    def close(self) -> None:
        """End the node that waits for its next wake, and let go of the files."""
        if self._node is not None:
            self._node.end()
        self.journal.close()
        self.flash.close()
        self.log.close()

    def _boot(self) -> Node:
        """Start a node's process; one that forks is there for the wakes to come as well."""
        node = Node(Path(self.config["micropython"]), Path(self.config["bytecode"]),
                    self.folder / "node", self.flash, self.log, self.config["isolation"])
        self._node = node if node.forks else None
        return node

    def _asleep(self, wake: dict[str, Any], last: Asleep) -> None:
        """Set the next wake: when the timer ends, or at the motion before it."""
        node = NodeState()
        if not node.load(last.retained):
            raise ProtocolError(f"the node retains {len(last.retained)} bytes that node/state.py "
                                f"doesn't understand; {self.folder / 'node.log'} ends: "
                                f"{self._last_words()}")
        wake |= {"ended": "slept", "awake_us": last.at_us, "laps": last.laps,
                 "depth": node.depth, "decision": node.decision,
                 "share": node.share, "smoothed": node.smoothed,
                 "programmed": last.programmed, "erases": last.erases}
        asleep_us = self.state.clock_us + last.at_us
        until_us = asleep_us + last.ms * 1000
        motion_us = self.schedule.next_motion_s(asleep_us / 1e6) * 1e6
        by_motion = last.event and motion_us < until_us
        self.state.clock_us = int(motion_us) if by_motion else until_us
        self.state.cause = causes.EVENT if by_motion else causes.TIMER
        self.state.retained = last.retained

    def _last_words(self) -> str:
        lines = (self.folder / "node.log").read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "none"

    def _window(self, clock_us: int, samples: int) -> bytes | None:
        """Return a window of what goes on now, None if the sensor is silent."""
        time_s = clock_us // 1_000_000
        if self.schedule.silent(time_s):
            return None
        random = self.schedule.random("window", clock_us)
        label = self.schedule.label(time_s)
        name, recording, channels = random.choice(self.recordings[label])
        size = 2 * channels
        start = random.randint(0, len(recording) // size - samples)
        self.journal.captured(self.state.wakes, time_s, label, name, start)
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
