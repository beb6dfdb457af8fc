"""board/esp32.py: against the port's stubs, and through whole wakes on a fake of the port.

The fake is tests/fakes/esp32: MicroPython's unix port with `machine`, `esp32` and `network` that
behave as the port documents. One process is one wake; RTC memory and flash outlive it.
"""

import json
import subprocess
from pathlib import Path

import pytest
from gateways import enrolled, gateway

from outpost import boards, build, flash, image, power, provision
from outpost.device import energy, latency, modes, outbox, record, ring, state
from outpost.gateway import schema, store
from outpost.paths import BOARDS, FIRMWARE
from outpost.toolchain import stubs

CHIP = Path(__file__).parents[1] / "fakes/esp32/chip.py"
PWRON, HARD, WDT, DEEPSLEEP = 1, 2, 3, 4
EXT1, TIMER = 3, 4
CAUSE_REGISTER = "0x3ff48034"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A fake ESP32's flash with a node in it, and the model it carries."""
    folder = tmp_path_factory.mktemp("built")
    (folder / "fake32.toml").write_text(
        (BOARDS / "esp32.toml").read_text().replace('"xtensawin"', '"x64"'))
    board = boards.load(str(folder / "fake32.toml"))
    node = provision.Node(77, bytes(range(32)), "esp32")
    disk = bytearray(b"\xff" * (4 << 20))
    disk[0x8000:0x8C00] = image.partition_table(board)
    disk[0x200000:0x300000] = flash.files(board, "motion", node, None)
    meta = json.loads((build.build("motion").folder / "model.json").read_text())
    return board, bytes(disk), meta


class Chip:
    """One chip: `wake(...)` lives one wake and returns what it left in slept.json."""

    def __init__(self, folder, micropython, disk):
        self.folder, self.micropython = folder, micropython
        (folder / "flash.bin").write_bytes(disk)

    def wake(self, reset=DEEPSLEEP, time_s=1000, **more):
        (self.folder / "slept.json").unlink(missing_ok=True)
        (self.folder / "wake.json").write_text(json.dumps(
            {"reset": reset, "wake": TIMER, "time_s": time_s, **more}))
        done = subprocess.run([self.micropython, CHIP, self.folder], stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=60)
        self.said = done.stdout + done.stderr
        assert done.returncode == 0, self.said
        try:
            return json.loads((self.folder / "slept.json").read_text())
        except FileNotFoundError:
            return None

    def put(self, board, name, content):
        """Add a file to the node's file system."""
        path, where = self.folder / "flash.bin", board.flash.region("littlefs")
        disk = bytearray(path.read_bytes())
        files = image.read_littlefs(bytes(disk[where.offset:where.end]))
        disk[where.offset:where.end] = image.littlefs({**files, name: content}, where.size)
        path.write_bytes(disk)

    def state(self):
        kept = state.State()
        assert kept.load((self.folder / "rtc.bin").read_bytes()[:-1])  # the board's own byte
        return kept

    def records(self, board):
        disk = (self.folder / "flash.bin").read_bytes()
        part, first = board.flash.region("ring"), 0
        found = []
        for lane, name in enumerate(("alert", "event", "telemetry", "diagnostic")):
            one = ring.Ring(Device(disk[part.offset:part.end]), first, board.lanes[name], lane)
            one.mount()
            found += [(lane, kind, bytes(payload)) for _, kind, _, payload in one.records()]
            first += board.lanes[name]
        return found


class Device:
    """Flash to read from; what a mount programs is forgotten."""

    def __init__(self, data):
        self.data = bytearray(data)

    def readblocks(self, block, buf, offset=0):
        at = block * 4096 + offset
        buf[:] = self.data[at:at + len(buf)]

    def writeblocks(self, block, buf, offset=0):
        pass

    def ioctl(self, operation, argument):
        return 0


@pytest.fixture
def chip(built, micropython, tmp_path):
    return Chip(tmp_path, micropython, built[1])


