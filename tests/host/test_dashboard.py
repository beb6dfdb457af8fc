"""The dashboard in a real browser, which reaches no host but this one."""

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import uvicorn
from fakes import fleet
from gateways import enrolled
from playwright.sync_api import Browser, Page, expect, sync_playwright

from node import record, verdict
from outpost import words
from outpost.dashboard import curves, health, login, models
from outpost.dashboard import node as one_node
from outpost.dashboard import rollouts as all_rollouts
from outpost.dashboard import windows as all_windows
from outpost.dashboard.app import app
from outpost.gateway import load, mqtt, schema, store, views, windows
from outpost.gateway.desk import Desk
from outpost.gateway.load import Manners
from outpost.gateway.views import Reader
from outpost.toolchain import browser as browsers
from outpost.toolchain.servers import free_port

TOKEN = "a-token-that-is-long-enough-for-this"
PATIENCE_MS = 120_000  # a busy machine is no failure
expect.set_options(timeout=PATIENCE_MS)
DESKTOP, PHONE = {"width": 1440, "height": 900}, {"width": 390, "height": 844}


@contextlib.contextmanager
def served(database: str | Path) -> Iterator[str]:
    """The dashboard of a database, in a thread of the test; yields its URL."""
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(
        app(database, TOKEN), log_level="error", lifespan="off",
        timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(30)
        listening.close()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A browser for which there is no other host."""
    program, env = browsers.chromium()
    with sync_playwright() as play:
        found = play.chromium.launch(executable_path=program, env=env, args=[
            "--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"])
        yield found
        found.close()


@pytest.fixture
def visit(chromium: Browser):
    """A function that opens a page of a database's dashboard; nothing goes wrong on it."""
    troubles: list[str] = []
    with contextlib.ExitStack() as stack:
        def visit(database: str | Path, path: str = "/", viewport: dict = DESKTOP) -> Page:
            url = stack.enter_context(served(database))
            page = stack.enter_context(chromium.new_context(viewport=viewport)).new_page()
            page.set_default_timeout(PATIENCE_MS)
            page.on("request", lambda request: troubles.append(request.url)
                    if not request.url.startswith((url, "data:", "blob:")) else None)
            page.on("pageerror", lambda error: troubles.append(str(error)))
            page.on("console", lambda said: troubles.append(said.text)
                    if said.type == "error" else None)
            page.goto(f"{url}/login?token={TOKEN}")
            if path != "/":
                page.goto(url + path)
            return page

        yield visit
    assert not troubles


@pytest.fixture(scope="module")
def forty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with forty nodes that have lived for two days. Not to be written to."""
    database = tmp_path_factory.mktemp("forty") / "gateway.db"
    fleet.fill(database, 40)
    return database


@pytest.fixture(autouse=True)
def built(tmp_path, monkeypatch) -> None:
    """What a build of motion would tell of it."""
    (tmp_path / "models/motion").mkdir(parents=True)
    (tmp_path / "models/motion/model.json").write_text(json.dumps({
        "classes": ["still", "walking", "running", "playing"], "window": 64, "rate_hz": 12.5,
        "channels": [{"name": f"{kind}_{axis}", "unit": unit, "counts": 100.0}
                     for kind, unit in (("accel", "m/s2"), ("gyro", "rad/s"))
                     for axis in "xyz"]}))
    monkeypatch.setattr(models, "BUILD", tmp_path)


def fits(page: Page) -> bool:
    """Whether nothing sticks out at the side."""
    return page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def rows(page: Page) -> list[list[str]]:
    """What the fleet's table shows."""
    return page.eval_on_selector_all(
        "#fleet tbody tr:not([hidden])",
        "rows => rows.map(row => [...row.cells].map(cell => cell.innerText.trim()))")


# --- the fleet ---


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE])
def test_an_empty_fleet_says_what_to_do(visit, tmp_path, viewport):
    page = visit(tmp_path / "gateway.db", viewport=viewport)
    expect(page.locator("h1")).to_have_text("0 nodes")
    expect(page.locator(".empty")).to_contain_text("Nobody has reported yet")
    assert fits(page)


