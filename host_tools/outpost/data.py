"""Recordings: read, checked, brought to the sensor's rate and counts, split and cut into windows.

A recording is what was sampled in one go. Windows of one recording (or of one file) are never on
both sides of a split.
"""

import csv
import hashlib
import io
import math
import subprocess
import sys
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np

from outpost import cache
from outpost.console import console
from outpost.errors import OutpostError
from outpost.recipe import Recipe, Signal

# The wheel of aeon 1.6.0 carries BasicMotions (J. Clements, UEA archive, 10 Hz smart watch:
# acceleration in m/s² with gravity removed, angular rate in rad/s).
AEON = "aeon==1.6.0"
AEON_SHA256 = "d05227086706f80111ac5fee8de4d5d3115bb3bcfd1c786c8629393055816409"
AEON_ITEM = "data/aeon-1.6.0-2"  # 2: with Daphnet
BASIC_MOTIONS = "aeon/datasets/data/BasicMotions/BasicMotions_{part}.ts"
BASIC_MOTIONS_HZ = 10.0
DAPHNET = "aeon/datasets/data/Daphnet_S06R02E0/S06R02E0.csv"

SHARED = 16  # samples in a row that two recordings don't share by chance
UNEVEN = 0.5  # of an interval: by how much one between samples may differ from the median
SAME_RATE = 0.05  # relative: by how much the rates of two files may differ


class DataError(OutpostError):
    """Recordings that can't be used as they are, with file and line."""


@dataclass(frozen=True)
class Recording:
    """Samples taken in one go: float in the recording's units, or int16 sensor counts.

    `samples` has the shape (samples, channels). `group` names what must stay on one side of a
    split: the file. `part` is "train" or "test" where the source publishes a split. `labels` is
    the label of each sample where what goes on changes within the recording; `label` is then the
    most frequent.
    """

    name: str
    label: str
    samples: np.ndarray
    rate_hz: float | None
    group: str
    part: str | None = None
    labels: np.ndarray | None = None

    @property
    def all_labels(self) -> set[str]:
        """Every label that occurs in it."""
        return {self.label} if self.labels is None else set(self.labels.tolist())


@dataclass(frozen=True)
class Dataset:
    """A split set of int16 recordings; `labels` in a recording index into `classes`."""

    classes: tuple[str, ...]
    train: list[Recording]
    test: list[Recording]
    warnings: list[str]


@dataclass(frozen=True)
class Windows:
    """Windows of some recordings.

    `x` is int16 (windows, window, channels), `y` the class index of each window (where it changes
    within one, of most of its samples), `recording` the index of the recording each was cut from
    and `start` where in it.
    """

    x: np.ndarray
    y: np.ndarray
    recording: np.ndarray
    start: np.ndarray


def load(recipe: Recipe) -> Dataset:
    """Read the recordings a recipe names, in sensor counts at the sensor's rate, and split them.

    Raises DataError naming the file and line when they can't be used.
    """
    where = recipe.data.path or recipe.data.source
    if recipe.data.path is not None:
        recordings = list(_folder(recipe))
        if not recordings:
            raise DataError(f"{where}: no recordings in its files")
        classes = _classes(recordings)
    elif recipe.data.source == "sklearn:digits":
        recordings, classes = _digits(recipe.signal)
    elif recipe.data.source == "aeon:Daphnet":
        recordings = _daphnet(recipe.signal)
        classes = _classes(recordings)
    else:
        recordings, classes = _basic_motions(recipe.signal)
    if recipe.events is not None and recipe.events.label not in classes:
        raise DataError(f"{recipe.file}: [events] class is {recipe.events.label!r}; the "
                        f"recordings have {', '.join(classes)}")
    if recipe.classes is not None:
        if set(recipe.classes) != set(classes):
            raise DataError(f"{recipe.file}: [model] classes are {', '.join(recipe.classes)}; the "
                            f"recordings have {', '.join(classes)}")
        classes = recipe.classes
    if len(classes) < 2:
        raise DataError(f"{where}: all recordings are {classes[0]!r}; a classifier needs at least "
                        "two classes")
    warnings: list[str] = []
    try:
        recordings = _to_sensor(recordings, recipe.signal, warnings)
        train, test = split(recordings, recipe.data.test, recipe.data.seed)
        train += _also(recipe, classes)
        check_leakage(train, test, recipe.signal.window)
    except DataError as error:
        raise DataError(f"{where}: {error}") from error
    return Dataset(classes, train, test, warnings)


