"""What nodes say in numbers, in words: modes, lanes, phases, faults, events."""

import errno
import struct
from collections.abc import Sequence

import outpost.device  # noqa: F401  # firmware/ on the path
from node import modes, record, settings
from outpost.boards import STAGES

MODES = {modes.FULL: "FULL", modes.DEGRADED: "DEGRADED", modes.CRITICAL: "CRITICAL",
         modes.SAFE: "SAFE"}
MODE_REASONS = {modes.LINK_LOST: "no link", modes.FLASH_BAD: "flash fails",
                modes.BUDGET_SHORT: "the budget is short", modes.BATTERY_LOW: "the battery is low",
                modes.HOT: "hot", modes.COLD: "cold", modes.FAILING: "passes fail",
                modes.ORDERED: "the gateway wants it so", 0: "none"}
LANES = ("alert", "event", "telemetry", "diagnostic")
TIERS = ("gate", "main", "large")
PHASES = (*STAGES, "sleep", "listen", "leak")  # of a node's own ledger
CAUSES = ("power on", "timer", "motion", "watchdog", "brown-out")
FAULTS = {record.BAD_SETTINGS: "settings refused", record.SENSOR_SILENT: "sensor silent",
          record.MODEL_REFUSED: "model refused", record.UPLINK_FAILED: "uplink failed",
          record.FLASH_FAILED: "flash failed", record.DEADLINE_MISSED: "deadline missed",
          record.STAGE_FAILED: "stage failed"}
# of a model package, by their numbers in docs/model-package.md
REFUSALS = ("model kept", "no package there", "cut short", "not a package of this version",
            "node trusts nobody", "not signed by the key this node trusts",
            "not on flash as it was signed", "for another processor",
            "not newer than what is there", "no room", "does not load, or has another shape",
            "wrong answer to a golden window", "too slow", "crashes",
            "its settings break a rule", "on trial", "failed while it was on trial",
            "no decision before the deadline while it was on trial",
            "the gateway was not reached any more")
ADRIFT_S = 900  # an oscillator of the cheapest kind may be off by so much between two reports
_MODEL = ("none set", "its file is missing", "its file is damaged", "does not load",
          "has another ABI", "has another shape")


def mode_reason(code: int) -> str:
    """Return why a mode changed."""
    told = MODE_REASONS.get(code & ~modes.OVER, f"reason {code & ~modes.OVER}")
    return told + (" is over" if code & modes.OVER else "")


def class_name(number: int, classes: Sequence[str] = ()) -> str:
    """Return the name of a class, where its model's are known."""
    if number == record.NO_CLASS:
        return "none"
    return classes[number] if number < len(classes) else f"class {number}"


def refusal(number: int) -> str:
    """Return what became of a model package."""
    return REFUSALS[number] if number < len(REFUSALS) else f"reason {number}"


def event(reason: int, detail: int, value: int, classes: Sequence[str] = ()) -> str:
    """Return what an event record says."""
    match reason:
        case record.CLASS_CHANGED:
            return f"{class_name(value, classes)} → {class_name(detail, classes)}"
        case record.MODE_CHANGED:
            return (f"{MODES.get(detail >> 4, '?')} → {MODES.get(detail & 15, '?')}: "
                    f"{mode_reason(value)}")
        case record.UPDATE:
            return f"model {value or 'package'}: {refusal(detail)}"
    if reason not in FAULTS:
        return f"event {reason}, detail {detail}, value {value}"
    if not value:
        return f"{FAULTS[reason]} is over"
    return FAULTS[reason] + _detail(reason, detail)


def setting(payload: bytes) -> str:
    """Return what a SETTING record says became of a change."""
    what, which, _ = struct.unpack_from(record.SETTING_FORMAT, payload)
    value = payload[struct.calcsize(record.SETTING_FORMAT):].decode(errors="replace")
    name = setting_name(which)
    match what:
        case record.REFUSED:
            return f"change refused: {name}" + (f" = {value}" if which and value else "")
        case record.GATEWAY_LOST:
            return f"{name} = {value or 'as flashed'} of the gateway lost to a later change here"
        case record.NODE_LOST:
            return f"{name} = {value or 'as flashed'} lost to a later change of the gateway"
        case record.UNDONE:
            return f"changes undone: {refusal(int(value) if value.isdecimal() else 255)}"
    return f"change of {name}: {what}"


def setting_name(number: int) -> str:
    """Return the name of a setting by its number in docs/wake.md; 0 is the document."""
    if not 0 < number <= len(settings.RULES):
        return f"setting {number}" if number else "the document"
    return str(settings.called(number))


def clock(payload: bytes) -> str:
    """Return what a CLOCK record says, "" if it is no more than how clocks drift."""
    _, by_s, _ = struct.unpack(record.CLOCK_FORMAT, payload)
    if abs(by_s) < ADRIFT_S:
        return ""
    return f"clock put {'forward' if by_s >= 0 else 'back'} by {span(abs(by_s))}"


def _detail(reason: int, detail: int) -> str:
    if reason == record.BAD_SETTINGS:
        return f": {setting_name(detail)}" if detail else ": the file as a whole"
    if reason == record.MODEL_REFUSED:
        return f": {_MODEL[detail]}" if detail < len(_MODEL) else f": reason {detail}"
    if reason in (record.DEADLINE_MISSED, record.STAGE_FAILED):
        return f": {STAGES[detail]}" if detail < len(STAGES) else f": stage {detail}"
    if reason == record.UPLINK_FAILED and not detail:
        return ": no link"
    return f": {errno.errorcode.get(detail, detail)}"


def span(seconds: float) -> str:
    """Return how long that is, to one figure that matters."""
    for size, unit in ((86400, "d"), (3600, "h")):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 60:.0f} min"
