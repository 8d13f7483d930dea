"""The kinds of hyperparameters a rule or schedule may declare, and what each name means wherever it appears.

A kind is an annotation: `beta1: Decay = 0.9` says the type, the default and the allowed range at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

from gradledger_server.kernels.operations import Value

FLOAT32_MAX = (2 - 2**-23) * 2.0**127
FLOAT32_TINY = 2.0**-126  # the smallest normal number; below it an epsilon is as good as none


@dataclass(frozen=True, slots=True)
class Bounds:
    """From `low` to `high`; `above` and `below` say that the end itself is not allowed."""

    low: float
    high: float = FLOAT32_MAX  # what survives the cast to float32
    above: bool = False
    below: bool = False

    def allow(self, number: float) -> bool:
        if not math.isfinite(number):
            return False
        over = number > self.low if self.above else number >= self.low
        under = number < self.high if self.below else number <= self.high
        return over and under

    def describe(self, name: str) -> str:
        """Such as `0 <= beta1 < 1`."""
        left = f"{self.low:g} {'<' if self.above else '<='} {name}"
        return left if self.high == FLOAT32_MAX else f"{left} {'<' if self.below else '<='} {self.high:g}"

    def json_schema(self) -> dict[str, float]:
        low = {"exclusiveMinimum" if self.above else "minimum": self.low}
        return low | {"exclusiveMaximum" if self.below else "maximum": self.high}


@dataclass(frozen=True, slots=True)
class Starts:
    """On a slot: what it holds before the first update is itself a hyperparameter. Other slots start at 0."""

    name: str
    default: float
    bounds: Bounds


Rate = Annotated[float, Bounds(0)]
Decay = Annotated[float, Bounds(0, 1, below=True)]
Fraction = Annotated[float, Bounds(0, 1)]
Positive = Annotated[float, Bounds(0, above=True)]
NonNegative = Annotated[float, Bounds(0)]
Factor = Annotated[float, Bounds(0, 1, above=True)]
Steps = Annotated[int, Bounds(1, 2**53)]

Accumulator = Annotated[Value, Starts("initial_accumulator", 0.0, Bounds(0))]

MEANINGS = {
    "lr": "learning rate",
    "momentum": "how much of the velocity is kept at each update",
    "dampening": "how much of each gradient is kept out of the velocity",
    "first_step": "copy: the first gradient enters the velocity undampened; ema: like the others",
    "rho": "decay of the running mean of squares",
    "beta1": "decay of the running mean of the gradient",
    "beta2": "decay of the running mean of the squared gradient",
    "eps": "added to the root in the denominator",
    "eps_root": "added under the root",
    "lr_decay": "the learning rate is divided by 1 + (t-1) times this",
    "initial_accumulator": "what the sum of squares holds before the first update",
    "weight_decay": "how strongly weights are pulled towards zero",
    "weight_decay_mode": "l2: through the gradient; decoupled: the pull is multiplied by the learning rate;"
    " decoupled_abs: by the schedule alone",
    "decay_rate": "factor the learning rate shrinks by in decay_steps updates",
    "decay_steps": "updates in which the learning rate shrinks by decay_rate",
    "staircase": "shrink at whole multiples of decay_steps only",
}

SLOT_MEANINGS = {
    "u": "velocity: the accumulated gradient",
    "m": "running mean of the gradient",
    "v": "running mean, or sum, of the squared gradient",
    "d": "running mean of the squared weight change",
}