def _also(recipe: Recipe, classes: tuple[str, ...]) -> list[Recording]:
    """Read what is trained on besides, as `outpost windows --export` writes it."""
    if recipe.data.also is None:
        return []
    found = pulled(recipe, recipe.data.also)
    for recording in found:
        strange = recording.all_labels - set(classes)
        if strange:
            raise DataError(f"{recipe.data.also}: {recording.name} is labelled {min(strange)!r}; "
                            f"there are {', '.join(classes)}")
    return found


def _classes(recordings: list[Recording]) -> tuple[str, ...]:
    return tuple(sorted(set().union(*(recording.all_labels for recording in recordings))))


def pulled(recipe: Recipe, folder: Path) -> list[Recording]:
    """Read recordings from a node, as `outpost pull` writes them, in sensor counts.

    Raises DataError naming the file and line when they can't be used.
    """
    source = replace(recipe.data, source=None, path=folder, rate_hz=None)
    recordings = list(_folder(replace(recipe, data=source, events=None)))
    return _to_sensor(recordings, recipe.signal, [])


def fingerprint(recipe: Recipe) -> list[tuple[str, str]]:
    """Return what identifies the recordings, for the build cache, without parsing them."""
    also = [] if recipe.data.also is None else _digests(_files(recipe.data.also))
    return also + _own(recipe)


def _own(recipe: Recipe) -> list[tuple[str, str]]:
    if recipe.data.path is None:
        from outpost import daphnet

        made = Path(daphnet.__file__).read_bytes() if recipe.data.source == "aeon:Daphnet" else b""
        return [(str(recipe.data.source), AEON_SHA256 + hashlib.sha256(made).hexdigest())]
    if recipe.data.source == "uci:Daphnet":
        return _digests(sorted(recipe.data.path.glob("S*.txt")))
    return _digests(_files(recipe.data.path))


def _digests(files: list[Path]) -> list[tuple[str, str]]:
    return [(path.name, hashlib.sha256(path.read_bytes()).hexdigest()) for path in files]


# -- sources ---------------------------------------------------------------------------------


def _fetch_aeon(folder: Path) -> None:
    """Put BasicMotions and the excerpt of Daphnet, from aeon's wheel, into `folder`."""
    with tempfile.TemporaryDirectory() as scratch:
        wanted = Path(scratch) / "requirements.txt"
        wanted.write_text(f"{AEON} --hash=sha256:{AEON_SHA256}\n")
        with console.status(f"fetching recordings ({AEON})"):
            run = subprocess.run(
                [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps",
                 "--require-hashes", "--only-binary=:all:", "--dest", scratch, "-r", str(wanted)],
                capture_output=True, text=True)
        if run.returncode != 0:
            reason = (run.stderr.strip() or "no reason given").splitlines()[-1]
            raise DataError(f"pip could not download {AEON}, which carries the recordings: "
                            f"{reason}. Check the network or pip's configuration and try again")
        (wheel,) = Path(scratch).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            for member in (*(BASIC_MOTIONS.format(part=part) for part in ("TRAIN", "TEST")),
                           DAPHNET):
                (folder / Path(member).name).write_bytes(archive.read(member))


def _daphnet(signal: Signal) -> list[Recording]:
    """The excerpt of Daphnet that aeon ships, with freezes made in it (daphnet.py)."""
    from outpost import daphnet

    if len(signal.channels) != daphnet.CHANNELS:
        raise DataError(f"Daphnet has {daphnet.CHANNELS} channels (ankle, thigh, trunk: forward, "
                        f"vertical, lateral); [signal.channels] names {len(signal.channels)}")
    return daphnet.excerpt(cache.item(AEON_ITEM, _fetch_aeon) / Path(DAPHNET).name)


def _basic_motions(signal: Signal) -> tuple[list[Recording], tuple[str, ...]]:
    """BasicMotions: 40 + 40 recordings of 100 samples × 6 channels at 10 Hz, published split."""
    if len(signal.channels) != 6:
        raise DataError(f"BasicMotions has 6 channels (acceleration x, y, z, angular rate x, y, "
                        f"z); [signal.channels] names {len(signal.channels)}")
    folder = cache.item(AEON_ITEM, _fetch_aeon)
    recordings: list[Recording] = []
    classes: tuple[str, ...] = ()
    for part in ("train", "test"):
        path = folder / f"BasicMotions_{part.upper()}.ts"
        classes, found = parse_ts(path)
        recordings += [Recording(f"{part}-{i:02}", label, samples, BASIC_MOTIONS_HZ,
                                 f"{part}-{i:02}", part) for i, (samples, label) in
                       enumerate(found)]
    return recordings, classes


