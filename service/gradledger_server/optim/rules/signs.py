"""Only the direction of the gradient counts; how large it is does not."""

# ruff: noqa: ARG001  every rule takes t, needed or not

from __future__ import annotations

from gradledger_server.kernels.operations import Value, maximum, minimum, sign, where
from gradledger_server.optim.hyperparameters import (
    Decay,
    Enlargement,
    Factor,
    FixedRate,
    NonNegative,
    Positive,
    Rate,
)


def signsgd(w: Value, g: Value, *, t: int, lr: Rate = 1e-3) -> tuple[Value]:
    """Descent by the gradient's sign. Bernstein et al. 2018, signSGD: Compressed Optimisation.

    Use: when only signs are sent, or gradients differ wildly in size: every element moves by `lr`. Without a
    decaying schedule it ends in a jitter of `lr` around the minimum.

    Rows: lazy equals dense: the sign of nothing is nothing.
    """
    return (w - lr * sign(g),)


def signum(
    w: Value, g: Value, m: Value, *, t: int, lr: Rate = 1e-3, beta1: Decay = 0.9
) -> tuple[Value, Value]:
    """Descent by the sign of the mean gradient. Bernstein et al. 2018, signSGD, Algorithm 2.

    Use: like signsgd with noisy gradients: the sign is taken of a running mean, so noise is voted down first.

    Rows: lazy differs from dense: the mean of a row that gets no gradient keeps its sign, and the row would
    go on moving at full speed.
    """
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
    """Lion, found by a program. Chen et al. 2023, Symbolic Discovery of Optimization Algorithms.

    Use: large models and large batches with half of Adam's state. Every element moves by `lr` exactly, so use
    a `lr` three to ten times smaller than with AdamW and a `weight_decay` as much larger.

    Rows: lazy differs from dense: the mean of a row that gets no gradient keeps its sign, and the row would
    go on moving at full speed.
    """
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
    grow: Enlargement = 1.2,
    min_step: Positive = 1e-6,
    max_step: Positive = 50.0,
) -> tuple[Value, Value, Value]:
    """Resilient propagation, for whole-batch gradients. Riedmiller & Braun 1993, The RPROP Algorithm.

    Use: full batches only, of small problems: the step adapts to how long the sign stays. With mini-batches
    the signs flip by chance and the steps collapse.

    Rows: lazy differs from dense: a zero gradient is remembered as the previous one.
    """
    agreement = g * h
    e = where(t > 1, e, lr)
    e = where(agreement > 0, e * grow, where(agreement < 0, e * shrink, e))
    e = minimum(maximum(e, min_step), max_step)
    g = where(agreement < 0, 0.0, g)  # after a jump over the valley: no step, and no opinion next time
    return w - sign(g) * e, g, e
