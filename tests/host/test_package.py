"""Model packages: signed on the host, checked and put on trial by the node on real MicroPython."""

import json
import subprocess
from functools import partial
from pathlib import Path

import packages
import pytest
from packages import SIGNER, STRANGER

from outpost import build, package
from outpost.paths import FIRMWARE
from outpost.world import run as world

REASONS = ("", "MISSING", "TRUNCATED", "UNKNOWN", "NO_KEY", "FORGED", "DAMAGED", "WRONG_ARCH",
           "OLDER", "NO_ROOM", "WRONG_MODEL", "WRONG_ANSWER", "TOO_SLOW", "CRASHED", "UNFIT",
           "ON_TRIAL")

INSTALL = """
from node import package
from node.settings import Settings
try:
    told = package.install(Settings("settings.json"), bytes.fromhex("{key}"), {forced})
    print("on trial", told["version"])
except package.Refused as refused:
    print("refused", refused.args[0])
"""

LIB = Path(__file__).parents[1] / "device/lib"

# A step of an update is cut at each operation of the flash (tests/device/lib/cuts.py).
CUTS = """
import os
from cuts import copy, mount, torture, unmount
from disk import blank
from node import package, update
from node.settings import Settings

def install():
    package.install(Settings("settings.json"), bytes.fromhex("{key}"))

start = blank(48)
mount(start)
copy({source}, {files})
unmount()
old, new = ("motion", 0), ("slot_a", update.TRIAL)
start, cuts = torture(start, install, old, new)
print("install", cuts)
print("undo", torture(start, update.undo, new, old)[1])
kept, cuts = torture(start, update.keep, new, ("slot_a", 0))
print("keep", cuts)
mount(kept)
print(sorted(os.listdir("models")))
"""


@pytest.fixture(scope="module")
def motion():
    return build.build("motion", ["x64", "armv6m"])


@pytest.fixture
def node(motion, tmp_path):
    """The file system of a node that was flashed with version 1 of motion."""
    meta = json.loads((motion.folder / "model.json").read_text())
    (tmp_path / "models").mkdir()
    for name in ("mpy", "golden"):
        content = package.image.model_files(motion.folder, "x64")[f"models/motion.{name}"]
        (tmp_path / f"models/motion.{name}").write_bytes(content)
    settings = world.settings(meta)
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    (tmp_path / "verify.mpy").write_bytes(package.verifier("x64"))
    return tmp_path


@pytest.fixture
def install(on_micropython, node):
    """Have the node install a package; returns "on trial 2" or why it was refused."""
    def run(content, key=SIGNER.public, forced=False):
        if content is not None:
            (node / "models/new.pkg").write_bytes(content)
        said = on_micropython(INSTALL.format(key=key.hex(), forced=forced)).split()
        return REASONS[int(said[1])] if said[0] == "refused" else " ".join(said)

    return run


@pytest.fixture
def make(motion):
    """Return a function that makes a package of version 2 of motion."""
    return partial(packages.make, motion)


def content_of(node: Path) -> dict[str, bytes]:
    return {str(path.relative_to(node)): path.read_bytes()
            for path in node.rglob("*") if path.is_file()}


def test_a_package_is_put_on_trial(make, node, install):
    assert install(make()) == "on trial 2"
    settings = json.loads((node / "settings.json").read_text())
    assert settings["trial"] > 0 and settings["model"]["name"] == "slot_a"
    assert json.loads((node / "settings.old").read_text())["model"]["name"] == "motion"
    assert sorted(path.name for path in (node / "models").iterdir()) == [
        "motion.golden", "motion.mpy", "slot_a.golden", "slot_a.mpy"]
    assert install(make(version=3)) == "ON_TRIAL"


def test_kept_then_the_other_slot(make, node, install, on_micropython):
    for version, slot in ((2, "slot_a"), (3, "slot_b"), (4, "slot_a")):
        assert install(make(version=version)) == f"on trial {version}"
        on_micropython("from node import update; update.keep()")
        assert sorted(path.name for path in (node / "models").iterdir()) == [
            f"{slot}.golden", f"{slot}.mpy"]
        assert json.loads((node / "settings.json").read_text())["model"]["version"] == version
        assert not (node / "settings.old").exists()


def test_undone_is_as_before(make, node, install, on_micropython):
    before = content_of(node)
    assert install(make()) == "on trial 2"
    assert on_micropython("from node import update; print(update.undo())") == "True\n"
    after = content_of(node)
    assert json.loads(after.pop("settings.json")) == json.loads(before.pop("settings.json"))
    assert after == before
    assert on_micropython("from node import update; print(update.undo())") == "False\n"


