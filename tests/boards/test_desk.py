"""A person's way to an RP2040, on the emulated one: UF2, REPL, self-test, pull, profile.

The real firmware with the real mpremote; USB serial comes as a TCP socket.
"""

import json
import shutil
import subprocess
import sys
from contextlib import contextmanager, nullcontext

import numpy as np
import pytest

from outpost import (
    boards,
    build,
    data,
    flash,
    image,
    profile,
    program,
    provision,
    pull,
    push,
    recipe,
)
from outpost.emulator import Emulator, EmulatorError
from outpost.errors import OutpostError
from outpost.gateway import schema, store
from outpost.repl import Repl
from outpost.toolchain import unix

SECOND_US = 1_000_000
EMULATED = 20  # emulated seconds in one of the wall, at most


@contextmanager
def running(uf2=None, image=None, sensor=None):
    """An emulated board with USB plugged in; yield (board, port)."""
    with Emulator() as board:
        board.load(uf2=uf2, image=image)
        if sensor:
            board.play(*sensor)
        board.power()
        port = board.ask("serve", usb_port=0, uart_port=0, speed=EMULATED)["usb_port"]
        yield board, f"socket://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """A folder for provisioned nodes, and in it a mounted drive RPI-RP2."""
    folder = tmp_path_factory.mktemp("desk")
    drive = folder / "RPI-RP2"
    drive.mkdir()
    (drive / flash.DRIVE_MARK).write_text("UF2 Bootloader v3.0\nModel: Raspberry Pi RP2\n"
                                          "Board-ID: RPI-RP2\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(folder / "data"))
        yield folder


@pytest.fixture(scope="module")
def flashed(desk):
    """A board flashed by copying the UF2 to its drive: the plan and what the node said."""
    with pytest.MonkeyPatch.context() as patch, Emulator() as board:
        def plug_in(*_):
            (uf2,) = (desk / "RPI-RP2").glob("*.uf2")
            board.load(uf2=uf2)
            board.power()
            port = board.ask("serve", usb_port=0, uart_port=0, speed=EMULATED)["usb_port"]
            return f"socket://127.0.0.1:{port}"

        patch.setattr(flash, "_wait_for_port", plug_in)
        plan, told = flash.run(flash.Options("rp2040", str(desk / "RPI-RP2")))
        board.save(desk / "flash.img")
    return plan, told


def test_the_uf2_boots_into_a_node_that_is_well(flashed):
    plan, told = flashed
    assert [region.name for region in plan.regions] == [
        "firmware", "program", "littlefs"]
    assert told["well"] and told["node"] == plan.node.number and told["model"] == "motion"
    assert told["micropython"] == "v1.25.0" and told["heap_free"] > 100_000
    assert any("8 golden windows right" in line for line in told["tests"])
    kept = provision.find(plan.node.number)
    assert kept.key == plan.node.key and len(kept.hardware) == 16  # known again by its chip


def test_mpremote_itself_gets_in(flashed, desk):
    with running(image=desk / "flash.img") as (_, port):
        done = subprocess.run([sys.executable, "-m", "mpremote", "connect", port, "exec",
                               "import node; node.status(); node.selftest(); node.log()"],
                              capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"node      {flashed[0].node.number}, woken by cold boot" in done.stdout


def test_a_second_uf2_keeps_the_ring(flashed, desk):
    region = boards.load("rp2040").flash.region("ring")
    again, _ = flash.run(flash.Options("rp2040", str(desk / "RPI-RP2"),
                                       node=flashed[0].node.number), dry=True)
    (desk / "again.uf2").write_bytes(again.uf2)
    with Emulator() as board:
        board.load(image=desk / "flash.img", parts={region.offset: b"records" * 100})
        board.load(uf2=desk / "again.uf2")
        assert board.peek(region.offset, 700) == b"records" * 100
        assert board.peek(0xA0000, 0x40000) == again.regions[2].data
    assert again.regions[2].data == flashed[0].regions[2].data  # the same node, the same bytes


def test_the_program_alone_is_replaced_until_the_next_uf2(flashed, desk):
    rp2040 = boards.load("rp2040")
    with running(image=desk / "flash.img") as (board, port):
        program.write(rp2040, port)
        with Repl(port) as repl:
            told = repl.run("import node\nfrom node import cycle\nprint(cycle.__file__)\n"
                            "print(node.selftest())").splitlines()
        board.save(desk / "programmed.img")
    assert told[0] == "/rom/node/cycle.mpy" and told[-1] == "True"
    with Emulator() as board:
        board.load(image=desk / "programmed.img", uf2=flashed[1]["uf2"])
        board.power()
        board.boot()
        assert board.execute("import node\nprint(node.__file__)") == "node/__init__.py\n"


class Wire:
    """A Repl on a board that stands still between two calls."""

    def __init__(self, board):
        self.board = board

    def reset(self):
        self.board.send(b"\r\x03\x03\x01")
        self.board._await(b"to exit\r\n>", SECOND_US)
        self.board.send(b"\x04")
        self.board._await(b"to exit\r\n>", 5 * SECOND_US)

    def run(self, code):
        return self.board.execute(code)


def test_a_program_that_was_cut_off_does_not_run(flashed, desk, monkeypatch):
    # One that tells what it is, in three sectors.
    (desk / "node.py").write_text("PROGRAM = 7\n")
    subprocess.run([unix.mpy_cross(), desk / "node.py"], check=True)
    small = image.romfs({"node/__init__.mpy": (desk / "node.mpy").read_bytes(),
                         "node/rest": bytes(range(256)) * 40})
    monkeypatch.setattr(program, "romfs", lambda board: small)
    what = "import node\nprint(getattr(node, 'PROGRAM', node.__file__))"
    with Emulator() as board:
        monkeypatch.setattr(program, "Repl", lambda *_: nullcontext(Wire(board)))
        board.load(image=desk / "flash.img")
        board.power()
        board.boot()
        before = board.status().operations
        program.write(boards.load("rp2040"), "wire")
        last = board.status().operations - before
        assert last == 3 + 48 + 1 and board.execute(what) == "7\n"
        for after, keep in ((1, 2000), (2, 3), (20, 100), (last - 1, 255), (last, 2)):
            board.cut(after, keep)
            with pytest.raises(EmulatorError, match="power"):
                program.write(boards.load("rp2040"), "wire")
            board.power(after_us=SECOND_US)
            board.boot()
            assert board.execute(what) == "node/__init__.py\n", (after, keep)


def test_profile_tells_what_it_costs(flashed, desk):
    with running(image=desk / "flash.img") as (_, port):
        one = profile.profile(port, "motion", None)
        other = profile.profile(port, None, "trees=10,depth=8,features=24")
    for got in (one, other):
        assert got["kind"] == "measured on emulator"
        assert got["arch"] == "armv6m" and got["disagreements"] == 0
        assert got["heap_peak"] >= got["heap"] > got["bytes"] / 2  # loaded, not the built-in one
        assert got["allocated"] == 0
        assert got["us"]["both"]["best"] >= got["us"]["infer"]["best"] > 0
    assert other["bytes"] > one["bytes"]


def test_a_model_is_pushed_and_lived_with(flashed, desk, tmp_path):
    text = recipe.find("motion").read_text().replace("\nversion = 1\n", "\nversion = 2\n")
    (tmp_path / "model.toml").write_text(text)
    with running(image=desk / "flash.img") as (board, port):
        with pytest.raises(OutpostError, match="refused: not newer than the model that is here"):
            push.push(port, "motion")
        done = push.push(port, str(tmp_path / "model.toml"))
        assert done.arch == "armv6m" and done.said == "motion 2 is on trial for 5 good wakes"
        with Repl(port) as repl:
            took_us, heap = map(int, repl.run(CHECK_A_SIGNATURE).split())
            assert 0 < took_us < 10 * SECOND_US and heap < 20_000
            told = repl.run("import node\nprint(node.selftest())").splitlines()
        assert any("slot_a, 8 golden windows right" in line for line in told)
        assert told[-1] == "True" and "trial" in flash_settings(board)
    print(f"a signature is checked in {took_us} us, with {heap} bytes of heap")


# What is signed does not matter for how long it takes, so long as the point can be decoded.
CHECK_A_SIGNATURE = """
import gc, time
from node import identity
gc.collect()
before = gc.mem_free()
import verify
start = time.ticks_us()
verify.check(identity.trusted() + bytes(32), identity.trusted(), bytes(1024))
took = time.ticks_diff(time.ticks_us(), start)
gc.collect()
print(took, before - gc.mem_free())
"""


def flash_settings(board):
    """Return settings.json of the file system on a board."""
    region = boards.load("rp2040").flash.region("littlefs")
    files = image.read_littlefs(board.peek(region.offset, region.size))
    return json.loads(files["settings.json"])


def test_captured_windows_become_recordings_that_train_a_model(flashed, desk, tmp_path):
    what = recipe.load(recipe.find("motion"))
    dataset = data.load(what)
    folder = tmp_path / "recordings"
    for label in dataset.classes[:2]:
        samples = np.concatenate([one.samples for one in dataset.train if one.label == label])
        (tmp_path / "motion.i16").write_bytes(samples.astype("<i2").tobytes())
        sensor = (tmp_path / "motion.i16", what.signal.rate_hz, 6, 4, 2000, 0, 3600 * SECOND_US)
        with running(image=desk / "flash.img", sensor=sensor) as (board, port):
            with Repl(port) as repl:
                repl.run(f"import node\nnode.capture({label!r}, 6)", timeout_s=120)
            got = pull.pull(port, "motion", tmp_path / "records.db", folder, clear=True)
            assert got.node == flashed[0].node.number and len(got.recordings) == 6
            assert not pull.pull(port, "motion", tmp_path / "records.db", folder).recordings
    text = recipe.find("motion").read_text()
    text = text.replace('source = "aeon:BasicMotions"', 'path = "recordings"\ntest = 0.5')
    (tmp_path / "model.toml").write_text(text.replace('name = "motion"', 'name = "mine"'))
    built = build.build(str(tmp_path / "model.toml"), out=tmp_path / "built")
    assert built.modules[0].disagreements == 0 and built.accuracy["reference"] > 0.7


def test_pull_after_a_mission_equals_what_the_gateway_stored(tmp_path):
    from outpost.emulator.mission import fly

    told = fly(1.5, seed=3, cuts=1, hangs=1, folder=tmp_path)
    assert told["lost"] == 0
    with running(image=tmp_path / "flash.img") as (_, port):
        got = pull.pull(port, "motion", tmp_path / "pulled.db", tmp_path / "recordings")

    def records(path):
        columns = schema.records.c
        with store.connect(path).connect() as db:
            return set(db.execute(schema.records.select().with_only_columns(
                columns.node, columns.lane, columns.epoch, columns.seq, columns.kind,
                columns.time_s, columns.payload)).all())

    pulled, stored = records(tmp_path / "pulled.db"), records(tmp_path / "records.db")
    assert got.records == len(pulled) > 0
    assert stored <= pulled
    # what the node recorded after its last uplink is there as well, and nothing else
    last = {(lane, epoch): seq for _, lane, epoch, seq, *_ in sorted(stored)}
    assert all(seq > last.get((lane, epoch), 0) for _, lane, epoch, seq, *_ in pulled - stored)


def test_a_folder_that_is_no_drive_is_refused(desk, tmp_path):
    with pytest.raises(OutpostError, match="not the drive of an RP2040"):
        flash.copy(tmp_path / "x.uf2", tmp_path)


def test_a_board_that_does_not_come_back_is_told_how_to_stay_the_same_node(monkeypatch):
    monkeypatch.setattr(flash, "DRIVE_S", 0)
    with pytest.raises(OutpostError, match="no serial port came up .* --node 7: it is that node"):
        flash._wait_for_port(boards.load("rp2040"), provision.Node(7, b"", "rp2040"))


def test_a_board_that_goes_away_while_it_is_copied(desk, monkeypatch, tmp_path):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(OutpostError, match="went away while .* give the same command again"):
        flash.copy(tmp_path / "x.uf2", desk / "RPI-RP2")
