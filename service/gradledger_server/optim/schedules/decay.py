"""Schedules that shrink the learning rate by a power, an exponential or a polynomial."""

from __future__ import annotations

from gradledger_server.kernels.operations import power as to_the
from gradledger_server.optim.elementary import exp
from gradledger_server.optim.hyperparameters import (
    Exponent,
    Factor,
    Fall,
    Fraction,
    NonNegative,
    Rate,
    Slope,
    Steps,
    Unit,
)


def exponential_decay(
    s: int, *, lr: Rate, decay_rate: Factor, decay_steps: Steps, staircase: bool = False
) -> float:
    """Shrinks by decay_rate in every decay_steps updates. TF1, tf.train.exponential_decay.

    lr · decay_rate^(s / decay_steps)
    """
    return lr * to_the(decay_rate, _periods(s, decay_steps, staircase))


def natural_exp_decay(
    s: int, *, lr: Rate, decay_rate: Exponent, decay_steps: Unit, staircase: bool = False
) -> float:
    """Shrinks by e^decay_rate in every decay_steps updates. TF1, tf.train.natural_exp_decay.

    lr · e^(−decay_rate · s / decay_steps)
    """
    return lr * exp(-decay_rate * _periods(s, decay_steps, staircase))


def inverse_time_decay(
    s: int,
    *,
    lr: Rate,
    decay_rate: Exponent,
    decay_steps: Unit,
    power: NonNegative = 1.0,
    staircase: bool = False,
) -> float:
    """Shrinks like a power of one over time. TF1, tf.train.inverse_time_decay; Caffe's inv.

    lr · (1 + decay_rate · s / decay_steps)^−power
    """
    return lr / to_the(1 + decay_rate * _periods(s, decay_steps, staircase), power)


def polynomial_decay(
    s: int,
    *,
    lr: Rate,
    decay_steps: Fall,
    end_lr: Rate = 1e-4,
    power: NonNegative = 1.0,
    cycle: bool = False,
) -> float:
    """Goes to end_lr as a power of what is left of decay_steps. TF1, tf.train.polynomial_decay.

    (lr − end_lr) · (1 − s / S)^power + end_lr, where S = decay_steps and s stays there, or with cycle S grows
    to the next multiple of decay_steps
    """
    last = decay_steps * max(1, -(-s // decay_steps)) if cycle else decay_steps
    return (lr - end_lr) * to_the(1 - min(s, last) / last, power) + end_lr


def linear(
    s: int, *, lr: Rate, total_steps: Steps, start_factor: Fraction = 1 / 3, end_factor: Fraction = 1.0
) -> float:
    """A straight line between two fractions of lr, up or down, and level after it. torch, LinearLR.

    lr · (start_factor + (end_factor − start_factor) · min(s, total_steps) / total_steps)
    """
    return lr * (start_factor + (end_factor - start_factor) * (min(s, total_steps) / total_steps))


def sigmoid(s: int, *, lr: Rate, gamma: Slope, step_size: Steps) -> float:
    """Falls along a logistic curve around step_size if gamma < 0, and rises if gamma > 0. Caffe's sigmoid.

    lr / (1 + e^(−gamma · (s − step_size)))
    """
    return lr / (1 + exp(-gamma * (s - step_size)))


def _periods(s: int, decay_steps: int, staircase: bool) -> float:
    """How many times decay_steps have passed; with staircase only the whole ones count."""
    return s // decay_steps if staircase else s / decay_steps
