"""The schedule that follows what clients measure; `Watch` is all it remembers, `judged` its next state."""

# ruff: noqa: ARG001  most settings of a plateau are read by `judged`

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from gradledger_server.kernels.operations import power
from gradledger_server.optim.hyperparameters import Factor, NonNegative, Rate, Span


@dataclass(frozen=True, slots=True)
class Watch:
    """What a plateau has seen: the best metric, bad ones in a row, cooldown left, reductions made."""

    best: float | None = None
    bad: int = 0
    cooldown: int = 0
    reductions: int = 0


def plateau(
    s: int,
    reductions: int = 0,
    *,
    lr: Rate,
    factor: Factor = 0.1,
    patience: Span = 10,
    reduce: Literal["beyond", "at"] = "beyond",
    goal: Literal["min", "max"] = "min",
    threshold: NonNegative = 1e-4,
    threshold_mode: Literal["rel", "abs"] = "rel",
    cooldown: Span = 0,
    cooldown_last: Literal["ignored", "counted"] = "ignored",
    min_lr: Rate = 0.0,
    min_decrease: NonNegative = 0.0,
) -> float:
    """Shrinks when the metric that clients post stops improving. torch, ReduceLROnPlateau.

    max(lr · factor^reductions, min_lr), but never above lr
    """
    return min(lr, max(lr * power(factor, reductions), min_lr))


def judged(watch: Watch, metric: float, settings: Mapping[str, Any], lr: float) -> Watch:
    """The watch after one more finite metric, under an expanded plateau schedule; `lr` is the optimizer's."""
    cooldown = watch.cooldown
    if cooldown and settings["cooldown_last"] == "counted":
        cooldown -= 1  # Keras counts down before it looks at the metric, torch and Optax after
    improved = _improves(metric, watch.best, settings)
    bad = 0 if improved or cooldown else watch.bad + 1
    if cooldown and settings["cooldown_last"] == "ignored":
        cooldown -= 1
    best = metric if improved else watch.best
    if bad < settings["patience"] + (settings["reduce"] == "beyond") or bad == 0:
        return Watch(best, bad, cooldown, watch.reductions)
    return Watch(best, 0, settings["cooldown"], watch.reductions + _reduces(watch, settings, lr))


def _improves(metric: float, best: float | None, settings: Mapping[str, Any]) -> bool:
    if best is None:
        return True
    smaller = settings["goal"] == "min"
    margin: float = -settings["threshold"] if smaller else settings["threshold"]
    bar = best * (1 + margin) if settings["threshold_mode"] == "rel" else best + margin
    return metric < bar if smaller else metric > bar


def _reduces(watch: Watch, settings: Mapping[str, Any], lr: float) -> bool:
    """Whether another reduction would lower the learning rate, and by enough."""
    numbers = {"factor": settings["factor"], "min_lr": settings["min_lr"], "lr": lr}
    now, then = (plateau(0, watch.reductions + more, **numbers) for more in (0, 1))
    return now > then and now - then > settings["min_decrease"]
