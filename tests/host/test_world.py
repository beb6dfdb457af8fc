"""The world: its days, and how it treats nodes that hang, crash, die or talk nonsense."""

import fcntl
import json
import os
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from node import board as causes
from node.board import unix as wire
from node.outbox import SAVED
from node.state import State
from outpost.world import node as node_process
from outpost.world import scenario
from outpost.world.battery import Drain
from outpost.world.journal import Journal
from outpost.world.node import ProtocolError
from outpost.world.schedule import DAY_S, Schedule
from outpost.world.world import CRASHES, OFF_US, World, WorldError

LABELS = ["rest", "walk", "run"]
WEARER = scenario.load("wearer")
START_S = WEARER.start_s
DRAIN = Drain(rest=0, boot=100, active=100, doze=3, radio=400, sleep=0.04, sampling=2,
              programming=60, listening=0.1, leak=0.05, boot_us=1000)

# A node in Python: the same two file descriptors and messages, and then what each test says.
FAKE = """#!{python}
import json, os, struct, sys, time
fd = int(sys.argv[-2])
def read(size):
    data = b""
    while len(data) < size:
        part = os.read(fd, size - len(data))
        if not part:
            sys.exit(1)
        data += part
    return data
def receive():
    came, size = struct.unpack("{wire.REPLY}", read(struct.calcsize("{wire.REPLY}")))
    return read(size)
def ask(what, at_us=0, detail=0):
    os.write(fd, struct.pack("{wire.ASK}", what, at_us, detail))
CAPTURE, LINK, POWER_LOST, SLEEP = 1, 2, 3, 4
*wake, size = struct.unpack("{wire.WAKE}", read(struct.calcsize("{wire.WAKE}")))
wake = dict(zip(("clock_us", "random", "cut", "battery_mv", "temperature_c", "cause"), wake))
retained = read(size)
"""


class Box:
    def save(self, buf):
        buf[:] = bytes(SAVED)


@pytest.fixture
def lay_out(tmp_path):
    """Return a function that makes a run's folder around a fake node with this body."""
    def make(body: str, days: float = 1) -> Path:
        (tmp_path / "node").mkdir(exist_ok=True)
        fake = tmp_path / "fake-node"
        fake.write_text(FAKE.format(python=sys.executable, wire=wire) + body)
        fake.chmod(0o755)
        samples = bytes(range(200))
        (tmp_path / "recordings.bin").write_bytes(samples * 3)
        (tmp_path / "flash.img").write_bytes(b"\xff" * 4096 * 12)
        (tmp_path / "run.json").write_text(json.dumps({
            "micropython": str(fake), "bytecode": "",
            "isolation": "process", "port": 9, "batch": 1, "bring_home": True,
            "drain": DRAIN.dump(),
            "battery": {"capacity_mj": 1e6, "curve": [[0, 3000], [100, 4100]]},
            "schedule": {"seed": 1, "days": days, "classes": LABELS, "quiet": "rest",
                         "scenario": WEARER.dump()},
            "recordings": [{"name": f"{label} 1", "label": label, "offset": 200 * i,
                            "bytes": 200, "channels": 2} for i, label in enumerate(LABELS)]}))
        return tmp_path

    return make


def sleep(retained: bytes, ms: int = 300_000, event: bool = True) -> str:
    laps = struct.pack(wire.LAP, 0, 1000, 0, 0, 0) + struct.pack(wire.LAP, 1, 9000, 8000, 0, 0)
    message = (struct.pack(wire.ASK, wire.SLEEP, 9000, len(laps))
               + struct.pack(wire.SLEEP_MORE, ms, event, 5, 1, 3, len(retained)) + laps + retained)
    return f"os.write(fd, {message!r})\n"


def quiet_world(folder: Path) -> World:
    """A world where nothing goes wrong by itself."""
    world = World(folder)
    world.schedule.faults.clear()
    world.schedule.silences.clear()
    return world


# --- days ---


def test_the_same_seed_gives_the_same_days():
    one, two, other = (Schedule(WEARER, seed, 7, LABELS, "rest") for seed in (5, 5, 6))
    assert vars(one) == vars(two)
    assert one.activities != other.activities and one.motions != other.motions
    assert one.random("window", 77).random() == two.random("window", 77).random()
    assert one.random("window", 77).random() != one.random("window", 78).random()