def test_the_first_node_appears_and_changes_without_a_reload(visit, tmp_path):
    database = tmp_path / "gateway.db"
    page = visit(database)
    expect(page.locator(".empty")).to_be_visible()
    node, = fleet.fill(database, 1)
    expect(page.locator("#fleet tbody tr")).to_have_count(1)
    (number, state, mode, battery, *_), = rows(page)
    assert (number, state, mode) == ("1001", "fine", "FULL")
    assert battery == f"{int(100 * node.soc)} %"

    page.evaluate("window.mark = 'the same page'")
    node.soc, now = 0.09, time.time()
    node.turn(now, fleet.modes.CRITICAL, fleet.modes.BATTERY_LOW)
    node.fault(fleet.outbox.ALERT, now, fleet.record.SENSOR_SILENT, 19, True)
    node.wakes += 1
    desk = Desk(store.connect(database), clock=None)
    desk.take(list(node.report(now)))
    expect(page.locator("tr.bad")).to_have_count(1)
    (_, state, mode, battery, *_, alert), = rows(page)
    assert state.startswith("CRITICAL: the battery is low") and "sensor silent" in state
    assert (mode, battery) == ("CRITICAL", "9 %") and "ENODEV" in alert
    expect(page.locator("[data-filter=bad]")).to_have_text("1 in trouble")
    assert page.evaluate("window.mark") == "the same page"


def test_five_hundred_nodes_worst_first_sorted_filtered_and_live(visit, tmp_path):
    database = tmp_path / "gateway.db"
    nodes = fleet.fill(database, 500, days=0.6, wakes=1)
    page = visit(database)
    expect(page.locator("#fleet tbody tr")).to_have_count(500)
    levels = page.eval_on_selector_all("#fleet tbody tr",
                                       "rows => rows.map(row => row.dataset.level)")
    assert levels == sorted(levels, key=["bad", "look", "fine"].index)
    assert len(set(levels)) == 3

    charge = page.get_by_role("button", name="Battery")
    charge.click()
    found = [int(row[3].removesuffix(" %") or -1) for row in rows(page)]
    assert found == sorted(found) and found[0] < found[-1]
    charge.click()
    assert [int(row[3].removesuffix(" %") or -1) for row in rows(page)] == found[::-1]

    page.locator("[data-filter=bad]").click()
    assert len(rows(page)) == levels.count("bad")
    page.locator("[data-filter='']").click()
    page.get_by_label("Find").fill("sensor silent")
    silent = rows(page)
    assert 0 < len(silent) < 50 and all("sensor silent" in row[1] for row in silent)
    page.get_by_label("Find").fill("no such node")
    expect(page.locator("#none")).to_be_visible()
    page.get_by_label("Find").fill("")

    page.evaluate("window.mark = 'the same page'")
    node, now = nodes[255], time.time()  # one of those that are fine
    row = page.locator(f"#n{node.number}")
    expect(row).to_have_class("fine")
    node.soc = 0.01
    node.turn(now, fleet.modes.CRITICAL, fleet.modes.BATTERY_LOW)
    Desk(store.connect(database), clock=None).take(list(node.report(now)))
    expect(row).to_have_class(re.compile("bad"))
    expect(row.locator(".battery")).to_have_text("1 %")
    expect(page.locator("[data-filter=bad]")).to_have_text(
        f"{levels.count('bad') + 1} in trouble")
    assert page.evaluate("window.mark") == "the same page"
    now_found = [int(row[3].removesuffix(" %") or -1) for row in rows(page)]
    assert len(now_found) == 500 and now_found == sorted(now_found, reverse=True)  # it moved, too
    assert now_found != found[::-1]


