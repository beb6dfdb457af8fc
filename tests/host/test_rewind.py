"""Wakes of one process: nothing crosses from one to the next, and ends are told as they were."""

import contextlib
import fcntl
import os
import signal
import time

import pytest

from outpost import bytecode
from outpost.toolchain import unix
from outpost.world import node as node_process
from outpost.world.node import WAKE, Asleep, Hung, Node

# What a wake finds of the one before is what it retains; then it leaves a mark everywhere.
MARKS = """
import sys
from node import board, cycle, latency
here = board.here()
found = []
if "contraband" in sys.modules: found.append("module")
if hasattr(cycle, "mark"): found.append("global")
if latency.SIZE == 1: found.append("constant")
if cycle.Wake.live is None: found.append("class")
if "here" in sys.path: found.append("path")
if sys.argv[0] == "here": found.append("argument")
if here.doze_us: found.append("board")
import builtins
try:
    if mark: found.append("builtin")
except NameError:
    pass
with open("kept", "a") as file: file.write("x")
sys.modules["contraband"] = sys
cycle.mark, latency.SIZE, cycle.Wake.live = 1, 1, None
sys.path.append("here")
sys.argv[0] = "here"
builtins.mark = True
here.doze_us = 5
was = here.retained()
here.retain(was + b"%d" % len(was) if not found else " ".join(found).encode())
here.sleep(1000)
"""

# What the kernel has of a process: what is mapped, which files are open, where it is. Then machine
# code is made, files are opened and closed, and the folder is left.
KERNEL = """
import micropython, os
from node import board
here = board.here()
with open("/proc/self/maps") as file:
    told = [file.read(), os.getcwd(), sorted(str(one[0]) for one in os.ilistdir("/proc/self/fd"))]
here.retain(repr(told).encode())
exec("@micropython.native\\ndef made(): pass")
left = [open("/dev/null") for _ in range(70)]
here._flash._file.close()
os.chdir("/")
here.sleep(1000)
"""


@pytest.fixture
def start(tmp_path):
    """Return a function that starts a node with this main.py, in a folder of its own."""
    nodes = []

    def make(main: str, isolation: str) -> Node:
        code, folder = tmp_path / "code", tmp_path / "node"
        code.mkdir()
        folder.mkdir()
        (code / "main.py").write_text(main)
        (code / "node").symlink_to(bytecode.build() / "node")
        (folder / "board.json").write_text(
            '{"node": 1, "lanes": [3, 3, 3, 3], "stage_us": [], "reset_us": 0, "sample_us": 0,'
            ' "flash": {}, "uplink": {}, "power": {}, "battery": {}}')
        (tmp_path / "flash.img").write_bytes(b"\xff" * 4096 * 12)
        with (tmp_path / "flash.img").open("r+b") as flash, (tmp_path / "log").open("ab") as log:
            fcntl.flock(flash, fcntl.LOCK_EX)
            nodes.append(Node(unix.micropython(), code, folder, flash, log, isolation))
        return nodes[-1]

    yield make
    for node in nodes:
        if node.process.poll() is None:
            node.end(kill=True)


def wake(node: Node, retained: bytes = b"") -> bytes:
    """Let `node` live a wake; return what it retains."""
    node.send(WAKE.pack(10**15, 1, 0, 4000, 20, 1, 0, len(retained)) + retained)
    asleep = node.receive()
    assert isinstance(asleep, Asleep) and (asleep.ms, asleep.at_us) == (1000, 0)
    return asleep.retained


def test_only_retained_memory_and_files_get_from_wake_to_wake(start, tmp_path):
    node = start(MARKS, "rewind")
    found = [b""]
    for _ in range(4):
        found.append(wake(node, found[-1]))
    assert found == [b"", b"0", b"01", b"012", b"0123"]
    assert (tmp_path / "node/kept").read_text() == "xxxx"
    node.end()


def test_a_mark_within_one_wake_is_seen(start):
    """The check above can fail: the same program finds its own marks."""
    code = MARKS.replace("here.sleep(1000)", "").replace("import sys\n", "", 1)
    node = start(f"import sys\ncode = {code!r}\nexec(code)\n"
                 f"{MARKS.replace('here = board.here()', '')}", "rewind")
    assert wake(node) == b"module global constant class path argument board builtin"


@pytest.mark.parametrize("before", [0, 300])
def test_what_the_kernel_has_of_a_process_is_as_it_was(start, tmp_path, before):
    """However many files its world has open before it: their numbers are inherited."""
    with contextlib.ExitStack() as stack:
        for _ in range(before):
            stack.enter_context(open(os.devnull))
        node = start(KERNEL, "rewind")
    found = [wake(node).decode() for _ in range(4)]
    assert len(set(found)) == 1 and f"{tmp_path}/node" in found[0]
    assert found[0].count("r-xp") and found[0].count("[heap]") == 1


@pytest.mark.parametrize("isolation", node_process.ISOLATIONS)
@pytest.mark.parametrize(("main", "code"), [
    ("import sys; sys.exit(3)", 3),
    ("raise ValueError('broken')", 1),
    ("import micropython\n@micropython.viper\ndef f(): ptr8(0)[0] = 1\nf()", -signal.SIGSEGV),
])
def test_how_a_wake_ended_is_known(start, isolation, main, code):
    node = start(main, isolation)
    assert node.receive() is None
    assert node.end() == code


@pytest.mark.parametrize("isolation", node_process.ISOLATIONS)
def test_power_taken_away_leaves_nobody_behind(start, isolation, tmp_path, monkeypatch):
    """The flash's lock is free when end() returns: no process that had it lives."""
    monkeypatch.setattr(node_process, "PATIENCE_S", 0.5)
    node = start("from node import board\nhere = board.here()\nopen('on', 'w').close()\n"
                 "while True: pass", isolation)
    node.send(WAKE.pack(10**15, 1, 0, 4000, 20, 1, 0, 0))
    while not (tmp_path / "node/on").exists():
        time.sleep(0.01)
    with (tmp_path / "flash.img").open("r+b") as flash:
        with pytest.raises(BlockingIOError):
            fcntl.flock(flash, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with pytest.raises(Hung):
            node.receive()
        assert node.end(kill=True) == -signal.SIGKILL
        fcntl.flock(flash, fcntl.LOCK_EX)  # waits for ever if somebody still has it


def test_it_ends_when_its_world_does(start):
    node = start(MARKS, "rewind")
    wake(node)
    node._socket.close()
    assert node.process.wait(10) == 1


def test_messages_may_come_in_pieces(start):
    node = start(MARKS, "process")
    message = WAKE.pack(10**15, 1, 0, 4000, 20, 1, 0, 3) + b"abc"
    for at in range(0, len(message), 5):
        node.send(message[at:at + 5])
        time.sleep(0.002)
    assert node.receive().retained == b"abc3"
    assert node.end() == 0
