"""The kinds of hyperparameters a rule or schedule may declare, and what each name means wherever it appears.

A kind is an annotation: `beta1: Decay = 0.9` says the type, the default and the allowed range at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

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
class Items:
    """On a list: how many items, and what each must be (None: an object, checked by whoever reads it)."""

    least: int
    most: int
    each: Bounds | None = None
    whole: bool = False
    rising: bool = False  # each above the one before

    def describe(self) -> str:
        """Such as `a list of 1 to 9 whole numbers, 0 <= each, rising`."""
        noun = "objects" if self.each is None else "whole numbers" if self.whole else "numbers"
        bounds = "" if self.each is None else ", " + self.each.describe("each")
        return f"a list of {self.least} to {self.most} {noun}{bounds}{', rising' * self.rising}"

    def json_schema(self) -> dict[str, Any]:
        kind = "object" if self.each is None else "integer" if self.whole else "number"
        bounds = {} if self.each is None else self.each.json_schema()
        return {
            "type": "array",
            "minItems": self.least,
            "maxItems": self.most,
            "items": {"type": kind} | bounds,
        }


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
Iterations = Annotated[int, Bounds(0, 100)]
Dimension = Annotated[int, Bounds(0, 2**40)]
Real = Annotated[float, Bounds(-FLOAT32_MAX)]

# Of schedules.
Size = Annotated[int, Bounds(1, 2**31)]
Span = Annotated[int, Bounds(0, 2**53)]
Slope = Annotated[float, Bounds(-1000, 1000)]
Growth = Annotated[float, Bounds(1, 1e6)]
Shrinkage = Annotated[float, Bounds(1, 1e12)]
Milestones = Annotated[Sequence[int], Items(1, 1000, Bounds(0, 2**53), whole=True, rising=True)]
Rates = Annotated[Sequence[float], Items(1, 1001, Bounds(0))]
Scales = Annotated[Sequence[float], Items(0, 100, Bounds(0, 1))]
Schedules = Annotated[Sequence[Any], Items(1, 100)]

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
    "weight_decay_mode": "l2: through the gradient; decoupled: by lr times it; decoupled_abs: not by lr; "
    "trusted: in the update whose norm is taken; first: decoupled, before anything is measured",
    "trust": "how large an update may be, relative to the weights of its tensor",
    "trust_eps": "added to the norm that the weights' norm is divided by",
    "trust_norm": "parts: gradient and weight decay measured apart (paper); sum: measured as one (optax)",
    "lr_in_velocity": "the velocity accumulates lr times the gradient, not the gradient alone",
    "bias_correction": "divide the running means by 1 - beta^t",
    "beta2_decay": "beta2 of update t is 1 - t^-beta2_decay",
    "eps_mode": "clamp: the least that what eps guards may be; add: eps is added to it",
    "eps_scale": "the least root mean square of the weights that an update is measured by",
    "clip_threshold": "the largest root mean square an update may have before it is scaled",
    "relative_step": "the learning rate is at most 1/sqrt(t)",
    "factored": "last: rows and columns are the last two axes; largest: the two longest",
    "factored_from": "keep a number per element where the shorter of the two axes is shorter than this",
    "velocity": "ema: running mean of the gradient; sum: decayed sum; corrected: mean over 1 - momentum^t",
    "nesterov": "look ahead: mix the gradient into the velocity once more",
    "ns_a": "Newton-Schulz coefficient of X",
    "ns_b": "Newton-Schulz coefficient of (X X^T) X",
    "ns_c": "Newton-Schulz coefficient of (X X^T)^2 X",
    "ns_steps": "Newton-Schulz iterations",
    "rows_are": "out: matrices are [out, in], as PyTorch keeps them; in: [in, out], as JAX and Keras do",
    "shape_scale": "width: sqrt(max(1, out/in)); rms: rms_rate * sqrt(max(out, in)); spectral: sqrt(out/in)",
    "rms_rate": "root mean square of the update if shape_scale is rms",
    "decay_rate": "factor the learning rate shrinks by in decay_steps updates",
    "decay_steps": "updates in which the learning rate shrinks by decay_rate",
    "staircase": "shrink at whole multiples of decay_steps only",
    "boundaries": "updates applied before the next part begins",
    "boundary": "whether the update with s equal to a boundary is behind it: ge yes, gt not yet",
    "values": "learning rates before, between and after the boundaries",
    "step_values": "updates applied before each shrinking",
    "gamma": "factor of each shrinking; of sigmoid the slope, falling if negative",
    "end_lr": "learning rate at the end",
    "alpha": "learning rate at the end as a fraction of lr",
    "power": "exponent of the whole",
    "exponent": "exponent of the cosine wave",
    "cycle": "begin again, over a longer stretch, whenever end_lr is reached",
    "total_steps": "updates from the beginning to the end",
    "start_factor": "fraction of lr to begin with",
    "end_factor": "fraction of lr to end with",
    "step_size": "updates applied when half of lr is reached",
    "after_end": "after decay_steps: hold the last learning rate, or rise again along the cosine",
    "first_decay_steps": "updates before the first restart",
    "t_mul": "how much longer each wave is than the one before: 1, or at least 1.1",
    "m_mul": "how much lower each wave is than the one before",
    "pct_start": "share of total_steps spent rising",
    "pct_final": "share of total_steps after which lr / div_factor is reached again, with three_phase",
    "div_factor": "lr is this many times the first learning rate",
    "final_div_factor": "the first learning rate is this many times the last",
    "anneal": "the curve of each phase",
    "three_phase": "fall back to the first learning rate before the last stretch",
    "ends": "a phase ends with the last update it counts, or with the update after it",
    "warmup_steps": "updates of the rise to lr",
    "init_lr": "learning rate of the first update",
    "count_from": "the n of the first update: with one the learning rate is never init_lr",
    "warmup": "whether decay_steps count the updates of the warm-up",
    "model_width": "width of the model's layers",
    "stable_steps": "updates at lr itself",
    "min_ratio": "fraction of lr to end with",
    "shape": "the curve of the decay",
    "floor": "the decay is scaled to end at min_ratio, or clipped there",
    "schedules": "schedule objects, each beginning at its own s = 0",
    "scales": "what lr is multiplied by for each of the schedules; empty: by 1",
    "factor": "what the learning rate is multiplied by at each reduction",
    "patience": "metrics without improvement that are put up with",
    "reduce": "beyond: when more metrics than patience were bad; at: as soon as so many were",
    "goal": "whether smaller or larger metrics are better",
    "threshold": "by how much a metric must be better to count as an improvement",
    "threshold_mode": "rel: threshold is a fraction of the best metric so far; abs: a difference from it",
    "cooldown": "metrics after a reduction that are not counted as bad",
    "cooldown_last": "whether the last metric of the cooldown is not counted either, or is",
    "min_lr": "learning rate below which nothing is reduced",
    "min_decrease": "a reduction by less than this is not made",
}

SLOT_MEANINGS = {
    "u": "velocity: the accumulated gradient",
    "m": "running mean of the gradient",
    "v": "running mean, or sum, of the squared gradient",
    "d": "running mean of the squared weight change",
    "r": "running mean of the squared gradient by row",
    "c": "running mean of the squared gradient by column",
}
