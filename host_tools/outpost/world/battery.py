"""What a node takes from its battery, from the world's side: what its board did, times the board's
figures.

The node keeps a ledger of its own (`firmware/node/energy.py`) with figures that `outpost.power`
works out for it. Nothing is shared between the two but the board file, so that they can be held
against each other. The model, and what it leaves out: docs/power.md.
"""

import struct
from bisect import bisect_left
from dataclasses import asdict, dataclass
from typing import Any

import outpost.device  # noqa: F401  # firmware/ on the path
from node.board import unix as wire
from node.latency import BOOT, CAPTURE
from outpost.boards import STAGES, Battery, Board

# `lost`: awake in a pass that a brown-out or the watchdog ended
PHASES = (*STAGES, "sleep", "listen", "leak", "lost")
SLEEP, LISTEN, LEAK, LOST = range(len(STAGES), len(PHASES))
YEAR_S = 365.25 * 86400

_LAP = struct.Struct(wire.LAP)


@dataclass(frozen=True)
class Drain:
    """Power at the battery by state, in mW: the rail's current through its converter.

    `rest` is always there when the node has power: the converter's own current and the sensor's,
    powered down. The others come on top of it.
    """

    rest: float
    boot: float
    active: float
    doze: float
    radio: float
    sleep: float
    sampling: float  # the sensor, on
    programming: float  # the flash
    listening: float  # the sensor, watching
    leak: float  # in the battery itself
    boot_us: int

    @classmethod
    def of(cls, board: Board, battery: Battery, radio: str) -> "Drain":
        """Work the powers out for `board` on `battery`, with a kind of uplink it has."""
        volt, efficiency = board.supply["voltage"].to("V"), board.supply["efficiency"].value / 100
        power, sensor = board.power, board.power["sensor"]

        def drawn(milliampere: float) -> float:
            return milliampere * volt / efficiency

        off = sensor["off"].to("mA")
        return cls(
            rest=board.supply["quiescent"].to("mA") * battery.nominal.to("V") + drawn(off),
            boot=drawn(power.get("boot", power["active"]).to("mA")),
            active=drawn(power["active"].to("mA")), doze=drawn(power["light_sleep"].to("mA")),
            radio=drawn(power["radio"][radio]["session"].to("mA")),
            sleep=drawn(power["deep_sleep"].to("mA")),
            sampling=drawn(sensor["on"].to("mA") - off),
            programming=drawn(power["flash"].to("mA")),
            listening=drawn(sensor["watch"].to("mA") - off),
            leak=capacity_mj(battery) * battery.self_discharge.value / 100 / YEAR_S,
            boot_us=round(board.stage_us("boot", reset=1)))

    def dump(self) -> dict[str, Any]:
        """Return it as what JSON can hold."""
        return asdict(self)

    def awake(self, laps: bytes) -> list[float]:
        """Return what a pass took, in mJ by phase."""
        spent = [0.0] * len(PHASES)
        before = doze_before = flash_before = radio_before = 0
        for stage, now, doze, flash, radio in _LAP.iter_unpack(laps):
            took, dozed, sent = now - before, doze - doze_before, radio - radio_before
            nj = (self.rest * took + self.doze * dozed + self.radio * sent
                  + self.programming * (flash - flash_before))
            took -= dozed + sent
            if stage == BOOT:
                booting = min(took, self.boot_us)
                nj += self.boot * booting
                took -= booting
            elif stage == CAPTURE:
                nj += self.sampling * (now - before)
            spent[stage] += (nj + self.active * took) / 1e6
            before, doze_before, flash_before, radio_before = now, doze, flash, radio
        return spent

    def broken_off(self, us: int) -> float:
        """Return what `us` of a pass took that was not brought to its end, in mJ."""
        booting = min(us, self.boot_us)
        return (self.rest * us + self.boot * booting + self.active * (us - booting)) / 1e6

    def asleep(self, us: int, listening: bool) -> tuple[float, float]:
        """Return what sleep takes, and listening for motion, in mJ."""
        return (self.rest + self.sleep) * us / 1e6, self.listening * us / 1e6 if listening else 0.0


def capacity_mj(battery: Battery) -> float:
    """Return the energy in a full battery, in mJ: capacity times nominal voltage."""
    return battery.capacity.to("mAh") * 3600 * battery.nominal.to("V")


def voltage_mv(curve: list[list[int]], percent: float) -> int:
    """Return a cell's voltage at a state of charge, by straight lines between a curve's points."""
    at = max(1, min(bisect_left(curve, percent, key=lambda point: point[0]), len(curve) - 1))
    (low, low_mv), (high, high_mv) = curve[at - 1], curve[at]
    share = min(1.0, max(0.0, (percent - low) / (high - low)))
    return round(low_mv + (high_mv - low_mv) * share)
