"""First values of a table's rows: what a row holds before anybody touched it, on any replica, in any order.

    {"name": "zeros"}
    {"name": "uniform", "low": -0.05, "high": 0.05, "seed": 0}
    {"name": "normal", "mean": 0.0, "std": 1.0, "seed": 0}

The element at flat position i of the table (row-major) takes place i of the stream whose key is made of the
seed and the bytes of the table's name (kernels/counter.py). Numbers are computed in float64 and rounded once
to the table's dtype.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradledger_server.entries import Json
from gradledger_server.kernels import counter
from gradledger_server.optim.expansion import choose, settle, wrong
from gradledger_server.optim.hyperparameters import FLOAT32_MAX, Bounds
from gradledger_server.optim.signatures import Hyperparameter, Setting

_FARTHEST = 8.3  # standard deviations: no normal number of kernels/counter.py lies as far from its mean
_ANY = Bounds(-FLOAT32_MAX)
_SEED = Hyperparameter("seed", "integer", 0, Bounds(0, 2**53))

INITIALS: Mapping[str, Mapping[str, Hyperparameter]] = {
    "zeros": {},
    "uniform": {
        "low": Hyperparameter("low", "number", -0.05, _ANY),
        "high": Hyperparameter("high", "number", 0.05, _ANY),
        "seed": _SEED,
    },
    "normal": {
        "mean": Hyperparameter("mean", "number", 0.0, _ANY),
        "std": Hyperparameter("std", "number", 1.0, Bounds(0)),
        "seed": _SEED,
    },
}


def expand_initial(given: Mapping[str, object], *, where: str) -> dict[str, Setting]:
    """The `init` of a table with every default written out; expanding twice changes nothing.

    Raises InvalidSpec naming the field.
    """
    name = choose(given, "name", tuple(INITIALS), where=where, default=None)
    written = {key: value for key, value in given.items() if key != "name"}
    settled = settle(written, INITIALS[name], {}, where=where, of=f"init {name!r}")
    if name == "normal":
        _require_finite(float(settled["mean"]), float(settled["std"]), where)
    return {"name": name, **settled}


def _require_finite(mean: float, std: float, where: str) -> None:
    """What is uploaded has to be finite, so what is computed instead has to be, too."""
    if abs(mean) + _FARTHEST * std > FLOAT32_MAX:
        raise wrong(
            f"{where}.std",
            std,
            f"|mean| + {_FARTHEST} std <= {FLOAT32_MAX:g}, so that first values are finite",
        )


def stream_key(initial: Json, table: str) -> int:
    """Which numbers a table draws: those of its seed and its name."""
    return counter.key(initial.get("seed", 0), *table.encode())


def _columns(width: int) -> NDArray[np.uint64]:
    return np.arange(width, dtype=np.uint64)


def first_values(
    initial: Json, key: int, rows: NDArray[np.int64], width: int, dtype: np.dtype[Any]
) -> NDArray[Any]:
    """The rows' first values: `dtype` [rows, width]. `key` is the table's `stream_key`."""
    if initial["name"] == "zeros":
        return np.zeros((rows.size, width), dtype)
    places: NDArray[np.uint64] = rows.astype(np.uint64)[:, None] * np.uint64(width) + _columns(width)
    if initial["name"] == "uniform":
        low, high = float(initial["low"]), float(initial["high"])
        numbers = low + counter.uniform(key, places) * (high - low)
    else:
        numbers = initial["mean"] + counter.normal(key, places) * initial["std"]
    with np.errstate(over="ignore"):
        return numbers.astype(dtype)
