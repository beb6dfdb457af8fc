"""The page of a search: its front as a plot and a table, in one file that needs no network."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from outpost.events import Events
    from outpost.search import Found, Outcome


def write(outcome: "Outcome") -> Path:
    """Write front.html beside the found model; return it."""
    import plotly.graph_objects as go

    figure = go.Figure()
    front = outcome.front
    figure.add_trace(go.Scatter(
        x=[one.energy_uj / 1e3 for one in front], y=[100 * one.accuracy for one in front],
        mode="lines+markers", name="validated (chosen by)", line={"shape": "hv"},
        text=[_told(one) for one in front], hoverinfo="text+x+y"))
    figure.add_trace(go.Scatter(
        x=[one.energy_uj / 1e3 for one in front], y=[100 * one.held_out.value for one in front],
        mode="markers", name="held out, 95 %", marker={"symbol": "circle-open"},
        error_y={"type": "data", "symmetric": False,
                 "array": [100 * (one.held_out.high - one.held_out.value) for one in front],
                 "arrayminus": [100 * (one.held_out.value - one.held_out.low) for one in front],
                 "thickness": 1}))
    for one, name, symbol in ((outcome.baseline, "model.toml", "x"),
                              (outcome.knee, "knee", "diamond-open"),
                              (outcome.best, "best", "star")):
        figure.add_trace(go.Scatter(x=[one.energy_uj / 1e3], y=[100 * one.accuracy],
                                    mode="markers", name=name,
                                    marker={"symbol": symbol, "size": 14}))
    figure.update_layout(
        template="plotly_white", height=560, xaxis_title="a wake, mJ at the battery (modelled)",
        yaxis_title="windows answered right, %", legend={"orientation": "h", "y": 1.08},
        title=f"{outcome.space.base.name} on {outcome.space.board.name}: {outcome.trials} trials")
    file = outcome.folder / "front.html"
    plot = figure.to_html(full_html=False, include_plotlyjs=True)
    scratch = file.with_name(".front.html")
    scratch.write_text(f"<!doctype html><meta charset='utf-8'><title>{outcome.space.base.name}: "
                       f"front</title><style>{STYLE}</style><main>{plot}{_table(outcome)}</main>")
    scratch.replace(file)
    return file


STYLE = """body{font:15px/1.5 system-ui,sans-serif;margin:0;color:#1a1a1a;background:#fff}
main{max-width:1100px;margin:1.5rem auto;padding:0 1rem}table{border-collapse:collapse;width:100%}
th,td{padding:.3rem .6rem;text-align:right;border-bottom:1px solid #e4e4e4}th{font-weight:600}
td:last-child,th:last-child{text-align:left;color:#555;font-size:13px}.best{background:#e8f6ec}
.base{background:#fdf5e0}"""


def _told(one: "Found") -> str:
    signal, forest = one.recipe.signal, one.recipe.forest
    return (f"{signal.window} samples at {signal.rate_hz:g} Hz, {len(one.recipe.feature_names)} "
            f"features, {forest.trees} trees of depth {forest.depth}, {forest.vote}, "
            f"{forest.form}" + (f", gate decides {100 * one.gated:.0f} %" if one.gated else ""))


def _noticed(found: "Events | None") -> str:
    return "" if found is None else (f"{found.detected} of {found.episodes}, "
                                     f"{found.per_hour:.0f}")


def _table(outcome: "Outcome") -> str:
    from html import escape

    scored = outcome.baseline.events is not None
    head = ("validated", "held out (95 %)",
            *(("events seen, false alarms an hour", "the same, held out") if scored else ()),
            "mJ", "bytes (modelled)", "µs", "window, s", "what")
    rows = []
    for one in [*outcome.front, outcome.baseline]:
        kind = ("best" if one.recipe == outcome.best.recipe else
                "base" if one is outcome.baseline else "")
        held = one.held_out
        cells = (f"{100 * one.accuracy:.2f} %",
                 f"{100 * held.value:.2f} % ({100 * held.low:.1f}–{100 * held.high:.1f})",
                 *([_noticed(one.events), _noticed(one.events_held_out)] if scored else []),
                 f"{one.energy_uj / 1e3:.2f}", f"{one.bytes:,} ({one.bytes_modelled:,.0f})",
                 f"{one.latency_us:.0f}",
                 f"{one.recipe.signal.window / one.recipe.signal.rate_hz:.2f}",
                 escape(_told(one) + ": " + ", ".join(one.recipe.feature_names)))
        row = "".join(f"<td>{cell}</td>" for cell in cells)
        rows.append(f"<tr class='{kind}'>{row}</tr>")
    return ("<table><tr>" + "".join(f"<th>{name}</th>" for name in head) + "</tr>"
            + "".join(rows) + "</table>")