def play(chip, golden):
    (chip.folder / "recording.bin").write_bytes(bytes.fromhex(golden["window"]))


@pytest.mark.parametrize("name", ["esp32", "wifi"])
def test_every_call_fits_the_ports_stubs(name):
    assert stubs.check(FIRMWARE / f"node/board/{name}.py") == []


def test_the_stubs_find_a_wrong_call(tmp_path):
    text = (FIRMWARE / "node/board/esp32.py").read_text()
    wrong = tmp_path / "wrong.py"
    wrong.write_text(text.replace("machine.deepsleep(ms)", "machine.deep_sleep(ms)")
                     .replace("freq=400000", "speed=400000"))
    told = "\n".join(stubs.check(wrong))
    assert "deep_sleep" in told and "speed" in told


def test_a_wake_ends_in_deep_sleep_with_all_that_must_be_kept(chip, built):
    play(chip, built[2]["golden"][0])
    slept = chip.wake(PWRON, time_s=1000)
    assert 180_000 < slept["slept_ms"] < 200_000  # to 1200 s, less what it was awake
    assert slept["ext1"] == [[27], True] and slept["radio"] is False
    assert ["wdt", 120000] in slept["events"] and ["feed"] in slept["events"]
    assert 0 < len((chip.folder / "rtc.bin").read_bytes()) <= 2048
    assert chip.state().wakes == 1


def test_decisions_are_the_golden_windows(chip, built):
    wakes = built[2]["golden"][:4]
    for number, golden in enumerate(wakes):
        play(chip, golden)
        chip.wake(DEEPSLEEP if number else PWRON, time_s=1000 + 300 * number)
        assert chip.state().decision == golden["class"]
    assert chip.state().wakes == len(wakes)


def test_what_was_gathered_is_on_flash_before_memory_can_lose_it(chip, built):
    play(chip, built[2]["golden"][0])
    for number in range(12):
        chip.wake(DEEPSLEEP if number else PWRON, time_s=1000 + 300 * number)
    lanes = [lane for lane, kind, _ in chip.records(built[0]) if kind == record.DECISION]
    assert lanes and set(lanes) == {outbox.TELEMETRY}


@pytest.mark.parametrize("given, cause", [
    ({"reset": PWRON}, 0), ({"reset": HARD}, 0), ({"reset": DEEPSLEEP, "wake": TIMER}, 1),
    ({"reset": DEEPSLEEP, "wake": EXT1}, 2), ({"reset": WDT}, 3),
    ({"reset": PWRON, "mem32": {CAUSE_REGISTER: 0x0C}}, 4),
    ({"reset": PWRON, "mem32": {CAUSE_REGISTER: 0x41}}, 0)])
def test_why_it_woke(chip, given, cause):
    chip.wake(**given)
    assert chip.state().causes == [int(number == cause) for number in range(5)]


def test_a_silent_sensor_is_an_alert_and_the_node_sleeps(chip, built):
    assert chip.wake(PWRON)
    found = chip.records(built[0])
    assert (outbox.ALERT, record.EVENT, bytes((record.SENSOR_SILENT, 19, 1))) in found


def test_an_event_pin_that_stays_high_does_not_wake_it_again_at_once(chip):
    assert chip.wake(DEEPSLEEP, wake=EXT1, pins={"27": 1})["ext1"] is None


def test_a_low_awake_pin_keeps_it_awake(chip):
    assert chip.wake(DEEPSLEEP, pins={"0": 0}) is None
    assert not (chip.folder / "rtc.bin").exists()


