"""What the scripts that write vectors share: the weights and gradients, and the form of the file.

    {"made_by": …, "versions": {…}, "seed": …, "kept": [1, 2, …],      the updates whose weights are kept
     "inputs": {dtype: {"weights": […], "gradients": [[…], …]}},
     "cases": [{"name", "dtype", "oracle", "optimizer", "schedule", "trajectory": [[…], …]}, …]}

Weights and gradients are drawn once in float64 and rounded for float32. Run at the
root of the checkout, `python -m tests.vectors.make_x_vectors`, with a Python that has the library; the suite
itself needs only what is committed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

SEED = 20150722
UPDATES = 24
KEPT = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24)
DTYPES = {"F32": np.float32, "F64": np.float64}
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Case:
    """`optimizer` is ours, `oracle` tells what the library was asked for; lr decays by `decay` per update.

    `run` takes weights, gradients and the learning rate's factor at each update; it answers the weights
    after every update.
    """

    name: str
    oracle: str
    optimizer: dict[str, Any]
    run: Callable[[Array, Array, list[float]], list[Array]]
    decay: float | None = None
    extra: dict[str, Any] = field(default_factory=dict)


def inputs(dtype: str) -> tuple[Array, Array]:
    """The first weights, and a gradient per update, whose elements are of very different sizes."""
    generator = np.random.default_rng(SEED)
    weights = generator.standard_normal(5)
    gradients = generator.standard_normal((UPDATES, 5)) * np.logspace(-3, 1, 5)
    return weights.astype(DTYPES[dtype]), gradients.astype(DTYPES[dtype])


def factors(case: Case) -> list[float]:
    return [1.0 if case.decay is None else case.decay**s for s in range(UPDATES)]


def write(script: str, versions: dict[str, str], cases: list[Case], dtypes: tuple[str, ...]) -> None:
    """Runs every case and writes the file named after the script: make_x_vectors.py → x.json."""
    recorded = [record(case, dtype) for dtype in dtypes for case in cases]
    document = {
        "made_by": Path(script).name,
        "versions": versions,
        "seed": SEED,
        "kept": KEPT,
        "inputs": {
            dtype: {"weights": shortened(dtype, weights), "gradients": shortened(dtype, gradients)}
            for dtype in dtypes
            for weights, gradients in [inputs(dtype)]
        },
        "cases": recorded,
    }
    name = Path(script).stem.removeprefix("make_").removesuffix("_vectors")
    text = json.dumps(document, separators=(",", ":")).replace('{"name"', '\n{"name"')
    Path(script).with_name(f"{name}.json").write_text(text + "\n")


def record(case: Case, dtype: str) -> dict[str, Any]:
    weights, gradients = inputs(dtype)
    taken = case.run(weights, gradients, factors(case))
    assert len(taken) == UPDATES and all(np.isfinite(row).all() for row in taken), case.name
    schedule = None
    if case.decay is not None:
        schedule = {"name": "exponential_decay", "decay_rate": case.decay, "decay_steps": 1}
    return {
        "name": case.name,
        "dtype": dtype,
        "oracle": case.oracle,
        "optimizer": case.optimizer,
        "schedule": schedule,
        "trajectory": [shortened(dtype, taken[update - 1]) for update in KEPT],
        **case.extra,
    }


def shortened(dtype: str, values: Array) -> Any:
    """Nested lists with the digits that bring the very number back."""
    digits = 9 if dtype == "F32" else 17

    def short(value: Any) -> Any:
        return [short(one) for one in value] if isinstance(value, list) else float(f"{value:.{digits}g}")

    return short(np.asarray(values, np.float64).tolist())


def spelled(kind: str, arguments: dict[str, Any]) -> str:
    return f"{kind}({', '.join(f'{name}={value!r}' for name, value in arguments.items())})"


def each(rows: Array) -> Iterator[Array]:
    """A copy of every row: some libraries write into the gradients they are given."""
    yield from (row.copy() for row in rows)
