"""Rules that scale a tensor's update by norms over the whole tensor: one learning rate per layer.

They are traced like any other; `norm` parts them into stages. Everything said in `rules.py` holds. r is the
update before it is scaled.
"""

# ruff: noqa: ARG001  every rule takes t, needed or not

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from gradledger_server.kernels.operations import Value, sqrt
from gradledger_server.kernels.whole import norm, trust_ratio
from gradledger_server.optim.hyperparameters import Decay, NonNegative, Positive, Rate


def lars(
    w: Value,
    g: Value,
    u: Value,
    *,
    t: int,
    lr: Rate = 0.1,
    momentum: Decay = 0.9,
    trust: Positive = 1e-3,
    trust_norm: Literal["parts", "sum"] = "parts",
    lr_in_velocity: bool = True,
    trust_eps: NonNegative = 0.0,
    weight_decay: NonNegative = 0.0,
) -> tuple[Value, Value]:
    """LARS: momentum with a learning rate per layer. You, Gitman & Ginsburg 2017, Large Batch Training.

    Use: convolutional networks with very large batches: each tensor's step is proportional to its own norm.
    Leave biases and normalisation parameters to momentum, in a group.

    Rows: dense only: the step depends on the norm of the whole tensor.
    """
    r = g + weight_decay * w
    if trust_norm == "sum":
        ratio = trust_ratio(norm(w), norm(r), times=trust, plus=trust_eps)
    else:
        ratio = trust_ratio(norm(w), norm(g), times=trust, plus=weight_decay * norm(w) + trust_eps)
    if lr_in_velocity:
        u = momentum * u + lr * ratio * r
        return w - u, u
    u = momentum * u + ratio * r
    return w - lr * u, u


def lamb(
    w: Value,
    g: Value,
    m: Value,
    v: Value,
    *,
    t: int,
    lr: Rate = 1e-3,
    beta1: Decay = 0.9,
    beta2: Decay = 0.999,
    eps: NonNegative = 1e-6,
    eps_root: NonNegative = 0.0,
    bias_correction: bool = True,
    weight_decay: NonNegative = 0.0,
    weight_decay_mode: Literal["trusted", "first"] = "trusted",
) -> tuple[Value, Value, Value]:
    """LAMB: Adam with a learning rate per layer. You et al. 2020, Large Batch Optimization, Algorithm 2.

    Use: transformers with very large batches: an Adam step scaled to each tensor's own norm. Leave biases and
    normalisation parameters to adamw, in a group.

    Rows: dense only: the step depends on the norm of the whole tensor.
    """
    if weight_decay_mode == "first":
        w = w - lr * weight_decay * w
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g * g
    m_hat = m / (1 - beta1**t) if bias_correction else m
    v_hat = v / (1 - beta2**t) if bias_correction else v
    r = m_hat / (sqrt(v_hat + eps_root) + eps)
    if weight_decay_mode == "trusted":
        r = r + weight_decay * w
    return w - lr * trust_ratio(norm(w), norm(r)) * r, m, v


TRUST_RULES: dict[str, Callable[..., tuple[Value, ...]]] = {rule.__name__: rule for rule in (lars, lamb)}
