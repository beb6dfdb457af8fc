"""What a node holds, over its REPL: records into SQLite, captured windows into recordings.

Records keep the identity they would have at the gateway and go through the gateway's own store, so
pulling twice, or pulling what has been sent already, stores nothing twice. The node's ring is only
read.
"""

import base64
import binascii
import csv
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from outpost import recipe
from outpost.console import steps
from outpost.errors import OutpostError
from outpost.gateway.intake import store
from outpost.gateway.store import connect
from outpost.paths import BUILD
from outpost.recipe import Recipe
from outpost.repl import Repl

DUMP = """
from node import board, debug
here = board.here()
print(here.node_id)
debug.dump(here)
print("end")
"""

WINDOWS = """
import os
from binascii import b2a_base64
try:
    names = os.listdir("windows")
except OSError:
    names = []
for name in sorted(names):
    with open("windows/" + name, "rb") as file:
        print(name, b2a_base64(file.read()).decode().strip())
print("end")
"""

REMOVE = "import os\nfor name in {names!r}:\n    os.remove('windows/' + name)"


class PullError(OutpostError):
    """What came from the node is not whole, or does not fit the model."""


@dataclass(frozen=True)
class Pulled:
    """What was fetched: records in `database`, recordings written."""

    node: int
    records: int
    database: Path
    recordings: list[Path]


def pull(port: str, model: str, database: Path | None = None, recordings: Path | None = None,
         clear: bool = False, wait_s: float | None = 15) -> Pulled:
    """Read records and captured windows of the node on `port`.

    `database` is build/pull/records.db and `recordings` build/pull/recordings unless given;
    `model` says what the channels of a window are. With `clear`, windows are removed from the
    node once they are safe here.
    """
    what = recipe.load(recipe.find(model))
    database = database or BUILD / "pull" / "records.db"
    recordings = recordings or BUILD / "pull" / "recordings"
    with Repl(port, wait_s) as repl, steps(f"pulling from {port}") as step:
        step("records")
        node, *coded = _lines(repl, DUMP, port)
        database.parent.mkdir(parents=True, exist_ok=True)
        count = _store([_frame(line, port) for line in coded], database)
        step("windows")
        written, names = [], []
        for line in _lines(repl, WINDOWS, port):
            name, _, text = line.partition(" ")
            written.append(save_window(name, base64.b64decode(text), what, recordings))
            names.append(name)
        if clear and names:
            repl.run(REMOVE.format(names=names))
    return Pulled(int(node), count, database, written)


def drift_of(got: Pulled, model: str) -> str | None:
    """Return a warning if the windows in the folder no longer look like the model's own.

    None also when there are too few of them to tell; `outpost check --drift` says more.
    """
    if not got.recordings:
        return None
    from outpost import drift

    folder = got.recordings[0].parent
    if len(list(folder.glob("*.csv"))) < drift.LEAST:
        return None
    return drift.of_folder(recipe.load(recipe.find(model)), folder).warning


def _lines(repl: Repl, code: str, port: str) -> list[str]:
    lines = repl.run(code, timeout_s=120).strip().splitlines()
    if not lines or lines[-1] != "end":
        raise PullError(f"{port}: the node's answer is cut off after {len(lines)} lines: "
                        "try again")
    return lines[:-1]


def _frame(line: str, port: str) -> bytes:
    try:
        return base64.b64decode(line, validate=True)
    except binascii.Error as error:
        raise PullError(f"{port}: a line of records is garbled ({error}): try again") from error


def _store(frames: list[bytes], database: Path) -> int:
    """Store frames as the gateway does; return how many records they hold."""
    from node.frame import FrameError, identify
    from outpost.gateway import wire

    batch = []
    for one in frames:
        try:
            found = wire.read(identify(one)[0], one)  # not its seal: it came over a cable
        except FrameError as error:
            raise PullError(f"a frame of records is damaged ({error}): pull again") from error
        if isinstance(found, wire.Records):
            batch.append(found)
    engine = connect(database)
    with engine.begin() as db:
        store(db, batch)
    engine.dispose()
    return sum(len(found.records) for found in batch)


def save_window(name: str, content: bytes, what: Recipe, folder: Path) -> Path:
    """Write one captured window (int16, sample-major) as a recording that `outpost build` reads.

    `name` is LABEL_TIME_NUMBER as the node gave it; values are brought back into the units of
    model.toml. Raises PullError when the window is not one of the model's.
    """
    signal = what.signal
    rows = np.frombuffer(content, "<i2")
    if signal.rate_hz is None or rows.size != signal.window * len(signal.channels):
        raise PullError(f"{name}: {rows.size} values, where {what.name} has windows of "
                        f"{signal.window} × {len(signal.channels)}: name the model that the node "
                        "carries with --model")
    samples = rows.reshape(signal.window, -1) / [channel.counts for channel in signal.channels]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.csv"
    scratch = path.with_suffix(f".{os.getpid()}")
    with scratch.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["time_ms", *signal.names])
        for i, row in enumerate(samples):
            time_ms = f"{1e3 * i / signal.rate_hz:.3f}"
            writer.writerow([time_ms, *(f"{value:.6g}" for value in row)])
    scratch.replace(path)
    return path


