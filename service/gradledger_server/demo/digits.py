"""The handwritten digits that scikit-learn brings along, and a small network that learns to read them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Labels = NDArray[np.int64]

HIDDEN = 64
TEST_SHARE = 0.2


@dataclass(frozen=True, slots=True)
class Images:
    """`x` float32 (images, 64) in 0 … 1, `y` int64 (images,) in 0 … 9."""

    x: Floats
    y: Labels

    def every(self, nth: int, first: int) -> Images:
        """The share of worker `first` of `nth`."""
        return Images(self.x[first::nth], self.y[first::nth])


def load() -> tuple[Images, Images]:
    """1438 images to train on and 359 to test with, always the same ones."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    x, y = (pixels[order] / 16).astype(np.float32), labels[order].astype(np.int64)
    split = round(len(y) * TEST_SHARE)
    return Images(x[split:], y[split:]), Images(x[:split], y[:split])


def initial(seed: int = 0) -> dict[str, Floats]:
    """A network 64 → HIDDEN → 10 with He's initial weights (He et al. 2015) and biases of zero."""
    draw = np.random.default_rng(seed)
    return {
        "hidden.weight": (draw.standard_normal((64, HIDDEN)) * np.sqrt(2 / 64)).astype(np.float32),
        "hidden.bias": np.zeros(HIDDEN, np.float32),
        "output.weight": (draw.standard_normal((HIDDEN, 10)) * np.sqrt(2 / HIDDEN)).astype(np.float32),
        "output.bias": np.zeros(10, np.float32),
    }


def gradient(params: dict[str, NDArray[Any]], batch: Images) -> tuple[float, dict[str, NDArray[Any]]]:
    """The mean cross-entropy of the batch and its gradient by each parameter."""
    hidden, logits = _forward(params, batch.x)
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    rows = np.arange(len(batch.y))
    loss = -float(log_p[rows, batch.y].mean())

    at_output = np.exp(log_p)
    at_output[rows, batch.y] -= 1
    at_output /= len(batch.y)
    at_hidden = (at_output @ params["output.weight"].T) * (hidden > 0)
    return loss, {
        "hidden.weight": batch.x.T @ at_hidden,
        "hidden.bias": at_hidden.sum(axis=0),
        "output.weight": hidden.T @ at_output,
        "output.bias": at_output.sum(axis=0),
    }


def accuracy(params: dict[str, NDArray[Any]], images: Images) -> float:
    """The share of images read right."""
    return float((_forward(params, images.x)[1].argmax(axis=1) == images.y).mean())


def _forward(params: dict[str, NDArray[Any]], x: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    hidden = np.maximum(x @ params["hidden.weight"] + params["hidden.bias"], 0)
    return hidden, hidden @ params["output.weight"] + params["output.bias"]
