"""Setting up .venv: reused while the lock is the same, clean after an interruption."""

import importlib.util
import re
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

from outpost.paths import ROOT


@pytest.fixture
def bootstrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, working on a folder of its own; `calls` records what it would do."""
    spec = importlib.util.spec_from_file_location("bootstrap",
                                                  ROOT / "host_tools/bootstrap.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / "pyproject.toml").write_text("")
    (tmp_path / "requirements.lock").write_text("rich==1.0\n")
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(module, "LOCK", tmp_path / "requirements.lock")
    monkeypatch.setattr(module, "STAMP", tmp_path / ".venv/outpost-stamp")
    module.calls = []

    def create(progress: object) -> None:
        module.calls.append("create")
        module.VENV.mkdir(exist_ok=True)

    monkeypatch.setattr(module, "create", create)
    monkeypatch.setattr(module, "install", lambda progress: module.calls.append("install"))
    return module


def test_the_second_time_does_nothing(bootstrap: ModuleType) -> None:
    assert bootstrap.main() == 0
    assert bootstrap.main() == 0
    assert bootstrap.calls == ["create", "install"]


def test_a_changed_lock_updates_in_place(bootstrap: ModuleType) -> None:
    bootstrap.main()
    bootstrap.LOCK.write_text("rich==2.0\n")
    bootstrap.main()
    assert bootstrap.calls == ["create", "install", "install"]


def test_a_moved_clone_starts_from_nothing(bootstrap: ModuleType, tmp_path: Path) -> None:
    bootstrap.main()
    bootstrap.ROOT = tmp_path / "elsewhere"
    bootstrap.ROOT.mkdir()
    (bootstrap.ROOT / "pyproject.toml").write_text("")
    bootstrap.main()
    assert bootstrap.calls == ["create", "install"] * 2


def test_after_an_interruption_it_starts_from_nothing(
        bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    bootstrap.main()
    bootstrap.LOCK.write_text("rich==2.0\n")

    def interrupted(progress: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(bootstrap, "install", interrupted)
        assert bootstrap.main() == 130
    bootstrap.main()
    assert bootstrap.calls == ["create", "install"] * 2


def test_a_failure_is_told_with_its_last_lines(
        bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(bootstrap, "install", lambda progress: bootstrap.run(
        [sys.executable, "-c", "print('no such package'); raise SystemExit(1)"]))
    assert bootstrap.main() == 1
    assert "no such package" in capsys.readouterr().err


def test_an_old_python_is_refused(bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch,
                                  capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(bootstrap.sys, "version_info", (3, 9, 2))
    assert bootstrap.main() == 1
    assert "3.11" in capsys.readouterr().err


def test_the_lock_pins_and_hashes_everything_and_names_no_host() -> None:
    text = (ROOT / "requirements.lock").read_text()
    assert "://" not in text and "--index" not in text and "--find-links" not in text
    blocks = re.split(r"^(?=\S)", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE),
                      flags=re.MULTILINE)
    blocks = [block for block in blocks if block.strip()]
    assert all(re.match(r"[\w.-]+==\S+", block) and "--hash=sha256:" in block for block in blocks)
    locked = {block.partition("==")[0] for block in blocks}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    assert {re.match(r"[\w-]+", name)[0] for name in wanted} <= locked
