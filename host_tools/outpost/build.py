"""The way of a model to the device: data, features, forest, C, object, module, and the proof.

What `outpost build` does. The x64 module is executed on real MicroPython on the held-out windows
and must agree with the integer reference in every feature, vote and class.
"""

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from outpost import cache, compile, data, recipe
from outpost.console import console
from outpost.errors import OutpostError
from outpost.paths import BUILD, NATIVE
from outpost.recipe import Recipe

if TYPE_CHECKING:
    from outpost.reference import Answers, Forest

HOST = "x64"  # the architecture of MicroPython's unix port
GOLDEN = 2  # vectors a class
PACKAGES = ("cffi", "emlearn", "numpy", "scikit-learn", "scipy", "ziglang")
STEPS = ("recipe", "data", "daphnet", "features", "train", "tiers", "reference", "costs",
         "contract", "events", "kinds", "scale", "convert", "eml", "trees", "gauss", "neighbours",
         "net", "compile", "link", "mpy", "build")

# Runs on MicroPython in the module's folder. argv: its name, windows in, answers out.
_CLASSIFY = """
import gc, json, sys, time
from array import array
name, source, target = sys.argv[1:]
sys.path.insert(0, "")
gc.collect()
before = gc.mem_alloc()
model = __import__(name)
gc.collect()
heap = gc.mem_alloc() - before
window = array("h", bytes(2 * model.WINDOW * model.CHANNELS))
features = array("h", bytes(2 * model.FEATURES))
votes = bytearray(model.CLASSES)
answer = bytearray(1)
with open(source, "rb") as windows, open(target, "wb") as answers:
    while windows.readinto(window):
        answer[0] = model.classify(window, features, votes)
        answers.write(features)
        answers.write(votes)
        answers.write(answer)
print(json.dumps({"abi": model.ABI, "heap": heap}))
"""


class BuildError(OutpostError):
    """A module that disagrees with its reference, breaks its contract or does not run."""


@dataclass(frozen=True)
class Module:
    """One architecture's module; what was not executed is None."""

    arch: str
    file: str  # below the folder of the build
    bytes: int
    sha256: str
    crc32: int
    accuracy: float | None
    accuracy_by_recording: float | None
    disagreements: int | None
    heap: int | None  # bytes of MicroPython's heap after import, collected


@dataclass(frozen=True)
class Result:
    """What `outpost build` reports."""

    model: str
    version: int
    folder: Path
    windows: int
    recordings: int
    accuracy: dict[str, float]  # sklearn, reference, reference_by_recording
    gated: dict[str, float] | None  # what its gate does: tiers.measure()
    modules: list[Module]
    violations: list[str]
    warnings: list[str]
    seconds: float
    cached: bool

    def json(self) -> dict[str, Any]:
        """Return the object of `--json`: figures of the first architecture, and all of them."""
        first = self.modules[0]
        return {"model": self.model, "arch": first.arch,
                "accuracy": {"sklearn": self.accuracy["sklearn"],
                             "reference": self.accuracy["reference"], "compiled": first.accuracy},
                "disagreements": first.disagreements, "bytes": first.bytes, "heap": first.heap,
                "seconds": round(self.seconds, 2), "cached": self.cached,
                "windows": self.windows, "recordings": self.recordings,
                "modules": [asdict(module) for module in self.modules],
                "violations": self.violations, "warnings": self.warnings}


@dataclass(frozen=True)
class Fitted:
    """A recipe's data, and the model trained on them; `x_…` are int16 (windows, features)."""

    dataset: data.Dataset
    train: data.Windows
    test: data.Windows
    x_train: np.ndarray
    x_test: np.ndarray
    model: Any  # scikit-learn's
    forest: "Forest"  # the same as the integer reference has it


