"""Who may look: whoever knows the token, made once and kept where only its owner can read it."""

import hmac
import os
import secrets
from hashlib import sha256
from pathlib import Path

from starlette.datastructures import URL
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from outpost.errors import OutpostError

LEAST = 32  # characters of a token
OPEN = ("/login", "/static/")  # what somebody who has not logged in may see
DAYS = 30


class TokenError(OutpostError):
    """A token file that others can read, or that has no token in it."""


def path() -> Path:
    """Return the file with the token: ${XDG_DATA_HOME:-~/.local/share}/outpost/dashboard-token."""
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share"
    return Path(base) / "outpost" / "dashboard-token"


def token(file: Path) -> tuple[str, bool]:
    """Return the token in `file`, and whether it has been made just now. Raises TokenError."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        pass
    else:
        made = secrets.token_urlsafe(32)
        with os.fdopen(handle, "w") as out:
            out.write(made + "\n")
        return made, True
    if file.stat().st_mode & 0o077:
        raise TokenError(f"{file} can be read by others, so its token is worth nothing: "
                         "remove it, and a new one is made")
    known = file.read_text().strip()
    if len(known) < LEAST or not known.isascii():
        raise TokenError(f"{file} has no token of at least {LEAST} characters in it: remove it, "
                         "and a new one is made")
    return known, False


class Login:
    """Lets nobody past who has not logged in; `app` sees only those who have."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app, self._token = app, token
        # Not the token itself: a cookie leaks more easily, and is worth nothing elsewhere.
        self._session = hmac.new(token.encode(), b"outpost dashboard", sha256).hexdigest()

    def right(self, given: str) -> bool:
        """Whether that is the token."""
        return hmac.compare_digest(given.encode(), self._token.encode())

    def known(self, request: HTTPConnection) -> bool:
        """Whether somebody has logged in."""
        return hmac.compare_digest(request.cookies.get(_cookie(request.url), "").encode(),
                                   self._session.encode())

    def welcome(self, request: HTTPConnection, response: RedirectResponse) -> RedirectResponse:
        """Log in."""
        response.set_cookie(_cookie(request.url), self._session, max_age=DAYS * 86400,
                            httponly=True, samesite="lax", secure=request.url.scheme == "https")
        return response

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer in the app's place if need be."""
        if scope["type"] == "http":
            request = HTTPConnection(scope)
            if scope["method"] not in ("GET", "HEAD") and not _own(request):
                return await PlainTextResponse("another page's doing", 403)(scope, receive, send)
            if not self.known(request) and not scope["path"].startswith(OPEN):
                asked = "text/html" in request.headers.get("accept", "")
                answer = (RedirectResponse("/login", 303) if asked
                          else PlainTextResponse("log in first", 401))
                return await answer(scope, receive, send)
        await self._app(scope, receive, send)


def _own(request: HTTPConnection) -> bool:
    """Whether a request comes from a page of ours: SameSite takes all ports of a host for one."""
    origin = request.headers.get("origin")
    return origin is None or URL(origin).netloc == request.url.netloc


def _cookie(url: URL) -> str:
    """A cookie is for all ports of a host, where another dashboard may be."""
    return f"outpost-{url.port or url.scheme}"
