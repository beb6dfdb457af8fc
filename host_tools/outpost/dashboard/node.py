"""What the page of one node tells, from its records and heartbeats."""

import struct
from typing import Any

from sqlalchemy import Connection

import outpost.device  # noqa: F401  # firmware/ on the path
from node import record
from node.outbox import ALERT, DIAGNOSTIC, EVENT, TELEMETRY
from outpost import words
from outpost.dashboard import charts, health, models
from outpost.dashboard.curves import DAY_S
from outpost.gateway import commands, views

POINTS = 1500  # of a curve
DAYS = 60
DECISIONS, LISTED = 400, 8
EVENTS, GAPS = 60, 12
CONTACTS = 2000
SILENCE = 4  # times the usual distance of two contacts: worth telling


def version(db: Connection, node: int) -> str:
    """Return what changes when anything about the node does."""
    glance = views.glances(db, node=node)
    reach = sum(lane.reach + lane.head for lane in views.node_lanes(db, node))
    return f"{glance[0].heard_at if glance else 0}/{reach}"


def told(db: Connection, node: int, now_s: float) -> dict[str, Any] | None:
    """Return all the page has, None if nobody knows the node."""
    glance = next(iter(views.glances(db, node=node)), None)
    if glance is None:
        return None
    lanes = views.node_lanes(db, node)
    model = models.known(name_of_model(glance.items) or "")
    diagnostic = [lane for lane in lanes if lane.number == DIAGNOSTIC]
    spoken = [lane for lane in lanes if lane.number in (ALERT, EVENT)]
    telemetry = [lane for lane in lanes if lane.number == TELEMETRY]
    states = list(views.states(views.newest_records(db, node, diagnostic, [record.STATE],
                                                    POINTS)))
    days = views.days(views.newest_records(db, node, diagnostic, [record.DAY], DAYS))
    decided = [one for one in views.newest_records(db, node, telemetry, [record.DECISION],
                                                   DECISIONS) if len(one.payload) == 4]
    events = [one for one in views.newest_records(db, node, spoken, [record.EVENT], POINTS)
              if len(one.payload) >= 3]
    happened = sorted(events + views.newest_records(
        db, node, diagnostic + spoken, [record.SETTING, record.RESULT, record.CLOCK], EVENTS),
        key=lambda one: (one.time_s, one.seq))
    last_s = max((*(one.time_s for one in states), *(one.time_s for one in events)), default=0)
    items = glance.items
    so_far = items.get("today_uj")
    today = (int(last_s // DAY_S), so_far) if so_far and last_s else None
    return {
        "node": node, "heard_at": glance.heard_at, "health": health.of(glance, now_s),
        "items": items, "soc": health.soc(items), "days_left": health.days_left(items),
        "mode": words.MODES.get(items.get("mode", -1), ""),
        "mode_since": glance.heard_at - items["mode_age_s"]
        if glance.heard_at and 0 < items.get("mode_age_s", 0) < glance.heard_at else None,
        "waiting": sum(items.get("waiting", {}).values()),
        "dropped": sum(items.get("dropped", {}).values()),
        "model": model_label(items),
        "battery": charts.battery(states, charts.bands(states, events, last_s),
                                  health.days_left(items)) if states else None,
        "joules": charts.joules(days, today) if days or today else None,
        "stages": charts.stages(items),
        "decisions": charts.decisions(decided, model.classes) if decided else None,
        "decided": [_decision(one, model) for one in decided[:-LISTED - 1:-1]],
        "events": [{"time_s": one.time_s, "alert": one.lane == ALERT, "said": said}
                   for one in happened[:-2 * EVENTS - 1:-1]
                   if (said := _said(one, model.classes))][:EVENTS],
        "condition": _condition(items),
        "lanes": _lanes(items, lanes), "gaps": _gaps(db, node, lanes),
        "silences": _silences(db, node, glance.heard_at, now_s)}


def name_of_model(items: dict[str, Any]) -> str | None:
    """Return the name of the model that a heartbeat says its node has."""
    return items.get("model", {}).get("name") or None


def model_label(items: dict[str, Any]) -> str:
    """Return name and version of a node's model, and whether it is on trial."""
    model = items.get("model", {})
    if not model.get("name"):
        return ""
    return f"{model['name']} {model['version']}" + (" on trial" if model.get("trial") else "")


def _said(one: views.Record, classes: tuple[str, ...]) -> str:
    """Return what an event, or what became of a setting, a command or the clock, is in words."""
    try:
        match one.kind:
            case record.SETTING:
                return words.setting(one.payload)
            case record.RESULT:
                return commands.told(one.payload)
            case record.CLOCK:
                return words.clock(one.payload)
        return words.event(*one.payload[:3], classes)
    except struct.error:
        return f"a record of kind {one.kind} that is none"


def _condition(items: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what else the newest heartbeat says: how it woke, and how flash and settings are."""
    woke = items.get("wakes_by_cause", {})
    said = [("woken by", ", ".join(f"{words.CAUSES[int(cause)]} {count:,}"
                                   for cause, count in sorted(woke.items())
                                   if int(cause) < len(words.CAUSES))),
            ("deadlines missed", f"{items['misses']:,}" if items.get("misses") else ""),
            ("uplinks that failed before this", f"{items['unlinked']:,}"
             if items.get("unlinked") else "")]
    worn, troubled = items.get("worn", {}), items.get("troubled", {})
    said += [("sectors of the ring erased", ", ".join(
        f"{name} {worn[str(at)]:,} ×" for at, name in enumerate(words.LANES) if str(at) in worn)),
        ("lanes whose flash failed", ", ".join(
            name for at, name in enumerate(words.LANES) if str(at) in troubled))]
    if "settings" in items:
        bad = items.get("settings_problem", 255)
        said.append(("settings", f"version {items['settings']}" + (
            "" if bad == 255 else f", refused: {words.setting_name(bad)}")))
    return [one for one in said if one[1]]


def _decision(one: views.Record, model: models.Model) -> dict[str, Any]:
    klass, share, smoothed, by = one.payload
    tier = by & 15
    return {"time_s": one.time_s, "class": words.class_name(klass, model.classes),
            "share": round(100 * share / 255),
            "smoothed": words.class_name(smoothed, model.classes),
            "by": words.TIERS[tier] if tier < len(words.TIERS) else str(tier),
            "mode": words.MODES.get(by >> 4, "")}


def _lanes(items: dict[str, Any], lanes: list[views.Lane]) -> list[dict[str, Any]]:
    """Return what there is of each lane: acknowledged up to, awaited, waiting, dropped."""
    newest: dict[int, views.Lane] = {}
    for lane in lanes:
        newest.setdefault(lane.number, lane)
    return [{"name": name, "head": newest[number].head if number in newest else 0,
             "awaited": number in newest and newest[number].reach > newest[number].head,
             "waiting": items.get("waiting", {}).get(str(number), 0),
             "dropped": items.get("dropped", {}).get(str(number), 0)}
            for number, name in enumerate(words.LANES)]


def _gaps(db: Connection, node: int, lanes: list[views.Lane]) -> list[dict[str, Any]]:
    return [{"lane": words.LANES[one.lane], "first": one.first, "last": one.last,
             "count": one.last - one.first + 1, "time_s": one.time_s, "gone": one.gone}
            for one in views.gaps(db, node, lanes, GAPS)[::-1] if one.lane < len(words.LANES)]


def _silences(db: Connection, node: int, heard_at: float | None, now_s: float
              ) -> list[dict[str, float]]:
    """Return the longest times between two contacts, the longest first."""
    times = views.contacts(db, node, CONTACTS)
    if heard_at is None or len(times) < 3:
        return []
    between = sorted(b - a for a, b in zip(times, times[1:], strict=False))
    usual_s = between[len(between) // 2]
    spans = [(b - a, a, b) for a, b in zip(times, [*times[1:], now_s], strict=True)
             if b - a > max(SILENCE * usual_s, 60)]
    return [{"length_s": length, "begin_s": begin, "end_s": end}
            for length, begin, end in sorted(spans, reverse=True)[:GAPS]]
