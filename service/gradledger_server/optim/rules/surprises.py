"""What to divide by, seen otherwise: squares kept additively, of surprises, of extrapolations."""

from __future__ import annotations

from gradledger_server.kernels.operations import Value, sign, sqrt, where
from gradledger_server.optim.hyperparameters import Decay, Mean, NonNegative, Positive, Rate, SmallAccumulator
from gradledger_server.optim.rules.moments import root, unbiased


def yogi(
    w: Value,
    g: Value,
    m: Mean,
    v: SmallAccumulator,
    *,
    t: int,
    lr: Rate = 1e-2,
    beta1: Decay = 0.9,
    beta2: Decay = 0.999,
    eps: NonNegative = 1e-3,
    eps_root: NonNegative = 0.0,
) -> tuple[Value, Value, Value]:
    """Adam whose v moves by g² at most. Zaheer et al. 2018, Adaptive Methods for Nonconvex Optimization.

    Use: sparse or bursty gradients under an Adam-like rule: the mean square falls by a bounded amount, so a
    calm stretch does not blow up the steps. Give it a larger `eps` than Adam.

    Rows: lazy differs from dense: the mean of the gradient of a row that gets none would decay, and the row
    would go on moving for a while.
    """
    square = g * g
    m = beta1 * m + (1 - beta1) * g
    v = v - (1 - beta2) * sign(v - square) * square
    return w - lr * unbiased(m, beta1, t) / root(v, beta2, t, eps, eps_root, "corrected"), m, v


def adabelief(
    w: Value,
    g: Value,
    m: Value,
    s: Value,
    *,
    t: int,
    lr: Rate = 1e-3,
    beta1: Decay = 0.9,
    beta2: Decay = 0.999,
    eps: NonNegative = 1e-16,
    eps_root: NonNegative = 1e-16,
) -> tuple[Value, Value, Value]:
    """Adam that slows down where it is surprised. Zhuang et al. 2020, AdaBelief Optimizer, Algorithm 2.

    Use: Adam with steps that are long where gradients agree with their mean and short where they scatter.
    Sensitive to `eps`: the variance it divides by can be far smaller than a mean square.

    Rows: lazy differs from dense: both means of a row that gets no gradient would decay, and the row would go
    on moving for a while.
    """
    m = beta1 * m + (1 - beta1) * g
    surprise = g - m
    s = beta2 * s + (1 - beta2) * surprise * surprise + eps_root
    return w - lr * unbiased(m, beta1, t) / (sqrt(unbiased(s, beta2, t)) + eps), m, s


def adan(
    w: Value,
    g: Value,
    m: Value,
    k: Value,
    v: Value,
    h: Value,
    *,
    t: int,
    lr: Rate = 1e-3,
    beta1: Decay = 0.98,
    beta2: Decay = 0.92,
    beta3: Decay = 0.99,
    change_factor: NonNegative = 0.92,
    eps: Positive = 1e-8,
    eps_root: NonNegative = 0.0,
    weight_decay: NonNegative = 0.0,
) -> tuple[Value, Value, Value, Value, Value]:
    """Adaptive Nesterov momentum. Xie et al. 2022, Adan: Adaptive Nesterov Momentum Algorithm, Algorithm 1.

    The betas are decays, one minus the paper's. The weight decay is proximal.

    Use: vision and language models with large learning rates: Nesterov momentum from the difference of
    gradients. Costs four slots, twice Adam's state.

    Rows: lazy differs from dense: the means of a row that gets no gradient would decay, and the difference to
    the previous gradient would count.
    """
    change = where(t > 1, g - h, 0.0)
    extrapolated = g + change_factor * change
    m = beta1 * m + (1 - beta1) * g
    k = beta2 * k + (1 - beta2) * change
    v = beta3 * v + (1 - beta3) * extrapolated * extrapolated
    ahead = unbiased(m, beta1, t) + change_factor * unbiased(k, beta2, t)
    step = lr * ahead / root(v, beta3, t, eps, eps_root, "corrected")
    return (w - step) / (1 + lr * weight_decay), m, k, v, g
