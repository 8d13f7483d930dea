"""Each weight has a learning rate of its own: small where gradients have been large."""

# ruff: noqa: ARG001  every rule takes t, needed or not

from __future__ import annotations

from typing import Annotated, Literal

from gradledger_server.kernels.operations import Value, maximum, minimum, sign, sqrt, where
from gradledger_server.optim.hyperparameters import (
    Accumulator,
    Decay,
    FixedRate,
    NonNegative,
    Positive,
    PositiveAccumulator,
    Rate,
    When,
)


def adagrad(
    w: Value,
    g: Value,
    v: Accumulator,
    *,
    t: int,
    lr: Rate = 1e-2,
    lr_decay: NonNegative = 0.0,
    eps: NonNegative = 1e-10,
    eps_root: NonNegative = 0.0,
) -> tuple[Value, Value]:
    """Adagrad. Duchi, Hazan & Singer 2011, Adaptive Subgradient Methods, Algorithm 1 (diagonal).

    Use: sparse features and embedding tables: rare rows keep a large step. Its steps only ever shrink, so a
    long dense training comes to a halt.

    Rows: lazy equals dense: the sum of squares grows only where a gradient is.
    """
    v = v + g * g
    rate = lr / (1 + (t - 1) * lr_decay)
    return w - rate * g / (sqrt(v + eps_root) + eps), v


def rmsprop(
    w: Value,
    g: Value,
    v: Accumulator,
    m: Annotated[Value, When("centered")],
    u: Annotated[Value, When("momentum")],
    *,
    t: int,
    lr: Rate = 1e-2,
    rho: Decay = 0.99,
    momentum: Decay = 0.0,
    centered: bool = False,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    lr_in_velocity: bool = False,
) -> tuple[Value, Value, Value, Value]:
    """RMSProp. Tieleman & Hinton 2012, lecture 6.5; centered and with momentum: Graves 2013, eq. 38-45.

    A variance that rounding made negative counts as 0.

    Use: objectives that change while they are learned, such as in reinforcement learning, and recurrent
    networks. There is no bias correction: the first steps are up to 1/sqrt(1 - rho) times `lr`.

    Rows: lazy differs from dense: the mean of squares of a row that gets no gradient would decay, and its
    next step be larger.
    """
    before, after = (lr, 1.0) if lr_in_velocity else (1.0, lr)
    v = rho * v + (1 - rho) * g * g
    m = rho * m + (1 - rho) * g
    spread = maximum(v - m * m, 0.0) if centered else v
    u = momentum * u + before * g / (sqrt(spread + eps_root) + eps)
    return w - after * u, v, m, u


def adadelta(
    w: Value,
    g: Value,
    v: Value,
    d: Value,
    *,
    t: int,
    lr: Rate = 1.0,
    rho: Decay = 0.9,
    eps_root: Positive = 1e-6,
) -> tuple[Value, Value, Value]:
    """Adadelta. Zeiler 2012, ADADELTA: An Adaptive Learning Rate Method, Algorithm 1.

    Use: when no learning rate can be tuned: the step takes its unit from earlier steps. It starts slowly,
    with steps of the size of sqrt(eps_root), and is seldom the fastest.

    Rows: lazy differs from dense: both means of a row that gets no gradient would decay.
    """
    v = rho * v + (1 - rho) * g * g
    change = sqrt(d + eps_root) / sqrt(v + eps_root) * g
    d = rho * d + (1 - rho) * change * change
    return w - lr * change, v, d


def ftrl(
    w: Value,
    g: Value,
    v: PositiveAccumulator,
    z: Value,
    *,
    t: int,
    lr: FixedRate = 1e-3,
    beta: NonNegative = 0.0,
    l1: NonNegative = 0.0,
    l2: NonNegative = 0.0,
    l2_shrinkage: NonNegative = 0.0,
    start: Literal["weights", "zero"] = "weights",
) -> tuple[Value, Value, Value]:
    """FTRL-Proximal. McMahan et al. 2013, Ad Click Prediction: a View from the Trenches, Algorithm 1.

    The weight is computed anew from z at every update. So that training starts from the weights given, z
    starts from what those weights would have been computed from, and where nothing is added to z the weight
    keeps its bits. Parameters uploaded in mid-training are not in z, and last until their next gradient.

    Use: large linear models on sparse features, such as click prediction: with `l1` it sets weights to
    exactly zero. Weights are recomputed from its slots, so it is not for continuing a network trained
    otherwise.

    Rows: lazy equals dense once a row has been touched: a weight is a function of the slots, and without a
    gradient these stay.
    """
    squares = v + g * g
    if start == "weights":
        z = where(t > 1, z, -w * ((beta + sqrt(v)) / lr + l2) - l1 * sign(w))
    added = g + 2 * l2_shrinkage * w - (sqrt(squares) - sqrt(v)) / lr * w
    z = z + added
    beyond = z - minimum(maximum(z, -l1), l1)
    computed = -beyond / ((beta + sqrt(squares)) / lr + l2)
    return where(abs(added) <= 0, w, computed) if start == "weights" else computed, squares, z
