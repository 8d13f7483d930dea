"""A schedule made of others, one after another."""

from __future__ import annotations

from collections.abc import Callable

from gradledger_server.optim.hyperparameters import Milestones, Rate, Scales, Schedules
from gradledger_server.optim.schedules.steps import passed

Form = Callable[[float, int], float]  # of lr and s


def sequence(
    s: int,
    *,
    lr: Rate,
    schedules: Schedules,
    boundaries: Milestones,
    scales: Scales = (),
) -> float:
    """One schedule after another, each from its own s = 0. Optax, join_schedules; torch, SequentialLR.

    schedules[i] of scales[i] · lr and s − boundaries[i−1], where i = boundaries b with s ≥ b
    """
    part = passed(boundaries, s, "ge")
    began = boundaries[part - 1] if part else 0
    form: Form = schedules[part]
    return form(scales[part] * lr if scales else lr, s - began)
