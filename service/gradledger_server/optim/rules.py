"""The update rules: each is its equation.

By position: the weight, the gradient, then the slots. By keyword: `t` (the updates of this tensor including
this one; the first has t = 1), `lr`, then hyperparameters with default and range. A rule returns the new
weight, then the new slots. The signature is the specification; catalogue, JSON Schema and snapshots follow
from it.

One letter, one meaning: u velocity, m mean of g, v mean or sum of g², d mean of Δw². Defaults are
PyTorch's. `eps` stands outside a root, `eps_root` inside. The order of operations is part of a rule:
another order, other last bits.
"""

# ruff: noqa: ARG001  every rule takes t, needed or not

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from gradledger_server.kernels.operations import Value, sqrt
from gradledger_server.optim.hyperparameters import Accumulator, Decay, Fraction, NonNegative, Positive, Rate


def sgd(w: Value, g: Value, *, t: int, lr: Rate = 1e-3) -> tuple[Value]:
    """Stochastic gradient descent. Robbins & Monro 1951, A Stochastic Approximation Method.

    Use: the plainest step and no memory: when gradients are averaged over many workers or examples, or when
    you want to see what everything else improves on. Needs a learning rate that fits the curvature.

    Rows: lazy equals dense: without a gradient nothing moves.
    """
    return (w - lr * g,)


def momentum(
    w: Value,
    g: Value,
    u: Value,
    *,
    t: int,
    lr: Rate = 1e-3,
    momentum: Decay = 0.9,
    dampening: Fraction = 0.0,
    first_step: Literal["copy", "ema"] = "copy",
) -> tuple[Value, Value]:
    """Heavy-ball momentum. Polyak 1964, Some methods of speeding up the convergence of iteration methods.

    Use: networks trained with a tuned schedule, convolutional ones above all, and valleys with steep walls.
    Raising `momentum` lengthens the step by 1/(1 - momentum), so lower `lr` with it.

    Rows: lazy differs from dense: the velocity of a row that gets no gradient would roll on and decay.
    """
    damped = dampening if first_step == "ema" else dampening * (t > 1)
    u = momentum * u + (1 - damped) * g
    return w - lr * u, u


def nesterov(
    w: Value,
    g: Value,
    u: Value,
    *,
    t: int,
    lr: Rate = 1e-3,
    momentum: Decay = 0.9,
) -> tuple[Value, Value]:
    """Nesterov momentum, seen from the look-ahead point. Sutskever et al. 2013, section 2.

    Use: where momentum is used and overshoots: it brakes a step earlier. Also the outer step of workers that
    train on their own for a while and send the difference.

    Rows: lazy differs from dense: the velocity of a row that gets no gradient would roll on and decay.
    """
    u = momentum * u + g
    return w - lr * (g + momentum * u), u


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
    v: Value,
    *,
    t: int,
    lr: Rate = 1e-2,
    rho: Decay = 0.99,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
) -> tuple[Value, Value]:
    """RMSProp. Tieleman & Hinton 2012, Neural Networks for Machine Learning, lecture 6.5.

    Use: objectives that change while they are learned, such as in reinforcement learning, and recurrent
    networks. There is no bias correction: the first steps are up to 1/sqrt(1 - rho) times `lr`.

    Rows: lazy differs from dense: the mean of squares of a row that gets no gradient would decay, and its
    next step be larger.
    """
    v = rho * v + (1 - rho) * g * g
    return w - lr * g / (sqrt(v + eps_root) + eps), v


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


def adam(
    w: Value,
    g: Value,
    m: Value,
    v: Value,
    *,
    t: int,
    lr: Rate = 1e-3,
    beta1: Decay = 0.9,
    beta2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
) -> tuple[Value, Value, Value]:
    """Adam. Kingma & Ba 2015, Adam: A Method for Stochastic Optimization, Algorithm 1.

    Use: the safe first choice: steps of about `lr` whatever the gradient's scale. For regularised networks
    prefer adamw; for images a tuned momentum often generalises better.

    Rows: lazy differs from dense: both means of a row that gets no gradient would decay, and the row would go
    on moving for a while.
    """
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g * g
    m_hat = m / (1 - beta1**t)
    v_hat = v / (1 - beta2**t)
    return w - lr * m_hat / (sqrt(v_hat + eps_root) + eps), m, v


def adamw(
    w: Value,
    g: Value,
    m: Value,
    v: Value,
    *,
    t: int,
    lr: Rate = 1e-3,
    beta1: Decay = 0.9,
    beta2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    weight_decay: NonNegative = 1e-2,
) -> tuple[Value, Value, Value]:
    """Adam with decoupled weight decay. Loshchilov & Hutter 2019, Decoupled Weight Decay, Algorithm 2.

    Use: transformers, and whenever Adam meets weight decay: the decay is not divided by the gradient's size,
    so `lr` and `weight_decay` can be tuned apart.

    Rows: lazy differs from dense: both means of a row that gets no gradient would decay, and its weights
    shrink.
    """
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g * g
    m_hat = m / (1 - beta1**t)
    v_hat = v / (1 - beta2**t)
    return w - lr * (m_hat / (sqrt(v_hat + eps_root) + eps) + weight_decay * w), m, v


RULES: dict[str, Callable[..., tuple[Value, ...]]] = {
    rule.__name__: rule for rule in (sgd, momentum, nesterov, adagrad, rmsprop, adadelta, adam, adamw)
}

VIEWS: dict[str, dict[str, Callable[..., Value]]] = {}
"""Other readings of a rule's weights: rule → view → function of `w`, the slots it names, and by keyword the
hyperparameters it names. Written with the operations rules are written with, so a view can be traced too."""
