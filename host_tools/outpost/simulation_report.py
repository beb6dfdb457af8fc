"""The page that `outpost simulate` leaves behind: where the joules went, and for what."""

import html
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import outpost.device  # noqa: F401  # firmware/ on the path
from node import modes
from node.board import BROWNOUT, COLD
from node.settings import Settings
from outpost import cascade, page, simulate, words
from outpost.boards import STAGES, Figure
from outpost.page import BANDS, FAINT, INK, LINE
from outpost.simulate import Outcome
from outpost.words import LANES, MODES
from outpost.world.battery import PHASES
from outpost.world.figures import Life, lasts
from outpost.world.schedule import DAY_S

POINTS = 2000  # of a curve, at most
LAG_S = 600  # a node's clock is less than that behind
MOST = 2  # figures told with their source for a phase
COLOURS = dict(zip(PHASES, page.PHASES, strict=True))
KINDS = {"modelled": 0, "cited": 1, "measured on emulator": 2, "measured on hardware": 3}

# The figures of a board file that a phase's energy and time rest on.
POWERS = {"boot": ("boot", "active"), "capture": ("light_sleep", "active", "sensor.on"),
          "store": ("active", "flash"), "sleep": ("deep_sleep",), "listen": ("sensor.watch",),
          "lost": ("active",)}


def write(outcomes: list[Outcome], folder: Path) -> Path:
    """Write report.html into `folder` and return its path."""
    parts = [_head(outcomes)]
    if len(outcomes) > 1:
        parts.append(page.section(
            "Side by side", "Every figure is modelled: the board file's costs, times what the "
            "firmware did.", _side_by_side(outcomes)))
    for one in outcomes:
        parts += _sections(one, f"{one.case.name} · " if len(outcomes) > 1 else "")
    return page.write(folder / "report.html", "Outpost: a simulation", parts)


def _sections(one: Outcome, prefix: str) -> Iterator[str]:
    life, plan = one.life, one.plan
    yield page.section(
        f"{prefix}Battery",
        "What the world's battery really holds, and what the node believes. Shaded: the node's "
        "mode, where it is not FULL. Dashed: where it goes at the mean of the last seven days.",
        _battery(life), "<p class=faint>Days left, as the node forecasts at each wake from what "
        "it believes and its mean power of the last days; and seconds between its timer wakes."
        "</p>", _forecast(life), _mode_table(one))
    yield page.section(
        f"{prefix}Joules by phase", f"A day, at the battery ({html.escape(plan.battery.name)}). "
        "Boot to uplink are the stages of a wake; listen is the sensor watching for motion, leak "
        "the battery's self-discharge, lost what passes took that a brown-out or the watchdog "
        "ended.", _joules(life))
    yield page.section(
        f"{prefix}The budget of a wake",
        f"Means of {len(life.clock_s):,} wakes; charge and energy at the battery. The kind is the "
        "weakest among the figures a phase rests on.", _budget(one))
    yield page.section(
        f"{prefix}Latency", f"How long each stage took, modelled for "
        f"{html.escape(plan.board.name)}; {_late(one):,} wakes ended at the deadline. Dotted: the "
        f"awake deadline, {one.plan.settings['awake_ms'] / 1e3:g} s; dashed: the contract's "
        "awake_p99_ms, where it has one.", _latency(one))
    yield page.section(
        f"{prefix}Decisions", "Held against the labels of the recordings the node was given, by "
        "who decided and in which mode; and what main makes of the same windows. A pass counts up "
        "to its decision. Heavy, at the gateway, is asked about windows that main was unsure of: "
        "what it takes is that they are kept and sent.", _tiers(one))
    yield page.section(
        f"{prefix}Records by lane", "Dropped records made room for newer ones before they could "
        "be sent, and are counted at the node; waiting ones were still on its flash at the end.",
        _lanes(one), _queue(life))
    yield page.section(
        f"{prefix}Figures it rests on", f"From {html.escape(plan.board.file.name)} and "
        "batteries.toml, with kind and source of each.", _figures(one))


