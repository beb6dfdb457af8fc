"""The dashboard's pages: what is asked, what is read for it, which template it goes into.

A page is a page: whole HTML, made here, readable without scripts. While it is open, static/live.js
asks for it again every second with the version it has, and puts what is new in its place; where
nothing is, the answer is empty. So nothing is kept here between two requests.
"""

import gzip
import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import jinja2
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from outpost import words
from outpost.dashboard import health
from outpost.dashboard import node as one_node
from outpost.dashboard import rollouts as all_rollouts
from outpost.dashboard import windows as all_windows
from outpost.dashboard.login import Login
from outpost.gateway import store, views
from outpost.gateway import windows as kept
from outpost.gateway.views import Reader

HERE = Path(__file__).parent
LONGEST_LABEL = 60
REFRESH_S = 30  # what is told of time alone ("late") is worked out afresh so often
SECURITY = {
    "Content-Security-Policy": "default-src 'self'; style-src 'self' 'unsafe-inline'; "
                               "img-src 'self' data:; frame-ancestors 'none'",
    "Referrer-Policy": "same-origin", "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store"}
TYPES = {".css": "text/css", ".js": "text/javascript"}


class Pages:
    """The pages of one database."""

    def __init__(self, database: str | Path) -> None:
        self.writer = store.connect(database)  # labels only
        self.reader = Reader(database)
        self.login: Login | None = None
        self._templates = jinja2.Environment(
            loader=jinja2.FileSystemLoader(HERE / "templates"), autoescape=True,
            trim_blocks=True, lstrip_blocks=True)
        self._templates.globals |= {"asset": asset_url, "now": time.time, "span": words.span}
        self._templates.filters |= {"utc": utc}

    def _answer(self, request: Request, template: str, version: str, status: int = 200,
                **given: Any) -> Response:
        page = self._templates.get_template(template).render(
            version=version, path=request.url.path, **given)
        return HTMLResponse(page, status, headers=SECURITY)

    # --- fleet ---

    def fleet(self, request: Request) -> Response:
        """All nodes, worst first; to who has them already, those with news."""
        now = time.time()
        have = request.headers.get("x-have", "")
        with self.reader.read() as db:
            count, heard = views.newest(db)
            version = f"{count}/{int(now / REFRESH_S)}/{heard!r}"
            if version == have:
                return Response(status_code=204)
            same = have.rpartition("/")[0] == version.rpartition("/")[0]
            nodes = views.glances(db)
        judged = [(one, health.of(one, now)) for one in nodes]
        judged.sort(key=lambda both: (-both[1].rank, _order(both[0])))
        counts = {name: sum(state.name == name for _, state in judged)
                  for name in health.LEVELS}
        since = float(have.rpartition("/")[2]) - views.OVERLAP_S if same else 0.0
        rows = [_row(one, state) for one, state in judged if (one.heard_at or 0.0) >= since]
        return self._answer(request, "fleet.html", version, rows=rows, counts=counts,
                            total=len(judged), silent=sum(state.silent for _, state in judged))

    # --- a node ---

    def node(self, request: Request) -> Response:
        """One node, whole."""
        number, now = request.path_params["node"], time.time()
        if number >> 32:
            return self._nobody(request, number)
        with self.reader.read() as db:
            version = f"{one_node.version(db, number)}/{int(now / REFRESH_S)}"
            if version == request.headers.get("x-have"):
                return Response(status_code=204)
            told = one_node.told(db, number, now)
        if told is None:
            return self._nobody(request, number)
        return self._answer(request, "node.html", version, **told)

    def _nobody(self, request: Request, number: int) -> Response:
        return self._answer(request, "missing.html", "", status=404, node=number)

    # --- windows and roll-outs ---

    def windows(self, request: Request) -> Response:
        """Windows that nodes were unsure about, to be labelled."""
        asked = request.query_params.get("node", "")
        node = int(asked) if asked.isdecimal() and int(asked) >> 32 == 0 else None
        unlabelled = request.query_params.get("show") == "unlabelled"
        with self.reader.read() as db:
            version = "/".join(map(str, views.windows_version(db)))
            if version == request.headers.get("x-have"):
                return Response(status_code=204)
            found = kept.newest(db, all_windows.SHOWN, node, unlabelled)
            told = all_windows.told(db, found)
            labelled = kept.count_labelled(db)
        return self._answer(request, "windows.html", version, windows=told, labelled=labelled,
                            only=node, unlabelled=unlabelled)

    async def label(self, request: Request) -> Response:
        """Note what a person calls a window."""
        given = parse_qs((await request.body())[:1000].decode("utf-8", "replace"))
        name, said = given.get("window", [""])[0], given.get("label", [""])[0].strip()
        if len(said) > LONGEST_LABEL:
            return PlainTextResponse(f"a label has at most {LONGEST_LABEL} characters", 400)
        try:
            await run_in_threadpool(self._label, name, said)
        except kept.WindowError as error:
            return PlainTextResponse(str(error), 400)
        return RedirectResponse(request.headers.get("referer", "/windows"), 303)

    def _label(self, name: str, said: str) -> None:
        key = kept.key_of(name)
        with self.writer.begin() as db:
            kept.label(db, key, said or None)

    def rollouts(self, request: Request) -> Response:
        """Models on their way to nodes, and what became of them."""
        with self.reader.read() as db:
            version = f"{views.rollouts_version(db)}/{views.newest(db)}"
            if version == request.headers.get("x-have"):
                return Response(status_code=204)
            told = all_rollouts.told(db)
        return self._answer(request, "rollouts.html", version, **told)

    # --- coming in ---

    def enter(self, request: Request) -> Response:
        """The form that asks for the token, or straight in with a URL that has it."""
        given = request.query_params.get("token")
        if given is None:
            return self._answer(request, "login.html", "", wrong=False)
        return self._enter(request, given)

    async def entered(self, request: Request) -> Response:
        """The form, filled in."""
        body = (await request.body())[:1000].decode("utf-8", "replace")
        return self._enter(request, parse_qs(body).get("token", [""])[0].strip())

    def _enter(self, request: Request, given: str) -> Response:
        assert self.login is not None
        if self.login.right(given):
            return self.login.welcome(request, RedirectResponse("/", 303))
        return self._answer(request, "login.html", "", status=403, wrong=True)


