"""How gradients that count together become one: mean, sum, median, trimmed mean, Krum and Multi-Krum.

Every function takes the flat arrays of one arena, one per push and all of one length and dtype, in the order
of `Rounds.due`, and writes to `out` of the same kind. Additions run in that order and sorting goes by value
alone, so the bits depend neither on who came first nor on the machine.

The robust ones bear up to f pushes that say anything at all (Byzantine workers):

    median, trimmed mean   f < n / 2        Yin et al. 2018, Byzantine-Robust Distributed Learning
    Krum, Multi-Krum       2 f + 2 < n      Blanchard et al. 2017, Machine Learning with Adversaries
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

BLOCK = 16 * 1024  # elements looked at together: n rows of them share the cache


def weighted_sum(gradients: Sequence[Array], weights: Sequence[float], out: Array) -> None:
    """The sum of weight times gradient."""
    scales = [out.dtype.type(weight) for weight in weights]
    for here in _blocks(out.size):
        total, term = out[here], np.empty_like(out[here])
        np.multiply(gradients[0][here], scales[0], out=total)
        for gradient, scale in zip(gradients[1:], scales[1:], strict=True):
            np.multiply(gradient[here], scale, out=term)
            np.add(total, term, out=total)


def weighted_mean(gradients: Sequence[Array], weights: Sequence[float], out: Array) -> None:
    """The weighted sum, divided by the sum of the weights."""
    weighted_sum(gradients, weights, out)
    np.divide(out, out.dtype.type(_total(weights)), out=out)


def trimmed_mean(gradients: Sequence[Array], trim: int, out: Array) -> None:
    """Element by element, the mean without the `trim` smallest and the `trim` largest."""
    kept = len(gradients) - 2 * trim
    if kept < 1:
        raise ValueError(f"{len(gradients)} gradients leave nothing when {trim} are trimmed at either end")
    for here, ordered in _sorted(gradients, out.size):
        total = out[here]
        np.copyto(total, ordered[trim])
        for row in ordered[trim + 1 : trim + kept]:
            np.add(total, row, out=total)
        np.divide(total, out.dtype.type(kept), out=total)


def median(gradients: Sequence[Array], out: Array) -> None:
    """Element by element, the middle one, or half the sum of the two in the middle."""
    trimmed_mean(gradients, (len(gradients) - 1) // 2, out)


def krum_scores(distances: Array, attackers: int) -> list[float]:
    """Each push's sum of squared distances to its n - f - 2 nearest ones; the smaller, the more trusted.

    `distances` is the float64 n x n matrix of squared distances; `attackers` is f.
    """
    near = len(distances) - attackers - 2
    if near < 1:
        raise ValueError(f"{len(distances)} gradients are too few against {attackers} attackers")
    scores = []
    for index, row in enumerate(distances):
        others = sorted(float(d) for other, d in enumerate(row) if other != index)
        scores.append(sum(others[:near]))
    return scores


def squared_distances(
    arenas: Sequence[Sequence[Array]], sum_of_squares: Callable[[Array], float]
) -> npt.NDArray[np.float64]:
    """n x n: `arenas` holds, for every arena, the n pushes' arrays; the sum is the canonical one."""
    count = len(arenas[0]) if arenas else 0
    distances = np.zeros((count, count))
    for gradients in arenas:
        for one in range(count):
            for other in range(one):
                with np.errstate(all="ignore"):
                    apart = np.subtract(gradients[one], gradients[other])
                distances[one, other] += sum_of_squares(apart)
    return distances + distances.T


def most_trusted(scores: Sequence[float], count: int) -> list[int]:
    """The indices of the `count` smallest scores, ascending; of equal scores the first."""
    ranked = sorted(range(len(scores)), key=lambda index: (scores[index], index))
    return sorted(ranked[:count])


def _blocks(size: int) -> list[slice]:
    return [slice(start, min(start + BLOCK, size)) for start in range(0, size, BLOCK)]


def _sorted(gradients: Sequence[Array], size: int) -> Any:
    """Block by block, the rows [n, block] with every column in ascending order."""
    for here in _blocks(size):
        rows = np.stack([gradient[here] for gradient in gradients])
        rows += (
            0.0  # -0 becomes 0: a sort may leave equal numbers in any order, and these two differ in a bit
        )
        rows.sort(axis=0)
        yield here, rows


def _total(weights: Sequence[float]) -> float:
    total = 0.0
    for weight in weights:
        total += weight
    return total