def _head(outcomes: list[Outcome]) -> str:
    told = outcomes[0].told
    title = " and ".join(f"{one.case.name} on {one.plan.board.name}" for one in outcomes)
    rows = []
    for one in outcomes:
        t = one.told
        good = t["ok"] and not t["flat_s"]
        line = (f"life: {lasts(t)}, {t['average_current_ua']:,.1f} µA on average, "
                f"{t['joules_per_day']:,.2f} J a day")
        records = (f"{t['appended']:,} records appended = {t['stored']:,} stored + "
                   f"{t['waiting']:,} waiting + {t['dropped']:,} dropped"
                   if t["ok"] else f"records don't add up: {t['lost']:,} lost, "
                   f"{t['duplicates']:,} doubled, {t['phantoms']:,} never appended")
        values = [(f"{t['days']:g}", "virtual days"), (f"{t['wakes']:,}", "wakes of the firmware"),
                  (f"{t['battery_pct']:.1f} %", "left in the battery"),
                  (f"{100 * t['accuracy']:.2f} %", f"of {t['decisions']:,} decisions right"),
                  (f"{sum(t['broken_off'].values()):,}", "passes that power or watchdog ended")]
        rows.append(f"<section><div class='verdict {'good' if good else 'bad'}'>"
                    f"{html.escape(one.case.name)}: {html.escape(line)}</div>"
                    f"{page.figures(values)}<p class=faint>{html.escape(records)}</p>"
                    + "".join(f"<p class=faint>{html.escape(one)}</p>" for one in t["warnings"])
                    + "</section>")
    return (f"<h1>{html.escape(title)}</h1><p class=faint>model {html.escape(told['model'])}, "
            f"seed {told['seed']}; the same seed gives the same days. Modelled: the firmware ran "
            "on MicroPython's unix port, and time and joules went by the board's figures.</p>"
            + "".join(rows))


def _side_by_side(outcomes: list[Outcome]) -> str:
    def row(name: str, tell) -> list[str]:  # type: ignore[no-untyped-def]
        return [name, *(tell(one.told) for one in outcomes)]

    rows = [row("life, days", lambda t: f"{t['life_days']:,.1f}"),
            row("mean current, µA", lambda t: f"{t['average_current_ua']:,.1f}"),
            row("joules a day", lambda t: f"{t['joules_per_day']:,.3f}"),
            row("bytes a day", lambda t: f"{t['bytes_per_day']:,}"),
            row("wakes", lambda t: f"{t['wakes']:,}"),
            row("awake p50 / p99, ms", lambda t: f"{t['latency_us']['awake']['p50'] / 1e3:,.1f} / "
                                                 f"{t['latency_us']['awake']['p99'] / 1e3:,.1f}"),
            row("accuracy, %", lambda t: f"{100 * t['accuracy']:.2f}"),
            row("appended / stored / dropped / lost", lambda t: (
                f"{t['appended']:,} / {t['stored']:,} / {t['dropped']:,} / {t['lost']:,}"))]
    for phase in PHASES:
        rows.append(row(f"{phase}, J a day", lambda t, phase=phase: (
            f"{t['energy_mj'][phase] / 1e3 / t['days']:,.4f}")))
    for mode in MODES.values():
        if not any(mode in one.told["modes"] for one in outcomes):
            continue
        rows.append(row(f"{mode}, % of the time", lambda t, mode=mode: (
            f"{100 * t['modes'].get(mode, 0) / sum(t['modes'].values()):.2f}")))
    return page.table(("", *(one.case.name for one in outcomes)), rows, numbers=1)


# --- curves ---


