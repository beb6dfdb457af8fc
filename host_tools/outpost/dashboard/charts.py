"""Curves of a node's page; the reports' colours."""

from collections.abc import Iterable, Sequence
from typing import Any

import outpost.device  # noqa: F401  # firmware/ on the path
from node import latency, record
from outpost import words
from outpost.dashboard.curves import DAY_S, Curve
from outpost.gateway.views import Record, State
from outpost.page import BANDS, FAINT, INK, PHASES, when

AHEAD = 1.0  # a forecast is drawn as far as there is a past, at least a week
LEAST_DAYS = 7  # of joules: a bar is not the whole page
HOVERED = 100  # points of a curve that say what they are
CLASSES = ("#2f6f9f", "#e0813a", "#3b8f5a", "#8e5ea2", "#d9b44a", "#6cc0b4", "#c43c39", "#9aa7b5")

Band = tuple[int, float, float]  # mode, from, to


def bands(states: Sequence[State], events: Iterable[Record], now_s: float) -> list[Band]:
    """Return the times in other modes than FULL, as far as they are known."""
    changes: list[tuple[float, int]] = [(one.time_s, one.mode) for one in states]
    changes += [(one.time_s, one.payload[1] & 15) for one in events
                if len(one.payload) >= 3 and one.payload[0] == record.MODE_CHANGED]
    changes.sort(key=lambda one: one[0])
    found: list[Band] = []
    for at, (begin, mode) in enumerate(changes):
        end = changes[at + 1][0] if at + 1 < len(changes) else now_s
        if mode == 0 or end <= begin:
            continue
        if found and found[-1][0] == mode and found[-1][2] == begin:
            found[-1] = mode, found[-1][1], end
        else:
            found.append((mode, begin, end))
    return found


def battery(states: Sequence[State], modes: Iterable[Band], days_left: int | None) -> Curve:
    """Charge over time with modes as bands, and where it goes; volts where charge is unknown."""
    charged = [one for one in states if one.soc is not None]
    shown = charged or states
    points = [(float(one.time_s), float(one.soc or 0) if charged else one.battery_mv / 1000)
              for one in shown]
    last_s, last = points[-1]
    span_s = fall = 0.0
    if charged and days_left is not None:
        span_s = min(days_left * DAY_S, max(AHEAD * (last_s - points[0][0]), 7 * DAY_S))
        fall = last * span_s / (days_left * DAY_S) if days_left else last
    values = [value for _, value in points]
    low, high, unit = (0.0, 104.0, "%") if charged else (min(values) - 0.05, max(values) + 0.05,
                                                         "V")
    drawn = Curve(points[0][0], last_s + span_s, low, high, unit)
    for mode, begin_s, end_s in modes:
        name = words.MODES.get(mode, str(mode))
        drawn.keys[name] = BANDS.get(name, FAINT)
        drawn.box(begin_s, end_s, low, high, drawn.keys[name],
                  f"{name} from {when(begin_s)} to {when(end_s)}", 0.25)
    drawn.line(points, INK)
    if span_s:
        drawn.line([points[-1], (last_s + span_s, last - fall)], FAINT, dashed=True)
        drawn.keys = {"forecast": FAINT, **drawn.keys}
    step = -(-len(points) // HOVERED)
    for one, point in zip(shown[::-step], points[::-step], strict=True):
        charge = f"{one.soc} %, " if charged else ""
        drawn.dot(*point, f"{when(one.time_s)}: {charge}{one.battery_mv / 1000:.2f} V, "
                          f"{one.temperature_c} °C")
    return drawn


def joules(days: dict[int, list[int]], today: tuple[int, dict[str, int]] | None) -> Curve:
    """Joules a day by phase; `today` is (day, µJ by phase's number) so far."""
    spent = {day: [mj / 1e3 for mj in by] for day, by in sorted(days.items())}
    if today is not None:
        spent[today[0]] = [today[1].get(str(phase), 0) / 1e6 for phase in range(len(words.PHASES))]
    first, last = min(spent), max(spent)
    drawn = Curve(first * DAY_S, max(last + 1, first + LEAST_DAYS) * DAY_S, 0,
                  1.04 * max(max(map(sum, spent.values())), 1e-6), "J")
    for day, by in spent.items():
        below = 0.0
        for name, colour, joule in zip(words.PHASES, PHASES, by, strict=False):
            if joule:
                drawn.keys[name] = colour
                drawn.box((day + 0.06) * DAY_S, (day + 0.94) * DAY_S, below, below + joule, colour,
                          f"{when(day * DAY_S)[:10]}: {name} {joule:.3g} J")
                below += joule
    drawn.keys = {name: drawn.keys[name] for name in words.PHASES if name in drawn.keys}
    return drawn


def decisions(found: Sequence[Record], classes: Sequence[str]) -> Curve:
    """How sure the node was of each of its newest decisions, by class."""
    times = [one.time_s for one in found]
    drawn = Curve(min(times), max(times), 0, 104, "%")
    for one in sorted(found, key=lambda one: one.payload[0]):
        number, share = one.payload[0], round(100 * one.payload[1] / 255)
        name = words.class_name(number, classes)
        drawn.keys[name] = CLASSES[number % len(CLASSES)]
        drawn.dot(one.time_s, share, f"{when(one.time_s)}: {name}, {share} %, by {_by(one)}",
                  drawn.keys[name])
    return drawn


def _by(one: Record) -> str:
    tier = one.payload[3] & 15
    return words.TIERS[tier] if tier < len(words.TIERS) else f"tier {tier}"


def stages(items: dict[str, Any]) -> list[dict[str, Any]]:
    """Return each stage's histogram: bars of (height in %, what it counts), p50, p99, longest."""
    found = []
    rows, longest = items.get("latency", {}), items.get("longest_us", {})
    for number, name in enumerate((*words.PHASES[:latency.AWAKE], "awake")):
        counts = {int(at): count for at, count in rows.get(str(number), {}).items() if count}
        if not counts:
            continue
        total, most = sum(counts.values()), max(counts.values())
        low, high = min(counts), max(counts)
        pad = max(0, 11 - (high - low)) // 2  # few counters: no broad blocks
        bars = [(100 * counts.get(at, 0) / most, _counter(at, counts.get(at, 0)))
                for at in range(max(0, low - pad), high + pad + 1)]
        found.append({"name": name, "bars": bars, "total": total,
                      "p50": duration(_percentile(counts, 50)),
                      "p99": duration(_percentile(counts, 99)),
                      "longest": duration(longest.get(str(number), 0))})
    return found


def _counter(at: int, count: int) -> str:
    low = latency.edge_us(at - 1) if at else 0
    return f"{duration(low)} to {duration(latency.edge_us(at))}: {count}"


def _percentile(counts: dict[int, int], percent: int) -> int:
    """The end of the counter in which that many of the shortest durations end, in µs."""
    left = sum(counts.values()) * percent
    for at in sorted(counts):
        left -= counts[at] * 100
        if left <= 0:
            return latency.edge_us(at)
    return 0


def duration(us: float) -> str:
    """Return a duration as people say it."""
    for size, unit in ((1e6, "s"), (1e3, "ms")):
        if us >= size:
            return f"{us / size:.3g} {unit}"
    return f"{us:.0f} µs"
