"""Device tests: plain scripts, each run by a real interpreter. How to write one: ../README.md."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from outpost.errors import OutpostError
from outpost.paths import FIRMWARE

HERE = Path(__file__).parent
LIBRARY = HERE / "lib"
TIMEOUT_S = 120


class ScriptFailed(Exception):
    """The script ended badly or printed something else; the message shows what."""


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Take every script, except the helpers in lib/."""
    if file_path.suffix == ".py" and file_path.name != "conftest.py" \
            and LIBRARY not in file_path.parents and not parent.session.isinitpath(file_path):
        return Script.from_parent(parent, path=file_path)
    return None


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Collector:
    """Take a script that was named on the command line, which pytest would import."""
    return Script.from_parent(parent, path=module_path)


class Script(pytest.File):
    """One script; those below pure/ run under both interpreters."""

    def collect(self) -> Iterator[pytest.Item]:
        """Yield one item an interpreter."""
        yield Run.from_parent(self, name="micropython")
        if HERE / "pure" in self.path.parents:
            yield Run.from_parent(self, name="cpython")


class Run(pytest.Item):
    """A script under one interpreter."""

    def runtest(self) -> None:
        """Run the script; its output must be the .exp file's, or end in a line OK."""
        folders = [str(FIRMWARE), str(LIBRARY)]
        if self.name == "micropython":
            from outpost.toolchain import unix

            command = [unix.micropython(), self.path]
            extra = {"MICROPYPATH": ":".join([*folders, ".frozen"])}
        else:
            command = [sys.executable, "-c", "import sys, runpy, outpost.device\n"
                       "runpy.run_path(sys.argv[1], run_name='__main__')", self.path]
            extra = {"PYTHONPATH": os.pathsep.join(folders)}
        try:
            done = subprocess.run(command, cwd=self.path.parent, env={**os.environ, **extra},
                                  text=True, errors="replace", stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT, timeout=TIMEOUT_S, check=False)
        except subprocess.TimeoutExpired as error:
            raise ScriptFailed(f"not finished after {TIMEOUT_S} s") from error
        expected = self.path.with_name(self.path.name + ".exp")
        if done.returncode:
            raise ScriptFailed(f"exit code {done.returncode}\n{done.stdout}")
        if expected.exists():
            if done.stdout != expected.read_text():
                raise ScriptFailed(f"differs from {expected.name}; it printed\n{done.stdout}")
        elif done.stdout.splitlines()[-1:] != ["OK"]:
            raise ScriptFailed(f"the last line isn't OK; it printed\n{done.stdout}")

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException],
                     style: str | None = None) -> str:
        """Show the script's own words; no traceback of this runner."""
        if isinstance(excinfo.value, ScriptFailed | OutpostError):
            return f"{self.path.relative_to(HERE)} under {self.name}: {excinfo.value}"
        return str(super().repr_failure(excinfo, "short"))

    def reportinfo(self) -> tuple[Path, int, str]:
        """Name the test in pytest's report."""
        return self.path, 0, f"{self.path.relative_to(HERE)} [{self.name}]"
