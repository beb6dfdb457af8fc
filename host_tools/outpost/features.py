"""The features of windows, computed on the host by the same C that runs on the device.

`firmware/native/features.c` is compiled with the machine's C compiler (zig where there is none)
into a shared object, kept in the cache by the hash of its text, and called through cffi.
"""

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import cffi
import numpy as np

from outpost import cache
from outpost.errors import OutpostError
from outpost.paths import NATIVE
from outpost.recipe import Recipe

_BATCH = """
#include "model.h"
#include "features.c"
void outpost_batch(const int16_t *windows, int16_t *out, int count)
{
    for (int i = 0; i < count; i++) {
        outpost_features(windows, out);
        windows += OUTPOST_WINDOW * OUTPOST_CHANNELS;
        out += OUTPOST_FEATURES;
    }
}
"""


class FeatureError(OutpostError):
    """The features could not be compiled, or were asked of windows of the wrong shape."""


def header(recipe: Recipe) -> str:
    """Return the part of model.h that says what a window is and which features are wanted."""
    features = recipe.features
    lines = [f"#define OUTPOST_WINDOW {recipe.signal.window}",
             f"#define OUTPOST_CHANNELS {len(recipe.signal.channels)}",
             f"#define OUTPOST_FEATURES {len(recipe.feature_names)}",
             f"#define OUTPOST_RAW {int(features.raw)}",
             f"#define OUTPOST_SHIFT {features.shift}"]
    if not features.raw:
        used = dict.fromkeys(_bit(name) for row in features.rows for name in row.statistics)
        plan = ", \\\n    ".join(
            f"{{{row.first}, {row.count}, {' | '.join(map(_bit, row.statistics))}}}"
            for row in features.rows)
        lines += [f"#define OUTPOST_MAGNITUDES {sum(row.count > 1 for row in features.rows)}",
                  f"#define OUTPOST_STATISTICS ({' | '.join(used)})",
                  f"#define OUTPOST_PLAN \\\n    {plan}"]
    return "\n".join(lines) + "\n"


def compute(recipe: Recipe, windows: np.ndarray) -> np.ndarray:
    """Return int16 (windows, features) for int16 windows (windows, window, channels).

    Raises FeatureError when the shape or type is not the recipe's.
    """
    shape = (recipe.signal.window, len(recipe.signal.channels))
    if windows.dtype != np.int16 or windows.ndim != 3 or windows.shape[1:] != shape:
        raise FeatureError(f"windows are {windows.dtype} {windows.shape}; {recipe.name} takes "
                           f"int16 (windows, {shape[0]}, {shape[1]})")
    windows = np.ascontiguousarray(windows)
    out = np.empty((len(windows), len(recipe.feature_names)), np.int16)
    ffi = cffi.FFI()
    ffi.cdef("void outpost_batch(const int16_t *windows, int16_t *out, int count);")
    ffi.dlopen(str(shared_object({"model.h": header(recipe)}, _BATCH))).outpost_batch(
        ffi.cast("int16_t *", ffi.from_buffer(windows)),
        ffi.cast("int16_t *", ffi.from_buffer(out)), len(windows))
    return out


def shared_object(headers: dict[str, str], source: str) -> Path:
    """Compile C `source` (with generated `headers` and firmware/native on its path) for the host.

    The result stays in the cache under the hash of everything it was made from. Raises
    FeatureError with the compiler's words.
    """
    compiler = _compiler()
    content = [*compiler, source, *(part for item in sorted(headers.items()) for part in item)]
    content += [path.read_text() for path in sorted(NATIVE.glob("*.[ch]"))]
    key = hashlib.sha256("\0".join(content).encode()).hexdigest()[:20]
    library = cache.root() / "build" / f"{key}.so"
    if library.exists():
        return library
    library.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=library.parent) as scratch:
        folder = Path(scratch)
        for name, text in {**headers, "host.c": source}.items():
            (folder / name).write_text(text)
        run = subprocess.run(
            [*compiler, "-std=c99", "-O2", "-fPIC", "-shared", "-I", scratch, "-I",
             str(NATIVE), "-o", str(folder / "host.so"), str(folder / "host.c")],
            capture_output=True, text=True)
        if run.returncode != 0:
            raise FeatureError(f"{' '.join(compiler)} could not compile the features for this "
                               f"machine:\n{run.stderr.strip()}")
        (folder / "host.so").rename(library)
    return library


def _compiler() -> list[str]:
    """Return the command of the machine's C compiler: $CC, cc, or zig's from the venv."""
    if os.environ.get("CC"):
        return shlex.split(os.environ["CC"])
    return ["cc"] if shutil.which("cc") else [sys.executable, "-m", "ziglang", "cc"]


def _bit(statistic: str) -> str:
    return f"OUTPOST_{statistic.upper()}"
