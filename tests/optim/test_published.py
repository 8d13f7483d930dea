"""Rules and presets no installable library can vouch for: TensorFlow 1, Caffe, and papers' own equations.

Each is written here as published, one plain float64 step at a time, with a learning rate that changes.
"""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from typing import Any

import numpy as np
import pytest

from gradledger_server.kernels.device import open_device
from gradledger_server.optim import catalog, chain

Slots = dict[str, float]
Step = Callable[[float, float, Slots, int, float], float]

STEPS = 30
DEVICE = open_device("cpu", compiled=False)


def sgn(x: float) -> float:
    return float((x > 0) - (x < 0))


def tf1_adagrad(w: float, g: float, n: Slots, t: int, lr: float) -> float:
    n["acc"] = n.get("acc", 0.1) + g * g
    return w - lr * g / sqrt(n["acc"])


def tf1_rmsprop_centered(w: float, g: float, n: Slots, t: int, lr: float) -> float:
    n["ms"] = n.get("ms", 1.0) + (g * g - n.get("ms", 1.0)) * (1 - 0.9)
    n["mg"] = n.get("mg", 0.0) + (g - n.get("mg", 0.0)) * (1 - 0.9)
    n["mom"] = 0.7 * n.get("mom", 0.0) + lr * g / sqrt(n["ms"] - n["mg"] ** 2 + 1e-10)
    return w - n["mom"]


def tf1_adadelta(w: float, g: float, n: Slots, t: int, lr: float) -> float:
    n["acc"] = 0.95 * n.get("acc", 0.0) + 0.05 * g * g
    update = sqrt(n.get("up", 0.0) + 1e-8) / sqrt(n["acc"] + 1e-8) * g
    n["up"] = 0.95 * n.get("up", 0.0) + 0.05 * update * update
    return w - lr * update


def tf1_adam(w: float, g: float, n: Slots, t: int, lr: float, nesterov: bool = False) -> float:
    n["m"] = 0.9 * n.get("m", 0.0) + 0.1 * g
    n["v"] = 0.999 * n.get("v", 0.0) + 0.001 * g * g
    alpha = lr * sqrt(1 - 0.999**t) / (1 - 0.9**t)
    return w - alpha * (0.9 * n["m"] + 0.1 * g if nesterov else n["m"]) / (sqrt(n["v"]) + 1e-8)


def tf1_nadam(w: float, g: float, n: Slots, t: int, lr: float) -> float:
    return tf1_adam(w, g, n, t, lr, nesterov=True)


def tf1_adamax(w: float, g: float, n: Slots, t: int, lr: float) -> float:
    n["m"] = 0.9 * n.get("m", 0.0) + 0.1 * g
    n["u"] = max(0.999 * n.get("u", 0.0), abs(g))
    return w - lr / (1 - 0.9**t) * n["m"] / (n["u"] + 1e-8)


def caffe_momentum(w: float, g: float, n: Slots, t: int, lr: float) -> float:
    n["h"] = 0.9 * n.get("h", 0.0) + lr * g
    return w - n["h"]


def caffe_nesterov(w: float, g: float, n: Slots, t: int, lr: float) -> float:
    before = n.get("h", 0.0)
    n["h"] = 0.9 * before + lr * g
    return w - ((1 + 0.9) * n["h"] - 0.9 * before)


def caffe_adagrad(w: float, g: float, n: Slots, t: int, lr: float) -> float:
    n["h"] = n.get("h", 0.0) + g * g
    return w - lr * g / (sqrt(n["h"]) + 1e-8)


def caffe_rmsprop(w: float, g: float, n: Slots, t: int, lr: float) -> float:
    n["h"] = 0.99 * n.get("h", 0.0) + 0.01 * g * g
    return w - lr * g / (sqrt(n["h"]) + 1e-8)


def caffe_adadelta(w: float, g: float, n: Slots, t: int, lr: float) -> float:
    n["h"] = 0.9 * n.get("h", 0.0) + 0.1 * g * g
    update = g * sqrt((n.get("h2", 0.0) + 1e-8) / (n["h"] + 1e-8))
    n["h2"] = 0.9 * n.get("h2", 0.0) + 0.1 * update * update
    return w - lr * update


def caffe_adam(w: float, g: float, n: Slots, t: int, lr: float) -> float:
    """With the solver's `momentum` left at its 0, beta1 is 0."""
    n["v"] = 0.999 * n.get("v", 0.0) + 0.001 * g * g
    return w - lr * sqrt(1 - 0.999**t) * g / (sqrt(n["v"]) + 1e-8)


def paper_amsgrad(w: float, g: float, n: Slots, t: int, lr: float) -> float:
    n["m"] = 0.9 * n.get("m", 0.0) + 0.1 * g
    n["v"] = 0.999 * n.get("v", 0.0) + 0.001 * g * g
    n["max"] = max(n.get("max", 0.0), n["v"])
    return w - lr * n["m"] / sqrt(n["max"])


