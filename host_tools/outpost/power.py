"""What a board draws from its battery in each state: what node and world count with.

The model, and what each figure means: docs/power.md.
"""

from typing import Any

from outpost import boards
from outpost.boards import Battery, Board
from outpost.errors import OutpostError

BATTERY = "li-ion-18650"  # what a node hangs on unless told otherwise
YEAR_S = 365.25 * 86400
SMALL = ("sleep", "listen", "leak")  # told in nW, or rounding would cost a percent


class PowerError(OutpostError):
    """A battery that boards/batteries.toml doesn't know."""


def battery(name: str = BATTERY) -> Battery:
    """Return the battery of that name; raise PowerError with those there are."""
    found = boards.batteries()
    if name not in found:
        raise PowerError(f"no battery {name!r} in boards/batteries.toml; "
                         f"there are {', '.join(found)}")
    return found[name]


def capacity_mj(battery: Battery) -> float:
    """Return the energy of a full battery in mJ: capacity times nominal voltage."""
    return battery.capacity.to("mAh") * battery.nominal.to("mV") * 3.6


def powers_uw(board: Board, battery: Battery, radio: str) -> dict[str, float]:
    """Return the power of each state, and of what is added to one, in µW at the battery.

    Keys are those of docs/power.md without their unit. `radio` is a kind of uplink that the
    board file knows.
    """
    power, supply = board.power, board.supply
    gain = supply["voltage"].to("V") / (supply["efficiency"].value / 100)

    def added(figure: Any) -> float:
        return figure.to("uA") * gain

    sensor = {state: added(figure) for state, figure in power["sensor"].items()}
    base = supply["quiescent"].to("uA") * battery.nominal.to("V") + sensor["off"]
    return {"boot": added(power.get("boot", power["active"])) + base,
            "active": added(power["active"]) + base,
            "doze": added(power["light_sleep"]) + base,
            "radio": added(power["radio"][radio]["session"]) + base,
            "sleep": added(power["deep_sleep"]) + base,
            "sensor": sensor["on"] - sensor["off"],
            "flash": added(power["flash"]),
            "listen": sensor["watch"] - sensor["off"],
            "leak": capacity_mj(battery) * 1e3 * battery.self_discharge.value / 100 / YEAR_S}


def figures(board: Board, battery: Battery, radio: str | None = None) -> dict[str, Any]:
    """Return `power` and `battery` of a node's board.json, in whole numbers.

    `radio` is the kind of uplink, by default the first in the board file.
    """
    kind = radio or next(iter(board.power["radio"]))
    powers = powers_uw(board, battery, kind)
    rounded = {f"{name}_nw": round(uw * 1e3) for name, uw in powers.items() if name in SMALL}
    rounded |= {f"{name}_uw": round(uw) for name, uw in powers.items() if name not in SMALL}
    return {"power": {**rounded, "boot_us": round(board.costs["boot"]["reset"].to("us"))},
            "battery": {"capacity_mj": round(capacity_mj(battery)),
                        "curve": [list(point) for point in battery.curve]}}
