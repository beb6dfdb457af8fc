"""Board files: all that ship are consistent, and what is wrong is refused with file and key."""

import json
import re
from pathlib import Path

import pytest
import tomlkit
from typer.testing import CliRunner

from outpost import boards
from outpost.boards import BoardError, Figure
from outpost.cli import app
from outpost.device import latency, ring
from outpost.paths import BOARDS, ROOT

NAMES = boards.names()


@pytest.fixture(params=NAMES)
def board(request: pytest.FixtureRequest) -> boards.Board:
    return boards.load(request.param)


@pytest.fixture
def change(tmp_path: Path):
    """Write a board file with one value changed (or, None, taken away); return its path."""

    def write(key: str, value: object, name: str = "esp32") -> Path:
        document = tomlkit.parse((BOARDS / f"{name}.toml").read_text())
        *tables, last = key.split(".")
        table = document
        for part in tables:
            table = table[part]
        if value is None:
            del table[last]
        else:
            table[last] = value
        file = tmp_path / f"{name}.toml"
        file.write_text(tomlkit.dumps(document))
        return file

    return write


# --- what ships ---


def test_the_four_boards_are_there():
    assert NAMES == ["esp32", "esp32c3", "esp32s3", "rp2040"]


def test_every_figure_has_a_kind_and_a_source(board):
    figures = dict(board.figures())
    assert len(figures) > 40
    for key, figure in figures.items():
        assert figure.kind in boards.KINDS, key
        assert len(figure.source) > 10, key


def test_an_emulator_measures_no_board_but_its_own(board):
    kinds = {figure.kind for _, figure in board.figures()}
    assert board.name == "rp2040" or "measured on emulator" not in kinds


def test_stages_are_those_of_the_nodes_stopwatch(board):
    names = {name.lower() for name in vars(latency) if re.fullmatch("[A-Z]+", name)}
    assert set(boards.STAGES) <= names
    assert [getattr(latency, stage.upper()) for stage in boards.STAGES] == list(range(7))
    assert tuple(board.costs) == boards.STAGES


def test_links_cost_power_and_time(board):
    assert set(board.power["radio"]) == set(board.costs["uplink"])
    for radio in board.power["radio"].values():
        assert radio["peak"].to("uA") >= radio["session"].to("uA")


def test_states_are_ordered_as_physics_has_it(board):
    power = board.power
    assert power["deep_sleep"].to("uA") <= power["light_sleep"].to("uA") < power["active"].to("uA")
    sensor = board.power["sensor"]
    assert sensor["off"].to("uA") < sensor["watch"].to("uA") < sensor["on"].to("uA")


def test_lanes_use_the_whole_ring(board):
    sector = int(board.flash.sector.to("B"))
    assert sum(board.lanes.values()) == board.flash.region("ring").size // sector
    assert 3 <= sum(board.lanes.values()) <= 4096


def test_the_rp2040_map_is_the_one_its_firmware_is_built_with():
    header = (BOARDS / "rp2040" / "mpconfigboard.h").read_text()
    storage = int(re.search(r"FLASH_STORAGE_BYTES\s+\((\d+) \* 1024\)", header)[1]) * 1024
    flash = boards.load("rp2040").flash
    assert flash.region("littlefs").offset == flash.size.to("B") - storage
    assert flash.region("ring").end == flash.size.to("B")


def test_batteries_rise_from_empty_to_full():
    found = boards.batteries()
    assert set(found) == {"li-ion-18650", "lifepo4-18650", "alkaline-2aa", "lisocl2-er14505"}
    for battery in found.values():
        percents, volts = zip(*battery.curve, strict=True)
        assert (percents[0], percents[-1]) == (0, 100)
        assert list(percents) == sorted(set(percents)) and list(volts) == sorted(set(volts))
        assert volts[0] < battery.nominal.to("mV") < volts[-1]


# --- what is refused ---