def parse_ts(path: Path) -> tuple[tuple[str, ...], list[tuple[np.ndarray, str]]]:
    """Read a file of the UEA archive's .ts format, equal lengths, with class labels.

    Returns the classes in the header's order, and samples (samples, channels) with the label of
    each line. Raises DataError naming the line. Format: sktime's and aeon's documentation.
    """
    classes: tuple[str, ...] = ()
    found: list[tuple[np.ndarray, str]] = []
    in_data = False
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        if not in_data:
            if line.lower().startswith("@classlabel true"):
                classes = tuple(line.split()[2:])
            in_data = line.lower() == "@data"
            continue
        *columns, label = line.split(":")
        try:
            samples = np.array([[float(value) for value in column.split(",")]
                                for column in columns])
        except ValueError as error:
            raise DataError(f"{path} line {number}: {error}") from error
        if label not in classes:
            raise DataError(f"{path} line {number}: class {label!r} is not in the header "
                            f"({', '.join(classes)})")
        found.append((samples.T, label))
    return classes, found


def _digits(signal: Signal) -> tuple[list[Recording], tuple[str, ...]]:
    """scikit-learn's digits: 1,797 images of 64 pixels, each a recording of one channel."""
    from sklearn.datasets import load_digits

    if signal.window != 64 or len(signal.channels) != 1:
        raise DataError("sklearn:digits has images of 64 pixels: [signal] window must be 64, with "
                        f"one channel; here it is {signal.window} with {len(signal.channels)}")
    images, labels = load_digits(return_X_y=True)
    recordings = [Recording(f"image {i}", str(label), image[:, None], None, f"image {i}")
                  for i, (image, label) in enumerate(zip(images, labels, strict=True))]
    return recordings, tuple("0123456789")


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder ([data] path)")
    files = sorted(path for path in folder.iterdir()
                   if path.suffix.lower() in (".csv", ".npz") and path.is_file())
    if not files:
        raise DataError(f"{folder}: no .csv or .npz files in it")
    return files


def _folder(recipe: Recipe) -> Iterator[Recording]:
    """Read every recording of a user's folder; all must be sampled at one rate."""
    if recipe.data.source == "uci:Daphnet":
        from outpost import daphnet

        yield from daphnet.published(recipe.data.path)
        return
    first: Recording | None = None
    for path in _files(recipe.data.path):
        read = _csv if path.suffix.lower() == ".csv" else _npz
        for recording in read(path, recipe):
            rate = recording.rate_hz
            if first is None:
                first = recording
            if rate is not None and abs(rate / first.rate_hz - 1) > SAME_RATE:
                raise DataError(f"{path} line 2: sampled at {rate:.4g} Hz, but {first.name} at "
                                f"{first.rate_hz:.4g} Hz; bring them to one rate, or keep them in "
                                "separate folders")
            yield recording


