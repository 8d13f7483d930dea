"""Schedules that are constant, but for jumps."""

# ruff: noqa: ARG001  every schedule takes s and lr, needed or not

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import Literal

from gradledger_server.kernels.operations import power
from gradledger_server.optim.hyperparameters import Factor, Milestones, Rate, Rates

Boundary = Literal["ge", "gt"]


def constant(s: int, *, lr: Rate) -> float:
    """The same learning rate at every update. Caffe's fixed.

    lr
    """
    return lr


def piecewise_constant(
    s: int, *, lr: Rate, boundaries: Milestones, values: Rates, boundary: Boundary = "ge"
) -> float:
    """One learning rate after another, given as they are: lr is not used. TF1, tf.train.piecewise_constant.

    values[passed], where passed = boundaries b with s ≥ b, or s > b
    """
    return values[passed(boundaries, s, boundary)]


def multistep(
    s: int, *, lr: Rate, step_values: Milestones, gamma: Factor = 0.1, boundary: Boundary = "ge"
) -> float:
    """Shrinks by gamma at each of the steps listed. Caffe's multistep; torch, MultiStepLR.

    lr · gamma^passed, where passed = step_values b with s ≥ b, or s > b
    """
    return lr * power(gamma, passed(step_values, s, boundary))


def passed(boundaries: Sequence[int], s: int, boundary: Boundary) -> int:
    """How many boundaries lie behind s. Whether s == b has passed b is where libraries differ by one."""
    return bisect_right(boundaries, s) if boundary == "ge" else bisect_left(boundaries, s)