def test_older_versions_only_by_force(make, install):
    assert install(make(version=1)) == "OLDER"
    assert install(make(version=0)) == "OLDER"
    assert install(make(version=1), forced=True) == "on trial 1"


@pytest.mark.parametrize("why", [
    "MISSING", "TRUNCATED", "UNKNOWN", "NO_KEY", "FORGED", "DAMAGED", "WRONG_ARCH", "NO_ROOM",
    "WRONG_MODEL", "WRONG_ANSWER", "TOO_SLOW", "UNFIT"])
def test_refused_with_a_reason_and_nothing_changed(why, make, motion, node, install):
    good = make()
    head = package.HEAD.size
    cases = {
        "MISSING": [{"content": None}],
        "TRUNCATED": [{"content": good[:size]} for size in (0, 3, 30, head, head + 9, 2500, -1)],
        "UNKNOWN": [{"content": b"OPK9" + good[4:]}, {"content": b"OPK1\xff\xff" + good[6:]}],
        "NO_KEY": [{"content": good, "key": b""}],
        "FORGED": [{"content": make(by=STRANGER)}, {"content": good, "key": STRANGER.public},
                   {"content": good[:6] + bytes([good[6] ^ 1]) + good[7:]},
                   {"content": good[:head] + good[head:].replace(b'"of"', b'"if"')}],
        "DAMAGED": [{"content": good[:-1] + bytes([good[-1] ^ 1])}, {"content": good + b"x"}],
        "WRONG_ARCH": [{"content": make(arch="armv6m")}],
        "NO_ROOM": [{"content": make(heap=1 << 28)}],
        "WRONG_MODEL": [{"content": make(spec={"abi": 9})}, {"content": make(module=b"C\6\0\x1f")},
                        {"content": make(spec={"classes": 5})}],
        "WRONG_ANSWER": [{"content": make(module=packages.wrong(motion))}],
        "TOO_SLOW": [{"content": make(us=-1)}],
        "UNFIT": [{"content": make(settings={"wake_s": 1})}],
    }
    before = content_of(node)
    for case in cases[why]:
        expected = why
        if why == "TOO_SLOW":  # slower than nothing: no golden window takes less than a µs a call
            case = {"content": make(module=packages.slow(motion), us=1)}
        assert install(**case) == expected
        assert content_of(node) == before


def test_a_model_that_crashes_is_tried_twice_and_not_again(make, motion, node, micropython,
                                                           install):
    before = content_of(node)
    (node / "models/new.pkg").write_bytes(make(module=packages.crash(motion)))
    for _ in range(2):
        done = subprocess.run(
            [micropython, "-c", INSTALL.format(key=SIGNER.public.hex(), forced=False)], cwd=node,
            env={"MICROPYPATH": f"{FIRMWARE}:.frozen"}, capture_output=True, timeout=60)
        assert done.returncode < 0, done
    assert install(None) == "CRASHED"
    assert content_of(node) == before


def test_cut_at_every_operation_of_the_flash(make, node, on_micropython):
    (node / "models/new.pkg").write_bytes(make())
    files = sorted(content_of(node), reverse=True)
    code = CUTS.format(key=SIGNER.public.hex(), files=files, source=repr(str(node)))
    lines = on_micropython(code, [LIB], timeout_s=300).splitlines()
    # (finalisers of files that were open at a cut say what they think of the dead disk)
    cuts = {words[0]: int(words[1]) for words in map(str.split, lines)
            if words[0] in ("install", "undo", "keep")}
    assert cuts["install"] > 100 and cuts["undo"] > 5 and cuts["keep"] > 10, cuts
    assert lines[-1] == "['slot_a.golden', 'slot_a.mpy']"


def test_host_reads_what_it_made(motion):
    content = package.make(motion.folder, "armv6m", SIGNER, limit_us=900)
    told = package.read(content, SIGNER.public)
    assert (told["name"], told["mpy"], told["us"]) == ("motion", 4, 900)
    for bad in (content[:-1], content + b"x", content[:100] + b"?" + content[101:], b""):
        with pytest.raises(package.PackageError):
            package.read(bad, SIGNER.public)
    with pytest.raises(package.PackageError, match="not signed"):
        package.read(content, STRANGER.public)


def test_a_person_has_one_pair_of_keys(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    first = package.signer()
    assert package.signer() == first
    file = tmp_path / "outpost/signing.key"
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.read_text().strip() not in repr(first)
    file.write_text("?")
    with pytest.raises(package.PackageError, match=r"signing\.key"):
        package.signer()
