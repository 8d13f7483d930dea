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


@dataclass(frozen=True, slots=True)
class When:
    """On a slot: there is one only if this setting is true, or not zero. To the rule an absent slot is 0."""

    setting: str


@dataclass(frozen=True, slots=True)
class Fixed:
    """On lr: it stands in the slots or in what they mean, so no schedule or change may move it."""


Rate = Annotated[float, Bounds(0)]
FixedRate = Annotated[float, Bounds(0, above=True), Fixed()]
Decay = Annotated[float, Bounds(0, 1, below=True)]
Share = Annotated[float, Bounds(0, 1, above=True, below=True)]
Fraction = Annotated[float, Bounds(0, 1)]
Positive = Annotated[float, Bounds(0, above=True)]
NonNegative = Annotated[float, Bounds(0)]
Factor = Annotated[float, Bounds(0, 1, above=True)]
Growth = Annotated[float, Bounds(1)]
Threshold = Annotated[float, Bounds(4)]
Steps = Annotated[int, Bounds(1, 2**53)]
SomeSteps = Annotated[int, Bounds(0, 2**53)]

Accumulator = Annotated[Value, Starts("initial_accumulator", 0.0, Bounds(0))]
SmallAccumulator = Annotated[Value, Starts("initial_accumulator", 1e-6, Bounds(0))]
PositiveAccumulator = Annotated[Value, Starts("initial_accumulator", 0.1, Bounds(FLOAT32_TINY))]
Mean = Annotated[Value, Starts("initial_mean", 0.0, Bounds(0))]

MEANINGS = {
    "lr": "learning rate",
    "momentum": "how much of the velocity is kept at each update",
    "dampening": "how much of each gradient is kept out of the velocity",
    "lr_in_buffer": "whether gradients enter the velocity already multiplied by the learning rate",
    "first_step": "copy: the first gradient enters the velocity undampened; ema: like the others",
    "rho": "decay of the running mean of squares",
    "beta1": "decay of the running mean of the gradient",
    "beta2": "decay of the running mean of the squared gradient",
    "beta3": "decay of the running mean of the squared, extrapolated gradient",
    "beta": "added to the root of the sum of squares, which makes the first steps smaller",
    "bias_correction": "whether running means that started at zero are divided by the weight they have",
    "centered": "whether the running mean of the gradient is subtracted: the variance, not the square",
    "eps": "added to the root in the denominator",
    "eps_root": "added under the root",
    "eps_ref": "corrected: eps is added to the bias-corrected root; raw: before the correction",
    "eps_in": "norm: eps is added to every |g| that enters the norm; denominator: to the norm itself",
    "max_ref": "raw: the largest v counts; corrected: the largest bias-corrected one",
    "momentum_form": "decay: beta1 is approached as momentum_decay says; constant: always beta1;"
    " tf: TensorFlow's kernel",
    "momentum_decay": "how fast the momentum approaches beta1: by 0.96 to the power of t times this",
    "threshold": "length of the averaging window from which on v is trusted",
    "threshold_strict": "whether the window must exceed the threshold or may equal it",
    "weight_decay_mode": "decoupled: the pull is multiplied by the learning rate; decoupled_abs: by the"
    " schedule alone",
    "shrink": "factor of a step size whose gradient changed sign",
    "grow": "factor of a step size whose gradient kept its sign",
    "min_step": "smallest step size",
    "max_step": "largest step size",
    "change_factor": "how far the gradient is extrapolated along its last change",
    "warmup_steps": "updates in which the rule raises its learning rate to lr",
    "l1": "strength of the L1 penalty: it holds small weights at zero",
    "l2": "strength of the L2 penalty; TensorFlow's number is half of it",
    "l2_shrinkage": "L2 penalty that enters the gradients alone, as TensorFlow's l2_shrinkage",
    "start": "weights: training starts from the weights given; zero: from what the slots alone say, as in"
    " TensorFlow, where the first update discards the weights",
    "lr_decay": "the learning rate is divided by 1 + (t-1) times this",
    "initial_accumulator": "what the sum, or mean, of squares holds before the first update",
    "initial_mean": "what the running mean of the gradient holds before the first update",
    "weight_decay": "how strongly weights are pulled towards zero",
    "decay_rate": "factor the learning rate shrinks by in decay_steps updates",
    "decay_steps": "updates in which the learning rate shrinks by decay_rate",
    "staircase": "shrink at whole multiples of decay_steps only",
}

SLOT_MEANINGS = {
    "u": "velocity: the accumulated gradient",
    "m": "running mean of the gradient",
    "v": "running mean, or sum, of the squared gradient",
    "d": "running mean of the squared weight change",
    "p": "peak: the largest v, or |g|, so far",
    "s": "running mean of the squared surprise, g - m",
    "c": "running mean of the gradient's change",
    "h": "the gradient before",
    "e": "step size of the element",
    "z": "sum the weight is computed from",
    "a": "how far the sequence of full steps is ahead of the weight",
}
