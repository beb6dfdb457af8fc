"""Models made of normal distributions, in integers: naive Bayes, mixtures, elliptic envelopes.

A distribution costs a window twice its distance in nats (minus log-likelihood), counted in 2⁻¹⁶: a
sum of squares of standardised figures in 2⁻⁸, and a constant. The class, or component, that costs
least wins; a detector compares with a threshold. C: firmware/native/gauss.h.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from outpost.carray import constants
from outpost.kinds import KindError
from outpost.reference import Answers
from outpost.scale import Lines, Scale, fold

UNIT = 1 << 17  # of a cost, a nat
FAR = 1 << 27  # a standardised figure is cut off at half a million deviations
FACTOR_BITS = 30
MARGIN_SHIFT = 13  # a vote is 1/16 nat behind the best
SUM_SHIFT = 13  # of the table below: 1/16 nat
SUM_STEPS = 160


def margins(cost: np.ndarray) -> Answers:
    """Return the answers to int64 `cost` (windows, classes): least wins, of equal ones the lowest.

    votes are 255 for the best and one less for each sixteenth of a nat behind it.
    """
    behind = (cost - cost.min(axis=1, keepdims=True)) >> MARGIN_SHIFT
    return Answers(cost.argmin(axis=1).astype(np.int32),
                   (255 - np.minimum(behind, 255)).astype(np.uint8), np.zeros(len(cost), int))


def _far(figures: np.ndarray) -> int:
    """Return of how many of a window's figures the square takes 64 bits, at most."""
    return int((np.abs(figures.reshape(len(figures), -1)) >= 1 << 16).sum(axis=1).max())


@dataclass(frozen=True)
class Bayes:
    """Gaussian naive Bayes: a line for each class and feature, and what each class costs alone."""

    scale: Scale
    prior: np.ndarray  # int64 (classes,)
    classes: int
    trees = ()

    def work(self, x: np.ndarray | None = None) -> dict[str, int]:
        """Return how much a prediction takes at most, of any window or of `x`: [costs.infer]."""
        lines = len(self.scale.gain)
        far = lines if x is None else _far(self.scale.apply(x))
        return {"line": lines, "square": lines, "far": far, "margin": self.classes}

    def answer(self, features: np.ndarray) -> Answers:
        """Return the answers to int16 `features` (windows, features)."""
        z = self.scale.apply(features).reshape(len(features), self.classes, -1)
        return margins((z * z).sum(axis=2) + self.prior)

    def c(self) -> str:
        """Return C with `outpost_predict`."""
        return (f'#include "scale.h"\n#define OUTPOST_FAR {self.scale.limit}\n'
                f"#define OUTPOST_LINES {len(self.scale.gain) // self.classes}\n"
                f"{self.scale.c('outpost_scales')}{constants('outpost_prior', self.prior)}"
                '#include "gauss.h"\n#include "bayes.h"\n')


def bayes(lines: Lines, model: Any) -> Bayes:
    """Return the integer form of a fitted GaussianNB behind the lines of a pipeline."""
    center = (model.theta_ - lines.offset) / lines.gain
    deviation = np.sqrt(model.var_) / lines.gain
    columns = np.broadcast_to(lines.columns, center.shape)
    prior = 2 * (np.log(deviation).sum(axis=1) - np.log(model.class_prior_))
    prior -= prior.min()
    return Bayes(fold(columns.ravel(), center.ravel(), 256 / deviation.ravel(), FAR),
                 np.rint(prior * UNIT / 2).astype(np.int64), len(model.classes_))


