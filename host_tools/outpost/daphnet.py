"""Daphnet: walking with Parkinson's disease, and freezing of gait, from three accelerometers.

Bächlin et al. (2010), UCI Machine Learning Repository 245, doi 10.24432/C56K78: ten people, 64 Hz,
mg. `published` reads its files, which whoever has them puts into a folder. What can be had without
asking is the excerpt that aeon ships, 110 s of one person's walking, in which nobody freezes;
`excerpt` makes freezes in it. So what a model does on these is no claim about people who freeze.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from outpost.data import DataError, Recording

RATE_HZ = 64.0
CHANNELS = 9  # forward, vertical, lateral: of the ankle, the thigh, the trunk
WALK, FREEZE = "walk", "freeze"
LABELS = {1: WALK, 2: FREEZE}  # 0: not part of the experiment
FILE = re.compile(r"S(\d\d)R(\d\d)\.txt")

BLOCK_S = 11.0  # of the excerpt; a block is a recording
FREEZE_S = (2.0, 5.0)
FADE_S = 0.25
# Moore et al. (2008): a freeze is little power where steps are and more where the legs tremble.
LOCOMOTION_HZ, TREMBLE_HZ = (0.5, 3.0), (3.0, 8.0)
LEFT_OF_STEPS, TREMBLING = (0.1, 0.4), (1.5, 3.0)  # amplitudes, as multiples of walking's
SEED = 6


def published(folder: Path) -> Iterator[Recording]:
    """Read S01R01.txt and so on: time in ms, nine accelerations in mg, and what is going on.

    Stretches outside the experiment are left out. A person's recordings are one group. Raises
    DataError with file and line.
    """
    files = sorted(path for path in folder.glob("*.txt") if FILE.fullmatch(path.name))
    if not files:
        raise DataError(f"{folder}: no S01R01.txt or the like in it: unpack the data set there "
                        "(UCI Machine Learning Repository, 245, its folder dataset)")
    for path in files:
        rows = []
        for number, line in enumerate(path.read_text("ascii", "replace").splitlines(), 1):
            words = line.split()
            if not words:
                continue
            try:
                row = [int(word) for word in words]
            except ValueError as error:
                raise DataError(f"{path} line {number}: {error}") from error
            if len(row) != CHANNELS + 2 or row[-1] not in (0, *LABELS):
                raise DataError(f"{path} line {number}: {len(row)} numbers, the last {row[-1]}; "
                                f"expected time, {CHANNELS} accelerations and 0, 1 or 2")
            rows.append(row)
        table = np.array(rows)
        yield from _stretches(path, table[:, 1:-1], table[:, -1])


def _stretches(path: Path, samples: np.ndarray, states: np.ndarray) -> Iterator[Recording]:
    """Cut a file where it is not part of the experiment."""
    inside = np.concatenate([[0], (states > 0).astype(int), [0]])
    starts, ends = (np.flatnonzero(np.diff(inside) == step) for step in (1, -1))
    for start, end in zip(starts, ends, strict=True):
        labels = np.where(states[start:end] == 2, FREEZE, WALK)
        yield Recording(f"{path.name} lines {start + 1}-{end}", _most(labels),
                        samples[start:end].astype(float), RATE_HZ, path.name[:3], labels=labels)


def excerpt(file: Path) -> list[Recording]:
    """Read aeon's S06R02E0.csv in blocks of 11 s, with a freeze made in each."""
    lines = file.read_text("utf-8").splitlines()[1:]
    samples = np.array([[float(value) for value in line.split(",")[1:1 + CHANNELS]]
                        for line in lines])
    rng = np.random.default_rng(SEED)
    size = round(BLOCK_S * RATE_HZ)
    found = []
    for number, start in enumerate(range(0, len(samples) - size + 1, size)):
        block, labels = with_freeze(samples[start:start + size], rng)
        found.append(Recording(f"block {number}", _most(labels), block, RATE_HZ,
                               f"block {number}", labels=labels))
    return found


def with_freeze(walking: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return `walking` (samples, channels) with a freeze made somewhere in it, and the labels.

    The person's own signal there: the band of steps weaker, that of trembling stronger, posture
    and all else as it was; faded in and out.
    """
    length = round(rng.uniform(*FREEZE_S) * RATE_HZ)
    margin = round(2 * RATE_HZ)
    first = int(rng.integers(margin, len(walking) - length - margin))
    spectrum = np.fft.rfft(walking, axis=0)
    hz = np.fft.rfftfreq(len(walking), 1 / RATE_HZ)
    for (low, high), amplitude in ((LOCOMOTION_HZ, rng.uniform(*LEFT_OF_STEPS)),
                                   (TREMBLE_HZ, rng.uniform(*TREMBLING))):
        spectrum[(hz >= low) & (hz < high)] *= amplitude
    frozen = np.fft.irfft(spectrum, len(walking), axis=0)
    inside = np.zeros(len(walking))
    inside[first:first + length] = 1
    fade = round(FADE_S * RATE_HZ)
    share = np.convolve(inside, np.ones(fade) / fade, "same")[:, None]
    return walking * (1 - share) + frozen * share, np.where(inside > 0, FREEZE, WALK)


def _most(labels: np.ndarray) -> str:
    names, counts = np.unique(labels, return_counts=True)
    return str(names[counts.argmax()])
