"""Only the direction of the gradient counts; how large it is does not."""

# ruff: noqa: ARG001  every rule takes t, needed or not

from __future__ import annotations

from gradledger_server.kernels.operations import Value, maximum, minimum, sign, where
from gradledger_server.optim.hyperparameters import (
    Decay,
    Factor,
    FixedRate,
    Growth,
    NonNegative,
    Positive,
    Rate,
)


def signsgd(w: Value, g: Value, *, t: int, lr: Rate = 1e-3) -> tuple[Value]:
    """Descent by the gradient's sign. Bernstein et al. 2018, signSGD: Compressed Optimisation."""
    return (w - lr * sign(g),)


def signum(
    w: Value, g: Value, m: Value, *, t: int, lr: Rate = 1e-3, beta1: Decay = 0.9
) -> tuple[Value, Value]:
    """Descent by the sign of the mean gradient. Bernstein et al. 2018, signSGD, Algorithm 2."""
    m = beta1 * m + (1 - beta1) * g
    return w - lr * sign(m), m


def lion(
    w: Value,
    g: Value,
    m: Value,
    *,
    t: int,
    lr: Rate = 1e-4,
    beta1: Decay = 0.9,
    beta2: Decay = 0.99,
    weight_decay: NonNegative = 0.0,
) -> tuple[Value, Value]:
    """Lion, found by a program. Chen et al. 2023, Symbolic Discovery of Optimization Algorithms."""
    step = sign(beta1 * m + (1 - beta1) * g)
    return w - lr * (step + weight_decay * w), beta2 * m + (1 - beta2) * g


def rprop(
    w: Value,
    g: Value,
    h: Value,
    e: Value,
    *,
    t: int,
    lr: FixedRate = 1e-2,
    shrink: Factor = 0.5,
    grow: Growth = 1.2,
    min_step: Positive = 1e-6,
    max_step: Positive = 50.0,
) -> tuple[Value, Value, Value]:
    """Resilient propagation, for whole-batch gradients. Riedmiller & Braun 1993, The RPROP Algorithm."""
    agreement = g * h
    e = where(t > 1, e, lr)
    e = where(agreement > 0, e * grow, where(agreement < 0, e * shrink, e))
    e = minimum(maximum(e, min_step), max_step)
    g = where(agreement < 0, 0.0, g)  # after a jump over the valley: no step, and no opinion next time
    return w - sign(g) * e, g, e
