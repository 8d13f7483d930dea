"""Learning rates: what is too small, right and too large for each rule on a given landscape.

A rule's step follows either the gradient, and then its learning rate belongs to the curvature (plain descent
on a curvature c is stable below 2/c), or it has a size of its own, and then its learning rate is a share of
the map.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from examples.landscapes.functions import Landscape


class Rate(NamedTuple):
    """Three multiples of `unit`: of 1/curvature, of the map's width, or of the rule's own default."""

    unit: Literal["per curvature", "of width", "of default"]
    small: float
    right: float
    large: float

    def on(self, landscape: Landscape, default: float) -> dict[str, float]:
        """The learning rates on a landscape, by trial; `default` is the rule's own."""
        one = {"per curvature": 1 / landscape.curvature, "of width": landscape.width, "of default": default}
        scale = one[self.unit]
        right = self.right * scale
        return {
            "too small": self.small * scale,
            "right": right,
            "too large": self.large * scale,
            "right, with noise": right,
        }


TRIALS = ("too small", "right", "too large", "right, with noise")

OTHERS = Rate("of default", 0.1, 1.0, 30.0)
"""For rules that are not in the table."""

_FOLLOWS_GRADIENT = Rate("per curvature", 0.02, 0.9, 2.1)
_OWN_SIZE = Rate("of width", 0.0005, 0.015, 0.15)

RATES: Mapping[str, Rate] = {
    "sgd": _FOLLOWS_GRADIENT,
    "momentum": Rate("per curvature", 0.005, 0.6, 3.9),
    "nesterov": Rate("per curvature", 0.005, 0.6, 1.45),
    "adagrad": Rate("of width", 0.003, 0.08, 0.5),
    "adadelta": Rate("of default", 0.2, 5.0, 100.0),
    "rmsprop": Rate("of width", 0.0003, 0.003, 0.06),
    "adam": _OWN_SIZE,
    "adamw": _OWN_SIZE,
    "amsgrad": _OWN_SIZE,
    "adamax": _OWN_SIZE,
    "nadam": Rate("of width", 0.0005, 0.01, 0.15),
    "radam": Rate("per curvature", 0.05, 3.0, 10.0),  # its first steps follow the gradient
    "yogi": _OWN_SIZE,
    "adabelief": _OWN_SIZE,
    "adan": Rate("of width", 0.0005, 0.006, 0.15),
    "lion": Rate("of width", 0.0003, 0.0025, 0.06),
    "signsgd": Rate("of width", 0.0003, 0.0025, 0.06),
    "signum": Rate("of width", 0.0003, 0.003, 0.06),
    "rprop": Rate("of width", 0.0001, 0.004, 0.3),
    "ftrl": Rate("of width", 0.003, 0.08, 0.5),
    "schedule_free_sgd": Rate("per curvature", 0.02, 0.9, 8.0),
    "schedule_free_adamw": Rate("of width", 0.0005, 0.01, 0.2),
    "lars": Rate("of default", 1.0, 40.0, 500.0),
    "lamb": Rate("of default", 1.0, 20.0, 500.0),
    "adafactor": Rate("of width", 0.0005, 0.005, 0.15),
    "muon": Rate("of width", 0.0005, 0.005, 0.06),
    "fedadagrad": Rate("of width", 0.003, 0.04, 0.3),
    "fedadam": _OWN_SIZE,
    "fedyogi": _OWN_SIZE,
}


def rates(rule: str, landscape: Landscape, default: float) -> dict[str, float]:
    """The learning rate of each of `TRIALS`."""
    return RATES.get(rule, OTHERS).on(landscape, default)