@pytest.mark.parametrize("seed", range(5))
def test_days_have_what_the_run_is_about(seed):
    schedule = Schedule(WEARER, seed, 7, LABELS, "rest")
    end = START_S + 7 * DAY_S
    assert schedule.end_s == end
    spent = dict.fromkeys(LABELS, 0)
    for time_s in range(START_S, end, 60):
        spent[schedule.label(time_s)] += 1
    assert spent["rest"] > sum(spent.values()) / 3 and min(spent.values()) > 60
    up = sum(schedule.link_up(time_s) for time_s in range(START_S, end, 60)) / (7 * 1440)
    assert 0.02 < up < 0.2  # down most of the week
    assert schedule.link_up(end) and schedule.link_up(end + 10 * DAY_S)
    assert len(schedule.motions) > 100 and schedule.motions == sorted(schedule.motions)
    assert all(schedule.label(time_s) != "rest" for time_s in schedule.motions)
    assert {fault.kind for fault in schedule.faults} == {"cut", "brownout", "hang"}
    assert any(schedule.silent(time_s) for time_s in range(START_S, end, 60))
    assert schedule.next_motion_s(schedule.motions[3]) == schedule.motions[4]
    assert schedule.next_motion_s(end) == float("inf")


# --- a node that behaves ---


def test_timer_and_motion_wake_and_retained_memory_comes_back(lay_out):
    kept = State()
    kept.depth, kept.wakes = 12, 3
    blob = bytes(kept.save(Box()))
    world = quiet_world(lay_out(
        "open('heard', 'a').write(json.dumps([wake, retained.hex()]) + '\\n')\n" + sleep(blob)))
    world.schedule.motions[:] = [START_S + 400]
    rows = [world.wake() for _ in range(4)]
    assert [row["cause"] for row in rows] == [causes.COLD, causes.TIMER, causes.EVENT,
                                              causes.TIMER]
    assert {row["ended"] for row in rows} == {"slept"} and rows[0]["depth"] == 12
    assert rows[1]["clock_us"] == START_S * 10**6 + 9000 + 300_000_000
    assert rows[2]["clock_us"] == (START_S + 400) * 10**6
    heard = [json.loads(line) for line in (world.folder / "node/heard").read_text().splitlines()]
    assert [memory for _, memory in heard] == ["", blob.hex(), blob.hex(), blob.hex()]
    assert [wake["cause"] for wake, _ in heard] == [0, 1, 2, 1]
    assert heard[2][0]["clock_us"] == rows[2]["clock_us"] and heard[0][0]["battery_mv"] > 4000
    assert len({wake["random"] for wake, _ in heard}) == 4


def test_motion_is_not_heard_by_a_node_that_does_not_listen(lay_out):
    world = quiet_world(lay_out(sleep(bytes(State().save(Box())), event=False)))
    world.schedule.motions[:] = [START_S + 100]
    assert [world.wake()["cause"] for _ in range(2)] == [causes.COLD, causes.TIMER]


def test_windows_come_from_the_recordings_and_the_truth_is_noted_first(lay_out):
    world = quiet_world(lay_out(
        "ask(CAPTURE, 2_000_000, 10)\n"
        "open('window', 'wb').write(receive())\nos.kill(os.getpid(), 9)\n"))
    assert world.wake()["ended"] == "killed"
    window = (world.folder / "node/window").read_bytes()
    assert len(window) == 40
    n, time_s, label, recording, start = world.journal._db.execute(
        "SELECT * FROM captures").fetchone()
    assert (n, time_s, label, recording) == (1, START_S + 2, "rest", "rest 1")
    assert window == bytes(range(200))[4 * start:4 * start + 40]


def test_a_silent_sensor_gives_nothing(lay_out):
    world = quiet_world(lay_out(
        "ask(CAPTURE, 0, 10)\n"
        "open('window', 'wb').write(receive() + b'!')\n" + sleep(bytes(State().save(Box())))))
    world.schedule.silences.append((START_S, START_S + 60))
    assert world.wake()["ended"] == "slept"
    assert (world.folder / "node/window").read_bytes() == b"!"
    assert world.journal._db.execute("SELECT count(*) FROM captures").fetchone() == (0,)


# --- nodes that do not ---


@pytest.mark.parametrize(("body", "ended", "cause", "kept"), [
    ("os.kill(os.getpid(), 9)", "killed", causes.BROWNOUT, b""),
    ("ask(POWER_LOST, 5); time.sleep(60)", "cut", causes.BROWNOUT, b""),
    ("time.sleep(60)", "hung", causes.WATCHDOG, b"kept"),
    ("raise ValueError('broken')", "crashed", causes.WATCHDOG, b"kept"),
    ("os.write(fd, b'\\x05')", "killed", causes.BROWNOUT, b""),  # ends within a message
])
def test_a_wake_without_sleep(lay_out, monkeypatch, body, ended, cause, kept):
    if ended == "hung":
        monkeypatch.setattr(node_process, "PATIENCE_S", 1.0)
    world = quiet_world(lay_out(body))
    world.state.retained = b"kept"
    before = world.state.clock_us
    assert world.wake()["ended"] == ended
    assert (world.state.cause, world.state.retained) == (cause, kept)
    assert world.state.clock_us >= before + OFF_US


@pytest.mark.parametrize(("body", "words"), [
    ("ask(7)", "the node sent 0700"),
    ("ask(SLEEP, 5, 3)", "the node sent 0405"),  # not whole laps
    ("os.write(fd, b'not of this world')", "the node sent 6e6f"),
    (sleep(b"nonsense"), "retains 8 bytes"),
])
def test_nonsense_is_named(lay_out, body, words):
    world = quiet_world(lay_out(body))
    with pytest.raises(ProtocolError, match=words):
        world.wake()


