"""Packages for tests: of motion, as good or as bad as a test wants them."""

import hashlib
import json
import shutil
import zlib
from typing import Any

from outpost import build, compile, link, package
from outpost.paths import NATIVE

SIGNER, STRANGER = (package.Signer.of(bytes([n] * 32)) for n in (1, 2))


def make(motion: build.Result, by: package.Signer = SIGNER, arch: str = "x64",
         module: bytes | None = None, settings: dict | None = None, spec: dict | None = None,
         golden: int | None = None, **changes: Any) -> bytes:
    """Return a package of version 2 of motion, with changes that are signed as they should be.

    `golden` windows are in it, by default all there are.
    """
    content = package.make(motion.folder, arch, by)
    _, size, _ = package.HEAD.unpack_from(content)
    manifest = json.loads(content[package.HEAD.size:package.HEAD.size + size])
    rest = content[package.HEAD.size + size:]
    model = manifest["settings"]["model"]
    if module is not None:
        part = next(part for part in manifest["parts"] if part[0] == "mpy")
        assert manifest["parts"][0] == part
        rest = module + rest[part[1]:]
        part[1:] = [len(module), hashlib.sha256(module).hexdigest()]
        model["crc32"] = zlib.crc32(module)
    if golden is not None:
        part = manifest["parts"][-1]
        size = 2 * (model["window"] * model["channels"] + model["features"]) + model["classes"] + 1
        short = rest[-part[1]:][:golden * size]
        rest = rest[:-part[1]] + short
        part[1:] = [len(short), hashlib.sha256(short).hexdigest()]
    manifest |= {"version": 2} | changes
    manifest["settings"] |= settings or {}
    model |= {"version": manifest["version"]} | (spec or {})
    text = json.dumps(manifest).encode()
    head = package.HEAD.pack(package.MAGIC, len(text), by.sign(package.SIGNED + text))
    return head + text + rest


def assemble(motion, before: str, after: str, name: str) -> bytes:
    """Return the module of motion with a line of its C changed."""
    folder = motion.folder / f".{name}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        for file in ("model.h", "model.c"):
            shutil.copy(motion.folder / file, folder)
        text = (NATIVE / "module.c").read_text()
        assert before in text
        (folder / "module.c").write_text(text.replace(before, after))
        unit = compile.compile_module([folder / "module.c"], [folder, NATIVE], "x64",
                                      folder / "unit.o")
        return link.link(unit, "x64", "motion")
    finally:
        shutil.rmtree(folder)


ANSWER = "    outpost_features(in, between);\n"


def wrong(motion) -> bytes:
    return assemble(motion, ANSWER, ANSWER + "    between[0]++;\n", "wrong")


def slow(motion) -> bytes:
    wait = "    for (volatile int i = 0; i < 100000; i++) {\n    }\n"
    return assemble(motion, ANSWER, wait + ANSWER, "slow")


def crash(motion) -> bytes:
    return assemble(motion, ANSWER, "    __builtin_trap();\n" + ANSWER, "crash")


PREDICT = "    return MP_SMALL_INT(outpost_predict(in, votes_of(known, votes)));\n"


def crash_on(motion, number: int) -> bytes:
    """A module that passes its self-test, and crashes a node that meets class `number`."""
    trap = f"    if (found == {number}) {{\n        __builtin_trap();\n    }}\n"
    return assemble(motion, PREDICT,
                    "    int found = outpost_predict(in, votes_of(known, votes));\n" + trap
                    + "    return MP_SMALL_INT(found);\n", f"crash-on-{number}")
