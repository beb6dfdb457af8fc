"""`outpost flash` with the real esptool and mpremote, against a fake ESP32 on a pty.

The fake's program is MicroPython's unix port with a fake `machine`, on the very flash esptool has
written: what answers the self-test is the node's own bytecode, from its own file system.
"""

import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from fakes import micropython_image
from fakes.esp_rom import EspRom

from outpost import (
    boards,
    esp32,
    flash,
    image,
    package,
    profile,
    program,
    provision,
    pull,
    recipe,
    repl,
)
from outpost.console import print_json
from outpost.errors import OutpostError
from outpost.gateway import schema, store
from outpost.image import Region
from outpost.paths import BOARDS
from outpost.repl import Repl, ReplError, listen

CHIP = Path(__file__).parents[1] / "fakes/esp32/chip.py"


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """A folder with MicroPython's image and an ESP32 board that runs x64 modules."""
    folder = tmp_path_factory.mktemp("desk")
    (folder / "micropython.bin").write_bytes(micropython_image.combined())
    text = (BOARDS / "esp32.toml").read_text().replace('"xtensawin"', '"x64"')
    (folder / "fake32.toml").write_text(text)
    (folder / "wake.json").write_text(json.dumps({"reset": 1, "time_s": 1000}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(folder / "data"))
        yield folder


@contextmanager
def impatient(folder):
    """Let esptool wait for a silent chip a second, as it will have to, instead of many."""
    (folder / "esptool.cfg").write_text(
        "[esptool]\ntimeout=1\nconnect_attempts=2\nmem_end_rom_timeout=0.2\n"
        "open_port_attempts=1\nerase_write_timeout_per_mb=1\nmd5_timeout_per_mb=1\n"
        "write_block_attempts=2\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ESPTOOL_CFGFILE", str(folder / "esptool.cfg"))
        yield


@pytest.fixture(scope="module")
def provisioned(desk, micropython):
    """A fake board that has been flashed once, and what the node said then."""
    def boot(folder):
        return [str(micropython), str(CHIP), str(folder), "repl"]

    with EspRom(desk, boot=boot) as rom:
        plan, told = flash.run(options(desk, rom))
        yield rom, plan, told


def options(desk, rom, **more):
    return flash.Options(board=str(desk / "fake32.toml"), port=str(rom.port),
                         image=desk / "micropython.bin", **more)


def holds(rom, regions):
    return all(rom.flash[region.offset:region.offset + len(region.data)] == region.data
               for region in regions)


def test_flash_leaves_exactly_the_planned_bytes(provisioned):
    rom, plan, told = provisioned
    assert [region.name for region in plan.regions] == [
        "bootloader", "firmware", "littlefs", "ring", "partitions"]
    assert holds(rom, plan.regions) and not plan.keeps_ring
    assert set(rom.flash[0x9000:0x10000]) == {0xFF}  # NVS is none of our business
    assert told["node"] == plan.node.number and told["model"] == "motion"
    assert told["heap_free"] > 0 and told["battery_mv"] == 3900
    assert "model     ok   motion, 8 golden windows right" in told["tests"]
    assert provision.find(plan.node.number).key == plan.node.key
    files = image.read_littlefs(plan.regions[2].data)
    assert json.loads(files["identity.json"]) == plan.node.identity() | {
        "trust": package.signer().public.hex()}
    assert files["verify.mpy"] == package.verifier("x64")
    node = image.read_bundle(files["node.bundle"])
    assert "node/board/esp32.mpy" in node and "node/board/unix.mpy" not in node


def test_a_second_flash_keeps_ring_and_identity(provisioned, desk):
    rom, plan, _ = provisioned
    ring = plan.board.flash.region("ring")
    records = os.urandom(5000)
    rom.flash[ring.offset:ring.offset + 5000] = records
    (desk / "network.json").write_text(
        json.dumps({"ssid": "s", "password": "p", "host": "h", "port": 1, "prefix": "x"}))
    before, rom.written[:] = bytes(rom.flash[ring.offset:ring.end]), []
    again, told = flash.run(options(desk, rom, network=desk / "network.json"))
    assert again.keeps_ring and again.node == plan.node
    assert rom.flash[ring.offset:ring.end] == before and before.startswith(records)
    assert holds(rom, again.regions)
    assert rom.written and all(0x200000 <= at < 0x300000 for at, _ in rom.written)  # what changed
    files = image.read_littlefs(again.regions[2].data)
    assert sorted(json.loads(files["network.json"])) == [
        "host", "password", "port", "prefix", "ssid"]
    wiped, _ = flash.run(options(desk, rom, wipe=True))
    assert not wiped.keeps_ring and set(rom.flash[ring.offset:ring.end]) == {0xFF}


HOME = {"ssid": "s", "password": "secret", "host": "h", "port": 8883}
ALL = {"login": ["node", "secret"], "prefix": "farm",
       "address": ["10.0.0.9", "255.255.255.0", "10.0.0.1", "10.0.0.1"]}


def test_all_that_a_network_file_says_reaches_the_node(tmp_path):
    (tmp_path / "ca").mkdir()
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                    "ec_paramgen_curve:P-256", "-nodes", "-days", "9", "-subj", "/CN=ours",
                    "-keyout", tmp_path / "key", "-out", tmp_path / "ca/ours.pem"],
                   check=True, capture_output=True)
    file = tmp_path / "network.json"
    file.write_text(json.dumps(HOME | ALL | {"ca": "ca/ours.pem"}))
    found = flash._network(file)
    assert json.loads(found["network.json"]) == HOME | ALL | {"tls": True}
    assert found["ca.der"][0] == 0x30 and len(found["ca.der"]) < 1000
    (tmp_path / "ca/ours.der").write_bytes(found["ca.der"])
    file.write_text(json.dumps(HOME | {"ca": "ca/ours.der"}))
    assert flash._network(file)["ca.der"] == found["ca.der"]
    bridge = {"bridge": "0123456789ab", "channel": 6}
    file.write_text(json.dumps(bridge))
    assert json.loads(flash._network(file)["network.json"]) == bridge
    file.write_text(json.dumps(HOME))
    assert flash._network(file) == {"network.json": json.dumps(HOME).encode()}