def test_a_node_that_always_crashes_ends_the_run_with_its_last_words(lay_out):
    world = quiet_world(lay_out("raise ValueError('flux capacitor')"))
    with pytest.raises(WorldError, match=f"{CRASHES} times.*flux capacitor"):
        world.live()


@pytest.mark.parametrize(("kind", "body", "ended"), [
    ("hang", "ask(CAPTURE, 0, 1); receive(); time.sleep(60)",
     "hung"),
    ("brownout", "ask(CAPTURE, 0, 1); receive(); time.sleep(60)",
     "cut"),
    ("cut", "assert wake['cut'] == 4\nask(POWER_LOST); time.sleep(60)",
     "cut"),
])
def test_a_fault_strikes_once(lay_out, kind, body, ended):
    from outpost.world.schedule import Fault

    world = quiet_world(lay_out(body))
    world.schedule.faults[:] = [Fault(START_S, kind, 4), Fault(START_S + DAY_S, kind, 4)]
    assert world.wake()["ended"] == ended
    assert world.state.faults == 1


def test_a_cut_comes_at_its_operation_however_many_wakes_that_takes(lay_out):
    from outpost.world.schedule import Fault

    body = "open('cuts', 'a').write(f\"{wake['cut']} \")\n"
    world = quiet_world(lay_out(body + sleep(bytes(State().save(Box())))))
    world.schedule.faults[:] = [Fault(START_S + 300, "cut", 8)]
    for _ in range(4):
        world.wake()
    assert (world.folder / "node/cuts").read_text() == "0 8 5 2 "


# --- the world's own death ---


def test_a_world_that_was_killed_goes_on_from_the_last_whole_wake(lay_out):
    kept = bytes(State().save(Box()))
    folder = lay_out(sleep(kept))
    world = quiet_world(folder)
    for _ in range(3):
        world.journal.save(world.state, world.wake())
    stood = world.state.clock_us
    world.wake()  # not saved: as if killed before it could
    fcntl.flock(world.flash, fcntl.LOCK_UN)
    again = World(folder)
    assert (again.state.clock_us, again.state.wakes) == (stood + OFF_US, 4)
    assert (again.state.cause, again.state.retained) == (causes.BROWNOUT, b"")


def test_a_finished_run_stays_finished(lay_out):
    world = quiet_world(lay_out(sleep(bytes(State().save(Box()), ), ms=600_000_000)))
    world.live()
    fcntl.flock(world.flash, fcntl.LOCK_UN)
    wakes = world.state.wakes
    again = World(world.folder)
    again.live()
    assert again.state.done and again.state.wakes == wakes


def test_a_journal_has_both_state_and_wake_or_neither(tmp_path):
    from outpost.world.journal import State as Stood

    journal = Journal(tmp_path / "world.db")
    wake = {"n": 1, "clock_us": 5, "cause": 0, "ended": "slept"}
    journal.save(Stood(5, 0, 0, b"a", 1.0, 1, 0, False), wake)
    with pytest.raises(Exception, match="UNIQUE"):
        journal.save(Stood(6, 0, 1, b"b", 1.0, 2, 0, False), wake)
    journal.close()
    assert Journal(tmp_path / "world.db").load().clock_us == 5


def test_no_second_node_touches_the_flash_before_the_first_is_gone(lay_out):
    """A node that outlives its world keeps the lock; the next world waits for its end."""
    folder = lay_out("open('on', 'w').close()\ntime.sleep(60)")
    code = (f"from pathlib import Path\nfrom outpost.world.world import World\n"
            f"World(Path({str(folder)!r})).wake()")
    first = subprocess.Popen([sys.executable, "-c", code])
    second = None
    try:
        orphan = wait_for_child(first.pid)
        wait_for(folder / "node/on")  # it has heard its world
        first.kill()
        first.wait()
        second = subprocess.Popen(
            [sys.executable, "-c", f"from pathlib import Path\nfrom outpost.world.world import "
             f"World\nWorld(Path({str(folder)!r}))"])
        with pytest.raises(subprocess.TimeoutExpired):
            second.wait(1.5)
        os.kill(orphan, signal.SIGKILL)
        assert second.wait(20) == 0
    finally:
        for process in (first, second):
            if process is not None:
                process.kill()
                process.wait()


def wait_for(path: Path) -> None:
    import time

    for _ in range(400):
        if path.exists():
            return
        time.sleep(0.05)
    raise AssertionError(f"no {path}")


def wait_for_child(pid: int) -> int:
    import time

    children = Path(f"/proc/{pid}/task/{pid}/children")
    for _ in range(200):
        found = children.read_text().split()
        if found:
            return int(found[0])
        time.sleep(0.05)
    raise AssertionError("no node was started")
