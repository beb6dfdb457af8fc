"""Which MicroPython is taken, which archive packages come from, and what is said when none is."""

from pathlib import Path

import pytest

from outpost.errors import OutpostError
from outpost.toolchain import apt, make, unix

DEBIAN = 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nVERSION_CODENAME=bookworm\nID=debian\n'
ONE_LINE = """
# deb http://commented.example/debian bookworm main
deb-src http://source.example/debian bookworm main
deb cdrom:[Debian 12]/ bookworm main
deb http://security.example/debian-security bookworm-security main
deb [arch=amd64 signed-by=/keys/debian.gpg] http://mirror.example/debian bookworm main contrib # x
"""
DEB822 = """\
# the installer wrote this
Enabled: no
Types: deb
URIs: http://disabled.example/debian
Suites: bookworm
Components: main

Types: deb deb-src
URIs: http://mirror.example/debian
  http://second.example/debian
Suites: bookworm bookworm-updates
# between two fields
Components: main non-free-firmware
Signed-By: /keys/debian.gpg

Types: deb
URIs: http://inline.example/debian
Suites: trixie
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 mQINBGPL0BUBEADmW5NdOOHwPIJlgPu6JDcKw/NZJPR8lsD3K87ZM18gzyQZJD+w
"""


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty /etc of a Debian machine."""
    monkeypatch.setattr(apt, "available", lambda: True)
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "os-release").write_text(DEBIAN)
    return tmp_path


def mirror(system: Path) -> apt.Mirror:
    return apt.mirror(system, system / "os-release")


def test_mirror_from_one_line_sources(system: Path) -> None:
    (system / "sources.list").write_text(ONE_LINE)
    assert mirror(system) == apt.Mirror("http://mirror.example/debian", "/keys/debian.gpg")


def test_mirror_from_deb822_sources(system: Path) -> None:
    (system / "sources.list.d/debian.sources").write_text(DEB822)
    assert mirror(system) == apt.Mirror("http://mirror.example/debian", "/keys/debian.gpg")
    assert list(apt.entries(system)) == [
        *((uri, suite, ["main", "non-free-firmware"], "/keys/debian.gpg")
          for uri in ("http://mirror.example/debian", "http://second.example/debian")
          for suite in ("bookworm", "bookworm-updates")),
        ("http://inline.example/debian", "trixie", ["main"], ""),
    ]


def test_other_vendors_archives_are_passed_over(system: Path) -> None:
    (system / "sources.list.d/a.list").write_text("deb http://tool.example/apt stable-x main\n")
    (system / "sources.list.d/b.list.save").write_text("deb http://old.example bookworm main\n")
    with pytest.raises(apt.AptError, match=r"no archive of debian bookworm"):
        mirror(system)


def test_a_system_without_apt_is_told_what_to_do(system: Path) -> None:
    (system / "os-release").write_text('PRETTY_NAME="Fedora Linux 42"\nID=fedora\n')
    with pytest.raises(apt.AptError, match=r"Fedora Linux 42 is neither.*\$MICROPYTHON"):
        mirror(system)


def script(folder: Path, text: str) -> Path:
    path = folder / "micropython"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_probe_takes_the_real_one(micropython: Path) -> None:
    assert unix.probe(micropython) == ""


@pytest.mark.parametrize(("text", "fault"), [
    ("echo hello", "isn't MicroPython"),
    ("echo version 1 23; echo double 42", "version 1.23"),
    ("echo version 1 25; echo 'ValueError: incompatible .mpy arch' >&2; exit 1", "mpy arch"),
])
def test_probe_says_what_is_wrong(tmp_path: Path, text: str, fault: str) -> None:
    assert fault in unix.probe(script(tmp_path, text))


def test_probe_of_what_is_no_program(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("text")
    assert "can't be run" in unix.probe(tmp_path / "text")
    assert "can't be run" in unix.probe(tmp_path / "absent")


def test_a_named_micropython_is_taken_or_refused(
        tmp_path: Path, micropython: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MICROPYTHON", str(micropython))
    assert unix.find() == micropython
    monkeypatch.setenv("MICROPYTHON", str(script(tmp_path, "echo version 1 9")))
    with pytest.raises(OutpostError, match=r"\$MICROPYTHON is .* version 1\.9"):
        unix.find()


def test_one_on_path_is_taken_only_if_it_will_do(
        tmp_path: Path, micropython: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MICROPYTHON", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    script(tmp_path, "echo version 1 9")
    assert unix.find() is None
    (tmp_path / "micropython").unlink()
    (tmp_path / "micropython").symlink_to(micropython)
    assert unix.find() == tmp_path / "micropython"


def test_a_build_under_make_doesnt_see_our_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAKEFLAGS", "w -j2 -- BOARD=rp2040")
    monkeypatch.setenv("BOARD", "rp2040")
    monkeypatch.setenv("PIP_CERT", "kept")
    names = make.environment()
    assert "BOARD" not in names and "MAKEFLAGS" not in names and names["PIP_CERT"] == "kept"


def test_a_failed_build_shows_its_last_lines() -> None:
    with pytest.raises(make.MakeError, match=r"(?s)code 3.*undefined reference"):
        make.run("building", ["sh", "-c", "echo CC main.c; echo undefined reference; exit 3"],
                 make.COMPILED, 1)