def _csv(path: Path, recipe: Recipe) -> Iterator[Recording]:
    """Read `time_ms,<channel>…[,label][,subject]`; else the label is in the file's name.

    A file whose label changes is several recordings, which stay on one side of a split, and so do
    all of a subject.
    """
    try:
        reader = csv.reader(io.StringIO(path.read_text("utf-8-sig")))
        lines, table = zip(*((reader.line_num, row) for row in reader if row), strict=True)
    except ValueError as error:  # also UnicodeDecodeError
        raise DataError(f"{path}: empty, or not UTF-8 text") from error
    except (OSError, csv.Error) as error:
        raise DataError(f"{path}: not a readable CSV file: {error}") from error
    header = [column.strip() for column in table[0]]
    _check_header(path, header, recipe.signal.names)
    lines, table = lines[1:], table[1:]
    if len(table) < 2:
        raise DataError(f"{path}: {len(table)} rows; a recording needs at least two")

    columns = [header.index(name) for name in ("time_ms", *recipe.signal.names)]
    values = np.empty((len(table), len(columns)))
    for i, (line, row) in enumerate(zip(lines, table, strict=True)):
        if len(row) != len(header):
            raise DataError(f"{path} line {line}: {len(row)} columns, the header has "
                            f"{len(header)}")
        for j, column in enumerate(columns):
            try:
                values[i, j] = float(row[column])
            except ValueError:
                values[i, j] = math.nan
            if not math.isfinite(values[i, j]):
                raise DataError(f"{path} line {line}: {header[column]} is {row[column][:32]!r}, "
                                "not a number")
        if i > 0 and values[i, 0] <= values[i - 1, 0]:
            raise DataError(f"{path} line {line}: time_ms goes from {values[i - 1, 0]:.15g} to "
                            f"{values[i, 0]:.15g}; it must grow")
    rate = _rate(path, lines, values[:, 0], recipe)

    labels = [path.name.split("_")[0]] * len(table)
    if "label" in header:
        labels = [row[header.index("label")].strip() for row in table]
    if "" in labels:
        raise DataError(f"{path} line {lines[labels.index('')]}: the label is empty")
    group = path.name
    if "subject" in header:
        subjects = {row[header.index("subject")].strip() for row in table}
        if len(subjects) != 1 or "" in subjects:
            raise DataError(f"{path}: subjects {', '.join(sorted(map(repr, subjects)))} in one "
                            "file; a recording is of one")
        group = f"subject {subjects.pop()}"
    if recipe.events is not None:  # what changes within a file is what it is about
        name = Counter(labels).most_common(1)[0][0]
        yield Recording(path.name, name, values[:, 1:], rate, group, labels=np.array(labels))
        return
    starts = [i for i in range(len(labels)) if i == 0 or labels[i] != labels[i - 1]]
    for start, end in zip(starts, [*starts[1:], len(labels)], strict=True):
        name = path.name
        if len(starts) > 1:
            name += f" lines {lines[start]}-{lines[end - 1]}"
        yield Recording(name, labels[start], values[start:end, 1:], rate, group)


def _check_header(path: Path, header: list[str], names: tuple[str, ...]) -> None:
    wanted = ["time_ms", *names, *(name for name in ("label", "subject") if name in header)]
    if sorted(header) != sorted(wanted):
        faults = (("missing", [name for name in wanted if name not in header]),
                  ("not in model.toml", [name for name in header if name not in wanted]),
                  ("twice", [name for name in dict.fromkeys(header) if header.count(name) > 1]))
        told = [f"{fault}: {', '.join(ascii(name[:32]) for name in which[:8])}"
                for fault, which in faults if which]
        raise DataError(f"{path} line 1: wrong columns, {'; '.join(told)}. Expected time_ms,"
                        f"{','.join(names)} and perhaps label, subject")
    if "label" not in header and "_" not in path.name:
        raise DataError(f"{path} line 1: no label: add a label column, or put the label into the "
                        "file's name before a _ (walk_01.csv)")


def _rate(path: Path, lines: tuple[int, ...], times_ms: np.ndarray, recipe: Recipe) -> float:
    """Return the rate in Hz of a file's samples; raise DataError at the first uneven interval."""
    steps = np.diff(times_ms)
    usual = float(np.median(steps))
    (uneven,) = np.nonzero(np.abs(steps - usual) > UNEVEN * usual)
    if uneven.size:
        at = int(uneven[0])
        raise DataError(f"{path} line {lines[at + 1]}: {steps[at]:g} ms after the sample "
                        f"before, where {usual:g} ms is usual: unequal rates or a gap; cut the "
                        "file there")
    rate = 1e3 * len(steps) / float(times_ms[-1] - times_ms[0])
    stated = recipe.data.rate_hz
    if stated is not None and abs(rate / stated - 1) > SAME_RATE:
        raise DataError(f"{path} line 2: sampled at {rate:.4g} Hz, but [data] rate_hz says "
                        f"{stated:g}")
    return rate