def test_the_fleet_on_a_phone(visit, forty):
    page = visit(forty, viewport=PHONE)
    assert fits(page)
    first = page.locator("#fleet tbody tr").first
    for part in (".node", ".state", ".battery", ".seen"):
        expect(first.locator(part)).to_be_visible()
    expect(first.locator(".dropped")).to_be_hidden()


# --- a node ---


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE])
def test_a_nodes_page_tells_its_story(visit, forty, viewport):
    """Node 1017 has lost its link and drops records; its heartbeats and records say so."""
    page = visit(forty, "/nodes/1017", viewport)
    expect(page.locator("#head")).to_contain_text("DEGRADED: no link")
    expect(page.locator("#head")).to_contain_text("over the link today")
    def keys(name: str) -> list[str]:
        return page.locator(f"#{name} figcaption span").all_inner_texts()

    for name in ("battery", "joules", "decisions"):  # drawn, not only there
        drawn = page.locator(f"#{name} svg")
        expect(drawn).to_be_visible()
        inside = drawn.evaluate("""svg => {
            const frame = svg.getBoundingClientRect(), inside = one => {
                const {left, right, top, bottom} = one.getBoundingClientRect();
                return left > frame.left - 9 && right < frame.right + 9
                    && top > frame.top - 9 && bottom < frame.bottom + 9;
            };
            return [...svg.querySelectorAll("rect, polyline, .dot")].map(inside);
        }""")
        assert len(inside) > 3 and all(inside)
        assert len(page.locator(f"#{name} .row").all_inner_texts()) >= 3
        assert 1 <= len(page.locator(f"#{name} .column").all_inner_texts()) <= 6
    assert keys("joules") == list(words.PHASES)
    assert keys("battery") == ["forecast", "DEGRADED"] and len(keys("decisions")) > 2
    expect(page.locator("#battery polyline")).to_have_count(2)
    assert re.fullmatch(r"DEGRADED from 20.* to 20.*", page.locator(
        "#battery rect title").first.text_content())
    assert re.fullmatch(r"20.*: \w+, \d+ %, by (gate|main)", page.locator(
        "#decisions .dot title").first.text_content())
    expect(page.locator("#latency figure")).to_have_count(8)
    events = page.locator("#events").inner_text()
    assert "FULL → DEGRADED: no link" in events and "→ still" in events
    condition = page.locator("#condition").inner_text()
    assert "timer" in condition and "power on 1" in condition and "version 7" in condition
    assert "telemetry 12 ×" in condition
    assert "are gone at the node" in page.locator("#gaps").inner_text()
    assert fits(page)


def test_a_nodes_page_follows_it(visit, tmp_path):
    database = tmp_path / "gateway.db"
    node, = fleet.fill(database, 1, days=1)
    page = visit(database, f"/nodes/{node.number}")
    page.evaluate("window.mark = 'the same page'")
    curve = page.locator("#battery polyline").first.get_attribute("points")
    now = time.time()
    node.live(now - 300, now, 1.0, 1)
    node.fault(fleet.outbox.ALERT, now, fleet.record.STAGE_FAILED, 3, True)
    Desk(store.connect(database), clock=None).take(list(node.report(now)))
    expect(page.locator("#events .alarm")).to_contain_text("stage failed: infer")
    expect(page.locator("#head")).to_contain_text("stage failed")
    expect(page.locator("#battery polyline").first).not_to_have_attribute("points", curve)
    assert page.evaluate("window.mark") == "the same page"


def test_the_page_of_a_node_that_has_not_reported_yet_fills_by_itself(visit, tmp_path):
    database = enrolled(tmp_path / "gateway.db", {1001: load.key(1001)})
    page = visit(database, "/nodes/1001")
    expect(page.locator("#condition")).to_have_text("Nothing has been told of yet.")
    fleet.fill(database, 1, days=1)
    expect(page.locator("#condition")).to_contain_text("timer")
    expect(page.locator("#decided")).to_contain_text("FULL")
    for plot in ("battery", "joules", "decisions"):
        expect(page.locator(f"#{plot} svg")).to_be_visible()


