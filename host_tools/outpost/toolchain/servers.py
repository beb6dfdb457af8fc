"""A real broker and a real database on loopback, for tests and benchmarks.

mosquitto and PostgreSQL are the machine's own where it has them, and otherwise come from its
package mirror into the cache, as everything here does. Each runs in a folder of its own, on a free
port, and ends with its context.
"""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from pathlib import Path

import psycopg

from outpost import cache
from outpost.errors import OutpostError
from outpost.toolchain import apt

UP_S = 30.0  # until one answers


class ServerError(OutpostError):
    """A server that doesn't start; the message has its last words."""


def free_port() -> int:
    """Return a TCP port of loopback that nobody uses at the moment."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _mosquitto() -> list[str]:
    """Return how to call mosquitto."""
    found = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if found:
        return [found]
    folder = cache.item("toolchain/mosquitto",
                        lambda folder: apt.install(["mosquitto"], folder))
    return apt.command(folder, "mosquitto")


def _postgres() -> Path:
    """Return the folder of PostgreSQL's programs."""
    for top in (Path("/"), cache.root() / "toolchain/postgresql"):
        found = sorted(top.glob("usr/lib/postgresql/*/bin/postgres"))
        if found:
            return found[-1].parent

    def fetch(folder: Path) -> None:
        apt.install(["postgresql"], folder, own_release=True)
        for pattern in ("**/libLLVM*", "**/llvmjit*", "**/bitcode"):  # two thirds of it
            for path in folder.glob(pattern):
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    folder = cache.item("toolchain/postgresql", fetch)
    return next(folder.glob("usr/lib/postgresql/*/bin"))


class Server(ABC):
    """A process on `port` of loopback, which may be killed and started again."""

    name = "the server"

    def __init__(self) -> None:
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="outpost-"))
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Server":
        try:
            self.prepare()
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    @abstractmethod
    def prepare(self) -> None:
        """Make what it needs in its folder."""

    @abstractmethod
    def command(self) -> list[str]:
        """Return how to start it."""

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log, **self.identity())
        until = time.monotonic() + UP_S
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > until:
                raise ServerError(f"{self.name} doesn't start: {self.last_words()}")
            time.sleep(0.02)

    def identity(self) -> dict[str, object]:
        """Return as whom to run it, and with what environment, for subprocess."""
        return {}

    def answers(self) -> bool:
        """Whether somebody listens at its port."""
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
            return True
        except OSError:
            return False

    def last_words(self) -> str:
        """Return the end of its log."""
        return (self.folder / "log").read_text(errors="replace")[-500:].strip()

    def kill(self, number: int = signal.SIGKILL) -> None:
        """End it, by default in the middle of whatever it does."""
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait()
            self.process = None


class Mosquitto(Server):
    """A broker that everybody may use; `tls` is (certificate, key) files, `config` more lines."""

    name = "mosquitto"

    def __init__(self, tls: tuple[Path, Path] | None = None, config: str = "") -> None:
        super().__init__()
        self._tls, self._config = tls, config

    def prepare(self) -> None:
        """Write its configuration."""
        lines = [f"listener {self.port} 127.0.0.1", "allow_anonymous true", "set_tcp_nodelay true",
                 "max_queued_messages 100000", "max_inflight_messages 1000"]
        if os.geteuid() == 0:
            lines.append("user root")  # it would become somebody who can't read its folder
        if self._tls:
            lines += [f"certfile {self._tls[0]}", f"keyfile {self._tls[1]}"]
        (self.folder / "conf").write_text("\n".join([*lines, self._config, ""]))

    def command(self) -> list[str]:
        """Return how to start it."""
        return [*_mosquitto(), "-c", str(self.folder / "conf")]


class Postgres(Server):
    """A database server that trusts whoever reaches it; `settings` as in postgresql.conf."""

    name = "PostgreSQL"

    def __init__(self, **settings: str) -> None:
        super().__init__()
        self._settings = settings
        self._programs = _postgres()

    def url(self, database: str = "postgres") -> str:
        """Return the URL of a database."""
        return f"postgresql+psycopg://outpost@127.0.0.1:{self.port}/{database}"

    def answers(self) -> bool:
        """Whether it lets somebody in: it listens before it is ready."""
        import psycopg

        try:
            psycopg.connect(host="127.0.0.1", port=self.port, user="outpost", dbname="postgres",
                            connect_timeout=2).close()
            return True
        except psycopg.OperationalError:
            return False

    def database(self) -> str:
        """Make an empty database and return its URL."""
        name = f"d{secrets.token_hex(4)}"
        with psycopg.connect(host="127.0.0.1", port=self.port, user="outpost", dbname="postgres",
                             autocommit=True) as db:
            db.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def prepare(self) -> None:
        """Make an empty database."""
        if os.geteuid() == 0:  # it refuses to be run by root, and others can't read root's cache
            if not str(self._programs).startswith("/usr/"):
                top = self._programs.parents[4]
                shutil.copytree(top, self.folder / "prefix", symlinks=True)
                self._programs = self.folder / "prefix" / self._programs.relative_to(top)
            shutil.chown(self.folder, "nobody")
        done = subprocess.run(
            [self._programs / "initdb", "-D", self.folder / "data", "-U", "outpost", "-A", "trust",
             "--no-sync", "--no-instructions", "--locale=C", "-E", "UTF8"], text=True,
            capture_output=True, check=False, cwd=self.folder, **self.identity())
        if done.returncode:
            raise ServerError(f"PostgreSQL can't make a database: {done.stderr.strip()[-500:]}")

    def command(self) -> list[str]:
        """Return how to start it."""
        settings = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "",
                    "port": str(self.port)} | self._settings
        return [str(self._programs / "postgres"), "-D", str(self.folder / "data"),
                *(word for name, value in settings.items() for word in ("-c", f"{name}={value}"))]

    def identity(self) -> dict[str, object]:
        """Return as whom to run it, and with what environment, for subprocess."""
        libraries = {str(path.parent) for path in self._programs.parents[4].glob("usr/lib/*/*.so*")
                     } if not str(self._programs).startswith("/usr/") else set()
        env = {**os.environ, "LC_ALL": "C"}
        if libraries:
            env["LD_LIBRARY_PATH"] = ":".join(sorted(libraries))
        who = {"user": "nobody", "extra_groups": []} if os.geteuid() == 0 else {}
        return {"env": env, **who}

    def kill(self, number: int = signal.SIGQUIT) -> None:
        """End it at once, its children too: SIGQUIT is PostgreSQL's own way to crash."""
        super().kill(number)