def _battery(life: Life) -> str:
    import plotly.graph_objects as go

    ends = life.clock_s + life.length_s
    percent = 100 / life.capacity_mj
    few = _few(len(ends))
    figure = go.Figure()
    figure.add_scatter(x=_times(ends[few]), y=_round(life.battery_mj[few] * percent), name="true",
                       mode="lines", line={"color": INK, "width": 2})
    left = life.told["left_mj"][few]
    if not np.isnan(left).all():
        figure.add_scatter(x=_times(life.clock_s[few]), y=_round(left * percent), mode="lines",
                           name="as the node believes", line={"color": LINE, "width": 1.5})
    week = ends >= ends[-1] - 7 * DAY_S
    net_mw = ((life.drained_mj[week].sum() - life.harvest_mj[week].sum())
              / max(1.0, life.length_s[week].sum()))
    if life.battery_mj[-1] > 0 and net_mw > 0:
        ahead = min(life.battery_mj[-1] / net_mw, 1.5 * life.seconds)
        figure.add_scatter(
            x=_times(np.array([ends[-1], ends[-1] + ahead])), mode="lines", name="forecast",
            y=_round(np.array([life.battery_mj[-1], life.battery_mj[-1] - ahead * net_mw])
                     * percent), line={"color": FAINT, "dash": "dash", "width": 1.5})
    for name, begin, end in _bands(life):
        figure.add_vrect(x0=page.when(begin), x1=page.when(end), fillcolor=BANDS[name],
                         opacity=0.25, line_width=0, layer="below")
    for name, colour in BANDS.items():
        if any(band[0] == name for band in _bands(life)):
            figure.add_scatter(x=[None], y=[None], mode="markers", name=name,
                               marker={"symbol": "square", "size": 12, "color": colour,
                                       "opacity": 0.5})
    for begin, end in life.flat:
        figure.add_vrect(x0=page.when(begin), x1=page.when(end), fillcolor=INK, opacity=0.6,
                         line_width=0, annotation_text="flat", layer="below")
    charge = life.battery_mj * percent
    figure.update_yaxes(title="% of capacity", range=[max(0.0, charge.min() - 10),
                                                      min(104.0, charge.max() + 10)])
    return page.plot(figure, 340)


def _forecast(life: Life) -> str:
    import plotly.graph_objects as go

    whole = np.flatnonzero(life.told["rate_uw"] > 0)
    few = whole[_few(len(whole))] if len(whole) else whole
    told = {key: values[few] for key, values in life.told.items()}
    slowest_s = Settings(str(life.plan.folder / "node/settings.json")).wake_most_s
    pace_s = np.where(life.mode[few] < modes.CRITICAL, told["pace_s"], slowest_s)
    times = _times(life.clock_s[few])
    figure = go.Figure()
    figure.add_scatter(x=times, y=_round(told["left_mj"] / told["rate_uw"] * 1e3 / DAY_S, 1),
                       mode="lines", name="days left", line={"color": INK, "width": 1.5})
    figure.add_scatter(x=times, y=pace_s.tolist(), mode="lines", name="pace, s",
                       line={"color": FAINT, "width": 1.5, "dash": "dot"}, yaxis="y2")
    figure.update_layout(
        yaxis={"title": "days", "rangemode": "tozero"},
        yaxis2={"overlaying": "y", "side": "right", "showgrid": False, "title": "s",
                "rangemode": "tozero"})
    return page.plot(figure, 200)


def _bands(life: Life) -> list[tuple[str, float, float]]:
    """Return (mode, from, to) of the times in other modes than FULL."""
    bands: list[tuple[str, float, float]] = []
    for mode, begin, length in zip(life.mode, life.clock_s, life.length_s, strict=True):
        name = MODES[int(mode)]
        if name not in BANDS:
            continue
        if bands and bands[-1][0] == name and begin - bands[-1][2] < 1:
            bands[-1] = name, bands[-1][1], float(begin + length)
        else:
            bands.append((name, float(begin), float(begin + length)))
    return bands


