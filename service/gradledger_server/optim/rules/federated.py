"""Whole training runs as gradients: g is the server's weights minus the mean of the clients' (FedOpt).

As published nothing here is bias-corrected, and eps is the papers' tau.
"""

# ruff: noqa: ARG001  every rule takes t, needed or not

from __future__ import annotations

from gradledger_server.kernels.operations import Value, sign, sqrt
from gradledger_server.optim.hyperparameters import Decay, Positive, Rate, SmallAccumulator


def fedadagrad(
    w: Value,
    g: Value,
    m: Value,
    v: SmallAccumulator,
    *,
    t: int,
    lr: Rate = 1e-1,
    beta1: Decay = 0.0,
    eps: Positive = 1e-3,
) -> tuple[Value, Value, Value]:
    """Adagrad over clients. Reddi et al. 2020, Adaptive Federated Optimization, Algorithm 2.

    Use: the server's step when clients train on their own and send differences: adaptive where few clients
    touch a weight. Its steps only ever shrink.

    Rows: lazy differs from dense: the mean of a row that gets no difference would decay, and the row would go
    on moving for a while.
    """
    m = beta1 * m + (1 - beta1) * g
    v = v + g * g
    return w - lr * m / (sqrt(v) + eps), m, v


def fedadam(
    w: Value,
    g: Value,
    m: Value,
    v: SmallAccumulator,
    *,
    t: int,
    lr: Rate = 1e-1,
    beta1: Decay = 0.9,
    beta2: Decay = 0.99,
    eps: Positive = 1e-3,
) -> tuple[Value, Value, Value]:
    """Adam over clients. Reddi et al. 2020, Adaptive Federated Optimization, Algorithm 2.

    Use: the server's step when clients train on their own and send differences; a good default for federated
    averaging that converges slowly. No bias correction; tune `lr` together with `eps`.

    Rows: lazy differs from dense: both means of a row that gets no difference would decay, and the row would
    go on moving for a while.
    """
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g * g
    return w - lr * m / (sqrt(v) + eps), m, v


def fedyogi(
    w: Value,
    g: Value,
    m: Value,
    v: SmallAccumulator,
    *,
    t: int,
    lr: Rate = 1e-2,
    beta1: Decay = 0.9,
    beta2: Decay = 0.99,
    eps: Positive = 1e-3,
) -> tuple[Value, Value, Value]:
    """Yogi over clients. Reddi et al. 2020, Adaptive Federated Optimization, Algorithm 2.

    Use: like fedadam where few clients take part in a round, or differ much: the denominator changes by a
    bounded amount per round.

    Rows: lazy differs from dense: the mean of a row that gets no difference would decay, and the row would go
    on moving for a while.
    """
    square = g * g
    m = beta1 * m + (1 - beta1) * g
    v = v - (1 - beta2) * sign(v - square) * square
    return w - lr * m / (sqrt(v) + eps), m, v