def test_nobody_by_that_number(forty):
    with served(forty) as url:
        _, headers, _ = asked(f"{url}/login?token={TOKEN}")
        session = headers["set-cookie"].partition(";")[0]
        for node in (5, 1 << 64):
            status, _, text = asked(f"{url}/nodes/{node}", session)
            assert status == 404 and f"There is no node {node}" in text


def test_the_same_is_read_from_either_database(database):
    nodes = fleet.fill(database, 3, days=1, now_s=1_767_600_000.0)
    with Reader(database).read() as db:
        glances = {one.node: one for one in views.glances(db)}
        assert set(glances) == {one.number for one in nodes}
        assert views.newest(db) == (3, max(one.heard_at for one in glances.values()))
        one = glances[1003]
        assert one.items["mode"] == fleet.modes.CRITICAL
        assert 0.9 * 21600 < one.usual_s < 1.1 * 21600
        alert_s, alert = one.alert
        assert alert == bytes((record.MODE_CHANGED, fleet.modes.CRITICAL,
                               fleet.modes.BATTERY_LOW))
        told = one_node.told(db, 1003, 1_767_600_000.0)
        assert [event["said"] for event in told["events"] if event["alert"]] == [
            "FULL → CRITICAL: the battery is low"]
        assert told["events"][0]["time_s"] <= 1_767_600_000
        assert one_node.told(db, 5, 0.0) is None
        later = views.glances(db, one.heard_at)
        assert {one.node for one in later} <= set(glances)
    rolled = fleet.Rollout(database, nodes, 1_767_600_000.0, 2, canary=1)
    rolled.update(nodes[0], 1_767_600_100.0, verdict.TOO_SLOW)
    wide = next(one for one in nodes if one.story.windows)
    wide._window(1_767_599_000)
    fleet.take(rolled.desk, list(wide.report(1_767_602_000.0)), 1_767_602_000.0)
    with Reader(database).read() as db:
        told, = all_rollouts.told(db)["rollouts"]
        assert (told["state"], told["reason"]) == ("stopped", "node 1001: too slow")
        assert views.rollouts_version(db)[0] == rolled.id
        found = windows.newest(db, 10, wide.number, unlabelled=True)
        shown = all_windows.told(db, found)
        assert [len(panel.lines) for panel in shown[0]["panels"]] == [3, 3]
        before = views.windows_version(db)
    with rolled.engine.begin() as db:
        windows.label(db, found[0].key, "running")
    with Reader(database).read() as db:
        assert views.windows_version(db) != before
        assert windows.newest(db, 10, wide.number, unlabelled=True) == []


def test_how_a_node_is():
    def judged(ago_s: float = 0, usual_s: float | None = 1800, **items) -> list[tuple[int, str]]:
        return health.of(views.Glance(1, 1e9, usual_s, items, None), 1e9 + ago_s).findings

    look, bad = health.LOOK, health.BAD
    assert judged() == judged(soc=255, days_left=65535, mode=0, faults=0) == []
    assert judged(5000) == [] and judged(6000) == [(look, "late: last heard 2 h ago")]
    assert judged(26000)[0][0] == look and judged(28000) == [(bad, "silent for 8 h")]
    assert judged(80000, 86400) == [] and judged(300000, 86400)[0][0] == bad
    assert judged(26000, None) == [] and judged(28000, None)[0][0] == bad
    assert judged(mode=1, mode_reason=1) == [(look, "DEGRADED: no link")]
    assert judged(mode=2, mode_reason=4)[0] == (bad, "CRITICAL: the battery is low")
    assert judged(days_left=29)[0][0] == look and judged(days_left=9) == [(bad, "9 days left")]
    assert judged(faults=1 << record.SENSOR_SILENT | 1 << record.UPLINK_FAILED, mode=1) == [
        (bad, "sensor silent"), (look, "DEGRADED: none"), (look, "uplink failed")]
    assert health.of(views.Glance(1, None, None, {}, None), 0).name == "look"


