"""Small dense networks in int8: trained further as they will be computed, then whole numbers.

Weights and activations are int8, sums int32, and from one layer to the next the sum is shifted:
all scales are powers of two. `tune` continues the training of scikit-learn's MLPClassifier with
every figure rounded as the device rounds it; gradients pass the rounding straight through. The
output stays a sum: the largest wins, and votes are margins. C: firmware/native/net.h.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from outpost.carray import constants
from outpost.kinds import KindError
from outpost.reference import Answers
from outpost.scale import Lines, Scale, fold, unfold

MOST = 127
ACTIVATIONS = {"relu": 0, "identity": -MOST}  # and the least they let through
EPOCHS = 60
BATCH = 32
RATE = 2e-3
WORST_DB = 12  # of a layer's sums over the error that its rounded weights make, at least
LOSS = 0.005  # of accuracy on the training windows, that rounding may cost
VOTE_BITS = 4  # a vote is 1/16 of a logit behind the best


@dataclass(frozen=True)
class Layer:
    """int8 `weights` (outputs, inputs), int32 `bias`; what is shifted out is rounded off by it."""

    weights: np.ndarray
    bias: np.ndarray
    shift: int


@dataclass(frozen=True)
class Net:
    """Layers behind integer lines; hidden sums are cut off at `least` and 127."""

    scale: Scale
    layers: tuple[Layer, ...]
    least: int
    vote_shift: int
    classes: int
    trees = ()

    def work(self, x: np.ndarray | None = None) -> dict[str, int]:
        """Return how much a prediction takes of whatever window: [costs.infer]."""
        return {"line": len(self.scale.gain), "mac": sum(one.weights.size for one in self.layers),
                "neuron": sum(len(one.bias) for one in self.layers), "logit": self.classes}

    def sums(self, features: np.ndarray) -> np.ndarray:
        """Return the output's int32 sums (windows, classes) for int16 `features`."""
        value = self.scale.apply(features)
        for layer in self.layers[:-1]:
            value = np.clip((value @ layer.weights.T + layer.bias) >> layer.shift, self.least,
                            MOST)
        return value @ self.layers[-1].weights.T + self.layers[-1].bias

    def answer(self, features: np.ndarray) -> Answers:
        """Return the answers to int16 `features` (windows, features)."""
        sums = self.sums(features)
        behind = (sums.max(axis=1, keepdims=True) - sums) >> self.vote_shift
        return Answers(sums.argmax(axis=1).astype(np.int32),
                       (255 - np.minimum(behind, 255)).astype(np.uint8), np.zeros(len(sums), int))

    def c(self) -> str:
        """Return C with `outpost_predict`."""
        weights = np.concatenate([layer.weights.ravel() for layer in self.layers])
        biases = np.concatenate([layer.bias for layer in self.layers])
        rows = ", \\\n".join(f"    {{ {layer.weights.shape[1]}, {layer.weights.shape[0]}, "
                             f"{layer.shift} }}" for layer in self.layers) + "\n"
        widest = max(max(layer.weights.shape) for layer in self.layers)
        return (f'#include "scale.h"\n#define OUTPOST_LINES {self.layers[0].weights.shape[1]}\n'
                f"#define OUTPOST_LAYERS {len(self.layers)}\n#define OUTPOST_WIDEST {widest}\n"
                f"#define OUTPOST_LEAST {self.least}\n#define OUTPOST_VOTE_SHIFT "
                f"{self.vote_shift}\n{self.scale.c('outpost_scales')}"
                f"{constants('outpost_weights', weights, 'int8_t', '')}"
                f"{constants('outpost_biases', biases, 'int32_t', '')}"
                f"#define OUTPOST_LAYER_TABLE \\\n{rows}"
                '#include "net.h"\n')


@dataclass(frozen=True)
class Tuned:
    """A fitted pipeline of scikit-learn with an MLPClassifier at its end, and its int8 form."""

    model: Any
    net: Net

    @property
    def classes_(self) -> np.ndarray:
        """The classes, as scikit-learn has them."""
        return self.model.classes_

    @property
    def n_features_in_(self) -> int:
        """How many features it takes."""
        return self.model.n_features_in_

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Return the classes that scikit-learn's floats choose."""
        return self.model.predict(np.asarray(x, float))