@pytest.mark.parametrize("given", [
    [], {}, HOME | {"port": "8883"}, HOME | {"logins": []}, HOME | {"login": ["secret"]},
    HOME | {"address": [1, 2, 3, 4]}, HOME | {"ca": "missing.pem"}, HOME | {"ca": "network.json"},
    {"bridge": "0123456789ab"}, {"bridge": "a", "channel": 1}])
def test_a_network_file_that_is_wrong_is_refused_without_its_secrets(tmp_path, given):
    (tmp_path / "network.json").write_text(json.dumps(given))
    with pytest.raises(flash.FlashError) as told:
        flash._network(tmp_path / "network.json")
    assert "secret" not in str(told.value)


def test_a_dry_run_writes_nothing_and_prints_its_plan(provisioned, desk, capsys):
    rom, plan, _ = provisioned
    before, rom.written[:] = bytes(rom.flash), []
    again, told = flash.run(options(desk, rom), dry=True)
    assert rom.flash == before and rom.written == [] and told == {}
    print_json(again.json())
    shown = json.loads(capsys.readouterr().out)
    assert shown["port"] == str(rom.port) and shown["keeps_ring"]
    for region in shown["regions"]:
        assert set(region) == {"name", "offset", "size", "sha256"}
    assert plan.node.key.hex() not in json.dumps(shown)


def test_a_port_that_is_gone_when_the_node_is_asked(provisioned, monkeypatch):
    rom, plan, _ = provisioned
    with monkeypatch.context() as patch:
        patch.setattr(flash, "BOOT_S", 1)
        rom.plan("vanish", "PROGRAM", 1)
        with pytest.raises(OutpostError, match="ttyFAKE.*outpost repl --wait"):
            flash.ask(str(rom.port), plan.node)
    rom.replug()
    assert flash.ask(str(rom.port), plan.node)["node"] == plan.node.number


def test_another_node_on_the_port_is_not_mistaken(provisioned):
    rom, plan, _ = provisioned
    other = provision.Node(plan.node.number + 1, b"", "esp32")
    with pytest.raises(OutpostError, match="is there another board on this port"):
        flash.ask(str(rom.port), other)


