"""What comes before a model in a pipeline, folded into whole numbers.

Scalers are straight lines, x · gain + offset for each feature, and selectors leave features out.
`unfold` takes a fitted scikit-learn pipeline apart into a line for each feature and the model
behind them; `Scale` is such lines in integers, as firmware/native/scale.h draws them.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from outpost import kinds
from outpost.kinds import KindError

GAIN_BITS = 14  # of the gain's magnitude: its product with an int16 fits 31 bits
SHIFTS = (-13, 30)


@dataclass(frozen=True)
class Lines:
    """Of a pipeline: which features its model sees, in order, each as x · gain + offset."""

    columns: np.ndarray
    gain: np.ndarray
    offset: np.ndarray
    steps: tuple[Any, ...]  # scikit-learn's own, in order

    @property
    def scaled(self) -> bool:
        """Whether any feature is not as it was."""
        return bool((self.gain != 1).any() or (self.offset != 0).any())

    def transform(self, x: np.ndarray) -> np.ndarray:
        """Return what the steps make of `x`, as scikit-learn computes it."""
        for step in self.steps:
            x = step.transform(x)
        return x


def unfold(model: Any) -> tuple[Lines, Any]:
    """Return the lines of a fitted model's pipeline, and the model at its end.

    Raises KindError naming a step that can't be folded.
    """
    steps = [step for _, step in getattr(model, "steps", [("", model)])
             if step not in (None, "passthrough")]
    *before, last = steps
    kinds.check(type(last).__name__)
    count = int((before or [last])[0].n_features_in_)
    columns, gain, offset = np.arange(count), np.ones(count), np.zeros(count)
    for step in before:
        name = type(step).__name__
        if name in kinds.SELECTORS:
            kept = step.get_support()
            columns, gain, offset = columns[kept], gain[kept], offset[kept]
            continue
        if name not in kinds.SCALERS:
            raise kinds.refusal(name, kinds.STEPS)
        a, b = _line(step, name, len(columns))
        gain, offset = gain * a, offset * a + b
    return Lines(columns, gain, offset, tuple(before)), last


def _line(step: Any, name: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return gain and offset of a fitted scaler."""
    if name == "MinMaxScaler":
        if step.clip:
            raise KindError("MinMaxScaler with clip=True can't be converted: what is beyond the "
                            "training data's range would all look alike; take clip=False")
        return step.scale_, step.min_
    center = step.mean_ if name == "StandardScaler" else step.center_
    center = np.zeros(count) if center is None else center
    scale = np.ones(count) if step.scale_ is None else step.scale_
    return 1 / scale, -center / scale


@dataclass(frozen=True)
class Scale:
    """Lines in integers: (gain · x − offset) >> shift, cut off at ±limit.

    `column` says which feature x is. A negative shift is one to the left.
    """

    column: np.ndarray
    gain: np.ndarray
    offset: np.ndarray
    shift: np.ndarray
    limit: int

    def apply(self, features: np.ndarray) -> np.ndarray:
        """Return int64 (windows, lines) of int16 `features` (windows, features)."""
        value = self.gain * features[:, self.column].astype(np.int64) - self.offset
        left = np.maximum(-self.shift, 0)
        most = self.limit >> left
        value = value >> np.maximum(self.shift, 0)
        return np.clip(value, -most, most) << left

    def c(self, name: str) -> str:
        """Return the lines as the C array `name`."""
        rows = zip(self.offset.tolist(), self.gain.tolist(), self.shift.tolist(),
                   self.column.tolist(), strict=True)
        body = "\n".join(f"    {{ {', '.join(map(str, row))} }}," for row in rows)
        return f"static const struct outpost_scale {name}[] = {{\n{body}\n}};\n"


def fold(column: np.ndarray, center: np.ndarray, rate: np.ndarray, limit: int) -> Scale:
    """Return the integer lines of (x − center) · rate, rounded to the nearest.

    The gain has 13 or 14 bits, so the slope is right within 1/16384.
    """
    rate = np.asarray(rate, float)
    shift = np.clip(GAIN_BITS - 1 - np.floor(np.log2(np.maximum(rate, 1e-300))), *SHIFTS)
    gain = np.rint(rate * 2.0**shift)
    over = (gain >= 1 << GAIN_BITS) & (shift > SHIFTS[0])
    shift = shift - over
    gain = np.minimum(np.rint(rate * 2.0**shift), (1 << GAIN_BITS) - 1)
    half = np.where(shift > 0, 2.0 ** (shift - 1), 0)
    offset = np.clip(np.rint(np.asarray(center) * gain - half), -(2**30), 2**30)
    return Scale(*(part.astype(np.int64) for part in (np.asarray(column), gain, offset, shift)),
                 limit)
