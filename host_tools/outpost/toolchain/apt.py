"""Packages from the machine's own Debian or Ubuntu mirror, fetched without touching the system.

apt-get runs with a private configuration: its lists and archives live in the cache, the mirror and
its signing key come from the machine's apt sources, and only the suite is changed. Nothing gets
installed and no root is needed. Standard library only: the bootstrap uses this before any
package is there.
"""

import os
import shutil
import subprocess
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from outpost import cache
from outpost.errors import OutpostError

SUITES = {"debian": "trixie", "ubuntu": "resolute"}
COMPONENTS = {"debian": "main", "ubuntu": "main universe"}
SCRATCH = ".apt"
FRESH_S = 3600  # how long a downloaded package list is taken as it is

ETC = Path("/etc/apt")
OS_RELEASE = Path("/etc/os-release")


class AptError(OutpostError):
    """The machine's package mirror could not give what was asked for."""


@dataclass(frozen=True)
class Mirror:
    """One archive from the machine's own apt sources; `signed_by` is a keyring file or empty."""

    uri: str
    signed_by: str = ""


def available() -> bool:
    """Return whether this machine has apt-get and dpkg."""
    return bool(shutil.which("apt-get") and shutil.which("dpkg"))


def entries(etc: Path = ETC) -> Iterator[tuple[str, str, list[str], str]]:
    """Yield (uri, suite, components, signed_by) of every enabled binary source under `etc`."""
    files = [etc / "sources.list", *sorted((etc / "sources.list.d").glob("*"))]
    for path in files:
        if not path.is_file():
            continue
        text = path.read_text(errors="replace")
        if path.suffix == ".sources":
            yield from _deb822(text)
        elif path.suffix == ".list":
            yield from _one_line(text)


def _one_line(text: str) -> Iterator[tuple[str, str, list[str], str]]:
    """Read the classic form: `deb [options] uri suite component…`."""
    for line in text.splitlines():
        kind, _, rest = line.partition("#")[0].strip().partition(" ")
        rest, options = rest.strip(), ""
        if rest.startswith("["):
            options, _, rest = rest[1:].partition("]")
        words = rest.split()
        if kind == "deb" and len(words) >= 2:
            named = dict(word.partition("=")[::2] for word in options.split())
            yield words[0], words[1], words[2:], _keyring(named.get("signed-by", ""))


