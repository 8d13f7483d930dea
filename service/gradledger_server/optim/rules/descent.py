"""Down the gradient, with or without the speed gathered on the way."""

# ruff: noqa: ARG001  every rule takes t, needed or not

from __future__ import annotations

from typing import Literal

from gradledger_server.kernels.operations import Value
from gradledger_server.optim.hyperparameters import Decay, Fraction, Rate


def sgd(w: Value, g: Value, *, t: int, lr: Rate = 1e-3) -> tuple[Value]:
    """Stochastic gradient descent. Robbins & Monro 1951, A Stochastic Approximation Method."""
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
    lr_in_buffer: bool = False,
) -> tuple[Value, Value]:
    """Heavy-ball momentum. Polyak 1964, Some methods of speeding up the convergence of iteration methods."""
    before, after = (lr, 1.0) if lr_in_buffer else (1.0, lr)
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
    lr_in_buffer: bool = False,
) -> tuple[Value, Value]:
    """Nesterov momentum, seen from the look-ahead point. Sutskever et al. 2013, section 2."""
    before, after = (lr, 1.0) if lr_in_buffer else (1.0, lr)
    step = before * g
    u = momentum * u + step
    return w - after * (step + momentum * u), u