def _order(node: views.Glance) -> tuple[float, int]:
    """Among nodes that are equally well, those whose battery ends first come first."""
    left = health.days_left(node.items)
    return (float("inf") if left is None else left), node.node


def _row(node: views.Glance, state: health.Health) -> dict[str, Any]:
    items = node.items
    mode = items.get("mode")
    told = node.alert and len(node.alert[1]) >= 3 and words.event(*node.alert[1][:3])
    return {
        "node": node.node, "health": state, "heard_at": node.heard_at, "mode": mode,
        "mode_name": words.MODES.get(mode, "") if mode is not None else "",
        "soc": health.soc(items), "days": health.days_left(items),
        "model": one_node.model_label(items), "mv": items.get("battery_mv"),
        "waiting": sum(items.get("waiting", {}).values()),
        "dropped": sum(items.get("dropped", {}).values()),
        "alert": told or None, "alert_s": node.alert and node.alert[0]}


def utc(time_s: float) -> str:
    """Return a time as people write it."""
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(time_s)) + " UTC"


# --- what pages are dressed in ---


@dataclass(frozen=True)
class Asset:
    """A file that pages load; `version` changes with its content."""

    packed: bytes  # by gzip
    kind: str
    version: str


@cache
def _assets() -> dict[str, Asset]:
    """Return all there are, by name. None of it comes from elsewhere."""
    found = {}
    for file in (HERE / "static").iterdir():
        content = file.read_bytes()
        found[file.name] = Asset(gzip.compress(content, 4), TYPES[file.suffix],
                                 hashlib.sha256(content).hexdigest()[:12])
    return found


def asset_url(name: str) -> str:
    """Return where a browser finds an asset; another content is another URL."""
    return f"/static/{name}?{_assets()[name].version}"


def asset(request: Request) -> Response:
    """Give a browser an asset, to keep. All browsers unpack gzip."""
    found = _assets().get(request.path_params["name"])
    if found is None:
        return Response(status_code=404)
    return Response(found.packed, media_type=found.kind, headers={
        "Content-Encoding": "gzip", "Cache-Control": "public, max-age=31536000, immutable"})


def app(database: str | Path, token: str) -> Callable[..., Any]:
    """Return the dashboard as an ASGI application that lets in who knows `token`."""
    pages = Pages(database)
    inner = Starlette(routes=[
        Route("/", pages.fleet),
        Route("/nodes/{node:int}", pages.node),
        Route("/rollouts", pages.rollouts),
        Route("/windows", pages.windows),
        Route("/windows/label", pages.label, methods=["POST"]),
        Route("/login", pages.enter),
        Route("/login", pages.entered, methods=["POST"]),
        Route("/static/{name}", asset),
    ], middleware=[Middleware(GZipMiddleware, minimum_size=2000, compresslevel=3)])
    pages.login = Login(inner, token)
    return pages.login