def test_events_in_words():
    assert words.event(record.CLASS_CHANGED, 1, 255, ("still", "walking")) == "none → walking"
    assert words.event(record.MODE_CHANGED, 0x20, 4 + 128) == (
        "CRITICAL → FULL: the battery is low is over")
    assert words.event(record.SENSOR_SILENT, 19, 1) == "sensor silent: ENODEV"
    assert words.event(record.SENSOR_SILENT, 0, 0) == "sensor silent is over"
    assert words.event(record.BAD_SETTINGS, 2, 1) == "settings refused: wake_s"
    assert words.event(record.BAD_SETTINGS, 99, 1) == "settings refused: setting 99"
    assert words.event(record.MODEL_REFUSED, 9, 1) == "model refused: reason 9"
    assert words.event(record.DEADLINE_MISSED, 3, 1) == "deadline missed: infer"
    assert words.event(record.UPDATE, verdict.TOO_SLOW, 7) == "model 7: too slow"
    assert words.event(record.UPDATE, verdict.FORGED, 0).startswith("model package: not signed")
    assert words.event(99, 1, 2) == "event 99, detail 1, value 2"


def test_what_became_of_settings_commands_and_the_clock_is_told_on_the_nodes_page(visit, tmp_path):
    database = tmp_path / "gateway.db"
    node, = fleet.fill(database, 1, days=0.1)
    event, diagnostic, now = fleet.outbox.EVENT, fleet.outbox.DIAGNOSTIC, time.time()
    said = {
        "change refused: wake_s = 1": (record.SETTING, struct.pack("<BBI", 0, 2, 4) + b"1"),
        "change refused: the document": (record.SETTING, struct.pack("<BBI", 0, 0, 0)),
        "wake_s = 9 of the gateway lost to a later change here": (
            record.SETTING, struct.pack("<BBI", 1, 2, 4) + b"9"),
        "uplink_s = as flashed lost to a later change of the gateway": (
            record.SETTING, struct.pack("<BBI", 2, 4, 3)),
        "changes undone: the gateway was not reached any more": (
            record.SETTING, struct.pack("<BBI", 3, 0, 8) + b"18"),
        "command 3, identify: done, motion 1": (
            record.RESULT, struct.pack("<HBB", 3, 6, 0) + b"motion 1"),
        "a record of kind 8 that is none": (record.SETTING, b"?")}
    for at, (kind, payload) in enumerate(said.values()):
        node.put(event, kind, now - 100 + at, payload)
    node.put(diagnostic, record.CLOCK, now, struct.pack(record.CLOCK_FORMAT, int(now), -7200, 60))
    node.put(diagnostic, record.CLOCK, now, struct.pack(record.CLOCK_FORMAT, int(now), 30, 1800))
    Desk(store.connect(database), clock=None).take(list(node.report(now)))
    page = visit(database, f"/nodes/{node.number}")
    shown = page.locator("#events").inner_text()
    assert all(one in shown for one in (*said, "clock put back by 2 h")), shown
    assert "forward" not in shown  # every clock drifts


def test_gaps_are_what_is_missing(tmp_path):
    """Sequences that a frame says are gone, and one whose frame has not come."""
    database = tmp_path / "gateway.db"
    node, = fleet.fill(database, 1, days=0.1)
    node.seq, node.acked, lane = [0] * 4, [0] * 4, fleet.outbox.EVENT
    for seq in range(1, 13):
        if seq not in (3, 4, 9):
            node.seq[lane] = seq - 1
            node.event(lane, 1000 + seq, 1, 0, 1)
    early, late = node.queue[lane][:6], node.queue[lane][6:]
    frames = []
    for after, waiting, floor in ((0, early, True), (9, late[1:], False)):
        buf = bytearray(1024)
        batch = fleet.Batch(buf, node.number, node.seal)
        batch.begin(lane, 1, after, floor)
        assert all(batch.add(*one) for one in waiting)
        frames.append(bytes(buf[:batch.end()]))
    Desk(store.connect(database), clock=None).take(frames)
    with Reader(database).read() as db:
        found = views.gaps(db, node.number, views.node_lanes(db, node.number), 10)
    mine = [(one.first, one.last, one.gone) for one in found if one.lane == lane]
    assert mine == [(3, 4, True), (9, 10, False)]