def _deb822(text: str) -> Iterator[tuple[str, str, list[str], str]]:
    """Read the newer form: stanzas of `Types:`, `URIs:`, `Suites:`, `Components:` and more."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    for stanza in "\n".join(lines).split("\n\n"):
        fields: dict[str, str] = {}
        name = ""
        for line in stanza.splitlines():
            if line[:1].isspace():
                fields[name] = f"{fields.get(name, '')}\n{line.strip()}"
            elif ":" in line:
                name, _, value = line.partition(":")
                name = name.strip().lower()
                fields[name] = value.strip()
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes") == "no":
            continue
        for uri in fields.get("uris", "").split():
            for suite in fields.get("suites", "").split():
                yield (uri, suite, fields.get("components", "").split(),
                       _keyring(fields.get("signed-by", "")))


def _keyring(signed_by: str) -> str:
    """Return `signed_by` where it is a file (it may also be a fingerprint or the key itself)."""
    return signed_by if signed_by.startswith("/") and "\n" not in signed_by else ""


def _os_release(path: Path) -> dict[str, str]:
    """Return the fields that say which system this is."""
    lines = path.read_text().splitlines() if path.is_file() else []
    pairs = (line.partition("=") for line in lines)
    return {name: value.strip('"') for name, _, value in pairs}


def family(os_release: Path = OS_RELEASE) -> str:
    """Return "debian" or "ubuntu"; raise AptError on any other system."""
    fields = _os_release(os_release)
    if not available() or fields.get("ID") not in SUITES:
        name = fields.get("PRETTY_NAME", "this system")
        raise AptError("Outpost fetches its toolchain through apt on Debian and Ubuntu, and "
                       f"{name} is neither. Install MicroPython's unix port, 1.24 or newer, "
                       "and set $MICROPYTHON to its path")
    return fields["ID"]


def mirror(etc: Path = ETC, os_release: Path = OS_RELEASE) -> Mirror:
    """Return the archive this machine installs its own release from."""
    name = family(os_release)
    codename = _os_release(os_release).get("VERSION_CODENAME", "")
    names = {codename, "stable", "testing", "unstable", "sid"} - {""}
    for uri, suite, components, signed_by in entries(etc):
        if suite in names and "main" in components and not uri.startswith(("cdrom:", "file:")):
            if not signed_by:
                default = Path(f"/usr/share/keyrings/{name}-archive-keyring.gpg")
                signed_by = str(default) if default.is_file() else ""
            return Mirror(uri, signed_by)
    raise AptError(f"no archive of {name} {codename} in {etc}/sources.list or "
                   f"{etc}/sources.list.d: add one there, or set $MICROPYTHON to a MicroPython "
                   "(unix port, 1.24 or newer)")


class _Apt:
    """apt-get with our own configuration, lists and archives under the cache."""

    def __init__(self, suite: str) -> None:
        source = mirror()
        self.suite = suite
        self.folder = cache.root() / "apt" / self.suite
        for name in ("lists/partial", "archives/partial", "empty"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        status = self.folder / "status"
        status.touch()
        option = f"[signed-by={source.signed_by}] " if source.signed_by else ""
        rest = f"{option}{source.uri} {self.suite} {COMPONENTS[family()]}\n"
        self.sources = self.folder / "sources.list"
        self.config = self.folder / "apt.conf"
        self.text = f"deb {rest}deb-src {rest}"
        self.settings = "".join(f"{line};\n" for line in (
            f'Dir::State::Lists "{self.folder}/lists"',
            f'Dir::State::status "{status}"',
            f'Dir::Cache "{self.folder}"',
            f'Dir::Cache::archives "{self.folder}/archives"',
            f'Dir::Etc::sourcelist "{self.sources}"',
            f'Dir::Etc::sourceparts "{self.folder}/empty"',
            'Dir::Etc::preferences "/dev/null"',
            f'Dir::Etc::preferencesparts "{self.folder}/empty"',
            'Acquire::Languages "none"',
            'Acquire::Retries "3"',
            'APT::Sandbox::User "root"',  # user _apt can't write into our cache
            "#clear APT::Update::Pre-Invoke",
            "#clear APT::Update::Post-Invoke",
            "#clear APT::Update::Post-Invoke-Success",
        ))

    def run(self, *arguments: str, folder: Path | None = None) -> None:
        """Run apt-get; raise AptError with apt's own words when it fails."""
        command = ["apt-get", "-c", str(self.config), "-q", *arguments]
        done = subprocess.run(command, cwd=folder or self.folder, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              env={**os.environ, "LC_ALL": "C.UTF-8"}, check=False)
        if done.returncode:
            lines = [line for line in done.stdout.splitlines() if line.startswith(("E:", "W:"))]
            raise AptError(f"apt-get {' '.join(arguments)} failed:\n"
                           + "\n".join(lines or done.stdout.splitlines()[-5:]))

    def update(self) -> None:
        """Fetch the package lists, unless that was done within the last hour."""
        stamp = self.folder / "updated"
        same = self.sources.is_file() and self.sources.read_text() == self.text
        if same and stamp.is_file() and time.time() - stamp.stat().st_mtime < FRESH_S:
            return
        stamp.unlink(missing_ok=True)
        self.sources.write_text(self.text)
        self.config.write_text(self.settings)
        self.run("update")
        stamp.touch()


