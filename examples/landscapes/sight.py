"""What one sees of a path, in a word."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from examples.landscapes.functions import Landscape, Point
from examples.landscapes.run import Path, Points

NEAR_WIDTHS = 0.04
UPHILL_SHARE = 0.02
ZIGZAG_SHARE = 0.4

WORDS = (
    "finds the way down",
    "arrives",
    "overshoots, then arrives",
    "on its way",
    "stays at the saddle",
    "swings",
    "leaves the map",
)


def seen(landscape: Landscape, path: Path) -> str:
    """One of `WORDS`."""
    last, near = path.points[-1], NEAR_WIDTHS * landscape.width
    if _is_down(landscape, path.points):
        return "finds the way down"
    if not _is_inside(landscape, last):
        return "leaves the map"
    noisy = "noise" in path.trial  # whatever swings then need not be the rule
    if _distance(last, landscape.minima) < near:
        overshot = not noisy and _went_uphill(landscape, path.points)
        return "overshoots, then arrives" if overshot else "arrives"
    if _distance(last, landscape.saddles) < near:
        return "stays at the saddle"
    return "swings" if not noisy and _zigzags(path.points) else "on its way"


def until_gone(landscape: Landscape, path: Path) -> Points:
    """The path as far as the first step off the map, if it does not come back in the end."""
    off = [index for index, point in enumerate(path.points) if not _is_inside(landscape, point)]
    gone = off and not _is_inside(landscape, path.points[-1])
    return path.points[: off[0] + 1] if gone else path.points


def _is_down(landscape: Landscape, points: Points) -> bool:
    """Where there is no minimum: clearly below the saddle, and not by leaping over the walls beside it."""
    (x, y), (left, right) = points[-1], landscape.window[:2]
    return not landscape.minima and left < x < right and bool(landscape.value(x, y) < -0.25)


def _is_inside(landscape: Landscape, point: Points) -> bool:
    left, right, low, high = landscape.window
    return bool(left <= point[0] <= right and low <= point[1] <= high)


def _distance(point: Points, others: Sequence[Point]) -> float:
    return min((float(np.hypot(*(point - other))) for other in others), default=np.inf)


def _went_uphill(landscape: Landscape, points: Points) -> bool:
    """Whether it climbed by more than a small share of the height it came from."""
    values = landscape.value(*points.T)
    climbs = values - np.minimum.accumulate(values)
    return bool(climbs.max() > UPHILL_SHARE * (values[0] - values[-1]))


def _zigzags(points: Points) -> bool:
    """Whether many a step, of those lately, went back on the one before."""
    steps = np.diff(points, axis=0)[-60:]
    return bool(((steps[1:] * steps[:-1]).sum(axis=1) < 0).mean() > ZIGZAG_SHARE)