@dataclass
class _Float:
    """The network in floats while it is trained, and the powers of two it is rounded by."""

    weights: list[np.ndarray]  # (inputs, outputs)
    biases: list[np.ndarray]
    least: int
    input_bits: int
    weight_bits: list[int]
    value_bits: list[int]  # of what each layer gets

    def choose_bits(self, z: np.ndarray) -> None:
        """Choose each scale as fine as the weights, and the values for `z`, allow."""
        self.weight_bits = [_bits(np.abs(w).max()) for w in self.weights]
        self.value_bits = [self.input_bits]
        value = _rounded(z, self.input_bits, -MOST)
        for w, b in zip(self.weights[:-1], self.biases[:-1], strict=True):
            sums = value @ w + b
            if self.least == 0:
                sums = np.maximum(sums, 0)
            room = self.value_bits[-1] + _bits(np.abs(w).max())  # a sum is not shifted to the left
            self.value_bits.append(min(_bits(np.quantile(np.abs(sums), 0.999)), room))
            value = _rounded(sums, self.value_bits[-1], self.least)

    def forward(self, z: np.ndarray) -> list[np.ndarray]:
        """Return what each layer gets, rounded, and at last the logits."""
        values = [_rounded(z, self.input_bits, -MOST)]
        for i in range(len(self.weights)):
            w = _rounded(self.weights[i], self.weight_bits[i], -MOST)
            sums = values[-1] @ w + self.biases[i]
            last = i == len(self.weights) - 1
            values.append(sums if last else _rounded(sums, self.value_bits[i + 1], self.least))
        return values

    def gradients(self, z: np.ndarray, y: np.ndarray, alpha: float
                  ) -> tuple[list[np.ndarray], float]:
        """Return gradients of the cross-entropy by weights and biases in turn, and the loss."""
        values = self.forward(z)
        logits = values[-1] - values[-1].max(axis=1, keepdims=True)
        share = np.exp(logits)
        share /= share.sum(axis=1, keepdims=True)
        loss = float(-np.log(share[np.arange(len(y)), y] + 1e-12).mean())
        share[np.arange(len(y)), y] -= 1
        back = share / len(y)
        found: list[np.ndarray] = []
        for i in reversed(range(len(self.weights))):
            found[:0] = [values[i].T @ back + alpha * self.weights[i] / len(y),
                         back.sum(axis=0)]
            if i:
                # straight through the rounding, but not through what is cut off
                inside = (values[i] > self.least / 2 ** self.value_bits[i]) & (
                    values[i] < MOST / 2 ** self.value_bits[i])
                w = _rounded(self.weights[i], self.weight_bits[i], -MOST)
                back = (back @ w.T) * inside
        return found, loss


def _bits(largest: float) -> int:
    """Return how many bits behind the point fit an int8 up to `largest`."""
    return int(np.floor(np.log2(MOST / max(float(largest), 1e-9))))


def _rounded(value: np.ndarray, bits: int, least: int) -> np.ndarray:
    return np.clip(np.rint(value * 2.0**bits), least, MOST) / 2.0**bits


def tune(model: Any, x: np.ndarray, y: np.ndarray, seed: int = 1) -> Tuned:
    """Return a fitted MLPClassifier (or a pipeline that ends in one) with its int8 form.

    `x` int16 (windows, features) and `y` class indices are what it was trained on. Raises
    KindError naming a layer that quantises badly, or what its kind doesn't allow.
    """
    lines, mlp = unfold(model)
    if type(mlp).__name__ != "MLPClassifier":
        raise KindError(f"{type(mlp).__name__} is no MLPClassifier")
    if mlp.activation not in ACTIVATIONS and len(mlp.coefs_) > 1:
        raise KindError(f"MLPClassifier with activation = {mlp.activation!r} can't be converted: "
                        'its curve is a float function; take activation = "relu"')
    z = lines.transform(np.asarray(x, float))
    weights, biases = ([part.copy() for part in parts] for parts in (mlp.coefs_, mlp.intercepts_))
    if len(mlp.classes_) == 2:  # one logistic output, against nothing
        weights[-1] = np.hstack([np.zeros_like(weights[-1]), weights[-1]])
        biases[-1] = np.append(0.0, biases[-1])
    least = ACTIVATIONS.get(mlp.activation, 0)
    net = _Float(weights, biases, least, _bits(np.quantile(np.abs(z), 0.999)), [], [])
    net.choose_bits(z)
    _check_layers(net, z)
    _train(net, z, y, mlp.alpha, np.random.default_rng(seed))
    whole = _whole(net, lines)
    right, before = ((answer == y).mean() for answer in
                     (whole.answer(x).chosen, model.predict(np.asarray(x, float))))
    if right < before - LOSS:
        raise KindError(f"the network loses {100 * (before - right):.1f} points in int8, of "
                        f"{100 * before:.1f} % on its training windows: scale its features "
                        "(StandardScaler), or take wider layers or a forest")
    return Tuned(model, whole)


