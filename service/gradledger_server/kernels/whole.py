"""What a rule may ask of a whole tensor: norms, which are scalars to the expressions after them, and
operations that need to see a tensor in its shape.

Traced, each of them parts a rule into stages (`stages.py`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gradledger_server.kernels import reductions, units
from gradledger_server.kernels.operations import OPERATIONS, Operation, Value, call, divide


def _norm(x: Any) -> float:
    return reductions.norm(np.asarray(x).reshape(-1))


def _trust_ratio(w_norm: float, g_norm: float, times: float, plus: float) -> float:
    return divide(times * w_norm, g_norm + plus) if w_norm > 0.0 and g_norm > 0.0 else 1.0


def _clip_factor(length: float, limit: float, eps: float) -> float:
    return limit / (length + eps) if length + eps > limit else 1.0


OPERATIONS |= {
    row.name: row
    for row in (
        Operation("norm", _norm),
        Operation("trust_ratio", _trust_ratio),
        Operation("clip_factor", _clip_factor),
        Operation("centralized", units.centralized, shaped=True),
        Operation("clipped_columns", units.clipped_columns, shaped=True),
        Operation("clipped_rows", units.clipped_rows, shaped=True),
    )
}


def norm(x: Value) -> float:
    """The Euclidean norm over a whole tensor: float64, by the canonical sum of squares."""
    return call("norm", x)  # type: ignore[no-any-return]


def trust_ratio(w_norm: float, g_norm: float, *, times: float = 1.0, plus: float = 0.0) -> float:
    """`times * w_norm / (g_norm + plus)`, or 1 if either norm is 0: how far a layer may trust its update."""
    return call("trust_ratio", w_norm, g_norm, times, plus)  # type: ignore[no-any-return]


def clip_factor(length: float, limit: float, eps: float = 0.0) -> float:
    """What shortens a vector of this length to the limit: `limit / (length + eps)`, but never above 1."""
    return call("clip_factor", length, limit, eps)  # type: ignore[no-any-return]


def centralized(g: Value) -> Value:
    """Less its mean over all axes but the first (`units.py`)."""
    return call("centralized", g)  # type: ignore[no-any-return]


def clipped_columns(w: Value, g: Value, clipping: float, eps: float) -> Value:
    """Units, `[in, out]`, no longer than `clipping` times their weights' (`units.py`)."""
    return call("clipped_columns", w, g, clipping, eps)  # type: ignore[no-any-return]


def clipped_rows(w: Value, g: Value, clipping: float, eps: float) -> Value:
    """Units, `[out, in]`, no longer than `clipping` times their weights' (`units.py`)."""
    return call("clipped_rows", w, g, clipping, eps)  # type: ignore[no-any-return]