def paper_adamax(w: float, g: float, n: Slots, t: int, lr: float) -> float:
    n["m"] = 0.9 * n.get("m", 0.0) + 0.1 * g
    n["u"] = max(0.999 * n.get("u", 0.0), abs(g))
    return w - lr / (1 - 0.9**t) * n["m"] / n["u"]


def paper_adamw(w: float, g: float, n: Slots, t: int, lr: float) -> float:
    """eta (alpha m/(sqrt(v) + eps) + lambda w) where the schedule eta is 1 at first and alpha is 0.05."""
    n["m"] = 0.9 * n.get("m", 0.0) + 0.1 * g
    n["v"] = 0.999 * n.get("v", 0.0) + 0.001 * g * g
    m, v, eta = n["m"] / (1 - 0.9**t), n["v"] / (1 - 0.999**t), lr / 0.05
    return w - eta * (0.05 * m / (sqrt(v) + 1e-8) + 0.02 * w)


def paper_radam(w: float, g: float, n: Slots, t: int, lr: float) -> float:
    n["m"] = 0.9 * n.get("m", 0.0) + 0.1 * g
    n["v"] = 0.9 * n.get("v", 0.0) + 0.1 * g * g
    m, most = n["m"] / (1 - 0.9**t), 2 / (1 - 0.9) - 1
    rho = most - 2 * t * 0.9**t / (1 - 0.9**t)
    if rho <= 4:
        return w - lr * m
    r = sqrt((rho - 4) * (rho - 2) * most / ((most - 4) * (most - 2) * rho))
    return w - lr * r * m * sqrt(1 - 0.9**t) / (sqrt(n["v"]) + 1e-8)


def paper_adan(w: float, g: float, n: Slots, t: int, lr: float) -> float:
    """The paper's betas mix: 0.02, 0.08 and 0.01, one minus the decays."""
    change = g - n["g"] if t > 1 else 0.0
    n["g"] = g
    n["m"] = 0.98 * n.get("m", 0.0) + 0.02 * g
    n["v"] = 0.92 * n.get("v", 0.0) + 0.08 * change
    n["n"] = 0.99 * n.get("n", 0.0) + 0.01 * (g + 0.92 * change) ** 2
    m, v, s = n["m"] / (1 - 0.98**t), n["v"] / (1 - 0.92**t), n["n"] / (1 - 0.99**t)
    return (w - lr * (m + 0.92 * v) / (sqrt(s) + 1e-8)) / (1 + lr * 0.1)


def paper_yogi(w: float, g: float, n: Slots, t: int, lr: float) -> float:
    v = n.get("v", 1e-6)
    n["m"] = 0.9 * n.get("m", 0.0) + 0.1 * g
    n["v"] = v - 0.001 * sgn(v - g * g) * g * g
    return w - lr * n["m"] / (1 - 0.9**t) / (sqrt(n["v"] / (1 - 0.999**t)) + 1e-3)


def fed(square: Callable[[float, float], float], beta1: float) -> Step:
    """The server's step for g = -Delta: no bias correction, tau = 1e-3 outside the root, v from tau²."""

    def step(w: float, g: float, n: Slots, t: int, lr: float) -> float:
        n["m"] = beta1 * n.get("m", 0.0) + (1 - beta1) * -g
        n["v"] = square(n.get("v", 1e-6), g * g)
        return w + lr * n["m"] / (sqrt(n["v"]) + 1e-3)

    return step


CASES: list[tuple[dict[str, Any], Step]] = [
    ({"rule": "adagrad", "preset": "tf1"}, tf1_adagrad),
    ({"rule": "rmsprop", "preset": "tf1", "momentum": 0.7, "centered": True}, tf1_rmsprop_centered),
    ({"rule": "adadelta", "preset": "tf1"}, tf1_adadelta),
    ({"rule": "adam", "preset": "tf1"}, tf1_adam),
    ({"rule": "nadam", "preset": "tf1"}, tf1_nadam),
    ({"rule": "adamax", "preset": "tf1"}, tf1_adamax),
    ({"rule": "momentum", "preset": "caffe"}, caffe_momentum),
    ({"rule": "nesterov", "preset": "caffe"}, caffe_nesterov),
    ({"rule": "adagrad", "preset": "caffe"}, caffe_adagrad),
    ({"rule": "rmsprop", "preset": "caffe"}, caffe_rmsprop),
    ({"rule": "adadelta", "preset": "caffe"}, caffe_adadelta),
    ({"rule": "adam", "preset": "caffe"}, caffe_adam),
    ({"rule": "amsgrad", "preset": "paper"}, paper_amsgrad),
    ({"rule": "adamax", "preset": "paper"}, paper_adamax),
    ({"rule": "adamw", "preset": "paper", "weight_decay": 0.02}, paper_adamw),
    ({"rule": "radam", "preset": "paper", "beta2": 0.9}, paper_radam),
    ({"rule": "adan", "preset": "paper", "weight_decay": 0.1}, paper_adan),
    ({"rule": "yogi", "preset": "paper"}, paper_yogi),
    ({"rule": "fedadagrad", "preset": "paper", "beta1": 0.5}, fed(lambda v, d: v + d, 0.5)),
    ({"rule": "fedadam", "preset": "paper"}, fed(lambda v, d: 0.99 * v + 0.01 * d, 0.9)),
    ({"rule": "fedyogi", "preset": "paper"}, fed(lambda v, d: v - 0.01 * d * sgn(v - d), 0.9)),
]