@pytest.mark.parametrize(("key", "value", "told"), [
    ("power.active", {"value": 1, "unit": "mA", "kind": "cited"}, "power.active has no source"),
    ("power.active", {"value": 1, "unit": "mA", "kind": "cited", "source": ""}, "no source"),
    ("power.active", {"value": 1, "unit": "mA", "source": "x"}, "power.active has no kind"),
    ("power.active", {"unit": "mA", "kind": "cited", "source": "x"}, "power.active has no value"),
    ("power.active", 36, "power.active is 36; a figure is written { value"),
    ("power.active.kind", "guessed", "power.active.kind is 'guessed'; allowed: cited, modelled"),
    ("power.active.unit", "ms", "power.active.unit is 'ms'; allowed: nA, uA, mA"),
    ("power.active.value", "36", "power.active.value is '36'; it must be a number"),
    ("power.active.value", -1, "not negative"),
    ("power.active.typical", 1, "power.active.typical is unknown"),
    ("costs.pre.value.unit", "ns/page", "costs.pre.value.unit is 'ns/page'"),
    ("power.aktive", 1, "power.aktive is unknown; did you mean 'active'?"),
    ("power.active", None, "power.active is missing"),
    ("costs.infer", None, "costs.infer is missing"),
    ("costs.think", {}, "costs.think is unknown"),
    ("chip.architecture", "avr", "chip.architecture is 'avr'; allowed: x64, armv6m"),
    ("chip.name", 32, "chip.name is 32; it must be a string"),
    ("pins.sda", 2.5, "pins.sda is 2.5; it must be a whole number"),
    ("pins.sda", 22, "pins.scl is GPIO 22, and so is pins.sda"),
    ("pins.phase.boot", 21, "pins.phase.boot is GPIO 21, and so is pins.sda"),
    ("pins.sda", 6, "pins.sda is GPIO 6, which is not free on ESP32-WROOM-32E"),
    ("pins.event", 5, "pins.event is GPIO 5; chip.wake_pins are 0, 2"),
    ("pins.battery", 5, "pins.battery is GPIO 5; chip.adc_pins are 32, 33"),
    ("flash.region.ring", None, "flash.region has no 'ring'"),
    ("flash.region.ring.offset", 0x280000, "ring begins at 0x280000, inside littlefs"),
    ("flash.region.ring.offset", 0x380000, "ends at 0x480000, the flash at 0x400000"),
    ("flash.region.ring.offset", 0x300100, "flash.region.ring: 0x300100 + 0x100000 is not on"),
    ("flash.region.ring.size", 0, "flash.region.ring: offset 3145728, size 0"),
    ("lanes.telemetry", 177, "lanes take 257 sectors, the ring has 256"),
    ("lanes.alert", 2, "lanes.alert is 2; a ring needs at least 3"),
])
def test_refused_with_file_and_key(change, key, value, told):
    file = change(key, value)
    with pytest.raises(BoardError) as error:
        boards.load(str(file))
    assert str(error.value).startswith(f"{file}: ")
    assert told in str(error.value)


@pytest.mark.parametrize(("curve", "told"), [
    ([[0, 3000], [50, 2900], [100, 4200]], "curve must rise: [50, 2900] follows [0, 3000]"),
    ([[0, 3000], [0, 3100], [100, 4200]], "curve must rise: [0, 3100]"),
    ([[5, 3000], [100, 4200]], "curve must go from 0 to 100 %"),
    ([[0, 3000], [100]], "curve.value must be a list of pairs"),
])
def test_a_curve_that_cannot_be(change, curve, told):
    file = change("li-ion-18650.curve.value", curve, "batteries")
    with pytest.raises(BoardError, match=re.escape(told)):
        boards.batteries(file)


