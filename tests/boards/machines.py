"""The machines modules are executed on, all asked the same way: call this export on these rows.

A row is one int16 or uint8 array an argument; back come the answer and the arrays after the call.
"""

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import xtensa

from outpost.toolchain import qemu, unix

CHUNK = 60  # rows told about at once
Row = tuple[np.ndarray, ...]
Answer = tuple[int, list[np.ndarray]]

# Runs on MicroPython of either kind: prints a line for each row of `memory`.
_CALL = """
from array import array
from binascii import hexlify
def call(function, shapes, rows, memory):
    at = 0
    for row in range(rows):
        values = []
        for code, size in shapes:
            value = bytearray(memory[at:at + size])
            values.append(array("h", value) if code == "h" else value)
            at += size
        answer = function(*values)
        print(answer, *[str(hexlify(value), "ascii") for value in values])
"""


def _shapes(row: Row) -> list[tuple[str, int]]:
    return [("h" if array.dtype == np.int16 else "B", array.nbytes) for array in row]


def _memory(rows: list[Row]) -> bytes:
    return b"".join(array.tobytes() for row in rows for array in row)


def _answers(out: str, rows: list[Row]) -> list[Answer]:
    answers = []
    for line, row in zip(out.splitlines(), rows, strict=True):
        answer, *after = line.split(" ")  # an empty one is an empty array
        answers.append((int(answer), [np.frombuffer(bytes.fromhex(word), array.dtype)
                                      for word, array in zip(after, row, strict=True)]))
    return answers


def emulated(machine: str) -> Callable[..., list[Answer]]:
    """MicroPython in QEMU."""
    def run(name: str, mpy: bytes, function: str, rows: list[Row], _: Path) -> list[Answer]:
        files = {f"{name}.mpy": mpy, "rows": _memory(rows)}
        with qemu.Board(qemu.MACHINES[machine], files) as board:
            board.run(f"{_CALL}\nimport {name}")
            answers, size = [], sum(array.nbytes for array in rows[0])
            for at in range(0, len(rows), CHUNK):
                some = rows[at:at + CHUNK]
                answers += _answers(board.run(
                    f"call({name}.{function}, {_shapes(rows[0])}, {len(some)}, "
                    f"memoryview(files['rows'])[{at * size}:])"), some)
            return answers
    return run


def host(name: str, mpy: bytes, function: str, rows: list[Row], folder: Path) -> list[Answer]:
    """MicroPython's unix port."""
    (folder / f"{name}.mpy").write_bytes(mpy)
    (folder / "rows").write_bytes(_memory(rows))
    code = (f"{_CALL}\nimport {name}\nwith open('rows', 'rb') as f: memory = f.read()\n"
            f"call({name}.{function}, {_shapes(rows[0])}, {len(rows)}, memory)")
    done = subprocess.run([unix.micropython(), "-c", code], cwd=folder, text=True, check=True,
                          capture_output=True, env={"MICROPYPATH": f"{folder}:.frozen"})
    return _answers(done.stdout, rows)


# machine: (architecture, how to have it answer)
MACHINES = {
    "unix": ("x64", host),
    **{name: (machine.arch, emulated(name)) for name, machine in qemu.MACHINES.items()},
    "Xtensa": ("xtensawin", xtensa.run),
}
