"""Tables: parameters of which a push brings some rows, and only those.

    model = client.create("demo", {"emb": Table((1_000_000, 64)), "w": w}, optimizer="adam")
    params, receipt = model.push({"emb": Rows(ids, gradients), "w": g})
    params["emb"].ids, params["emb"].values      the rows touched, each once, ascending

On the wire the values [k, …] have the table's name, and their numbers, int64 [k], stand beside them under
`<table>#rows`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

SUFFIX = "#rows"


@dataclass(frozen=True, slots=True)
class Table:
    """A table to create. `rows` says what a push does to it: "lazy", "lazy_global_t" or "dense".

    With `init` ({"name": "zeros"}, {"name": "normal", "std": 0.01, "seed": 7}, …) nothing is uploaded.
    """

    shape: tuple[int, ...]
    dtype: str = "F32"
    rows: str = "lazy"
    init: Mapping[str, Any] = field(default_factory=lambda: {"name": "zeros"})

    def to_json(self) -> dict[str, Any]:
        return {"shape": list(self.shape), "dtype": self.dtype, "rows": self.rows, "init": dict(self.init)}


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Some rows of a table: `values` [k, …] belong to the rows `ids` [k].

    In a gradient an id may come several times; the service sums what belongs to it.
    """

    ids: NDArray[np.int64]
    values: NDArray[Any]

    def __init__(self, ids: ArrayLike, values: ArrayLike) -> None:
        kept = np.asarray(ids)
        if kept.size and kept.dtype.kind not in "iu":
            raise TypeError(f"ids are {kept.dtype}; expected whole numbers")
        object.__setattr__(self, "ids", kept.astype(np.int64, copy=False))
        object.__setattr__(self, "values", np.asarray(values))

    def __len__(self) -> int:
        return len(self.ids)


def spread(named: Mapping[str, ArrayLike | Rows]) -> dict[str, ArrayLike]:
    """The arrays a body holds: `Rows` become two, side by side."""
    arrays: dict[str, ArrayLike] = {}
    for name, value in named.items():
        if isinstance(value, Rows):
            arrays |= {name: value.values, name + SUFFIX: value.ids}
        else:
            arrays[name] = value
    return arrays


def joined(arrays: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    """What `spread` spread."""
    return {
        name: Rows(arrays[name + SUFFIX], array) if name + SUFFIX in arrays else array
        for name, array in arrays.items()
        if not name.endswith(SUFFIX)
    }