def _joules(life: Life) -> str:
    import plotly.graph_objects as go

    start_s = life.plan.schedule.start_s
    day = ((life.clock_s - start_s) // DAY_S).astype(int)
    figure = go.Figure()
    middles = [page.when(start_s + (i + 0.5) * DAY_S) for i in range(day[-1] + 1)]
    for number, phase in enumerate(PHASES):
        joules = np.bincount(day, life.drained_mj[:, number], day[-1] + 1) / 1e3
        if joules.any():
            figure.add_bar(x=middles, y=_round(joules, 5), name=phase,
                           marker_color=COLOURS[phase], marker_line_width=0)
    if life.harvest_mj.any():
        harvest = np.bincount(day, life.harvest_mj, day[-1] + 1) / 1e3
        figure.add_scatter(x=middles, y=_round(harvest, 4), name="harvest", mode="lines",
                           line={"color": INK, "width": 1.5, "dash": "dot"}, yaxis="y2")
        figure.update_layout(yaxis2={"overlaying": "y", "side": "right", "showgrid": False,
                                     "title": "harvest, J", "rangemode": "tozero"})
    figure.update_layout(barmode="stack", bargap=0.08, yaxis_title="J a day")
    return page.plot(figure, 320)


def _latency(one: Outcome) -> str:
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    life = one.life
    names = [(i, name) for i, name in enumerate((*STAGES, "awake"))
             if not np.isnan(life.took_us[:, i]).all()]
    figure = make_subplots(rows=(len(names) + 3) // 4, cols=4, vertical_spacing=0.16,
                           horizontal_spacing=0.05,
                           subplot_titles=[name for _, name in names])
    for at, (i, name) in enumerate(names):
        took = life.took_us[~np.isnan(life.took_us[:, i]), i] / 1e3
        low, high = max(took.min(), 1e-3), max(took.max(), 1e-3)
        edges = np.geomspace(low * 0.9, high * 1.1 + 1e-6, 28)
        counts, _ = np.histogram(np.maximum(took, 1e-3), edges)
        row, column = at // 4 + 1, at % 4 + 1
        figure.add_trace(go.Bar(x=_round(np.sqrt(edges[1:] * edges[:-1]), 4), y=counts.tolist(),
                                width=_round(np.diff(edges) * 0.95, 4), marker_line_width=0,
                                marker_color=INK if name == "awake" else LINE, name=name),
                         row=row, col=column)
        if name == "awake":
            figure.add_vline(x=one.plan.settings["awake_ms"], line_dash="dot",
                             line_color="#c43c39", row=row, col=column)
            for line in simulate.lines(one):
                if line.name == "awake_p99_ms" and line.demanded is not None:
                    figure.add_vline(x=line.demanded, line_dash="dash", line_color="#e0813a",
                                     row=row, col=column)
    figure.update_xaxes(type="log", exponentformat="none", nticks=4, tickfont={"size": 11})
    figure.update_yaxes(type="log", showticklabels=False)
    figure.update_layout(showlegend=False)
    return (page.plot(figure, 170 * ((len(names) + 3) // 4) + 60, top=30)
            + "<p class=faint>Milliseconds across, wakes upward, both logarithmic.</p>")


def _late(one: Outcome) -> int:
    """Return how many wakes the deadline cut short."""
    return int((one.life.took_us[:, -1] >= 1e3 * one.plan.settings["awake_ms"]).sum())


def _queue(life: Life) -> str:
    import plotly.graph_objects as go

    whole = np.flatnonzero(life.slept)
    few = whole[_few(len(whole))]
    figure = go.Figure()
    figure.add_scatter(x=_times(life.clock_s[few]), y=life.depth[few].tolist(), mode="lines",
                       name="waiting", line={"color": LINE, "shape": "hv", "width": 1.5},
                       fill="tozeroy", fillcolor="rgba(47,111,159,0.15)")
    figure.update_yaxes(title="records waiting")
    return page.plot(figure, 220)


# --- tables ---


def _mode_table(one: Outcome) -> str:
    total = sum(one.told["modes"].values())
    rows = [[name, f"{span / 3600:,.1f} h", f"{100 * span / total:.2f} %"]
            for name, span in one.told["modes"].items()]
    table = page.table(("mode", "time", "share"), rows, numbers=1)
    changes = list(_history(one))
    if not changes:
        return table
    told = page.table(("changed", "from", "to", "reason"), changes)
    return (f"{table}<details open><summary class=faint>{len(changes):,} changes of mode, with "
            f"their reasons</summary>{told}</details>")


def _history(one: Outcome) -> Iterator[list[str]]:
    """Yield the changes of mode that the node told, and those of which it couldn't know.

    Power that goes takes retained memory with it, and the mode that stood there.
    """
    life = one.life
    begun = life.clock_s[np.isin(life.cause, (COLD, BROWNOUT))]
    mode = modes.FULL
    for change in one.audit.changes:
        if change.before != mode:
            lost = begun[begun < change.time_s + LAG_S]
            yield [page.when(lost[-1]), MODES[mode], MODES[change.before],
                   "power was lost, and with it what it knew: it looks anew"]
        yield [page.when(change.time_s), MODES[change.before], MODES[change.after],
               words.mode_reason(change.reason)]
        mode = change.after


def _budget(one: Outcome) -> str:
    life, plan = one.life, one.plan
    wakes, volt = len(life.clock_s), plan.battery.nominal.to("V")
    rows = []
    for number, phase in enumerate(PHASES):
        mj = life.drained_mj[:, number].sum() / wakes
        if not mj:
            continue
        ms = p50 = p99 = ""
        if number < len(STAGES):
            took = life.took_us[:, number]
            ms = f"{np.nansum(took) / wakes / 1e3:,.3f}"
            levels = one.told["latency_us"][phase]
            p50, p99 = (f"{levels[key] / 1e3:,.3f}" for key in ("p50", "p99"))
        elif phase == "sleep":
            asleep_s = life.length_s.sum() - np.nansum(life.took_us[:, -1]) / 1e6
            ms = f"{asleep_s / wakes * 1e3:,.0f}"
        share = 100 * mj * wakes / life.drained_mj.sum()
        used = list(_rests_on(one, phase))
        kind = min((figure.kind for _, figure in used), key=KINDS.__getitem__)
        source = "; ".join(f"{key} {figure}, {figure.kind}: {figure.source}"
                           for key, figure in used[:MOST])
        if len(used) > MOST:
            source += f"; and {len(used) - MOST} more, below"
        rows.append([phase, ms, f"{mj / volt:,.4f}", f"{mj:,.4f}", f"{share:.1f}", p50, p99, kind,
                     source])
    total = life.drained_mj.sum() / wakes
    rows.append(["all", f"{life.length_s.sum() / wakes * 1e3:,.0f}", f"{total / volt:,.4f}",
                 f"{total:,.4f}", "100.0", "", "", "", ""])
    return page.table(("phase", "ms", "mC", "mJ", "%", "p50 ms", "p99 ms", "kind",
                       "figures that matter most"), rows, numbers=1, words=7)


def _rests_on(one: Outcome, phase: str) -> Iterator[tuple[str, Figure]]:
    """Yield the figures that a phase's energy is made of: powers, then costs, largest first."""
    board, power = one.plan.board, one.plan.board.power
    if phase == "leak":
        yield "self_discharge", one.plan.battery.self_discharge
        return
    if phase == "uplink":
        yield f"radio.{one.plan.radio}.session", power["radio"][one.plan.radio]["session"]
        yield from board.costs["uplink"][one.plan.radio].items()
        return
    for key in POWERS.get(phase, ("active",)):
        table: dict = power
        for part in key.split("."):
            table = table.get(part, {})
        if isinstance(table, Figure):
            yield key, table
            if phase == "boot":
                break  # `active` only where there is no `boot`
    costs = board.costs.get(phase, {}).items()
    yield from sorted(costs, key=lambda item: -item[1].to("ns"))


def _tiers(one: Outcome) -> str:
    rows = [[share.tier, share.mode, f"{share.windows:,}", f"{100 * share.right:.2f}",
             f"{100 * share.main_right:.2f}" if share.tier != "main" else "",
             f"{'+' if share.tier == 'heavy' else ''}{share.mj:,.3f}",
             f"{share.spared_mj / 1e3:+,.2f}" if share.tier != "main" else ""]
            for share in cascade.shares(one.life, one.audit)]
    return page.table(("decided by", "in mode", "windows", "% right", "main on the same, %",
                       "mJ a pass", "J spared"), rows, numbers=2)


def _lanes(one: Outcome) -> str:
    rows = [[name, *(f"{counts[key]:,}" for key in ("appended", "stored", "waiting", "dropped"))]
            for name, counts in zip(LANES, one.audit.lanes, strict=True)]
    return page.table(("lane", "appended", "stored", "waiting", "dropped"), rows, numbers=1)


def _figures(one: Outcome) -> str:
    plan = one.plan
    rows = []
    for key, figure in plan.board.figures():
        section, _, rest = key.partition(".")
        other = (rest.startswith(("uplink.", "radio."))
                 and not rest.split(".", 1)[1].startswith(f"{plan.radio}."))
        if section in ("power", "costs", "supply") and not other:
            rows.append([key, str(figure), figure.kind, figure.source])
    battery = plan.battery
    for key in ("capacity", "nominal", "self_discharge"):
        figure = getattr(battery, key)
        rows.append([f"{battery.key}.{key}", str(figure), figure.kind, figure.source])
    return page.table(("what", "figure", "kind", "source"), rows)


# --- pieces ---


def _few(count: int) -> np.ndarray:
    """Return indices of `count` points that are few enough to draw, the last among them."""
    step = max(1, count // POINTS)
    return np.unique(np.append(np.arange(0, count, step), count - 1))


def _times(seconds: np.ndarray) -> list[str]:
    return [page.when(float(one)) for one in seconds]


def _round(values: np.ndarray, digits: int = 3) -> list[float]:
    return np.round(values, digits).tolist()