def _npz(path: Path, recipe: Recipe) -> Iterator[Recording]:
    """Read X (recordings × channels × samples), y and perhaps rate_hz."""
    names = recipe.signal.names
    try:
        with np.load(path, allow_pickle=False) as archive:
            absent = [key for key in ("X", "y") if key not in archive]
            if absent:
                raise DataError(f"{path}: no array {', '.join(absent)}; it must hold X "
                                "(recordings × channels × samples) and y")
            x, y = archive["X"], archive["y"]
            subjects = archive.get("subject")
            rate = float(archive["rate_hz"]) if "rate_hz" in archive else recipe.data.rate_hz
    except (ValueError, OSError, zipfile.BadZipFile, TypeError) as error:
        raise DataError(f"{path}: not an .npz file of plain arrays, as numpy.savez(X=…, y=…) "
                        "writes it") from error
    if x.ndim != 3 or x.shape[1] != len(names) or y.shape != x.shape[:1]:
        raise DataError(f"{path}: X is {x.shape} and y {y.shape}; X must be (recordings, "
                        f"{len(names)} channels: {', '.join(names)}; samples), y (recordings,)")
    if subjects is not None and subjects.shape != y.shape:
        raise DataError(f"{path}: subject is {subjects.shape}; it must be as y, {y.shape}")
    if x.dtype.kind not in "iuf":
        raise DataError(f"{path}: X is of type {x.dtype}; it must be numbers")
    if rate is None and recipe.signal.rate_hz is not None:
        raise DataError(f"{path}: no rate: give [data] rate_hz or an array rate_hz in the file")
    if rate is not None and not (math.isfinite(rate) and rate > 0):
        raise DataError(f"{path}: rate_hz is {rate}; it must be greater than 0")
    bad = np.argwhere(~np.isfinite(x))
    if bad.size:
        recording, channel, sample = bad[0]
        raise DataError(f"{path}: X[{recording}, {channel}, {sample}] ({names[channel]}) is "
                        f"{x[recording, channel, sample]}, not a number")
    for i, (samples, label) in enumerate(zip(x, y, strict=True)):
        name = f"{path.name} recording {i}"
        group = name if subjects is None else f"subject {subjects[i]}"
        yield Recording(name, str(label), samples.T.astype(float), rate, group)


# -- to sensor counts ------------------------------------------------------------------------


def resample(samples: np.ndarray, rate_hz: float, wanted_hz: float) -> np.ndarray:
    """Bring `samples` (samples, channels) from one rate in Hz to another, band-limited.

    n samples become ceil(n × wanted / rate). Polyphase filter of scipy.signal.resample_poly.
    """
    ratio = Fraction(wanted_hz / rate_hz).limit_denominator(200)
    if ratio == 1:
        return samples
    from scipy.signal import resample_poly

    return resample_poly(samples, ratio.numerator, ratio.denominator, axis=0, padtype="line")


def _to_sensor(recordings: list[Recording], signal: Signal, warnings: list[str]
               ) -> list[Recording]:
    """Turn units into int16 counts at the sensor's rate; what is out of range saturates."""
    scale = np.array([channel.counts for channel in signal.channels])
    clipped: Counter[str] = Counter()
    where: dict[str, str] = {}
    short: list[str] = []
    converted = []
    for recording in recordings:
        counts = recording.samples * scale
        beyond = ((counts < -32768.5) | (counts >= 32767.5)).sum(axis=0)
        for i in np.flatnonzero(beyond):
            clipped[signal.names[i]] += int(beyond[i])
            where.setdefault(signal.names[i], recording.name)
        counts = np.clip(counts, -32768, 32767)
        labels = recording.labels
        if signal.rate_hz is not None and recording.rate_hz is not None:
            counts = resample(counts, recording.rate_hz, signal.rate_hz)
            if labels is not None:
                nearest = np.arange(len(counts)) * recording.rate_hz / signal.rate_hz
                labels = labels[np.minimum(np.rint(nearest).astype(int), len(labels) - 1)]
        if len(counts) < signal.window:
            short.append(f"{recording.name} ({len(counts)})")
            continue
        counts = np.clip(np.rint(counts), -32768, 32767).astype(np.int16)
        converted.append(replace(recording, samples=counts, rate_hz=signal.rate_hz,
                                 labels=labels))
    for name, count in clipped.items():
        warnings.append(f"{name}: {count} sample{'s' * (count > 1)} beyond the sensor's range "
                        f"(first in {where[name]}), clipped as the sensor would")
    if short:
        told = ", ".join(short[:3]) + (f" and {len(short) - 3} more" if len(short) > 3 else "")
        warnings.append(f"{len(short)} recording{'s' * (len(short) > 1)} left out, shorter than "
                        f"the window of {signal.window} samples: {told}")
    if not converted:
        raise DataError(f"every recording is shorter than the window of {signal.window} samples: "
                        f"{short[0]}")
    left = set(_classes(converted))
    for recording in recordings:
        for label in recording.all_labels - left:
            raise DataError(f"class {label!r} has only recordings shorter than the "
                            f"window of {signal.window} samples, {recording.name} for one")
    return converted