# --- roll-outs and windows ---


def test_a_rollout_tells_its_story(visit, tmp_path):
    """A canary's crash stops one; the next goes on, is refused once, and is followed live."""
    database = tmp_path / "gateway.db"
    nodes = fleet.fill(database, 6, days=0.5, wakes=1)
    now = time.time()
    bad = fleet.Rollout(database, nodes, now - 9000, 2, canary=2)
    bad.update(nodes[0], now - 8900, verdict.CRASHED)
    good = fleet.Rollout(database, nodes, now - 3000, 3, canary=2, healthy_s=60, most_failed=0.25)
    page = visit(database, "/rollouts")
    first, second = page.locator(".rollout").first, page.locator(".rollout").nth(1)
    expect(second).to_contain_text("motion 2")
    expect(second.locator(".why")).to_contain_text("node 1001: crashes")
    expect(second.locator(".legend")).to_contain_text("5 withdrawn")
    expect(second.locator(".back")).to_contain_text("1001 went back to the model before: crashes")
    expect(first.locator(".tag")).to_have_text("on its canaries")
    expect(first.locator(".stops")).to_contain_text("has not shown its good health by 20")

    page.evaluate("window.mark = 'the same page'")
    for node in nodes[:2]:
        good.update(node, now - 2900)
        fleet.take(good.desk, list(node.report(now - 100, ask=True)), now - 100)
    expect(first.locator(".tag")).to_have_text("on its way to all")
    expect(first.locator(".stops")).to_have_text("0 of 4 others failed; it stops at 2.")
    good.update(nodes[2], now - 1900, verdict.NO_ROOM)
    good.fetch(nodes[3], now, 0.5)
    expect(first.locator(".legend")).to_contain_text("2 kept")
    row = first.locator("tr", has_text="1004")
    expect(row).to_contain_text("is fetching it")
    expect(row).to_contain_text("50 %")
    expect(first.locator(".back")).to_contain_text("1003 refused it: no room")
    expect(first.locator("tr", has_text="1001")).to_contain_text("motion 3")
    expect(first.locator("tr", has_text="1005")).to_contain_text("motion 1")
    expect(first.locator(".stops")).to_have_text("1 of 4 others failed; it stops at 2.")
    good.update(nodes[3], now - 1000, verdict.TOO_SLOW)
    expect(first.locator(".why")).to_contain_text(
        "2 of 4 nodes failed, and 25 % may; node 1004: too slow")
    assert page.evaluate("window.mark") == "the same page"
    page.set_viewport_size(PHONE)
    assert fits(page)


def test_a_label_is_kept_and_taken_back(visit, tmp_path):
    database = tmp_path / "gateway.db"
    nodes = fleet.fill(database, 4, days=0)
    node = next(one for one in nodes if one.story.windows)
    node.klass = 2
    node._window(time.time() - 100)
    node._window(time.time() - 50)
    desk = Desk(store.connect(database), clock=None)
    page = visit(database, "/windows")
    expect(page.locator(".empty")).to_contain_text("No windows yet")
    desk.take(list(node.report(time.time())))
    expect(page.locator(".window")).to_have_count(2)
    expect(page.locator(".window").first.locator("polyline")).to_have_count(6)

    def labels() -> list[str]:
        with Reader(database).read() as db:
            return [said for _, _, said in windows.labelled(db)]

    button = page.locator(".window").first.get_by_role("button", name="running")
    button.click()
    expect(button).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#summary")).to_contain_text("1 labelled")
    assert labels() == ["running"]
    page.get_by_role("link", name="without a label").click()
    expect(page.locator(".window")).to_have_count(1)
    page.get_by_role("link", name="newest").click()
    button.click()
    expect(button).to_have_attribute("aria-pressed", "false")
    assert labels() == []
    page.set_viewport_size(PHONE)
    assert fits(page)


