"""Learning rates as closed forms of `s`, the updates already applied (0 before the first).

Plain float64 on the host. A schedule takes `s` by position, then by keyword `lr` (the optimizer's) and its
own hyperparameters, declared like a rule's.
"""

# ruff: noqa: ARG001  every schedule takes s, needed or not

from __future__ import annotations

from collections.abc import Callable

from gradledger_server.kernels.operations import power
from gradledger_server.optim.hyperparameters import Factor, Rate, Steps


def constant(s: int, *, lr: Rate) -> float:
    """The same learning rate at every update."""
    return lr


def exponential_decay(
    s: int, *, lr: Rate, decay_rate: Factor, decay_steps: Steps, staircase: bool = False
) -> float:
    """The learning rate shrinks by a constant factor; TensorFlow 1's tf.train.exponential_decay."""
    periods = s // decay_steps if staircase else s / decay_steps
    return lr * power(decay_rate, periods)


SCHEDULES: dict[str, Callable[..., float]] = {
    schedule.__name__: schedule for schedule in (constant, exponential_decay)
}
