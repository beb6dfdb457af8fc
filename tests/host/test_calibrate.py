"""A made capture of a power profiler gives back the figures it was made with."""

import json
import subprocess
import sys
import tomllib

import numpy as np
import pytest

from outpost import boards, calibrate

STEP_MS = 0.1
# (stage's pin or none, ms, uA), of one wake after 2 s asleep
WAKE = [
    ("", 210, 30_000),  # boot ROM, loader, MicroPython
    ("boot", 40, 41_000),
    *[("capture", 90, 1_400), ("capture", 10, 40_000)] * 4,  # dozing, and fetching samples
    ("pre", 12, 40_000), ("infer", 2, 40_000), ("post", 4, 40_000),
    ("store", 6, 40_000), ("uplink", 350, 121_000), ("", 3, 40_000)]
ASLEEP_UA = 47.0


def made(file, wakes=3, together=True, columns=range(8), noise=0.01, factor=1.0, plus=0.0):
    """Write a capture; `factor` and `plus` turn the rail's current into the battery's."""
    rng = np.random.default_rng(1)
    parts = []
    for _ in range(wakes):
        parts += [("", 2000, ASLEEP_UA), *WAKE]
    parts.append(("", 2000, ASLEEP_UA))
    ua = np.concatenate([np.full(int(ms / STEP_MS), float(level)) for _, ms, level in parts])
    ua = (ua * factor + plus) * rng.normal(1, noise, len(ua))
    pin = np.concatenate([np.full(int(ms / STEP_MS),
                                  list(columns)[calibrate.STAGES.index(name)] if name else -1)
                          for name, ms, _ in parts])
    with file.open("w") as out:
        names = "D0-D7" if together else ",".join(f"D{i}" for i in range(8))
        out.write(f"Timestamp(ms),Current(uA),{names}\n")
        for i, (current, high) in enumerate(zip(ua, pin, strict=True)):
            bits = ["1" if high == one else "0" for one in range(8)]
            out.write(f"{i * STEP_MS:.3f},{current:.3f},"
                      f"{('' if together else ',').join(bits)}\n")
    return file


EXPECTED = {
    "power.deep_sleep": 47 - 26, "power.boot": 30, "power.active": 40,
    "power.light_sleep": 1400 - 550, "costs.boot.reset": 210_000, "costs.boot.nvs": 0,
    "costs.boot.mount": 0, "costs.boot.import": 0, "costs.boot.model": 12_000,
    "costs.post.smooth": 4000, "costs.store.append": 3000, "power.radio.wifi.session": 121,
    "costs.uplink.wifi.session": 350_000}


@pytest.fixture(scope="module")
def capture(tmp_path_factory):
    return made(tmp_path_factory.mktemp("capture") / "ppk2.csv")


def values(results):
    return {one.key: one.value for one in results}


def test_the_figures_come_back(capture):
    board = boards.load("esp32")
    results = calibrate.measure(calibrate.read(capture), board, "wifi", source="x")
    found = values(results)
    assert found.keys() == EXPECTED.keys()
    for key, value in EXPECTED.items():
        assert found[key] == pytest.approx(value, rel=0.02, abs=0.2), key
    assert all("3 wakes" in one.source for one in results)


def test_inputs_may_have_columns_of_their_own_and_any_order(tmp_path):
    order = (6, 5, 4, 3, 2, 1, 0)
    file = made(tmp_path / "a.csv", wakes=2, together=False, columns=order)
    inputs = dict(zip(calibrate.STAGES, order, strict=True))
    found = values(calibrate.measure(calibrate.read(file, inputs), boards.load("esp32"), "wifi"))
    assert found["costs.uplink.wifi.session"] == pytest.approx(350_000, rel=0.01)
    assert found["costs.boot.reset"] == pytest.approx(210_000, rel=0.01)


def test_what_is_measured_before_the_converter_is_brought_behind_it(tmp_path):
    board = boards.load("esp32")
    share = board.supply["efficiency"].value / 100 * 3700 / 3300
    quiescent = board.supply["quiescent"].to("uA")
    file = made(tmp_path / "a.csv", wakes=2, factor=1 / share, plus=quiescent)
    found = values(calibrate.measure(calibrate.read(file), board, "wifi", battery_mv=3700))
    assert found["power.active"] == pytest.approx(40, rel=0.02)
    assert found["power.deep_sleep"] == pytest.approx(47 - 26, rel=0.05)


def test_the_command_writes_a_board_file_that_says_so(capture, tmp_path):
    out = tmp_path / "mine.toml"
    done = subprocess.run(
        [sys.executable, "-c", "from outpost.cli import main; main()", "calibrate", str(capture),
         "--board", "esp32", "--out", str(out), "--json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert {one["key"] for one in told["figures"]} == EXPECTED.keys()
    board = boards.load(str(out))
    assert board.power["active"].kind == "measured on hardware"
    assert "ppk2.csv of 20" in board.power["active"].source
    assert board.power["active"].value == pytest.approx(40, rel=0.02)
    assert board.stage_us("boot") == pytest.approx(222_000, rel=0.02)
    text = out.read_text()
    assert "# What each key means" in text  # comments stay
    assert tomllib.loads(text)["power"]["sensor"]["on"]["kind"] == "cited"  # as do other figures


def test_a_dry_run_changes_nothing(capture, tmp_path):
    board = boards.load("esp32")
    mine = tmp_path / "mine.toml"
    mine.write_text(board.file.read_text())
    done = subprocess.run(
        [sys.executable, "-c", "from outpost.cli import main; main()", "calibrate", str(capture),
         "--board", str(mine), "--dry-run"], capture_output=True, text=True)
    assert done.returncode == 0 and "power.deep_sleep" in done.stderr
    assert mine.read_text() == board.file.read_text()


@pytest.mark.parametrize(("text", "words"), [
    ("", "first line"),
    ("Timestamp(ms),Current(uA)\n1,2\n", "begins with Timestamp"),
    ("Timestamp(ms),Current(uA),D0-D7\n1,2,00000000\n", "too few"),
    ("Timestamp(ms),Current(uA),D0-D7\n1,x,00000000\n", "not a capture"),
    ("Timestamp(ms),Current(uA),D0-D7\n" + "".join(f"{i},50,00000000\n" for i in range(2000)),
     "never rises"),
    ("Timestamp(ms),Current(uA),D0-D7\n" + "".join(
        f"{i},{30000 if 900 < i < 1100 else 50},00000000\n" for i in range(2000)),
     "--phase-pins"),
])
def test_what_is_no_capture_is_told(tmp_path, text, words):
    file = tmp_path / "bad.csv"
    file.write_text(text)
    with pytest.raises(calibrate.CalibrateError, match=words):
        calibrate.measure(calibrate.read(file), boards.load("esp32"), "wifi")
