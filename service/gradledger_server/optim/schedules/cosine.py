"""Schedules along half a wave of the cosine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from gradledger_server.kernels.operations import power
from gradledger_server.optim.elementary import cos_half_turns
from gradledger_server.optim.hyperparameters import (
    Factor,
    Fall,
    Fraction,
    Growth,
    NonNegative,
    Rate,
    Shrinkage,
    Steps,
)


def cosine_decay(
    s: int,
    *,
    lr: Rate,
    decay_steps: Fall,
    end_lr: Rate = 0.0,
    alpha: Fraction = 0.0,
    exponent: NonNegative = 1.0,
    after_end: Literal["hold", "rise"] = "hold",
) -> float:
    """Half a cosine wave down. Loshchilov & Hutter 2017, SGDR, without restarts.

    end + (lr − end) · ((1 + cos(π · s / decay_steps)) / 2)^exponent, where end = end_lr or alpha · lr, and s
    stays at decay_steps, or goes on and lr rises again
    """
    # Whole numbers are reduced to one wave before they are divided, so no s is too large to have a phase.
    within = min(s, decay_steps) if after_end == "hold" else s % (2 * decay_steps)
    return _fall(lr, end_lr or alpha * lr, power(half_wave(within / decay_steps), exponent))


def cosine_restarts(
    s: int,
    *,
    lr: Rate,
    first_decay_steps: Steps,
    t_mul: Growth = 2.0,
    m_mul: Factor = 1.0,
    end_lr: Rate = 0.0,
    alpha: Fraction = 0.0,
) -> float:
    """Half a cosine wave down, again and again, longer and lower. Loshchilov & Hutter 2017, SGDR.

    end + (lr − end) · m_mul^i · (1 + cos(π · sᵢ / Sᵢ)) / 2, where sᵢ counts from restart i, S₀ =
    first_decay_steps and Sᵢ₊₁ = t_mul · Sᵢ
    """
    restarts, share = _restarts(s, first_decay_steps, t_mul)
    return _fall(lr, end_lr or alpha * lr, power(m_mul, restarts) * half_wave(share))


def one_cycle(
    s: int,
    *,
    lr: Rate,
    total_steps: Steps,
    pct_start: Fraction = 0.3,
    pct_final: Fraction = 0.85,
    div_factor: Shrinkage = 25.0,
    final_div_factor: Shrinkage = 1e4,
    anneal: Literal["cosine", "linear"] = "cosine",
    three_phase: bool = False,
    ends: Literal["last", "after"] = "last",
) -> float:
    """Up to lr and down to almost nothing. Smith & Topin 2018, Super-Convergence.

    from lr / div_factor to lr, with three_phase back again, then to lr / div_factor / final_div_factor
    """
    start = lr / div_factor
    # torch counts a phase's last update as its end; Optax the update after it, and in whole updates.
    peak, foot, end = (
        (pct_start * total_steps - 1, pct_final * total_steps - 2, total_steps - 1)
        if ends == "last"
        else (int(pct_start * total_steps), int(pct_final * total_steps), total_steps)
    )
    knots = [(peak, lr), *([(foot, start)] if three_phase else []), (end, start / final_div_factor)]
    return _through(s, start, knots, anneal)


def half_wave(x: float) -> float:
    """From 1 at x = 0 to 0 at x = 1, along a cosine."""
    return (1 + cos_half_turns(x)) / 2


def _fall(lr: float, end: float, share: float) -> float:
    return end + (lr - end) * share


def _restarts(s: int, first: int, t_mul: float) -> tuple[int, float]:
    """How often it has restarted, and the share of the present wave that is over; no logarithm's rounding."""
    if t_mul == 1:
        return s // first, s % first / first
    restarts, here, length = 0, float(s), float(first)
    while here >= length:
        here -= length
        length *= t_mul
        restarts += 1
    return restarts, here / length


def _through(s: int, start: float, knots: Sequence[tuple[float, float]], anneal: str) -> float:
    """The learning rate at s on the way from `start` at 0 through the knots (step, learning rate)."""
    before, at = 0.0, start
    for knot, value in knots:
        if s < knot:
            share = (s - before) / (knot - before)
            return at + (value - at) * share if anneal == "linear" else _fall(at, value, half_wave(share))
        before, at = knot, value
    return at
