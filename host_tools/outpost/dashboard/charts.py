"""Curves of a node's page, as the JSON that plotly.js draws; the reports' colours."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

import outpost.device  # noqa: F401  # firmware/ on the path
from node import latency, record
from outpost import words
from outpost.gateway.views import Record, State
from outpost.page import BANDS, FAINT, INK, PHASES, when

DAY_S = 86400
AHEAD = 1.0  # a forecast is drawn as far as there is a past, at least a week
GRID = "#eef0f3"
CLASSES = ("#2f6f9f", "#e0813a", "#3b8f5a", "#8e5ea2", "#d9b44a", "#6cc0b4", "#c43c39", "#9aa7b5")

Figure = dict[str, Any]
Band = tuple[int, float, float]  # mode, from, to


def told(data: list[Figure], height: int, **layout: Any) -> str:
    """Return a figure as JSON, laid out as all are."""
    axis = {"gridcolor": GRID, "zeroline": False, "automargin": True, "linecolor": GRID}
    given = {name: {**axis, **layout.pop(name, {})} for name in ("xaxis", "yaxis")}
    return json.dumps({"data": data, "layout": {
        "height": height, "margin": {"l": 8, "r": 8, "t": 8, "b": 8}, "paper_bgcolor": "white",
        "plot_bgcolor": "white", "font": {"family": "system-ui, sans-serif", "color": INK,
                                          "size": 12.5},
        "legend": {"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0,
                   "traceorder": "normal", "font": {"color": FAINT}},
        "hoverlabel": {"align": "left"}, "dragmode": False, **given, **layout}})


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


def battery(states: Sequence[State], modes: Iterable[Band], days_left: int | None) -> str:
    """Charge over time with modes as bands, and where it goes; volts where charge is unknown."""
    charged = [one for one in states if one.soc is not None]
    shown = charged or states
    y = [one.soc if charged else one.battery_mv / 1000 for one in shown]
    volts = [f"{one.battery_mv / 1000:.2f} V, {one.temperature_c} °C" for one in shown]
    data: list[Figure] = [{
        "x": [when(one.time_s) for one in shown], "y": y, "text": volts, "name": "charge",
        "mode": "lines", "line": {"color": INK, "width": 2}, "showlegend": False,
        "hovertemplate": "%{y} %<br>%{text}<extra></extra>" if charged
        else "%{text}<extra></extra>"}]
    if charged and days_left is not None:
        last, charge = charged[-1], charged[-1].soc or 0
        span_s = min(days_left * DAY_S,
                     max(AHEAD * (last.time_s - charged[0].time_s), 7 * DAY_S))
        fall = charge * span_s / (days_left * DAY_S) if days_left else charge
        data.append({"x": [when(last.time_s), when(last.time_s + span_s)],
                     "y": [charge, charge - fall], "mode": "lines", "name": "forecast",
                     "line": {"color": FAINT, "dash": "dash", "width": 1.5},
                     "hoverinfo": "skip"})
    shapes = []
    for mode, begin, end in modes:
        shapes.append({"type": "rect", "xref": "x", "yref": "paper", "x0": when(begin),
                       "x1": when(end), "y0": 0, "y1": 1, "line": {"width": 0},
                       "fillcolor": BANDS.get(words.MODES.get(mode, ""), FAINT), "opacity": 0.25,
                       "layer": "below"})
    for mode in sorted({mode for mode, _, _ in modes}):
        name = words.MODES.get(mode, str(mode))
        data.append({"x": [None], "y": [None], "mode": "markers", "name": name,
                     "marker": {"symbol": "square", "size": 11, "opacity": 0.5,
                                "color": BANDS.get(name, FAINT)}})
    return told(data, 260, shapes=shapes, yaxis={"range": [0, 104], "ticksuffix": " %"}
                if charged else {"ticksuffix": " V"}, xaxis={"type": "date"}, showlegend=True)


def joules(days: dict[int, list[int]], today: tuple[int, dict[str, int]] | None) -> str:
    """Joules a day by phase; `today` is (day, µJ by phase's number) so far."""
    spent = {day: [mj / 1e3 for mj in by] for day, by in sorted(days.items())}
    if today is not None:
        spent[today[0]] = [today[1].get(str(phase), 0) / 1e6 for phase in range(len(words.PHASES))]
    x = [when((day + 0.5) * DAY_S) for day in spent]
    data = [{"type": "bar", "x": x, "y": [round(by[number], 4) for by in spent.values()],
             "name": phase, "marker": {"color": PHASES[number], "line": {"width": 0}},
             "hovertemplate": f"{phase} %{{y:.3g}} J<extra></extra>"}
            for number, phase in enumerate(words.PHASES)
            if any(by[number] for by in spent.values())]
    return told(data, 260, barmode="stack", bargap=0.12, xaxis={"type": "date"},
                yaxis={"ticksuffix": " J"})


def decisions(found: Sequence[Record], classes: Sequence[str]) -> str:
    """How sure the node was of each of its newest decisions, by class."""
    data = []
    for number in sorted({one.payload[0] for one in found}):
        mine = [one for one in found if one.payload[0] == number]
        data.append({
            "x": [when(one.time_s) for one in mine],
            "y": [round(100 * one.payload[1] / 255) for one in mine],
            "text": [f"by {_by(one)}" for one in mine], "mode": "markers",
            "name": words.class_name(number, classes),
            "marker": {"size": 6, "opacity": 0.75, "color": CLASSES[number % len(CLASSES)]},
            "hovertemplate": "%{y} %, %{text}<br>%{x}<extra>"
                             f"{words.class_name(number, classes)}</extra>"})
    return told(data, 210, xaxis={"type": "date"}, showlegend=True,
                yaxis={"range": [0, 104], "ticksuffix": " %"})


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
