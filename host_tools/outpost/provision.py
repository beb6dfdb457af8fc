"""Who is who: number and key of every node this person has flashed, kept on the host only.

One JSON file a node under `${XDG_DATA_HOME:-~/.local/share}/outpost/nodes`, readable by its owner
alone. A board that is flashed again is known by its chip's own number and stays the node it was.
Keys are never printed.
"""

import json
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from outpost.errors import OutpostError

KEY_BYTES = 32


class ProvisionError(OutpostError):
    """A node that the store does not know, or a file of it that can't be read."""


@dataclass(frozen=True)
class Node:
    """One node: number 1..2^32-1, key of 32 bytes, board and the chip's own number (or "")."""

    number: int
    key: bytes = field(repr=False)
    board: str
    hardware: str = ""

    def identity(self) -> dict[str, Any]:
        """Return what the node itself is told (identity.json)."""
        return {"node": self.number, "key": self.key.hex()}


def folder() -> Path:
    """Return the folder of the store, made if need be, closed to others."""
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share"
    path = Path(base) / "outpost" / "nodes"
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.chmod(0o700)
    return path


def nodes() -> Iterator[Node]:
    """Yield every node of the store, by number."""
    for path in sorted(folder().glob("*.json")):
        yield _read(path)


def load(store: Path, number: int) -> Node | None:
    """Return the node of that number in the folder `store`, None if there is none."""
    path = store / f"{number}.json"
    return _read(path) if path.is_file() else None


def _read(path: Path) -> Node:
    try:
        given = json.loads(path.read_text())
        return Node(given["node"], bytes.fromhex(given["key"]), given["board"], given["hardware"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ProvisionError(f"{path}: not a node's file ({type(error).__name__}); move it away"
                             ) from error


def forget(number: int) -> None:
    """Destroy the key of a node; a board that is flashed after that gets another."""
    (folder() / f"{number}.json").unlink(missing_ok=True)


def find(number: int) -> Node:
    """Return the node of that number; raise ProvisionError with those there are."""
    known = {node.number: node for node in nodes()}
    if number not in known:
        raise ProvisionError(f"no node {number} in {folder()} "
                             f"(there are {', '.join(map(str, known)) or 'none yet'})")
    return known[number]


def choose(board: str, hardware: str = "", number: int | None = None) -> Node:
    """Return the node that a board is or shall be; nothing is written before `save`.

    `number`, if given, must be known. Otherwise the chip's own number decides, and a chip not seen
    before becomes a new node; so does every board whose chip can't be asked.
    """
    if number is not None:
        return find(number)
    taken = set()
    for node in nodes():
        taken.add(node.number)
        if hardware and node.hardware == hardware:
            return node
    wanted = int.from_bytes(sha256(hardware.encode()).digest()[:4], "little") if hardware else 0
    while wanted == 0 or wanted in taken:
        wanted = secrets.randbits(32)
    return Node(wanted, secrets.token_bytes(KEY_BYTES), board, hardware)


def save(node: Node) -> Path:
    """Keep `node`; written beside and renamed, mode 0600 from the first byte. Return the file.

    A chip is one node: whoever was on it before keeps its number and key, but not the chip.
    """
    for other in nodes():
        if node.hardware and other.hardware == node.hardware and other.number != node.number:
            save(replace(other, hardware=""))
    path = folder() / f"{node.number}.json"
    scratch = path.with_suffix(f".{os.getpid()}")
    with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump({**node.identity(), "board": node.board, "hardware": node.hardware}, file)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    scratch.replace(path)
    return path
