"""A headless Chromium for the tests of the dashboard.

It is the machine's own where it has one, and otherwise comes from its package mirror into the
cache, as everything here does. Ubuntu has Chromium only as a snap; there it must be installed.
"""

import os
import shutil
from pathlib import Path

from outpost import cache
from outpost.errors import OutpostError
from outpost.toolchain import apt

PACKAGE = "chromium-headless-shell"
PROGRAM = f"usr/lib/chromium/{PACKAGE}"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# of its prefix: drivers of graphics cards and what only they need, words, other languages
SPARE = ("usr/lib/*/dri", "usr/lib/*/libLLVM*", "usr/lib/*/libz3*", "usr/lib/chromium/libVk*",
         "usr/share/doc", "usr/share/icons", "usr/share/locale", "usr/share/man")
FONTS = """<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig><dir>/usr/share/fonts</dir><dir prefix="relative">usr/share/fonts</dir>
<cachedir prefix="xdg">fontconfig</cachedir></fontconfig>
"""


class BrowserError(OutpostError):
    """There is no browser, and none can be fetched."""


def chromium() -> tuple[Path, dict[str, str]]:
    """Return a Chromium and the environment it needs. Raises BrowserError."""
    for name in NAMES:
        found = shutil.which(name)
        if found and not Path(found).resolve().is_relative_to("/snap"):
            return Path(found), dict(os.environ)
    try:
        folder = cache.item("toolchain/chromium", _fetch)
    except OutpostError as error:
        raise BrowserError(f"no Chromium is installed, and {PACKAGE} can't be fetched: {error}"
                           ) from error
    libraries = sorted({str(path.parent) for path in folder.glob("usr/lib/**/*.so*")})
    return folder / PROGRAM, {**os.environ, "LD_LIBRARY_PATH": ":".join(libraries),
                              "FONTCONFIG_FILE": str(folder / "fonts.conf")}


def _fetch(folder: Path) -> None:
    apt.install([PACKAGE], folder, own_release=True)
    if not (folder / PROGRAM).exists():
        raise BrowserError(f"{PACKAGE} has no {PROGRAM}")
    for pattern in SPARE:
        for path in folder.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    (folder / "fonts.conf").write_text(FONTS)