def source(package: str, version: str, folder: Path) -> None:
    """Unpack the upstream sources of `package` at exactly Debian's `version` into `folder`.

    An empty `version` takes the suite's newest. The tarball is checked by apt against the signed
    index. Distribution patches aren't applied.
    """
    named = f"{package}={version}" if version else package
    scratch = _fetch(folder, "source", "--download-only", named)
    try:
        tarballs = sorted(scratch.glob("*.orig.tar.*")) or sorted(scratch.glob("*.tar.*"))
        tarballs = [path for path in tarballs if not path.name.endswith(".asc")]
        with tarfile.open(tarballs[0]) as archive:
            members = archive.getmembers()
            for member in members:  # drop the leading folder
                member.name = member.name.partition("/")[2]
                if member.islnk():
                    member.linkname = member.linkname.partition("/")[2]
            archive.extraction_filter = getattr(tarfile, "data_filter", lambda member, _: member)
            keep = [m for m in members if m.name and ".." not in Path(m.name).parts]
            archive.extractall(folder, keep)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def download(packages: list[str], folder: Path, own_release: bool = False) -> None:
    """Unpack binary `packages` (each `name` or `name=version`) below `folder`, as a prefix.

    They come from the suite Outpost takes its sources from, or with `own_release` from the one
    this machine runs, whose programs its C library can run.
    """
    suite = _os_release(OS_RELEASE).get("VERSION_CODENAME") if own_release else None
    scratch = _fetch(folder, "download", *packages, suite=suite)
    _unpack(scratch, folder)


def install(packages: list[str], folder: Path, own_release: bool = False) -> None:
    """Unpack `packages` and all they depend on below `folder`.

    They come from the suite Outpost takes its sources from, however old this machine is, and the C
    library too: run them with `command`. With `own_release` they come from this machine's own, and
    use its C library: run them with their library folders in $LD_LIBRARY_PATH.
    """
    suite = _os_release(OS_RELEASE).get("VERSION_CODENAME") if own_release else None
    scratch = _fetch(folder, "install", "--yes", "--download-only", "--no-install-recommends",
                     "-o", f"Dir::Cache::archives={folder.absolute() / SCRATCH}",
                     "-o", "Debug::NoLocking=1", *packages, suite=suite)
    if own_release:
        for path in scratch.glob("libc[6-]*.deb"):
            path.unlink()
    _unpack(scratch, folder)


def command(folder: Path, program: str) -> list[str]:
    """Return how to call `program` of a folder filled by `install`: through its own loader."""
    loader = next(iter(sorted(folder.glob("usr/lib*/**/ld-linux-*.so.*"))
                       or sorted(folder.glob("lib*/**/ld-linux-*.so.*"))), None)
    if loader is None:
        raise AptError(f"{folder} is incomplete: it has no loader. Remove it and try again")
    libraries = sorted({str(path.parent) for path in folder.glob("**/*.so.*")
                        if path.parent.parent.name == "lib"})
    return [str(loader), "--library-path", ":".join(libraries),
            str(next(path for path in (folder / "usr/bin" / program, folder / "usr/sbin" / program)
                     if path.exists()))]


def _unpack(scratch: Path, folder: Path) -> None:
    """Unpack every package in `scratch` below `folder`, and remove `scratch`."""
    try:
        for path in sorted(scratch.glob("*.deb")):
            subprocess.run(["dpkg", "-x", str(path), str(folder)], check=True)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _fetch(folder: Path, *arguments: str, suite: str | None = None) -> Path:
    """Run one downloading apt-get command; return the scratch folder that holds the files."""
    scratch = folder / SCRATCH
    (scratch / "partial").mkdir(parents=True)
    with cache.lock("apt"):
        apt = _Apt(suite or SUITES[family()])
        apt.update()
        try:
            apt.run(*arguments, folder=scratch)
        except AptError:  # the mirror moved on since the lists were fetched
            (apt.folder / "updated").unlink(missing_ok=True)
            apt.update()
            apt.run(*arguments, folder=scratch)
    return scratch
