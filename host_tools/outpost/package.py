"""Model packages: a module, its golden windows and the settings that go with it, signed.

What a node takes by radio or cable is one file, and it runs nothing of it before it has checked
the signature (firmware/node/package.py). Bytes: docs/model-package.md.
"""

import hashlib
import json
import os
import secrets
import struct
from dataclasses import dataclass, field
from functools import cache as once
from pathlib import Path
from typing import Any

import cffi

from outpost import cache, compile, features, image, link, provision
from outpost.compile import architecture
from outpost.errors import OutpostError
from outpost.paths import NATIVE
from outpost.toolchain import monocypher

MAGIC = b"OPK1"
HEAD = struct.Struct("<4sH64s")  # magic, bytes of the manifest, signature
SIGNED = b"outpost model package 1\n"  # stands before the manifest in what is signed
MOST = 4096  # bytes of a manifest
VERIFY = "verify.mpy"  # on the node's file system: the module that checks signatures

_HOST = """
#include "monocypher.c"
void outpost_pair(uint8_t *secret, uint8_t *public_key, uint8_t *seed)
{
    crypto_eddsa_key_pair(secret, public_key, seed);
}
void outpost_sign(uint8_t *signature, const uint8_t *secret, const uint8_t *message, size_t size)
{
    crypto_eddsa_sign(signature, secret, message, size);
}
int outpost_check(const uint8_t *signature, const uint8_t *key, const uint8_t *message,
                  size_t size)
{
    return crypto_eddsa_check(signature, key, message, size);
}
"""


class PackageError(OutpostError):
    """A package that is not what it should be, or no key to sign one with."""


@dataclass(frozen=True)
class Signer:
    """A pair of keys for EdDSA on Curve25519 with BLAKE2b: `public` 32 bytes, secret 64."""

    public: bytes
    _secret: bytes = field(repr=False)

    @classmethod
    def of(cls, seed: bytes) -> "Signer":
        """Return the pair that belongs to a seed of 32 random bytes."""
        ffi, library = _monocypher()
        secret, public = ffi.new("uint8_t[64]"), ffi.new("uint8_t[32]")
        library.outpost_pair(secret, public, ffi.new("uint8_t[32]", list(seed)))
        return cls(bytes(public), bytes(secret))

    def sign(self, message: bytes) -> bytes:
        """Return the signature of `message`, 64 bytes."""
        ffi, library = _monocypher()
        signature = ffi.new("uint8_t[64]")
        library.outpost_sign(signature, self._secret, message, len(message))
        return bytes(signature)


def signer() -> Signer:
    """Return this person's keys, made the first time and kept beside the nodes' (mode 0600)."""
    path = provision.folder().parent / "signing.key"
    with cache.lock("signing-key"):
        if not path.exists():
            scratch = path.with_suffix(f".{os.getpid()}")
            with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600),
                           "w") as file:
                file.write(secrets.token_hex(32) + "\n")
                file.flush()
                os.fsync(file.fileno())
            scratch.replace(path)
        try:
            seed = bytes.fromhex(path.read_text())
        except ValueError:
            seed = b""
    if len(seed) != 32:
        raise PackageError(f"{path}: not a key (64 hexadecimal digits). Put back the one there "
                           "was: nodes trust no other until they are flashed again")
    return Signer.of(seed)


def make(folder: Path, arch: str, by: Signer, limit_us: int = 0) -> bytes:
    """Return the package of the model built in `folder` for `arch`, signed `by`.

    `limit_us` is what one prediction, features included, may take on the node; 0 is no limit.
    """
    from outpost.world.run import settings

    meta = json.loads((folder / "model.json").read_text())
    module = meta["modules"].get(arch)
    if module is None:
        raise PackageError(f"{folder}: not built for {arch}; outpost build {meta['name']} "
                           f"--arch {arch} does")
    files = {name.rpartition(".")[2]: content
             for name, content in image.model_files(folder, arch).items()}
    changes = settings(meta)
    del changes["version"]
    changes["model"]["crc32"] = module["crc32"]
    manifest = json.dumps({
        "name": meta["name"], "version": meta["version"], "mpy": architecture(arch).code,
        "classes": meta["classes"], "heap": module["heap"] or 2 * module["bytes"],
        "us": limit_us, "accuracy": meta["accuracy"]["reference"],
        "parts": [[ending, len(content), hashlib.sha256(content).hexdigest()]
                  for ending, content in files.items()],
        "settings": changes}, separators=(",", ":")).encode()
    if len(manifest) > MOST:
        raise PackageError(f"{meta['name']}: a manifest of {len(manifest)} bytes, {MOST} at most: "
                           "give the classes shorter names")
    return b"".join([HEAD.pack(MAGIC, len(manifest), by.sign(SIGNED + manifest)), manifest,
                     *files.values()])


def read(content: bytes, key: bytes, name: str = "package") -> dict[str, Any]:
    """Return the manifest of a package that the owner of `key` signed and nobody changed.

    Raises PackageError, which tells what is wrong, with `name`.
    """
    if len(content) < HEAD.size or content[:4] != MAGIC:
        raise PackageError(f"{name}: not a model package of this version")
    _, size, signature = HEAD.unpack_from(content)
    manifest = content[HEAD.size:HEAD.size + size]
    message = SIGNED + manifest
    if _monocypher()[1].outpost_check(signature, key, message, len(message)):
        raise PackageError(f"{name}: not signed by the key that is trusted here")
    told = json.loads(manifest)
    at = HEAD.size + size
    for part, length, digest in told["parts"]:
        if hashlib.sha256(content[at:at + length]).hexdigest() != digest:
            raise PackageError(f"{name}: its {part} is damaged or cut short")
        at += length
    if at != len(content):
        raise PackageError(f"{name}: {len(content) - at} bytes too long")
    return told


def verifier(arch: str) -> bytes:
    """Return the module by which a node checks signatures, verify.mpy; kept in the cache."""
    source = monocypher.source()
    c = NATIVE / "verify.c"
    key = hashlib.sha256(b"".join(path.read_bytes() for path in (
        c, NATIVE / "abi.h", source / "monocypher.c"))).hexdigest()[:12]

    def assemble(folder: Path) -> None:
        unit = compile.compile_module([c], [NATIVE, source], arch, folder / "verify.o")
        (folder / VERIFY).write_bytes(link.link(unit, arch, "verify"))

    return (cache.item(f"verify/{arch}-{key}", assemble) / VERIFY).read_bytes()


@once
def _monocypher() -> tuple[cffi.FFI, Any]:
    folder = monocypher.source()
    ffi = cffi.FFI()
    ffi.cdef("void outpost_pair(uint8_t *, uint8_t *, uint8_t *);"
             "void outpost_sign(uint8_t *, const uint8_t *, const uint8_t *, size_t);"
             "int outpost_check(const uint8_t *, const uint8_t *, const uint8_t *, size_t);")
    headers = {name: (folder / name).read_text() for name in monocypher.FILES}
    return ffi, ffi.dlopen(str(features.shared_object(headers, _HOST)))