def test_labels_that_are_refused(forty):
    with served(forty) as url:
        _, headers, _ = asked(f"{url}/login?token={TOKEN}")
        session = headers["set-cookie"].partition(";")[0]
        for window, said in (("1/1/1", "x"), ("1/1", "x"), ("", ""), ("1003/1/1", "x" * 61),
                             (f"{1 << 70}/1/1", "x")):
            given = urllib.parse.urlencode({"window": window, "label": said}).encode()
            assert asked(f"{url}/windows/label", session, given)[0] == 400
            assert asked(f"{url}/windows/label", "", given)[0] == 401


# --- who may look ---


def asked(url: str, cookie: str = "", data: bytes | None = None, **headers: str):
    """What is answered to a request without a browser: status, headers, text."""
    class Stay(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *_: object) -> None:
            return None

    request = urllib.request.Request(url, data, {"Cookie": cookie, **headers})
    try:
        answer = urllib.request.build_opener(Stay).open(request, timeout=30)
    except urllib.error.HTTPError as error:
        answer = error
    with answer:
        return answer.status, answer.headers, answer.read().decode("utf-8", "replace")


def test_nobody_comes_in_without_the_token(forty):
    with served(forty) as url:
        for path in ("/", "/nodes/1001", "/windows", "/no/such/page"):
            status, headers, text = asked(url + path, Accept="text/html")
            assert (status, headers["location"]) == (303, "/login") and "1001" not in text
            assert asked(url + path)[0] == 401
        port = url.rpartition(":")[2]
        for cookie in (f"outpost-{port}=", f"outpost-{port}={TOKEN}", f"outpost-{port}=é"):
            assert asked(url + "/", cookie)[0] == 401
        for wrong in ("", "x", TOKEN[:-1], TOKEN + "x", "é"):
            given = urllib.parse.urlencode({"token": wrong}).encode()
            for status, headers, _ in (asked(url + "/login", data=given),
                                       asked(f"{url}/login?{given.decode()}")):
                assert status == 403 and headers["set-cookie"] is None

        status, headers, _ = asked(url + "/login", data=f"token={TOKEN}".encode())
        cookie = headers["set-cookie"]
        assert status == 303 and "HttpOnly" in cookie and "SameSite=lax" in cookie
        assert TOKEN not in cookie
        session = cookie.partition(";")[0]
        assert asked(url + "/", session)[0] == 200
        assert asked(url + "/login", session, b"token=x", Origin="http://127.0.0.1:9")[0] == 403


def test_the_form_refuses_a_wrong_token_and_takes_the_right_one(chromium, forty):
    with served(forty) as url, contextlib.closing(chromium.new_context()) as context:
        page = context.new_page()
        page.goto(url)
        page.get_by_label("Token").fill("not that one")
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_role("alert")).to_have_text("That is not the token.")
        page.get_by_label("Token").fill(TOKEN)
        page.get_by_role("button", name="Log in").click()
        expect(page.locator("h1")).to_have_text("40 nodes")


def test_the_token_is_made_once_and_for_its_owner_alone(tmp_path):
    file = tmp_path / "outpost" / "token"
    made, new = login.token(file)
    assert new and len(made) >= 43 and file.stat().st_mode & 0o777 == 0o600
    assert login.token(file) == (made, False)
    file.chmod(0o644)
    with pytest.raises(login.TokenError, match="read by others"):
        login.token(file)
    file.chmod(0o600)
    file.write_text("\n")
    with pytest.raises(login.TokenError, match="no token"):
        login.token(file)


# --- beside the gateway ---