@dataclass(frozen=True)
class Mixture:
    """Full normal distributions: of each a triangle of rows over the features `columns`.

    `rows` int32 (components, n, n) holds in row i the factors of feature 0 to i; the row's sum
    less `start` int64 (components, n), shifted by `shift` (components, n), is a figure whose
    square counts. With `threshold` it is a detector: class `usual` up to it, the other beyond.
    """

    columns: np.ndarray
    rows: np.ndarray
    start: np.ndarray
    shift: np.ndarray
    prior: np.ndarray
    threshold: int | None = None
    usual: int = 0
    trees = ()

    def work(self, x: np.ndarray | None = None) -> dict[str, int]:
        """Return how much a prediction takes at most, of any window or of `x`: [costs.infer]."""
        many, n = self.rows.shape[:2]
        far = many * n if x is None else _far(self.figures(x))
        found = {"product": many * n * (n + 1) // 2, "row": many * n, "square": many * n,
                 "far": far}
        if self.threshold is None:
            return found | {"margin": many}
        return found | {"together": many - 1}

    @property
    def classes(self) -> int:
        """How many answers there are."""
        return len(self.prior) if self.threshold is None else 2

    def costs(self, features: np.ndarray) -> np.ndarray:
        """Return what each component costs: int64 (windows, components)."""
        y = self.figures(features)
        return (y * y).sum(axis=2) + self.prior

    def figures(self, features: np.ndarray) -> np.ndarray:
        """Return the standardised figures: int64 (windows, components, n)."""
        x = features[:, self.columns].astype(np.int64)
        y = np.einsum("wj,kij->wki", x, self.rows.astype(np.int64)) - self.start
        return np.clip(y >> self.shift, -FAR, FAR)

    def cost(self, features: np.ndarray) -> np.ndarray:
        """Return what the whole mixture costs: int64 (windows,)."""
        costs = self.costs(features)
        total = costs[:, 0]
        for cost in costs.T[1:]:
            step = np.minimum(np.abs(cost - total) >> SUM_SHIFT, SUM_STEPS)
            total = np.minimum(cost, total) - SUM_TABLE[step]
        return total

    def answer(self, features: np.ndarray) -> Answers:
        """Return the answers to int16 `features` (windows, features)."""
        if self.threshold is None:
            return margins(self.costs(features))
        chosen = np.where(self.cost(features) <= self.threshold, self.usual, 1 - self.usual)
        return Answers(chosen.astype(np.int32), np.eye(2, dtype=np.uint8)[chosen] * 255,
                       np.zeros(len(chosen), int))

    def c(self) -> str:
        """Return C with `outpost_predict`."""
        n = self.rows.shape[1]
        triangle = np.tril_indices(n)
        factors = np.concatenate([rows[triangle] for rows in self.rows])
        starts = "".join(f"    {{ {start}ll, {shift} }},\n" for start, shift in
                         zip(self.start.ravel(), self.shift.ravel(), strict=True))
        detector = "" if self.threshold is None else (
            f"#define OUTPOST_THRESHOLD {self.threshold}ll\n#define OUTPOST_USUAL {self.usual}\n"
            + constants("outpost_sums", SUM_TABLE, "uint32_t", ""))
        return (f"#define OUTPOST_FAR {FAR}\n#define OUTPOST_LINES {n}\n"
                f"#define OUTPOST_COMPONENTS {len(self.prior)}\n"
                f"#define OUTPOST_SUM_SHIFT {SUM_SHIFT}\n#define OUTPOST_SUM_STEPS {SUM_STEPS}\n"
                f"{detector}{constants('outpost_columns', self.columns, 'uint8_t', '')}"
                f"{constants('outpost_factors', factors, 'int32_t', '')}"
                '#include "gauss.h"\n'
                f"static const struct outpost_row outpost_rows[] = {{\n{starts}}};\n"
                f"{constants('outpost_prior', self.prior)}" '#include "mixture.h"\n')


# ln(1 + e⁻ᵈ) of the distance d between two costs, in a cost's unit: what their sum is less
SUM_TABLE = np.append(np.rint(UNIT * np.log1p(np.exp(-(np.arange(SUM_STEPS) + 0.5) / 16))),
                      0).astype(np.int64)


def mixture(lines: Lines, model: Any, threshold: float | None = None, usual: int = 0) -> Mixture:
    """Return the integer form of a fitted GaussianMixture.

    With a `threshold` of score_samples() it is a detector.
    """
    from outpost.eml import convert_to_full, get_log_weights

    # emlearn's, with what a Bayesian mixture adds
    weights, cholesky = get_log_weights(model), model.precisions_cholesky_
    factors = np.asarray(convert_to_full(model.means_, cholesky, model.covariance_type))
    constant = (weights + np.log(np.einsum("kii->ki", factors)).sum(axis=1)
                - 0.5 * model.means_.shape[1] * np.log(2 * np.pi))
    return _full(lines, model.means_, factors, -constant,
                 None if threshold is None else -threshold, usual)


def envelope(lines: Lines, model: Any, threshold: float, usual: int = 0) -> Mixture:
    """Return the integer form of a fitted EllipticEnvelope: a detector by distance alone.

    `threshold` is of score_samples(), the squared distance with a minus sign.
    """
    # upper triangular, as a mixture's factors are
    factor = np.linalg.cholesky(model.get_precision()[::-1, ::-1])[::-1, ::-1]
    return _full(lines, model.location_[None], factor[None], np.zeros(1), -threshold / 2, usual)


def _full(lines: Lines, means: np.ndarray, factors: np.ndarray, constant: np.ndarray,
          limit: float | None, usual: int) -> Mixture:
    """Quantise factors to int32, with a shift for each row; `constant` and `limit` are in nats.

    Raises KindError for a component that is too narrow.
    """
    row = np.einsum("j,kji->kij", lines.gain, factors) * 256  # row i weighs features 0 to i
    shift = FACTOR_BITS - 1 - np.floor(np.log2(np.abs(row).max(axis=2)))
    if shift.min() < 0:
        raise KindError("a component of the mixture is narrower than a millionth of a count, so "
                        "that its factors fit no int32: raise reg_covar")
    rows = np.rint(row * 2.0 ** shift[..., None]).astype(np.int64)
    center = (means - lines.offset) / lines.gain
    half = np.where(shift > 0, 2.0**shift / 2, 0)  # so that shifting rounds
    start = np.rint(np.einsum("kij,kj->ki", rows, center) - half).astype(np.int64)
    return Mixture(lines.columns, rows.astype(np.int32), start, shift.astype(np.int64),
                   np.rint(constant * UNIT).astype(np.int64),
                   None if limit is None else int(np.floor(limit * UNIT)), usual)
