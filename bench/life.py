"""An ESP32 that wakes each minute and reports each hour, beside what others publish for that.

Published, "70 uA, 2.6 years": the arithmetic of measured parts (github.com/glenn20/
upy-esp32-experiments): a tuned ESP32-S3 wakes and sleeps again with 1.82 mC, a session of Wi-Fi
and MQTT with a static IP takes 108.6 mC, deep sleep 10 uA; 1,600 mAh, nothing sensed or stored.
Ours: the firmware in a world without faults, by boards/esp32.toml: idle (it boots, keeps its state
and reports), the same frozen into the firmware, and sensing.
"""

import tempfile
from dataclasses import replace
from pathlib import Path

from rich import box
from rich.table import Table

from outpost import boards, simulate
from outpost.console import stdout
from outpost.world import scenario
from outpost.world.battery import PHASES

DAYS = 1
BATTERY = "lifepo4-18650"
SETTINGS = {"wake_s": 60, "uplink_s": 3600, "listen": 0, "life_days": 0}
WAKE_UC, SESSION_UC, SLEEP_UA, MAH = 1820.0, 108_600.0, 10.0, 1600.0
FROZEN = 10  # times faster than from littlefs: boards/esp32.toml, costs.boot.import
PUBLISHED = {"boot.reset": WAKE_UC / 60, "uplink": SESSION_UC / 3600, "sleep": SLEEP_UA}
WHY = {
    "boot.reset": "theirs is the whole wake of an S3, 48.8 ms; an ESP32's shortest takes 3.32 mC "
                  "in 70 ms, of which 68 ms are here",
    "boot.nvs": "the port sets NVS up before Python runs; theirs leaves it out",
    "boot.mount": "stock _boot.py mounts the file system and runs main.py from it; theirs neither",
    "boot.import": "20 modules of the node: from one file 141 ms, frozen a tenth; theirs has none",
    "boot.model": "the model's native module, loaded",
    "boot": "what else a wake begins with: state, modes, the ring's heads",
    "capture": "a window of 5.12 s in light sleep with the sensor on: theirs senses nothing",
    "pre": "features", "infer": "the forest", "post": "majority of three",
    "store": "decisions go to flash, a page at a time: theirs stores nothing",
    "uplink": "the same session; theirs has the wake's boot in it, ours the batch's bytes",
    "sleep": "13 uA more: the sensor powered down (3 uA), and the converter's own current (11 uA "
             "at the battery); theirs is the module's alone",
    "leak": "the cell itself, 2 % a month: theirs has none",
    "converter": "90 % of what the battery gives reaches the rail, from 3.2 to 3.3 V; theirs is "
                 "measured behind it",
}


def world() -> scenario.Scenario:
    """Return a factory where nothing goes wrong."""
    return replace(scenario.load("factory"), faults=scenario.Faults(),
                   link=scenario.Link(up_h=1e4))


def live(folder: Path, board: boards.Board, **changes: object) -> simulate.Outcome:
    """Live the days."""
    case = simulate.Case("life", "motion", board, world(), BATTERY, SETTINGS | changes)
    outcome, = simulate.live([case], folder, DAYS, 1)
    assert outcome.told["ok"]
    return outcome


def frozen(board: boards.Board) -> boards.Board:
    """Return a board whose firmware has the node's modules in it."""
    boot = board.costs["boot"]
    faster = replace(boot["import"], value=boot["import"].value / FROZEN)
    return replace(board, costs=board.costs | {"boot": boot | {"import": faster}})


def parts(outcome: simulate.Outcome) -> dict[str, float]:
    """Return the mean current by part, in uA: the rail's, then what the converter takes."""
    life, plan = outcome.life, outcome.plan
    seconds = life.length_s.sum()
    supply = plan.board.supply
    volt, share = supply["voltage"].to("V"), supply["efficiency"].value / 100
    mw = life.drained_mj.sum(axis=0) / seconds
    battery_ua = mw / plan.battery.nominal.to("V") * 1e3
    rail_ua = dict(zip(PHASES, mw * share / volt * 1e3, strict=True))
    boot_ma = plan.board.power["boot"].to("mA")
    for name, cost in plan.board.costs["boot"].items():
        part = cost.to("us") * boot_ma * len(life.clock_s) / seconds / 1e3
        rail_ua[f"boot.{name}"] = part
        rail_ua["boot"] -= part
    rail_ua["leak"] = battery_ua[PHASES.index("leak")]
    quiescent = supply["quiescent"].to("uA")
    rail_ua["sleep"] += quiescent * (1 - share * plan.battery.nominal.to("V") / volt)
    rail_ua["converter"] = float(battery_ua.sum() - sum(rail_ua.values()))
    return rail_ua


def main() -> None:
    """Print the table, and why each line differs."""
    board = boards.load("esp32")
    with tempfile.TemporaryDirectory() as scratch:
        lived = [live(Path(scratch) / "bare", board, window=0, gate=None),
                 live(Path(scratch) / "frozen", frozen(board), window=0, gate=None),
                 live(Path(scratch) / "sensing", board)]
    table = Table("µA, mean", box=box.SIMPLE_HEAD, pad_edge=False,
                  title="ESP32, a wake each 60 s, a batch each hour", title_justify="left")
    for column in ("published", "ours, idle", "idle, frozen", "sensing"):
        table.add_column(column, justify="right")
    ours = [parts(one) for one in lived]
    shown = []
    for part in WHY:
        values = (PUBLISHED.get(part, 0.0), *(one[part] for one in ours))
        if max(map(abs, values)) >= 0.05:
            shown.append(part)
            table.add_row(part, *(f"{value:,.1f}" if value else "" for value in values))
    totals = [sum(PUBLISHED.values()), *(one.told["average_current_ua"] for one in lived)]
    table.add_row("all", *(f"{value:,.1f}" for value in totals))
    hours = [MAH * 1e3 / value for value in totals]
    table.add_row(f"years on {MAH:,.0f} mAh", *(f"{value / 8766:,.2f}" for value in hours))
    stdout.print(table)
    for part in shown:
        stdout.print(f"{part}: {WHY[part]}")
    stdout.print("[dim]published: measured on hardware by others, at 5 V through a linear "
                 "regulator. ours: modelled.[/]")


if __name__ == "__main__":
    main()