def test_what_is_no_board(tmp_path):
    with pytest.raises(BoardError, match="no board 'esp23'; did you mean 'esp32'?"):
        boards.load("esp23")
    with pytest.raises(BoardError, match="no board 'batteries'"):
        boards.load("batteries")
    broken = tmp_path / "mine.toml"
    broken.write_text("[chip\n")
    with pytest.raises(BoardError, match="mine.toml: not TOML"):
        boards.load(str(broken))


# --- using it ---


def test_figures_convert_and_read_well():
    figure = Figure(1500, "us", "cited", "a clock", "page")
    assert figure.to("ms") == 1.5 and figure.to("ns") == 1_500_000
    assert str(figure) == "1,500 µs/page"
    with pytest.raises(ValueError, match="us is not to be had in mA"):
        figure.to("mA")
    assert Figure(4, "MiB", "cited", "a chip").to("KiB") == 4096


def test_a_stages_time_is_the_sum_of_its_costs():
    board = boards.load("esp32")
    store = board.costs["store"]
    expected = (2 * store["program_page"].to("us") + 100 * store["read_byte"].to("us")
                + 100 * store["program_byte"].to("us") + store["erase_sector"].to("us"))
    assert board.stage_us("store", page=2, sector=1, B=100) == pytest.approx(expected)
    assert board.stage_us("boot") == sum(one.to("us") for one in board.costs["boot"].values())
    wifi = board.costs["uplink"]["wifi"]
    assert board.stage_us("uplink.wifi") == wifi["session"].to("us")


def test_sleep_that_keeps_ram_saves_the_boot():
    boot = boards.load("rp2040").costs["boot"]
    per = {name: one.per for name, one in boot.items()}
    assert per.pop("resume") == "" and set(per.values()) == {"reset"}
    board = boards.load("rp2040")
    assert board.stage_us("boot") == boot["resume"].to("us")
    assert board.stage_us("boot", reset=1) > 4 * board.stage_us("boot")


def test_set_figure_changes_one_figure_and_nothing_else(change):
    file = change("chip.name", "ESP32")
    before = file.read_text().splitlines()
    boards.set_figure(file, "costs.boot.reset", 61234, "measured on hardware", 'PPK2, "board 7"')
    after = file.read_text().splitlines()
    changed = [pair for pair in zip(before, after, strict=True) if pair[0] != pair[1]]
    assert changed == [(changed[0][0], 'reset = { value = 61234, unit = "us", kind = '
                        '"measured on hardware", source = "PPK2, \\"board 7\\"" }')]
    figure = boards.load(str(file)).costs["boot"]["reset"]
    assert figure == Figure(61234, "us", "measured on hardware", 'PPK2, "board 7"')
    boards.set_figure(file, "costs.pre.value", 5, "modelled", "a guess told", "us/value")
    assert boards.load(str(file)).costs["pre"]["value"].per == "value"


@pytest.mark.parametrize(("key", "kind", "unit", "told"), [
    ("costs.boot.nothing", "cited", None, "no figure costs.boot.nothing"),
    ("costs.boot", "cited", None, "costs.boot is not a figure"),
    ("chip.name", "cited", None, "chip.name is not a figure"),
    ("costs.boot.reset", "hearsay", None, "costs.boot.reset.kind is 'hearsay'"),
    ("costs.boot.reset", "cited", "mA", "costs.boot.reset.unit is 'mA'"),
])
def test_set_figure_leaves_the_file_alone_when_it_refuses(change, key, kind, unit, told):
    file = change("chip.name", "ESP32")
    before = file.read_text()
    with pytest.raises(BoardError, match=re.escape(told)):
        boards.set_figure(file, key, 1, kind, "a source", unit)
    assert file.read_text() == before
    assert [path.name for path in file.parent.iterdir()] == [file.name]


# --- the ring's lifetime ---