def _check_layers(net: _Float, z: np.ndarray) -> None:
    """Raise KindError if rounding a layer's weights drowns what half of its outputs say."""
    values = net.forward(z)
    for i, w in enumerate(net.weights):
        signal = (values[i] @ w).var(axis=0)
        noise = (values[i] @ (_rounded(w, net.weight_bits[i], -MOST) - w)).var(axis=0)
        kept = 10 * np.log10(float(np.median((signal + 1e-30) / (noise + 1e-30))))
        if kept < WORST_DB:
            raise KindError(
                f"layer {i + 1} ({w.shape[0]} → {w.shape[1]}) quantises badly: its largest "
                f"weight is {np.abs(w).max() / np.abs(w).mean():.0f} times the mean one, and in "
                f"int8 half of its sums keep {kept:.0f} dB or less, where {WORST_DB} are needed; "
                "scale its features (StandardScaler), or train with a larger alpha")


def _train(net: _Float, z: np.ndarray, y: np.ndarray, alpha: float, rng: np.random.Generator
           ) -> None:
    """Train further with Adam (Kingma and Ba, 2015), rounded; keep the best weights seen."""
    parts = [part for pair in zip(net.weights, net.biases, strict=True) for part in pair]
    first, second = ([np.zeros_like(part) for part in parts] for _ in range(2))
    step = 0
    best, kept = net.gradients(z, y, alpha)[1], [part.copy() for part in parts]
    for epoch in range(EPOCHS):
        rate = RATE * 0.5 * (1 + np.cos(np.pi * epoch / EPOCHS))
        order = rng.permutation(len(z))
        for at in range(0, len(z), BATCH):
            batch = order[at:at + BATCH]
            step += 1
            for i, gradient in enumerate(net.gradients(z[batch], y[batch], alpha)[0]):
                first[i] += 0.1 * (gradient - first[i])
                second[i] += 0.001 * (gradient**2 - second[i])
                mean = first[i] / (1 - 0.9**step)
                parts[i] -= rate * mean / (np.sqrt(second[i] / (1 - 0.999**step)) + 1e-8)
        net.choose_bits(z)
        loss = net.gradients(z, y, alpha)[1]
        if loss < best:
            best, kept = loss, [part.copy() for part in parts]
    for part, good in zip(parts, kept, strict=True):
        part[:] = good
    net.choose_bits(z)


def _whole(net: _Float, lines: Lines) -> Net:
    """Return the network in whole numbers."""
    center = -lines.offset / lines.gain
    scale = fold(lines.columns, center, lines.gain * 2.0**net.input_bits, MOST)
    layers = []
    for i, (w, b) in enumerate(zip(net.weights, net.biases, strict=True)):
        bits = net.value_bits[i] + net.weight_bits[i]
        last = i == len(net.weights) - 1
        shift = 0 if last else bits - net.value_bits[i + 1]
        half = (1 << shift) >> 1  # so that shifting rounds
        layers.append(Layer(
            np.clip(np.rint(w.T * 2.0 ** net.weight_bits[i]), -MOST, MOST).astype(np.int8),
            (np.rint(b * 2.0**bits) + half).astype(np.int32), shift))
    bits = net.value_bits[-1] + net.weight_bits[-1]
    return Net(scale, tuple(layers), net.least, max(bits - VOTE_BITS, 0),
               len(net.biases[-1]))