def test_the_repl_tells_tracebacks_and_silence(provisioned):
    rom, *_ = provisioned
    with Repl(str(rom.port)) as repl:
        assert repl.run("print(6 * 7)") == "42\n"
        with pytest.raises(ReplError, match="ZeroDivisionError"):
            repl.run("1 / 0")
    rom.plan("mute", "PROGRAM", 1)
    with pytest.raises(ReplError, match=r"nothing .* \(tried for 1 s\).*repl --wait"):
        Repl(str(rom.port), 1)
    rom.plan()
    with pytest.raises(ReplError, match="/dev/nowhere: there is no such port"):
        Repl("/dev/nowhere", 0)


def test_a_node_is_caught_when_it_comes(provisioned):
    rom, *_ = provisioned
    rom.unplug()
    heard = []

    def plug_in(words):
        heard.append(words)
        rom.replug()

    with Repl(str(rom.port), 60, plug_in) as repl:
        assert repl.run("print(1)") == "1\n"
    assert len(heard) == 1 and "waiting for the node" in heard[0]


def test_monitor_hears_and_does_not_disturb(tmp_path):
    with EspRom(tmp_path) as rom:
        heard = threading.Event()

        def talk():
            while not heard.wait(0.1):
                rom.say(b"hello")

        with ThreadPoolExecutor() as pool:
            pool.submit(talk)
            said = next(listen(str(rom.port), 60), b"nothing")
            heard.set()
        assert said in b"hellohello"
        assert not rom.seen


# --- every fault of the loader ---

SMALL = [Region("partitions", 0x8000, bytes(range(256)) * 12),
         Region("littlefs", 0x200000, os.urandom(9000))]
AGAIN = "it carries on from there"
ANSWERS, SILENT = "nothing on .* answers", "fell silent"
ANY = "went away|garbles|nothing on|can't be opened|fell silent"
FAULTS = [
    ("mute", "SYNC", 1, ANSWERS), ("mute", "MEM_DATA", 1, None), ("mute", "MD5", 1, SILENT),
    ("mute", "FLASH_DATA", 1, SILENT),
    ("vanish", "SYNC", 1, None), ("vanish", "READ_REG", 3, None), ("vanish", "MEM_DATA", 2, None),
    ("vanish", "CHANGE_BAUD", 1, None), ("vanish", "MD5", 1, None), ("vanish", "MD5", 4, None),
    ("vanish", "FLASH_DATA", 1, None), ("vanish", "DEFL_DATA", 1, None),
    ("cell", "FLASH_DATA", 1, "the flash does not hold what was written"),
]


def write(rom, **more):
    esp32.Chip("ESP32", str(rom.port), **more).write(SMALL)


@pytest.mark.parametrize("what, at, nth, words", FAULTS, ids=lambda value: str(value))
def test_a_fault_is_told_and_the_next_run_repairs_it(desk, tmp_path, what, at, nth, words):
    with EspRom(tmp_path) as rom:
        rom.plan(what, at, nth)
        # no words of ANY are those of a run that had to be stopped
        with impatient(tmp_path), pytest.raises(esp32.Esp32Error, match=words or ANY) as told:
            write(rom)
        assert AGAIN in str(told.value) and "Traceback" not in str(told.value)
        rom.replug()
        write(rom)
        assert holds(rom, SMALL)


@pytest.mark.parametrize("what, at", [
    ("flip", "SYNC"), ("garble", "MEM_DATA"), ("drop", "MD5"), ("eat", "DEFL_DATA"),
    ("drop", "DEFL_DATA"), ("garble", "FLASH_DATA")])
def test_noise_on_the_line_is_survived_or_told(desk, tmp_path, what, at):
    with EspRom(tmp_path) as rom:
        rom.plan(what, at, 1)
        try:
            with impatient(tmp_path):
                write(rom)
        except esp32.Esp32Error as error:
            assert AGAIN in str(error)
            rom.plan()
            write(rom)
        assert holds(rom, SMALL)


def test_what_reads_back_otherwise_is_told(desk, tmp_path):
    with EspRom(tmp_path) as rom:
        write(rom)
        chip = esp32.Chip("ESP32", str(rom.port))
        chip.verify(SMALL)
        rom.flash[0x200000 + 5000] ^= 1
        with pytest.raises(esp32.Esp32Error, match="reading back: the flash does not hold"):
            chip.verify(SMALL)
        rom.plan("vanish", "MD5", 1)
        with pytest.raises(esp32.Esp32Error, match=f"^reading back: .*{AGAIN}"):
            chip.verify(SMALL)


