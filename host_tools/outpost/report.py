"""The page that a run leaves behind: one HTML file that needs no network."""

import html
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import outpost.device  # noqa: F401  # firmware/ on the path
from node import board as causes
from outpost import page
from outpost.page import INK, LINE
from outpost.world import journal
from outpost.world.audit import Audit
from outpost.world.run import Plan

if TYPE_CHECKING:
    import plotly.graph_objects as go

STAGES = ("boot", "capture", "pre", "infer", "post", "store", "uplink")
CAUSES = {causes.TIMER: ("timer", "#8fb3d9"), causes.EVENT: ("motion", "#e0913a"),
          causes.WATCHDOG: ("watchdog reset", "#8e5ea2"),
          causes.BROWNOUT: ("brown-out", "#c43c39")}
UP = "#3b8f5a"

def write(plan: Plan, audit: Audit) -> Path:
    """Write report.html into the run's folder and return its path."""
    db = journal.read(plan.folder / "world.db")
    wakes = [dict(row) for row in db.execute("SELECT * FROM wakes ORDER BY n")]
    truth = [dict(row) for row in db.execute(
        "SELECT captures.*, wakes.decision FROM captures JOIN wakes USING (n)"
        " WHERE wakes.ended = 'slept' AND wakes.decision < 255 ORDER BY time_s")]
    db.close()
    taken = stages(wakes)
    sections = [
        _verdict(plan, audit, wakes),
        page.section("What the wearer did, and what the node decided",
                     "Each dot is a decision made by the compiled model on the node; the grey "
                     "bar behind it is what the recording it saw was really of.",
                     _timeline(plan, truth)),
        page.section("Records waiting at the node",
                     "They gather while there is no link and go home when there is one. Green "
                     "bands: the link was up. After attempts that failed the node tries less and "
                     "less often, so a short burst may pass unnoticed.", _queue(plan, wakes)),
        page.section("Wakes", "An hour, by cause. Green bands: the link was up.",
                     _wakes(plan, wakes)),
        page.section("Decisions against truth",
                     "Rows are the truth, columns what the node decided.",
                     _confusion(plan, audit)),
        page.section("Where the time of a wake goes",
                     f"Modelled for {html.escape(plan.board.name)}: node code ran on "
                     "MicroPython's unix port, and virtual time went by the board's cost table "
                     "below, never by the speed of this PC. An uplink's median is an attempt that "
                     "met no link.", _latency(taken), _percentiles(taken)),
        page.section("Costs that virtual time went by",
                     f"From {html.escape(plan.board.file.name)}, with kind and source of each.",
                     _costs(plan)),
    ]
    return page.write(plan.folder / "report.html", f"Outpost: {plan.model.model}", sections)


def stages(wakes: Iterable[dict[str, Any]]) -> dict[str, list[int]]:
    """Return the µs that each stage took in each whole wake that had it, and "awake" for all."""
    taken: dict[str, list[int]] = {name: [] for name in (*STAGES, "awake")}
    for wake in wakes:
        if wake["laps"]:
            for stage, us in journal.laps(wake["laps"]):
                taken[STAGES[stage]].append(us)
            taken["awake"].append(wake["awake_us"])
    return taken