@pytest.mark.parametrize(
    ("given", "step"), CASES, ids=lambda x: f"{x['preset']} {x['rule']}" if isinstance(x, dict) else ""
)
def test_a_preset_is_the_published_step(given: dict[str, Any], step: Step) -> None:
    optimizer = catalog.expand_optimizer({**given, "lr": 0.05}, where="optimizer")
    kernel = DEVICE.kernel(chain.program(optimizer), np.float64)
    slots = [np.array([start]) for start in catalog.slot_starts(optimizer).values()]
    w, published, theirs = np.array([0.7]), 0.7, Slots()
    generator = np.random.default_rng(11)
    for t in range(1, STEPS + 1):
        g, lr = float(generator.standard_normal() * 10.0 ** generator.integers(-3, 2)), 0.05 * 0.9**t * 2
        kernel(w, w, np.array([g]), slots, chain.scalars(optimizer, t=t, lr=lr))
        published = step(published, g, theirs, t, lr)
        assert w[0] == pytest.approx(published, rel=1e-12), t


FTRL = {"rule": "ftrl", "lr": 0.1, "l1": 0.05, "l2": 0.2, "beta": 0.3}


def ftrl_run(given: dict[str, Any], start: float, gradients: list[float]) -> list[float]:
    optimizer = catalog.expand_optimizer(given, where="optimizer")
    kernel = DEVICE.kernel(chain.program(optimizer), np.float64)
    slots = [np.array([value]) for value in catalog.slot_starts(optimizer).values()]
    w, taken = np.array([start]), []
    for t, g in enumerate(gradients, start=1):
        kernel(w, w, np.array([g]), slots, chain.scalars(optimizer, t=t, lr=0.1))
        taken.append(float(w[0]))
    return taken


def test_ftrl_keeps_the_weights_it_is_given_and_tensorflows_does_not() -> None:
    assert ftrl_run(FTRL, 0.8, [0.0, 0.0]) == [0.8, 0.8]
    assert ftrl_run({**FTRL, "preset": "tf1"}, 0.8, [0.0, 0.0]) == [0.0, 0.0]


def test_ftrl_is_mcmahans_from_zero() -> None:
    """Algorithm 1: sigma, z, n, and the weight from z alone; from w = 0 both ways to start agree with it."""
    z, n, w, published = 0.0, 0.1, 0.0, []
    gradients = [0.3, -0.02, 1.5, 0.0, -2.0, 0.01, 0.4, -0.1] * 3
    for g in gradients:
        sigma = (sqrt(n + g * g) - sqrt(n)) / 0.1
        z, n = z + g - sigma * w, n + g * g
        w = 0.0 if abs(z) <= 0.05 else -(z - sgn(z) * 0.05) / ((0.3 + sqrt(n)) / 0.1 + 0.2)
        published.append(w)
    assert ftrl_run(FTRL, 0.0, gradients) == pytest.approx(published, rel=1e-12)
    assert ftrl_run({**FTRL, "start": "zero"}, 0.0, gradients) == pytest.approx(published, rel=1e-12)


def test_ftrl_goes_on_from_the_weights_as_adagrad_would() -> None:
    """Without penalties z stands for the weight exactly, so both take the same steps from the same start."""
    gradients = [0.3, -0.02, 1.5, 0.0, -2.0, 0.01, 0.4, -0.1] * 3
    adagrad = {"rule": "adagrad", "preset": "tf1", "lr": 0.1}
    taken = ftrl_run({"rule": "ftrl", "lr": 0.1}, 0.8, gradients)
    assert taken == pytest.approx(ftrl_run(adagrad, 0.8, gradients), rel=1e-12)


def test_kerass_nadam_is_torchs_with_another_decay_and_optaxs_has_none() -> None:
    """One equation, and a number for each library that is held against it elsewhere."""
    decays = {
        preset: catalog.expand_optimizer({"rule": "nadam", "preset": preset}, where="o")
        for preset in ("torch", "keras", "optax", "tf1")
    }
    assert [decays[name]["momentum_decay"] for name in ("torch", "keras")] == [4e-3, 1.0]
    assert [decays[name]["momentum_form"] for name in ("optax", "tf1")] == ["constant", "tf"]
