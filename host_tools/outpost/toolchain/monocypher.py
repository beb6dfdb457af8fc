"""Monocypher's C, by which hosts sign model packages and nodes check them.

It comes in the source package of PyPI's `pymonocypher` (monocypher.c is BSD-2-Clause or CC0), of
which nothing else is used: building that package needs Python's headers, which not everyone has.
"""

import subprocess
import sys
import tarfile
from pathlib import Path

from outpost import cache
from outpost.errors import OutpostError

VERSION = "4.0.3.4"
PACKAGE = f"pymonocypher=={VERSION}"
SHA256 = "5e56e3d3eb770a53e0b9f6274146663c11a11f3d0de5cd48e3be0428d1b07a4a"
FILES = ("monocypher.c", "monocypher.h")


class MonocypherError(OutpostError):
    """Monocypher could not be fetched."""


def source() -> Path:
    """Return the folder of monocypher.c and monocypher.h; fetch them the first time."""
    return cache.item(f"monocypher/{VERSION}", _fetch)


def _fetch(folder: Path) -> None:
    wanted = folder / "requirements.txt"
    wanted.write_text(f"{PACKAGE} --hash=sha256:{SHA256}\n")
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--quiet", "download", "--no-deps", "--no-binary", ":all:",
         "--require-hashes", "--no-build-isolation", "-r", str(wanted), "-d", str(folder)],
        text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    wanted.unlink()
    found = list(folder.glob("*.tar.gz"))
    if done.returncode or len(found) != 1:
        raise MonocypherError(f"pip could not fetch {PACKAGE}, which has the C that signs:\n"
                              f"{done.stdout.strip()[-800:]}")
    with tarfile.open(found[0]) as archive:
        for member in archive:
            name = Path(member.name).name
            if name in FILES and member.isfile() and len(Path(member.name).parts) == 2:
                (folder / name).write_bytes(archive.extractfile(member).read())
    found[0].unlink()
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise MonocypherError(f"{PACKAGE} has no {', '.join(missing)}")
