"""A model onto nodes that are alive: built, signed, and copied by cable or rolled out by radio."""

import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from outpost import build, compile, package
from outpost.console import steps
from outpost.errors import OutpostError
from outpost.gateway import rollouts, store
from outpost.profile import LINE, arch_of, architecture, encoded
from outpost.repl import Repl

TARGET = "models/new.pkg"  # where the node looks for it: firmware/node/package.py
PATIENCE_S = 120  # for checking the signature and the golden windows


class PushError(OutpostError):
    """The node refused the model; it goes on with the one it has."""


@dataclass(frozen=True)
class Pushed:
    """What came of it: the package's bytes, and what the node said."""

    model: str
    version: int
    arch: str
    bytes: int
    said: str


def push(port: str, model: str, forced: bool = False, wait_s: float | None = 15) -> Pushed:
    """Put `model` on trial on the node on `port`; raise PushError with its reason if it won't.

    The node stays at its prompt: it goes on, with the new model, after a reset.
    """
    with Repl(port, wait_s) as repl:
        arch = architecture(repl)
        built, packed = _packages(model, (arch,))
        content = packed[arch]
        with steps(f"{built.model} to {port}", len(content) // LINE + 2) as step:
            repl.run(f"from binascii import a2b_base64\nPACKAGE = open({TARGET!r}, 'wb')")
            for at in range(0, len(content), LINE):
                step(f"{at:,} of {len(content):,} bytes")
                repl.run(f"_ = PACKAGE.write(a2b_base64({encoded(content[at:at + LINE])}))")
            step("the node checks it")
            said = repl.run(f"PACKAGE.close()\nimport node\nprint(node.install({forced}))",
                            PATIENCE_S).splitlines()
        if not said or said[-1] != "True":
            raise PushError(f"{port}: {said[0] if said else 'the node said nothing'}. It goes on "
                            "with the model it has")
        return Pushed(built.model, built.version, arch, len(content), said[0])


def roll_out(model: str, database: str, nodes: str, **how: Any) -> int:
    """Begin a roll-out of `model` to `nodes`, "all" or numbers with commas; return its number.

    `how` is as gateway.rollouts.begin() has it, and so are the defaults.
    Raises OutpostError for nodes that nobody knows, or that have not said yet what they run.
    """
    engine = store.existing(database)
    try:
        with engine.connect() as db:
            archs = _architectures(db, nodes)
        built, packed = _packages(model, tuple(sorted(set(archs.values()))))
        with engine.begin() as db:
            return rollouts.begin(
                db, built.model, built.version,
                {compile.architecture(arch).code: one for arch, one in packed.items()},
                list(archs), **how)
    finally:
        engine.dispose()


def _architectures(db: Connection, nodes: str) -> dict[int, str]:
    """Return the architecture of each node, in the order they are named."""
    heard = rollouts.processors(db)
    if nodes == "all":
        wanted = sorted(heard)
    else:
        try:
            wanted = [int(one) for one in nodes.split(",")]
        except ValueError:
            raise PushError(f"{nodes!r}: \"all\", or numbers of nodes with commas between them"
                            ) from None
    silent = [str(node) for node in wanted if node not in heard]
    if silent or not wanted:
        raise PushError(f"not heard of yet: {', '.join(silent) or 'any node'}. What a model must "
                        "be built for is known once a node has reported")
    return {node: arch_of(heard[node], f"node {node}") for node in wanted}


def _packages(model: str, archs: tuple[str, ...]) -> tuple[build.Result, dict[str, bytes]]:
    """Build and sign `model` for each of `archs`."""
    built = build.build(model, archs)
    if built.violations:
        raise PushError(f"{built.model} breaks its contract: {'; '.join(built.violations)}")
    meta = json.loads((built.folder / "model.json").read_text())
    limit_us = int(meta["contract"].get("latency_us", 0))
    return built, {arch: package.make(built.folder, arch, package.signer(), limit_us)
                   for arch in archs}
