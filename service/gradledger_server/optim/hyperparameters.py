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
Enlargement = Annotated[float, Bounds(1)]
Threshold = Annotated[float, Bounds(4), "length of the averaging window from which on v is trusted"]
Steps = Annotated[int, Bounds(1, 2**53)]
RisingSteps = Annotated[int, Bounds(0, 2**53), "updates in which the rule raises its learning rate to lr"]
Iterations = Annotated[int, Bounds(0, 100)]
Dimension = Annotated[int, Bounds(0, 2**40)]
Real = Annotated[float, Bounds(-FLOAT32_MAX)]


# Of schedules.
Size = Annotated[int, Bounds(1, 2**31)]
Span = Annotated[int, Bounds(0, 2**53)]
Fall = Annotated[int, Bounds(1, 2**53), "updates that the way down takes"]
Unit = Annotated[int, Bounds(1, 2**53), "updates that count as one in s / decay_steps"]
Exponent = Annotated[float, Bounds(0), "how fast the learning rate shrinks; 0: not at all"]
Slope = Annotated[float, Bounds(-1000, 1000), "slope of the curve, falling if negative"]
Growth = Annotated[float, Bounds(1, 1e6)]
Shrinkage = Annotated[float, Bounds(1, 1e12)]
Milestones = Annotated[Sequence[int], Items(1, 1000, Bounds(0, 2**53), whole=True, rising=True)]
Rates = Annotated[Sequence[float], Items(1, 1001, Bounds(0))]
Scales = Annotated[Sequence[float], Items(0, 100, Bounds(0, 1))]
Schedules = Annotated[Sequence[Any], Items(2, 100)]

Accumulator = Annotated[Value, Starts("initial_accumulator", 0.0, Bounds(0))]
SmallAccumulator = Annotated[Value, Starts("initial_accumulator", 1e-6, Bounds(0))]
PositiveAccumulator = Annotated[Value, Starts("initial_accumulator", 0.1, Bounds(FLOAT32_TINY))]
Mean = Annotated[Value, Starts("initial_mean", 0.0, Bounds(0))]
