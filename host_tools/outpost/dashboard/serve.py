"""The dashboard in a process of its own, beside the gateway and on the same database.

Python runs one thing at a time in a process: a page with 500 rows would keep frames waiting. Here
it can't, whatever is asked of it. It ends with the gateway, however that ends.
"""

import contextlib
import logging
import multiprocessing
import socket
import threading
from collections.abc import Iterator
from multiprocessing.connection import wait
from pathlib import Path

from outpost.errors import OutpostError

log = logging.getLogger(__name__)


class ServeError(OutpostError):
    """An address the dashboard can't be served at."""


@contextlib.contextmanager
def beside(database: str | Path, host: str, port: int, token: str) -> Iterator[str]:
    """Serve the dashboard of `database` at host:port (0: a free one) meanwhile; yields its URL."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family)
    except OSError as error:
        raise ServeError(f"the dashboard can't listen at {host}:{port} ({error.strerror}): choose "
                         "another with --host and --web-port") from error
    spawn = multiprocessing.get_context("spawn")
    process = spawn.Process(target=_serve, args=(database, listening, token), daemon=True)
    port = listening.getsockname()[1]
    process.start()
    listening.close()
    ended = threading.Event()

    def watch() -> None:
        wait([process.sentinel])
        if not ended.is_set():
            log.error("the dashboard has ended by itself; nodes are served all the same. "
                      "Start the gateway again to have it back")

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield f"http://{f'[{host}]' if ':' in host else host}:{port}/"
    finally:
        ended.set()
        process.terminate()
        process.join(5)
        process.kill()


def _serve(database: str | Path, listening: socket.socket, token: str) -> None:
    import uvicorn

    from outpost.dashboard.app import app

    server = uvicorn.Server(uvicorn.Config(
        app(database, token), log_level="error", access_log=False, lifespan="off",
        server_header=False, timeout_graceful_shutdown=1))
    parent = multiprocessing.parent_process()

    def follow() -> None:
        assert parent is not None
        parent.join()
        server.should_exit = True

    threading.Thread(target=follow, daemon=True).start()
    with contextlib.suppress(KeyboardInterrupt):
        server.run(sockets=[listening])