# -- splits and windows ----------------------------------------------------------------------


def split(recordings: list[Recording], share: float, seed: int
          ) -> tuple[list[Recording], list[Recording]]:
    """Split recordings into train and test: as published, else `share` of the groups of a class.

    Groups (files) stay whole. Raises DataError when a class would be missing on either side.
    """
    if all(recording.part for recording in recordings):
        test_groups = {recording.group for recording in recordings if recording.part == "test"}
    else:
        test_groups = set()
        rng = np.random.default_rng(seed)
        labels: dict[str, set[str]] = {}
        for recording in recordings:
            labels.setdefault(recording.group, set()).update(recording.all_labels)
        strata: dict[tuple[str, ...], list[str]] = {}
        for group, found in labels.items():
            strata.setdefault(tuple(sorted(found)), []).append(group)
        for stratum in sorted(strata):
            groups = strata[stratum]
            held_out = min(max(round(share * len(groups)), 1), len(groups) - 1)
            test_groups.update(rng.permutation(groups)[:held_out].tolist())
    train = [recording for recording in recordings if recording.group not in test_groups]
    test = [recording for recording in recordings if recording.group in test_groups]
    for label in _classes(recordings):
        groups = sorted({recording.group for recording in recordings
                         if label in recording.all_labels})
        for part in (train, test):
            if not any(label in recording.all_labels for recording in part):
                raise DataError(f"class {label!r} has {len(groups)} recording"
                                f"{'s' * (len(groups) != 1)} ({', '.join(groups[:3])}); it needs "
                                "at least two, one to train on and one to test on")
    return train, test


def check_leakage(train: list[Recording], test: list[Recording], window: int = SHARED) -> None:
    """Raise DataError if a group is on both sides of a split, or the same samples are.

    A recording may be there under two names, or two recordings may overlap: any stretch of a
    window (at least 16 samples) of one in the other is found if they share two of them.
    """
    both = {recording.group for recording in train} & {recording.group for recording in test}
    if both:
        raise DataError(f"{min(both)} is in both the training and the test split")
    if all(recording.rate_hz is None for recording in train):
        return  # rows without time: equal ones are ordinary
    seen = {recording.samples.tobytes(): recording.name for recording in train}
    for recording in test:
        twin = seen.get(recording.samples.tobytes())
        if twin is not None:
            raise DataError(f"{recording.name} (test) and {twin} (train) are the same recording")
    size = max(window, SHARED)
    stretches = {stretch: (one, at) for one in test for at, stretch in _stretches(one, size, size)}
    for recording in train:
        for at, stretch in _stretches(recording, size, 1):
            if stretch in stretches:
                other, there = stretches[stretch]
                raise DataError(f"{other.name} (test) and {recording.name} (train) overlap: "
                                f"samples {there} to {there + size - 1} of the one are samples "
                                f"{at} to {at + size - 1} of the other")


def _stretches(recording: Recording, size: int, step: int) -> Iterator[tuple[int, int]]:
    """Yield (start, hash) of stretches of `size` samples, except those in which nothing moves."""
    samples = np.ascontiguousarray(recording.samples)
    moves = np.concatenate([[0], np.cumsum((np.diff(samples, axis=0) != 0).any(axis=1))])
    row, raw = samples[0].nbytes, samples.tobytes()
    for at in range(0, len(samples) - size + 1, step):
        if 2 * (moves[at + size - 1] - moves[at]) > size:
            yield at, hash(raw[at * row:(at + size) * row])


def windows(recordings: list[Recording], classes: tuple[str, ...], window: int, hop: int
            ) -> Windows:
    """Cut int16 recordings into windows that start every `hop` samples."""
    cuts = [(i, start) for i, recording in enumerate(recordings)
            for start in range(0, len(recording.samples) - window + 1, hop)]
    index = {name: i for i, name in enumerate(classes)}
    numbers = [None if one.labels is None else np.array([index[name] for name in one.labels])
               for one in recordings]

    def label(i: int, start: int) -> int:
        number = numbers[i]
        if number is None:
            return index[recordings[i].label]
        return int(np.bincount(number[start:start + window]).argmax())

    return Windows(
        x=np.stack([recordings[i].samples[start:start + window] for i, start in cuts]),
        y=np.array([label(i, start) for i, start in cuts]),
        recording=np.array([i for i, _ in cuts]), start=np.array([start for _, start in cuts]))
