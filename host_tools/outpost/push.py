"""A model onto a node that is alive, by cable: built, packaged, signed, copied, put on trial."""

import json
from dataclasses import dataclass

from outpost import build, package
from outpost.console import steps
from outpost.errors import OutpostError
from outpost.profile import LINE, architecture, encoded
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
        built = build.build(model, (arch,))
        if built.violations:
            raise PushError(f"{built.model} breaks its contract: {'; '.join(built.violations)}")
        meta = json.loads((built.folder / "model.json").read_text())
        content = package.make(built.folder, arch, package.signer(),
                               int(meta["contract"].get("latency_us", 0)))
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