def percentile(values: list[int], percent: float) -> int:
    """Return the smallest value that `percent` of `values` do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -int(-len(ordered) * percent // 100) - 1)]


# --- sections ---


def _verdict(plan: Plan, audit: Audit, wakes: list[dict[str, Any]]) -> str:
    dropped = f" + {audit.dropped:,} dropped and counted" if audit.dropped else ""
    if audit.ok:
        line = (f"{audit.appended:,} records appended = {audit.stored:,} stored{dropped}, "
                "each once")
    else:
        line = (f"{audit.appended:,} records appended, {audit.stored:,} stored, {audit.dropped:,} "
                f"dropped; {audit.lost:,} lost, {audit.duplicates:,} doubled, {audit.phantoms:,} "
                f"never appended, {audit.differing:,} changed")
    broken = [wake["ended"] for wake in wakes if wake["ended"] != "slept"]
    figures = (
        (f"{plan.schedule.days:g}", "virtual days"),
        (f"{len(wakes):,}", "wakes, each a new process"),
        (f"{100 * audit.accuracy:.2f} %", f"of {audit.decisions:,} decisions right"),
        (f"{sum(how in ('cut', 'killed') for how in broken)}", "brown-outs"),
        (f"{sum(how == 'hung' for how in broken)}", "watchdog resets"),
        (f"{audit.compared:,}", "on flash, byte for byte the same"),
    )
    unflushed = (f"<p class=faint>{audit.unflushed} decisions were still gathering in retained "
                 "memory when a brown-out took it; they had not been appended.</p>"
                 if audit.unflushed else "")
    return (f"<h1>A node's life: {html.escape(plan.model.model)} on a virtual "
            f"{html.escape(plan.board.name)}</h1><p class=faint>seed {plan.schedule.seed}; the "
            "same seed gives the same days</p>"
            f"<section><div class='verdict {'good' if audit.ok else 'bad'}'>{line}</div>"
            f"{page.figures(figures)}{unflushed}</section>")


def _timeline(plan: Plan, truth: list[dict[str, Any]]) -> str:
    import plotly.graph_objects as go

    classes = plan.meta["classes"]
    days, labels, before = [], [], None
    for row in truth:  # a line for each stretch, with a gap before the next
        if labels and row["label"] != before:
            days.append(days[-1])
            labels.append(None)
        before = row["label"]
        days.append(page.when(row["time_s"]))
        labels.append(before)
    right = [row for row in truth if classes[row["decision"]] == row["label"]]
    wrong = [row for row in truth if classes[row["decision"]] != row["label"]]
    figure = go.Figure()
    figure.add_scatter(x=days, y=labels, mode="lines", name="truth",
                       line={"color": "#b9c5d1", "width": 9}, hoverinfo="skip")
    for rows, name, colour, size in ((right, "right", LINE, 4), (wrong, "wrong", "#c43c39", 9)):
        figure.add_scatter(
            x=[page.when(row["time_s"]) for row in rows],
            y=[classes[row["decision"]] for row in rows], mode="markers", name=name,
            marker={"color": colour, "size": size},
            text=[f"{row['recording']}, from sample {row['start']}" for row in rows])
    figure.update_yaxes(categoryorder="array", categoryarray=classes)
    return page.plot(figure, 300)


def _confusion(plan: Plan, audit: Audit) -> str:
    import plotly.graph_objects as go

    classes = plan.meta["classes"]
    rows = [[audit.confusion.get((truth, decided), 0) for decided in classes]
            for truth in classes]
    shares = [[n / max(1, sum(row)) for n in row] for row in rows]
    figure = go.Figure(go.Heatmap(
        z=shares, x=classes, y=classes, text=rows, texttemplate="%{text:,}", zmin=0, zmax=1,
        colorscale=[[0, "#f6f8fa"], [0.02, "#f3d9c4"], [1, LINE]], showscale=False,
        hovertemplate="%{y}, decided %{x}: %{text} (%{z:.1%})<extra></extra>", xgap=3, ygap=3))
    figure.update_xaxes(side="top", title="decided")
    figure.update_yaxes(autorange="reversed", title="truth")
    return (f"<div style='max-width: {240 + 110 * len(classes)}px'>"
            f"{page.plot(figure, 70 + 62 * len(classes))}</div>")


def _wakes(plan: Plan, wakes: list[dict[str, Any]]) -> str:
    import plotly.graph_objects as go

    figure = go.Figure()
    start_s = plan.schedule.start_s
    hours = int((wakes[-1]["clock_us"] / 1e6 - start_s) // 3600) + 1
    for cause, (name, colour) in CAUSES.items():
        counts = [0] * hours
        for wake in wakes:
            if wake["cause"] == cause:
                counts[int((wake["clock_us"] / 1e6 - start_s) // 3600)] += 1
        if any(counts):
            middles = [page.when(start_s + 3600 * (i + 0.5)) for i in range(hours)]
            figure.add_bar(x=middles, y=counts, name=name, marker_color=colour,
                           marker_line_width=0)
    figure.update_layout(barmode="stack", bargap=0)
    figure.update_yaxes(title="wakes an hour")
    return page.plot(_links(plan, wakes, figure), 280)


def _queue(plan: Plan, wakes: list[dict[str, Any]]) -> str:
    import plotly.graph_objects as go

    whole = [wake for wake in wakes if wake["ended"] == "slept"]
    figure = go.Figure()
    figure.add_scatter(x=[page.when(wake["clock_us"] / 1e6) for wake in whole],
                       y=[wake["depth"] for wake in whole], mode="lines", name="waiting",
                       line={"color": LINE, "shape": "hv", "width": 1.5}, fill="tozeroy",
                       fillcolor="rgba(47,111,159,0.15)")
    lost = [wake for wake in wakes if wake["cause"] in (causes.BROWNOUT, causes.WATCHDOG)]
    figure.add_scatter(x=[page.when(wake["clock_us"] / 1e6) for wake in lost],
                       y=[wake["depth"] or 0 for wake in lost], mode="markers",
                       name="after a brown-out or watchdog reset",
                       marker={"color": "#c43c39", "symbol": "x", "size": 8})
    figure.update_yaxes(title="records")
    return page.plot(_links(plan, wakes, figure), 280)


def _latency(taken: dict[str, list[int]]) -> str:
    import plotly.graph_objects as go

    names = [name for name in (*STAGES, "awake") if taken[name]]
    median, longest = ([percentile(taken[name], percent) / 1e3 for name in names]
                       for percent in (50, 100))
    figure = go.Figure()
    figure.add_bar(y=names, x=median, orientation="h", name="median", width=0.5,
                   marker_color=[LINE if name != "awake" else INK for name in names])
    figure.add_scatter(y=names, x=longest, mode="markers", name="longest",
                       marker={"symbol": "line-ns-open", "size": 14, "color": "#c43c39"})
    figure.update_xaxes(type="log", title="milliseconds, modelled", dtick=1, exponentformat="none")
    figure.update_yaxes(autorange="reversed")
    return page.plot(figure, 340)


def _percentiles(taken: dict[str, list[int]]) -> str:
    rows = [[name, f"{len(taken[name]):,}",
             *(f"{percentile(taken[name], percent) / 1e3:,.3f}" for percent in (50, 90, 99, 100))]
            for name in (*STAGES, "awake") if taken[name]]
    return page.table(("stage", "times", "median ms", "90 %", "99 %", "longest"), rows, numbers=1)


def _costs(plan: Plan) -> str:
    used = next(iter(plan.board.costs["uplink"]))
    rows = [[key.removeprefix("costs."), str(figure), figure.kind, figure.source]
            for key, figure in plan.board.figures() if key.startswith("costs.")
            and (not key.startswith("costs.uplink.") or key.startswith(f"costs.uplink.{used}."))]
    return page.table(("what", "takes", "kind", "source"), rows)


def _links(plan: Plan, wakes: list[dict[str, Any]], figure: "go.Figure") -> "go.Figure":
    """Shade the times when the link was up; once the days are over it always is."""
    over = plan.schedule.end_s, wakes[-1]["clock_us"] / 1e6
    for up, down in (*plan.schedule.links, over):
        figure.add_vrect(x0=page.when(up), x1=page.when(down), fillcolor=UP, opacity=0.22,
                         line_width=0, layer="below")
    return figure