def test_without_the_stub_the_same_bytes_arrive(desk, tmp_path):
    with EspRom(tmp_path, stub=False) as rom:
        write(rom, stub=False)
        assert holds(rom, SMALL) and "MEM_BEGIN" not in rom.seen


@pytest.mark.parametrize("chip", ["esp32s2", "esp32c3"])
def test_another_chip_is_told_and_left_alone(desk, tmp_path, chip):
    with EspRom(tmp_path, chip=chip) as rom:
        with pytest.raises(esp32.Esp32Error, match="the chip on .* is|answers as an ESP32"):
            write(rom)
        assert rom.written == []


def test_what_was_written_before_the_cable_came_out_is_not_written_again(desk, tmp_path):
    big = [Region("firmware", 0x10000, os.urandom(3 * esp32.PIECE))]
    with EspRom(tmp_path) as rom:
        chip = esp32.Chip("ESP32", str(rom.port))
        rom.plan("vanish", "FLASH_BEGIN", 3)
        with pytest.raises(esp32.Esp32Error, match=AGAIN):
            chip.write(big)
        rom.replug()
        rom.written.clear()
        chip.write(big)
        assert {(at - 0x10000) // esp32.PIECE for at, _ in rom.written} == {2}
        assert holds(rom, big)


def test_esptool_that_never_ends_is_stopped():
    code, lines = esp32.run_limited(
        ["sh", "-c", "echo so far; exec sleep 60"], 2,
        dict(os.environ), lambda line: None)
    assert code is None and lines == ["so far"]


def test_erase_leaves_nothing(desk, tmp_path):
    with EspRom(tmp_path) as rom:
        rom.flash[:1000] = bytes(1000)
        flash.erase(boards.load("esp32"), str(rom.port))
        assert set(rom.flash) == {0xFF}


def test_no_such_port_is_one_plain_sentence_and_exit_code_1(desk):
    done = subprocess.run(
        [Path(sys.executable).with_name("outpost"), "flash", "--board", "esp32", "--port",
         "/dev/nowhere", "--firmware", desk / "micropython.bin"], capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "/dev/nowhere can't be opened: is the cable in" in done.stderr


# --- what a node holds ---

APPEND = """
from node import board, debug
box = debug.mount(board.here())
for i in range(120):
    box.put(i % 4, 1 + i % 3, 5000 + i * 7, bytes(range(i)))
box.lanes[1].acknowledge(10)
"""


def test_pull_takes_every_record_once_and_leaves_the_ring_as_it_is(provisioned, tmp_path):
    rom, plan, _ = provisioned
    with Repl(str(rom.port)) as repl:
        repl.run(APPEND)
    ring = plan.board.flash.region("ring")
    before = [bytes(rom.flash[ring.offset:ring.end])]
    for _ in range(2):
        got = pull.pull(str(rom.port), "motion", tmp_path / "records.db", tmp_path / "recordings")
        assert (got.node, got.records, got.recordings) == (plan.node.number, 120, [])
        before.append(bytes(rom.flash[ring.offset:ring.end]))
    with store.connect(tmp_path / "records.db").connect() as db:
        rows = db.execute(schema.records.select()).all()
    assert {(row.lane, row.seq, row.kind, row.time_s, row.payload) for row in rows} == {
        (i % 4, i // 4 + 1, 1 + i % 3, 5000 + i * 7, bytes(range(i))) for i in range(120)}
    assert len(rows) == 120
    assert {row.node for row in rows} == {plan.node.number}
    assert all(len(set(seen)) == 1 for seen in zip(
        *(image_records(plan.board, disk) for disk in before), strict=True))


def image_records(board, disk):
    """Return the records of a ring's bytes, lane by lane."""
    from outpost.device import ring

    disk = bytearray(disk)

    class Device:
        def readblocks(self, block, buf, offset=0):
            buf[:] = disk[block * 4096 + offset:block * 4096 + offset + len(buf)]

        def writeblocks(self, block, buf, offset=0):
            for at, byte in enumerate(buf, block * 4096 + offset):
                disk[at] &= byte

        def ioctl(self, operation, block):
            disk[block * 4096:(block + 1) * 4096] = b"\xff" * 4096

    first, found = 0, []
    for lane, name in enumerate(("alert", "event", "telemetry", "diagnostic")):
        one = ring.Ring(Device(), first, board.lanes[name], lane)
        one.mount()
        found.append(tuple((seq, kind, bytes(payload)) for seq, kind, _, payload in one.records()))
        first += board.lanes[name]
    return found


def test_a_captured_window_becomes_a_recording_in_the_units_of_the_model(tmp_path):
    what = recipe.load(recipe.find("motion"))
    window = (np.arange(what.signal.window * 6) * 37 - 6000).astype("<i2")
    path = pull.save_window("walk_5000_0", window.tobytes(), what, tmp_path)
    assert path.name == "walk_5000_0.csv"
    head, *rows = path.read_text().split()
    assert head == "time_ms," + ",".join(what.signal.names)
    values = np.array([[float(value) for value in row.split(",")] for row in rows])
    counts = values[:, 1:] * [channel.counts for channel in what.signal.channels]
    assert (np.rint(counts) == window.reshape(-1, 6)).all()
    assert np.allclose(np.diff(values[:, 0]), 1e3 / what.signal.rate_hz)
    with pytest.raises(pull.PullError, match="383 values, where motion has windows of 64 × 6"):
        pull.save_window("walk_5000_1", window[1:].tobytes(), what, tmp_path)


def test_profile_finds_a_module_that_answers_wrongly(provisioned, monkeypatch):
    rom, *_ = provisioned
    got = profile.profile(str(rom.port), "motion", None)
    assert got["disagreements"] == 0 and got["arch"] == "x64" and got["windows"] == 8
    truth = profile.of_model

    def lie(model, arch):
        subject = truth(model, arch)
        features, votes, answer = subject.expected[3]
        subject.expected[3] = (features, votes[::-1], answer)
        return subject

    monkeypatch.setattr(profile, "of_model", lie)
    assert profile.profile(str(rom.port), "motion", None)["disagreements"] == 1


@pytest.mark.parametrize("shape", ["trees=0", "depth=99", "leaves=3", "trees", "trees=x"])
def test_a_shape_that_makes_no_sense_is_refused(shape):
    with pytest.raises(profile.ProfileError, match="allowed: trees=1..255, depth=1..20"):
        profile.parse_shape(shape)


# --- which port ---


@pytest.mark.parametrize("attached, words", [
    ([], "no board with ESP32 on any serial port"),
    ([("/dev/ttyS0", None), ("/dev/ttyACM0", 0x2E8A)], "no board with ESP32"),
    ([("/dev/ttyUSB0", 0x10C4), ("/dev/ttyUSB1", 0x1A86)], "2 boards .*ttyUSB0, /dev/ttyUSB1"),
    ([("/dev/ttyS0", None), ("/dev/ttyUSB1", 0x1A86)], None)])
def test_the_port_is_found_if_there_is_one_board(monkeypatch, attached, words):
    monkeypatch.setattr(repl.list_ports, "comports", lambda: [
        SimpleNamespace(device=device, vid=vendor) for device, vendor in attached])
    if words is None:
        assert repl.find_port_of("esp32") == "/dev/ttyUSB1"
    else:
        with pytest.raises(ReplError, match=words):
            repl.find_port_of("esp32")


def test_a_board_without_room_for_a_program_is_flashed_whole():
    with pytest.raises(OutpostError, match=r"among its files: .* outpost flash --board esp32$"):
        program.write(boards.load("esp32"))


def test_other_firmware_has_no_place_for_a_program(monkeypatch, on_micropython):
    # a board with MicroPython as it is released; the unix port has no ROMFS of its own
    other = SimpleNamespace(reset=lambda: None, run=on_micropython)
    monkeypatch.setattr(program, "Repl", lambda *_: nullcontext(other))
    with pytest.raises(OutpostError, match=r"COM7: its firmware has no place for a program, .* "
                                           r"outpost flash --board rp2040$"):
        program.write(boards.load("rp2040"), "COM7")
