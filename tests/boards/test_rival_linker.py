"""MicroPython's own linker (tools/mpy_ld.py of its source tree) and ours, side by side."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from machines import MACHINES

from outpost.compile import compile_module
from outpost.link import link
from outpost.paths import NATIVE
from outpost.toolchain import qemu, rp2, unix

HERE = Path(__file__).parent
NONE, FLOAT, DOUBLE = (f"-DMICROPY_FLOAT_IMPL=MICROPY_FLOAT_IMPL_{kind}"
                       for kind in ("NONE", "FLOAT", "DOUBLE"))


def arm(*flags):
    """Return a function that gives the command of the Arm compiler."""
    return lambda: [str(rp2.compiler() / "arm-none-eabi-gcc"), "-mthumb", *flags]


def riscv():
    """Return the command of the RISC-V compiler, with the headers of the Arm one's C library."""
    headers = rp2.compiler().parent / "include/newlib"
    return [str(qemu.riscv() / "riscv64-unknown-elf-gcc"), "-march=rv32imac", "-mabi=ilp32",
            "-mno-relax", "-isystem", str(headers), NONE]


# machine: the compiler and flags of py/dynruntime.mk. (It takes gcc's relocations, not clang's.)
COMPILERS = {
    "unix": lambda: ["gcc", "-fno-stack-protector", DOUBLE],
    "M0": arm("-mcpu=cortex-m0", NONE),
    "M3": arm("-mcpu=cortex-m3", NONE),
    "M4": arm("-mcpu=cortex-m4", "-mfpu=fpv4-sp-d16", "-mfloat-abi=hard", FLOAT),
    "M7": arm("-mcpu=cortex-m7", "-mfpu=fpv5-d16", "-mfloat-abi=hard", DOUBLE),
    "RV32": riscv,
}


def rival(machine, model, folder):
    """Return the bytes of the module that MicroPython's own tools make."""
    tree = unix.source()
    arch = MACHINES[machine][0]
    (folder / "ar.py").write_text("class Archive: pass\n")  # it wants one, even without archives
    tool = [sys.executable, str(tree / "tools/mpy_ld.py"), "--arch", arch]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    source = HERE / "rival.c"
    for command in (
            [*tool, "--preprocess", "-o", "config.h", str(source)],
            [*COMPILERS[machine](), f"-I{folder}", f"-I{tree}", f"-I{model.folder}", f"-I{NATIVE}",
             "-std=c99", "-Os", "-DNDEBUG", "-DNO_QSTR", "-DMICROPY_ENABLE_DYNRUNTIME",
             "-DMP_CONFIGFILE=<config.h>", "-fpic", "-fno-common", "-U_FORTIFY_SOURCE",
             "-c", str(source), "-o", "rival.o"],
            [*tool, "--qstrs", "config.h", "-o", "rival.mpy", "rival.o"]):
        done = subprocess.run(command, cwd=folder, env=environment, text=True, check=False,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert done.returncode == 0, done.stdout
    return (folder / "rival.mpy").read_bytes()


@pytest.mark.parametrize("name", ["motion", "digits"])
@pytest.mark.parametrize("machine", COMPILERS)
def test_same_answers(machine, name, model, tmp_path):
    what = model(name)
    arch, answer = MACHINES[machine]
    x = what.features(what.windows)[:100]
    rows = [(row, np.zeros(what.answer(x).votes.shape[1], np.uint8)) for row in x]
    theirs = rival(machine, what, tmp_path)
    obj = compile_module([NATIVE / "module.c"], [what.folder, NATIVE], arch, tmp_path / "ours.o")
    ours = link(obj, arch, "ours")
    answers = [answer(module, data, "predict", rows, tmp_path)
               for module, data in (("rival", theirs), ("ours", ours))]
    for (a, after), (b, other) in zip(*answers, strict=True):
        assert a == b
        np.testing.assert_array_equal(after[1], other[1])
