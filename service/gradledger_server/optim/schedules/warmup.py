"""Schedules that begin low: what follows the rise gives them their names."""

from __future__ import annotations

import math
from typing import Literal

from gradledger_server.optim.hyperparameters import Fall, Fraction, NonNegative, Rate, Size, Span, Steps
from gradledger_server.optim.schedules.cosine import cosine_decay, half_wave


def warmup_constant(
    s: int,
    *,
    lr: Rate,
    warmup_steps: Steps,
    init_lr: Rate = 0.0,
    count_from: Literal["zero", "one"] = "zero",
) -> float:
    """A straight line up from init_lr in warmup_steps, then lr. Goyal et al. 2017, section 2.2.

    init_lr + (lr − init_lr) · min(n, warmup_steps) / warmup_steps, where n = s, or s + 1
    """
    return _rise(s + (count_from == "one"), lr, warmup_steps, init_lr)


def warmup_cosine(
    s: int,
    *,
    lr: Rate,
    warmup_steps: Span,
    decay_steps: Fall,
    init_lr: Rate = 0.0,
    end_lr: Rate = 0.0,
    alpha: Fraction = 0.0,
    exponent: NonNegative = 1.0,
    warmup: Literal["included", "excluded"] = "included",
) -> float:
    """A straight line up, then half a cosine wave down. Loshchilov & Hutter 2017, SGDR.

    warmup_constant for s < warmup_steps, then cosine_decay of s − warmup_steps over decay_steps, less
    warmup_steps if they include the warm-up
    """
    if s < warmup_steps:
        return _rise(s, lr, warmup_steps, init_lr)
    wave = decay_steps - warmup_steps if warmup == "included" else decay_steps
    return cosine_decay(
        s - warmup_steps, lr=lr, decay_steps=wave, end_lr=end_lr, alpha=alpha, exponent=exponent
    )


def noam(s: int, *, lr: Rate, model_width: Size, warmup_steps: Steps) -> float:
    """A straight line up, then down like 1/√t. Vaswani et al. 2017, Attention Is All You Need, equation 3.

    lr · model_width^−½ · min(t^−½, t · warmup_steps^−³ᐟ²), where t = s + 1: at t = 0 it would divide by zero
    """
    t = s + 1
    slope = t / (warmup_steps * math.sqrt(warmup_steps))
    return lr / math.sqrt(model_width) * min(1 / math.sqrt(t), slope)


def inverse_sqrt(s: int, *, lr: Rate, warmup_steps: Steps, init_lr: Rate = 0.0) -> float:
    """A straight line up, then down like 1/√s. fairseq, inverse_sqrt.

    warmup_constant for s < warmup_steps, then lr · √(warmup_steps / s)
    """
    if s < warmup_steps:
        return _rise(s, lr, warmup_steps, init_lr)
    return lr * math.sqrt(warmup_steps / s)


def wsd(
    s: int,
    *,
    lr: Rate,
    warmup_steps: Span,
    stable_steps: Span,
    decay_steps: Fall,
    init_lr: Rate = 0.0,
    min_ratio: Fraction = 0.0,
    shape: Literal["linear", "sqrt", "cosine", "square"] = "linear",
    floor: Literal["scale", "clip"] = "scale",
) -> float:
    """Warm-up, a long stable stretch, and a short decay. Hu et al. 2024, MiniCPM, section 4.

    warmup_constant, then lr for stable_steps, then lr · f of the share x of decay_steps: 1 − x, 1 − √x,
    (1 + cos(π · x)) / 2 or 1 − x²; min_ratio + (1 − min_ratio) · f, or max(f, min_ratio)
    """
    if s < warmup_steps:
        return _rise(s, lr, warmup_steps, init_lr)
    x = min(max(s - warmup_steps - stable_steps, 0), decay_steps) / decay_steps
    share = {
        "linear": 1 - x,
        "sqrt": 1 - math.sqrt(x),
        "cosine": half_wave(x),
        "square": 1 - x * x,
    }[shape]
    return lr * (min_ratio + (1 - min_ratio) * share if floor == "scale" else max(share, min_ratio))


def _rise(n: int, lr: float, warmup_steps: int, init_lr: float) -> float:
    return init_lr + (lr - init_lr) * (min(n, warmup_steps) / warmup_steps)