class Flash:
    """A flash chip that counts erases."""

    def __init__(self, sectors):
        self.data = bytearray(b"\xff" * 4096 * sectors)
        self.erases = [0] * sectors

    def readblocks(self, sector, buf, offset=0):
        at = sector * 4096 + offset
        buf[:] = self.data[at:at + len(buf)]

    def writeblocks(self, sector, buf, offset=0):
        at = sector * 4096 + offset
        for i, byte in enumerate(buf):
            self.data[at + i] &= byte

    def ioctl(self, operation, sector):
        assert operation == 6
        self.data[sector * 4096:(sector + 1) * 4096] = b"\xff" * 4096
        self.erases[sector] += 1
        return 0


@pytest.mark.parametrize("payload", [16, 32, 64])
def test_the_formula_is_what_the_ring_does(payload):
    flash = Flash(8)
    log = ring.Ring(flash, 0, 8, 0, 1, lambda: 7)
    log.mount()
    appended = 0
    while sum(flash.erases) < 24:
        log.append(1, appended, bytes(payload))
        appended += 1
        if appended % 10 == 0:
            log.acknowledge(log.next_seq - 1)
    years = boards.ring_lifetime_years(100_000, 8 * 4096, 1440, payload)
    a_sector = appended / (sum(flash.erases) - 1)  # the last one has only been opened
    lived = 100_000 * 8 * a_sector / 1440 / boards.DAYS_A_YEAR
    assert years == pytest.approx(lived, rel=0.02)


def test_lifetime_scales_as_it_must():
    year = boards.ring_lifetime_years(100_000, 1 << 20, 1440)
    assert boards.ring_lifetime_years(50_000, 1 << 20, 1440) == pytest.approx(year / 2)
    assert boards.ring_lifetime_years(100_000, 1 << 19, 1440) == pytest.approx(year / 2)
    assert boards.ring_lifetime_years(100_000, 1 << 20, 2880) == pytest.approx(year / 2)
    assert boards.ring_lifetime_years(100_000, 1 << 20, 1440, payload_bytes=64) < year
    board = boards.load("esp32")
    assert board.lane_years("telemetry", 1440) == pytest.approx(year * 176 / 256)


# --- the command ---


def run(*arguments: str, columns: int = 80) -> str:
    done = CliRunner().invoke(app, ["boards", *arguments], env={"COLUMNS": str(columns)},
                              catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout


@pytest.fixture
def narrow(monkeypatch):
    from outpost import console

    monkeypatch.setattr(console.stdout, "width", 80)


def test_all_boards_in_one_table(narrow):
    shown = run()
    for name in NAMES:
        assert re.search(rf"^{name} ", shown, re.M)
    assert max(map(len, shown.splitlines())) <= 80


def test_one_board_shows_every_figure_in_80_columns(narrow, board):
    shown = run(board.name)
    table = shown[:shown.index("Whole sources")]
    assert max(map(len, table.splitlines())) <= 80
    for key, figure in board.figures():
        section, _, rest = key.partition(".")
        if section in ("power", "costs", "supply"):
            label = rest.replace(".", " ").replace("_", " ")
            line = next(line for line in shown.splitlines() if line.startswith(label + "  "))
            assert figure.kind in line and figure.source[:10] in line
    assert shown.count("█") >= 80


def test_json_is_one_object_on_the_last_line():
    told = json.loads(run("rp2040", "--json", "--records-per-day", "5000").splitlines()[-1])
    assert told["architecture"] == "armv6m"
    assert told["regions"][-1] == {"name": "ring", "offset": 0x0e0000, "size": 0x120000}
    assert list(told["lanes"]["telemetry"]["lifetime_years"]) == ["5000/day"]
    assert told["figures"]["costs.store.erase_sector"]["per"] == "sector"
    assert len(json.loads(run("--json"))["boards"]) == len(NAMES)


def test_the_schema_is_written_down():
    text = (ROOT / "docs" / "boards.md").read_text()
    board = boards.load("esp32")
    for key, _ in board.figures():
        last = key.split(".")[-1]
        assert f"`{last}`" in text, f"docs/boards.md does not tell of {key}"