def build(model: str, archs: Iterable[str] = (HOST,), out: Path | None = None) -> Result:
    """Build `model` (a name under models/ or a path) for `archs` into `out` or build/models/.

    Does nothing but check when all it depends on is unchanged. Modules that break the contract
    are reported, but not put into place. Raises OutpostError when a step fails or the compiled
    code disagrees with the reference.
    """
    started = time.monotonic()
    what = recipe.load(recipe.find(model))
    folder = out if out is not None else BUILD / "models" / what.name
    archs = list(dict.fromkeys(archs))
    for arch in archs:
        compile.architecture(arch)
    key = _key(what)
    with cache.lock(f"build-{hashlib.sha256(str(folder.absolute()).encode()).hexdigest()[:16]}"):
        meta = _built(folder, key)
        cached = meta is not None and set(archs) <= set(meta["modules"])
        if not cached:
            keep = set(meta["modules"]) if meta is not None else set()
            meta = _make(what, [*archs, *sorted(keep - set(archs))], folder, key)
    return Result(
        model=what.name, version=what.version, folder=folder, windows=meta["windows"],
        recordings=meta["recordings"], accuracy=meta["accuracy"],
        gated=meta["tiers"]["gated"],
        modules=[Module(arch=arch, **meta["modules"][arch]) for arch in archs],
        violations=meta.get("violations", []), warnings=meta["warnings"],
        seconds=time.monotonic() - started, cached=cached)


def _key(what: Recipe) -> str:
    """Return the hash of everything a build depends on."""
    here = Path(__file__).parent
    texts = [what.file.read_bytes(), repr(data.fingerprint(what)).encode(), sys.version.encode()]
    texts += [(here / f"{step}.py").read_bytes() for step in STEPS]
    texts += [path.read_bytes() for path in sorted(NATIVE.rglob("*")) if path.is_file()]
    texts += [f"{package} {metadata.version(package)}".encode() for package in PACKAGES]
    from outpost.toolchain import unix

    interpreter = unix.micropython()
    stat = interpreter.stat()
    texts.append(f"{interpreter} {stat.st_size} {stat.st_mtime_ns}".encode())
    digest = hashlib.sha256()
    for text in texts:
        digest.update(hashlib.sha256(text).digest())
    return digest.hexdigest()


def _built(folder: Path, key: str) -> dict[str, Any] | None:
    """Return model.json of an earlier build with the same key whose files are all unharmed."""
    try:
        meta = json.loads((folder / "model.json").read_text())
        if meta["key"] != key:
            return None
        for module in meta["modules"].values():
            content = (folder / module["file"]).read_bytes()
            if hashlib.sha256(content).hexdigest() != module["sha256"]:
                return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return meta


