"""A fitted forest as others would put it on a node: modules with our predict(features, votes).

emlearn's C, loadable and inline, behind our own glue (so that only the forest differs); m2cgen's
and everywhereml's Python, as bytecode. Each is made by the package itself, as it comes. The
packages are fetched into the cache, not into .venv: no part of the product needs them.
"""

import copy
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from outpost import cache, compile, convert, link
from outpost.paths import NATIVE
from outpost.recipe import Recipe
from outpost.reference import integer_threshold
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
    """Return the maker of a module with emlearn's `method`: see `emlearn_c`."""
    def make(recipe: Recipe, model: Any, arch: str, folder: Path) -> bytes:
        convert.emit(recipe, model, folder)
        (folder / "model.c").write_text(emlearn_c(model, method, mended))
        return _link(recipe, arch, folder, HERE / "include")
    return make


def emlearn_c(model: Any, method: str, mended: bool = True) -> str:
    """Return emlearn's C for a forest, "loadable" or "inline", as a model.c behind our own glue.

    `mended`: thresholds are set to floor(t) + 1 first, as we do; as it is, emlearn truncates them.
    """
    import emlearn as package

    from outpost import eml

    model = copy.deepcopy(model)
    for estimator in model.estimators_ if mended else ():
        threshold, inner = estimator.tree_.threshold, estimator.tree_.children_left != -1
        threshold[inner] = integer_threshold(threshold[inner])
    code = eml.convert(model, method=method, dtype="int16_t").save(
        name="rival", include_proba=False)
    if method == "loadable":  # with its headers, for compilers that don't know where they are
        code = "".join((Path(package.includedir) / name).read_text()
                       for name in ("eml_log.h", "eml_common.h", "eml_trees.h")) + code
    code = re.sub(r"#include [<\"]eml_.*", "", code)
    # what our linker can't take is made static, and globals constant; the rest is emlearn's
    code = code.replace("int32_t rival_predict(", "static int32_t rival_predict(", 1)
    code = code.replace("EmlTrees rival = {", "static const EmlTrees rival = {")
    return ('#pragma GCC system_header\n#include "model.h"\n#include <string.h>\n'  # no warnings
            f"{code}\n"
            "static int32_t outpost_predict(const int16_t *features, uint8_t *votes)\n"
            "{\n    int32_t best = rival_predict(features, OUTPOST_FEATURES);\n"
            "    memset(votes, 0, OUTPOST_CLASSES);\n    votes[best] = 1;\n"
            "    return best;\n}\n")


def m2cgen(model: Any) -> str:
    """Return m2cgen's Python for a forest, with the argmax it leaves to its user."""
    _packages()
    import m2cgen as tool

    sys.setrecursionlimit(10000)
    code = tool.export_to_python(model, function_name="score")
    return code + "\ndef predict(x, votes):\n    s = score(x)\n    return s.index(max(s))\n"


def everywhereml(model: Any) -> str:
    """Return everywhereml's Python for MicroPython, by its own templates."""
    _packages()
    from everywhereml.code_generators.jinja.Jinja import Jinja

    trees = [{"left": tree.children_left, "right": tree.children_right, "classes": tree.value,
              "features": tree.feature, "thresholds": tree.threshold}
             for tree in (estimator.tree_ for estimator in model.estimators_)]
    this = SimpleNamespace(num_outputs=len(model.classes_), class_name="Forest")
    code = Jinja("everywhereml/sklearn/ensemble", "py", "micro").render(
        "RandomForestClassifier", {"trees": trees, "this": this, "class_map": {}})
    return (TIME + code
            + "\n_model = Forest()\ndef predict(x, votes):\n    return _model.predict(x)\n")


def python(source: Callable[[Any], str]) -> Maker:
    """Return the maker of a module of bytecode, with the shape that our own modules tell."""
    def make(recipe: Recipe, model: Any, arch: str, folder: Path) -> bytes:
        shape = {"WINDOW": recipe.signal.window, "CHANNELS": len(recipe.signal.channels),
                 "FEATURES": len(recipe.feature_names), "CLASSES": len(model.classes_)}
        told = "".join(f"{name} = {value}\n" for name, value in shape.items())
        return bytecode(f"{told}def features(window, out):\n    pass\n{source(model)}",
                        recipe.name, arch, folder)
    return make


def bytecode(source: str, name: str, arch: str, folder: Path) -> bytes:
    """Return Python as a .mpy file."""
    path = folder / f"{name}.py"
    path.write_text(source)
    subprocess.run([unix.mpy_cross(), f"-march={arch}", "-o", path.with_suffix(".mpy"), path],
                   check=True)
    return path.with_suffix(".mpy").read_bytes()


def _packages() -> None:
    """Have the rivals' packages to import, without all that they ask for."""
    def fetch(folder: Path) -> None:
        subprocess.run([sys.executable, "-m", "pip", "--quiet", "install", "--no-deps", "--target",
                        str(folder), *PACKAGES], check=True)

    folder = str(cache.item(f"bench/{'-'.join(PACKAGES[:2])}", fetch))
    if folder not in sys.path:
        sys.path.append(folder)
