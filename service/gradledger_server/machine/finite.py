"""Gradients with NaN or infinity in them, where a guard rail takes them instead of refusing them."""

from __future__ import annotations

import math

import numpy as np

from gradledger_server.errors import NonFinite
from gradledger_server.machine.gradient import Gradient, Reducer, norm
from gradledger_server.machine.layout import Layout


def measured(
    layout: Layout, gradient: Gradient, reducer: Reducer, nonfinite: str
) -> tuple[Gradient, float, int]:
    """The gradient as it counts, its norm, and how many of its numbers count as 0.

    `nonfinite` is the guard's: "reject" raises NonFinite; "skip" answers NaN for the norm; "zero" puts 0
    where a number is not finite.
    """
    try:
        return gradient, norm(layout, gradient, reducer), 0
    except NonFinite:
        if nonfinite == "reject":
            raise
    if nonfinite == "skip":
        return gradient, math.nan, 0
    gradient, count = zeroed(gradient)
    return gradient, norm(layout, gradient, reducer), count


def zeroed(gradient: Gradient) -> tuple[Gradient, int]:
    """A copy with 0 in place of what is not finite, and how many there were."""
    finite = [np.isfinite(part.values) for part in gradient]
    parts = [
        part._replace(values=np.where(good, part.values, part.values.dtype.type(0)))
        for part, good in zip(gradient, finite, strict=True)
    ]
    return parts, sum(int(good.size - np.count_nonzero(good)) for good in finite)
