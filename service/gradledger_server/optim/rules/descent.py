"""Down the gradient, with or without the speed gathered on the way."""

# ruff: noqa: ARG001  every rule takes t, needed or not

from __future__ import annotations

from typing import Literal

from gradledger_server.kernels.operations import Value
from gradledger_server.optim.hyperparameters import Decay, Fraction, Rate


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
    lr_in_velocity: bool = False,
) -> tuple[Value, Value]:
    """Heavy-ball momentum. Polyak 1964, Some methods of speeding up the convergence of iteration methods.

    Use: networks trained with a tuned schedule, convolutional ones above all, and valleys with steep walls.
    Raising `momentum` lengthens the step by 1/(1 - momentum), so lower `lr` with it.

    Rows: lazy differs from dense: the velocity of a row that gets no gradient would roll on and decay.
    """
    before, after = (lr, 1.0) if lr_in_velocity else (1.0, lr)
    damped = dampening if first_step == "ema" else dampening * (t > 1)
    u = momentum * u + (1 - damped) * (before * g)
    return w - after * u, u


def nesterov(
    w: Value,
    g: Value,
    u: Value,
    *,
    t: int,
    lr: Rate = 1e-3,
    momentum: Decay = 0.9,
    lr_in_velocity: bool = False,
) -> tuple[Value, Value]:
    """Nesterov momentum, seen from the look-ahead point. Sutskever et al. 2013, section 2.

    Use: where momentum is used and overshoots: it brakes a step earlier. Also the outer step of workers that
    train on their own for a while and send the difference.

    Rows: lazy differs from dense: the velocity of a row that gets no gradient would roll on and decay.
    """
    before, after = (lr, 1.0) if lr_in_velocity else (1.0, lr)
    step = before * g
    u = momentum * u + step
    return w - after * (step + momentum * u), u