def _make(what: Recipe, archs: list[str], folder: Path, key: str) -> dict[str, Any]:
    """Build all in a scratch folder beside `folder` and move it there; return model.json."""
    with console.status(f"[bold]{what.name}[/]: reading recordings") as status:
        def step(text: str) -> None:
            status.update(f"[bold]{what.name}[/]: {text}")

        fitted = fit(what, step)
        from outpost import contract, convert, costs, tiers

        dataset, test_set, x_test = fitted.dataset, fitted.test, fitted.x_test
        forest, trees, signal = fitted.model, fitted.forest, what.signal
        expected = trees.answer(x_test)
        accuracy = {
            "sklearn": float((forest.predict(x_test.astype(float)) == test_set.y).mean()),
            "reference": float((expected.chosen == test_set.y).mean()),
            "reference_by_recording": _by_recording(expected.votes, test_set)}
        gate = tiers.fit(what, list(dataset.classes), fitted.train)
        gated = tiers.measure(gate, test_set) if gate else None
        warnings = list(dataset.warnings)
        if gated and gated["wrong"]:
            warnings.append(f"the gate decides {gated['wrong']:.2%} of the held-out windows and "
                            "should not, as they are of another class")

        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            step("writing C")
            convert.emit(what, forest, scratch)
            modules: dict[str, dict[str, Any]] = {}
            abi = None
            for arch in dict.fromkeys([HOST, *archs]):  # the proof comes first
                step(f"compiling for {arch}")
                module = make_module(what, arch, scratch)
                if arch == HOST:
                    step("running it on MicroPython")
                    abi = prove(what, module, scratch, test_set, x_test, expected)
                modules[arch] = module
            meta = {
                "name": what.name, "version": what.version, "key": key, "abi": abi,
                "classes": dataset.classes, "window": signal.window, "hop": signal.hop,
                "rate_hz": signal.rate_hz, "sensor": signal.sensor,
                "accel_range_g": signal.accel_range_g, "gyro_range_dps": signal.gyro_range_dps,
                "channels": [asdict(channel) for channel in signal.channels],
                "features": what.feature_names,
                "kind": what.estimator.kind if what.estimator else what.forest.kind,
                "forest": {"trees": len(trees.trees), "nodes": trees.nodes,
                           "depth": max(map(costs.longest_path, trees.trees)),
                           "vote": what.forest.vote, "form": what.forest.form,
                           "early_exit": what.forest.early_exit,
                           "trees_asked": float(expected.asked.mean())} if trees.trees else None,
                "work": {"pre": dict(costs.feature_work(what)),
                         "infer": dict(costs.infer_work(what, trees))},
                "post": {"method": what.post.method, "window": what.post.window,
                         "weights": what.post.weights},
                "tiers": {"gate": gate, "gated": gated, "large": what.tiers.large,
                          "unsure": round(255 * what.tiers.unsure)},
                "contract": what.contract, "accuracy": accuracy,
                "windows": len(test_set.y), "recordings": len(dataset.test),
                "warnings": warnings,
                "golden": _golden(test_set, x_test, expected), "modules": modules}
            violations = [line.broken for line in contract.of_build(
                what, dataset, expected.chosen, test_set,
                {arch: modules[arch]["bytes"] for arch in archs}) if not line.ok]
            if violations:
                return {**meta, "violations": violations}
            (scratch / "model.json").write_text(json.dumps(meta, indent=1))
            _publish(scratch, folder)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return meta


def fit(what: Recipe, step: Callable[[str], None] = lambda text: None) -> Fitted:
    """Read a recipe's recordings, compute features and train its model; `step` is told what."""
    step("reading recordings")
    dataset = data.load(what)
    train_set, test_set = (data.windows(part, dataset.classes, what.signal.window, what.signal.hop)
                           for part in (dataset.train, dataset.test))
    step("loading scikit-learn")
    from outpost import convert, features, train

    step("computing features")
    x_train, x_test = (features.compute(what, part.x) for part in (train_set, test_set))
    step("training")
    model = train.model(what, dataset.classes, x_train, train_set.y)
    return Fitted(dataset, train_set, test_set, x_train, x_test, model,
                  convert.declare(what, model))


def make_module(what: Recipe, arch: str, scratch: Path) -> dict[str, Any]:
    """Compile and link the module for one architecture; return its entry in model.json."""
    from outpost import link

    (scratch / arch).mkdir()
    path = scratch / arch / f"{what.name}.mpy"
    obj = compile.compile_module([NATIVE / "module.c"], [scratch, NATIVE], arch,
                                 scratch / f"{arch}.o")
    content = link.link(obj, arch, what.name)
    path.write_bytes(content)
    obj.unlink()
    return {"file": f"{arch}/{path.name}", "bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(), "crc32": zlib.crc32(content),
            "accuracy": None, "accuracy_by_recording": None, "disagreements": None, "heap": None}