def test_the_command_serves_and_ends_with_the_gateway(tmp_path):
    """What comes in by MQTT is seen; who is killed leaves nobody behind."""
    database, port = tmp_path / "gateway.db", free_port()
    nodes = [load.Node(7, 50)]
    enrolled(database, {7: load.key(7)})
    command = [sys.executable, "-m", "outpost", "gateway", "--database", str(database),
               "--listen", f"127.0.0.1:{port}", "--no-provisioned", "--json", "--web",
               "--web-port", "0"]
    env = {**os.environ, "XDG_DATA_HOME": str(tmp_path / "data"),
           "COLUMNS": "80"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          env=env) as process:
        url = json.loads(process.stdout.readline())["web"]
        with ThreadPoolExecutor() as elsewhere:  # the browser's loop runs in this thread
            elsewhere.submit(asyncio.run, load.bring_home(
                nodes, mqtt.Where("127.0.0.1", port), Manners())).result()
        token = (tmp_path / "data/outpost/dashboard-token").read_text().strip()
        for _ in range(300):
            with contextlib.suppress(OSError):
                status, headers, _ = asked(f"{url}login?token={token}")
                break
            time.sleep(0.1)
        assert status == 303
        page = asked(url, headers["set-cookie"].partition(";")[0])[2]
        assert re.search(r'href="/nodes/7"', page)
        process.send_signal(signal.SIGKILL)
        _, said = process.communicate(timeout=60)
        assert f"{url}login?token={token}" in said.replace("\n", "")
        for _ in range(300):
            try:
                asked(url)
            except OSError:
                break
            time.sleep(0.1)
        else:
            pytest.fail("the dashboard outlives its gateway")


def test_it_is_served_where_it_was_told_and_nowhere_else(tmp_path):
    """The broker's address is not the dashboard's; this one is nobody's (RFC 5737)."""
    done = subprocess.run(
        [sys.executable, "-m", "outpost", "gateway", "--database", str(tmp_path / "gateway.db"),
         "--listen", f"127.0.0.1:{free_port()}", "--no-provisioned", "--web", "--host",
         "192.0.2.1", "--web-port", "0"], env={**os.environ, "XDG_DATA_HOME": str(tmp_path)},
        capture_output=True, text=True, timeout=PATIENCE_MS / 1000, check=False)
    assert done.returncode == 1
    assert "can't listen at 192.0.2.1" in " ".join(done.stderr.split())


def test_whoever_looks_does_not_keep_the_gateway_waiting(tmp_path):
    database = tmp_path / "gateway.db"
    node, = fleet.fill(database, 1)
    engine = store.connect(database)
    with Reader(database).read() as db:
        before = db.execute(schema.status.select()).one()
        node.wakes += 1
        Desk(engine, clock=None).take(list(node.report(time.time())))
        assert db.execute(schema.status.select()).one() == before  # one page, one moment
        with pytest.raises(Exception, match="readonly|read-only"):
            db.execute(schema.status.delete())
    with Reader(database).read() as db:
        assert db.execute(schema.status.select()).one().wakes > before.wakes


def test_round_figures_beside_a_curve():
    day = curves.DAY_S
    one = curves.Curve(0, 30 * day, 0, 104, "%")
    assert one.rows == [(1000, "0 %"), (519, "50 %"), (38, "100 %")]
    assert one.columns == [(233, "8 Jan"), (467, "15 Jan"), (700, "22 Jan"), (933, "29 Jan")]
    assert [said for _, said in curves.Curve(0, 3 * day, 0, 1, "J").columns] == [
        "12:00", "2 Jan", "12:00", "3 Jan", "12:00"]
    assert [said for _, said in curves.Curve(3000, 12000, 0, 1, "J").columns] == [
        "01:00", "02:00", "03:00"]
    assert [said for _, said in curves.Curve(0, 1, 3.31, 3.48, "V").rows] == [
        "3.35 V", "3.4 V", "3.45 V"]
    assert curves.Curve(5, 5, 0, 1, "J").columns == []  # a single moment
    assert curves.Curve(0, 90 * 365 * day, 0, 1e-6, "J").rows[1][1] == "5e-07 J"