def test_phase_pins_are_high_in_their_stages_if_asked_for(built, tmp_path, micropython, chip):
    board, disk, _ = built
    assert chip.wake(PWRON)["driven"] == []
    profiled = bytearray(disk)
    profiled[0x200000:0x300000] = flash.files(board, "motion", provision.Node(
        77, bytes(range(32)), "esp32"), None, phases=True)
    (tmp_path / "profiled").mkdir()
    driven = Chip(tmp_path / "profiled", micropython, bytes(profiled)).wake(PWRON)["driven"]
    pins = board.pins["phase"]
    # the sensor is silent here, so what follows capture is left out
    assert driven[:4] == [[pins["boot"], 1], [pins["boot"], 0],
                          [pins["capture"], 1], [pins["capture"], 0]]
    assert [pins["store"], 1] in driven
    assert [level for _, level in driven] == [1, 0] * (len(driven) // 2)
    assert all(a[0] == b[0] for a, b in zip(driven[::2], driven[1::2], strict=True))


HOME = {"ssid": "home", "bssid": "a0b1c2d3e4f5", "channel": 6, "rssi": -60}
FAR = HOME | {"bssid": "0102030405ff", "channel": 11, "rssi": -80}
OTHER = {"ssid": "other", "bssid": "111111111111", "channel": 1, "rssi": -10}


def network(chip, board, port=9, **more):
    chip.put(board, "network.json", json.dumps(
        {"ssid": "home", "password": "x", "host": "127.0.0.1", "port": port, **more}).encode())


def test_records_go_home_over_wifi_and_the_radio_goes_off(chip, built, tmp_path):
    database = enrolled(tmp_path / "gateway.db", {77: bytes(range(32))})
    with gateway(database) as broker:
        network(chip, built[0], broker.port, address=["10.0.0.9", "255.0.0.0", "10.0.0.1",
                                                      "10.0.0.1"])
        play(chip, built[2]["golden"][0])
        slept = chip.wake(PWRON, access_points=[OTHER, FAR, HOME])
    events = [event for event in slept["events"] if event[0] in ("address", "scan", "channel",
                                                                 "join")]
    assert events == [["address", ["10.0.0.9", "255.0.0.0", "10.0.0.1", "10.0.0.1"]], ["scan"],
                      ["channel", 6], ["join", "home", HOME["bssid"]]]
    assert slept["radio"] is False
    with store.connect(database).connect() as db:
        rows = db.execute(schema.records.select()).all()
        beat = json.loads(db.execute(schema.status.select()).one().items)
    assert {row.node for row in rows} == {77}
    assert {record.DECISION, record.STATE} <= {row.kind for row in rows}
    assert beat["battery_mv"] == 3900 and beat["wakes_by_cause"] == {"0": 1}


def test_an_access_point_is_looked_for_once(chip, built):
    network(chip, built[0])
    days = iter(range(1, 100))

    def joined(**what):
        events = chip.wake(PWRON, time_s=86400 * next(days), **what)["events"]
        return [event[0] for event in events if event[0] in ("scan", "join")], [
            event[2] for event in events if event[0] == "join"]

    assert joined(access_points=[FAR]) == (["scan", "join"], [FAR["bssid"]])
    assert joined(access_points=[HOME, FAR]) == (["join"], [FAR["bssid"]])
    assert joined(access_points=[HOME]) == (["join"], [FAR["bssid"]])  # it is gone
    assert joined(access_points=[HOME]) == (["scan", "join"], [HOME["bssid"]])
    assert joined(access_points=[HOME]) == (["join"], [HOME["bssid"]])
    assert joined(access_points=[]) == (["join"], [HOME["bssid"]])
    assert joined(access_points=[OTHER]) == (["scan"], [])


@pytest.mark.parametrize("points", [[], [OTHER], [HOME | {"refuses": True}],
                                    [HOME | {"slow": True}]])
def test_without_an_access_point_the_radio_goes_off_and_nothing_is_lost(chip, built, points):
    network(chip, built[0])
    play(chip, built[2]["golden"][0])
    slept = chip.wake(PWRON, access_points=points)
    assert slept["radio"] is False and slept["slept_ms"] > 0
    assert any(kind == record.STATE for _, kind, _ in chip.records(built[0]))


LEFT_ON = b"""
from node.board.esp32 import Board
import network
board = Board()
board.power = {}
network.WLAN(network.WLAN.IF_AP).active(True)  # whoever put it on
try:
    board.link()
except OSError:  # nobody is at that address
    pass
network.WLAN(network.WLAN.IF_STA).active(True)
board.retain(b"kept")
board.sleep(1000, True)
"""


def test_it_cannot_sleep_with_the_radio_on(chip, built):
    network(chip, built[0])
    chip.put(built[0], "main.py", LEFT_ON)
    slept = chip.wake(access_points=[HOME])
    assert slept["radio"] is False and slept["slept_ms"] == 1000
    assert ["join", "home", HOME["bssid"]] in slept["events"]


def test_it_waits_for_samples_in_light_sleep_and_charges_what_the_board_file_says(chip, built):
    play(chip, built[2]["golden"][0])
    chip.wake(PWRON)
    slept = chip.wake(DEEPSLEEP, time_s=1300)
    naps = sum(ms for what, *more in slept["events"] if what == "lightsleep" for ms in more)
    window_ms = 64 * 80
    assert window_ms <= naps < 2 * window_ms  # the fake's sensor is slow to fill its FIFO
    spent, told = chip.state().energy, power.figures(built[0], power.battery())["power"]
    boot, capture = spent.today[latency.BOOT], spent.today[latency.CAPTURE]
    # both boots; of the second also what passes before the port's clock begins
    assert boot > told["boot_us"] * told["boot_uw"] // 1000
    dozed = naps * (told["doze_uw"] + told["sensor_uw"])
    assert 2 * dozed <= capture < 2 * dozed + 2_000_000 * told["active_uw"] // 1000
    assert spent.today[energy.SLEEP] > 0
    assert 290 < spent.today[energy.LEAK] // told["leak_nw"] <= 300
    assert spent.left_nj < told_full(built[0]) and chip.state().modes.mode == 0


def told_full(board):
    return power.figures(board, power.battery())["battery"]["capacity_mj"] * 1_000_000


def test_resets_in_a_row_are_counted_through_the_watchdog_and_end_in_safe(chip, built):
    """Nothing is retained by a wake that hangs, but how many there were."""
    play(chip, built[2]["golden"][0])
    chip.wake(PWRON)
    whole = (chip.folder / "rtc.bin").read_bytes()
    chip.put(built[0], "main.py", b"from node.board.esp32 import Board; board = Board()")
    for number in range(1, 5):
        assert chip.wake(WDT) is None  # the prompt stands for a hang
        assert (chip.folder / "rtc.bin").read_bytes() == whole[:-1] + bytes((number,))
    chip.put(built[0], "main.py", (FIRMWARE / "main.py").read_bytes())
    slept = chip.wake(WDT, time_s=2000)
    assert chip.state().modes.mode == modes.SAFE and slept["ext1"] is None
    assert not any(event[0] == "i2c" for event in slept["events"])
    assert (chip.folder / "rtc.bin").read_bytes()[-1] == 0


def test_the_deadline_ends_the_wait_for_an_access_point(chip, built):
    network(chip, built[0])
    play(chip, built[2]["golden"][0])
    where = built[0].flash.region("littlefs")
    disk = (chip.folder / "flash.bin").read_bytes()
    settings = json.loads(image.read_littlefs(disk[where.offset:where.end])["settings.json"])
    chip.put(built[0], "settings.json", json.dumps(settings | {"awake_ms": 12000}).encode())
    slept = chip.wake(DEEPSLEEP, access_points=[HOME | {"slow": True}])
    assert slept["radio"] is False and chip.state().misses == 1
    late = bytes((record.DEADLINE_MISSED, latency.UPLINK, 1))
    assert (outbox.EVENT, record.EVENT, late) in chip.records(built[0])
    assert chip.state().latency.longest_us[latency.AWAKE] < 14_000_000