def prove(what: Recipe, module: dict[str, Any], scratch: Path, test_set: data.Windows,
          x: np.ndarray, expected: "Answers") -> int:
    """Run the x64 module on the held-out windows, fill in its figures and return its ABI.

    Raises BuildError when it differs from the features, votes or class expected anywhere.
    """
    found, votes, answers, told = execute(scratch / module["file"], test_set.x, x.shape[1],
                                          expected.votes.shape[1])
    agree = ((found == x).all(axis=1) & (votes == expected.votes).all(axis=1)
             & (answers == expected.chosen))
    module["accuracy"] = float((answers == test_set.y).mean())
    module["accuracy_by_recording"] = _by_recording(votes, test_set)
    module["disagreements"] = int((~agree).sum())
    module["heap"] = told["heap"]
    if not agree.all():
        first = int(np.argmin(agree))
        raise BuildError(
            f"{what.name}: the compiled module disagrees with the integer reference on "
            f"{module['disagreements']} of {len(agree)} windows; window {first}: features "
            f"{found[first].tolist()} votes {votes[first].tolist()}, expected "
            f"{x[first].tolist()} votes {expected.votes[first].tolist()}")
    return told["abi"]


def execute(mpy: Path, windows: np.ndarray, features: int, classes: int, timeout_s: float = 120
            ) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, int]]:
    """Classify int16 `windows` with an x64 module on MicroPython's unix port.

    Returns features int16 (windows, features), votes uint8 (windows, classes), classes (windows,)
    and what the module said of itself: abi, and heap in bytes. Raises BuildError with
    MicroPython's words when it fails.
    """
    from outpost.toolchain import unix

    with tempfile.TemporaryDirectory() as scratch:
        source, target = Path(scratch) / "windows", Path(scratch) / "answers"
        source.write_bytes(np.ascontiguousarray(windows).tobytes())
        try:
            run = subprocess.run(
                [unix.micropython(), "-c", _CLASSIFY, mpy.stem, str(source), str(target)],
                cwd=mpy.parent, capture_output=True, text=True, timeout=timeout_s)
        except subprocess.TimeoutExpired as error:  # MicroPython reads a cut-off .mpy for ever
            raise BuildError(f"{mpy.name} was still running on MicroPython after {timeout_s:g} s"
                             ) from error
        if run.returncode != 0:
            raise BuildError(f"{mpy.name} failed on MicroPython (exit code {run.returncode}): "
                             f"{(run.stderr or run.stdout).strip()}")
        answers = np.frombuffer(target.read_bytes(), np.uint8)
    answers = answers.reshape(len(windows), 2 * features + classes + 1)
    return (np.ascontiguousarray(answers[:, :2 * features]).view(np.int16),
            answers[:, 2 * features:-1], answers[:, -1], json.loads(run.stdout.splitlines()[-1]))


def _by_recording(votes: np.ndarray, windows: data.Windows) -> float:
    """Return the share of recordings whose windows' votes together choose the right class.

    Windows of one recording that differ in class count as recordings of their own.
    """
    whole = windows.recording * (windows.y.max() + 1) + windows.y
    _, first, index = np.unique(whole, return_index=True, return_inverse=True)
    total = np.zeros((len(first), votes.shape[1]), int)
    np.add.at(total, index, votes)
    return float((total.argmax(axis=1) == windows.y[first]).mean())


def _golden(windows: data.Windows, x: np.ndarray, expected: "Answers") -> list[dict[str, Any]]:
    """Pick windows of every class with the answers the module must give, for self-tests.

    `window` is little-endian int16 in hex, sample by sample.
    """
    golden = []
    for label in np.unique(windows.y):
        for i in np.flatnonzero(windows.y == label)[:GOLDEN]:
            golden.append({"window": windows.x[i].astype("<i2").tobytes().hex(),
                           "features": x[i].tolist(), "votes": expected.votes[i].tolist(),
                           "class": int(expected.chosen[i])})
    return golden


def _publish(scratch: Path, folder: Path) -> None:
    """Move a finished build into place; model.json, which vouches for the rest, comes last."""
    new = sorted((path.relative_to(scratch) for path in scratch.rglob("*") if path.is_file()),
                 key=lambda path: path.name == "model.json")
    try:
        meta = folder / "model.json"
        modules = json.loads(meta.read_text())["modules"]
        stale = [Path(module["file"]) for module in modules.values()]
        meta.unlink()
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        stale = []
    for path in set(stale) - set(new):
        (folder / path).unlink(missing_ok=True)
    for path in new:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (scratch / path).replace(folder / path)
