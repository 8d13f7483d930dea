"""Transforms, averages and accumulation follow PyTorch's and Optax's own, push by push."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gradledger_server.optim.transforms import TRANSFORMS
from tests.machine.bodies import Arrays, model_of, push, weights_of

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "vectors" / "transforms.json").read_text(encoding="utf-8")
)
TOLERANCE = {"F32": 2e-6, "F64": 1e-12}
DTYPES = {"F32": np.float32, "F64": np.float64}


def arrays(lists: dict[str, Any], dtype: str) -> Arrays:
    return {name: np.array(values, DTYPES[dtype]) for name, values in lists.items()}


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: f"{case['name']} {case['dtype']}")
def test_trajectories(case: dict[str, Any]) -> None:
    """Errors are relative to the largest value a weight has had: where it crosses zero it has no scale."""
    dtype, inputs = case["dtype"], VECTORS["inputs"][case["dtype"]]
    model = model_of(arrays(inputs["weights"], dtype), **case["spec"])
    scale = {name: np.abs(values) for name, values in arrays(inputs["weights"], dtype).items()}
    for index, gradient in enumerate(inputs["gradients"]):
        push(model, arrays(gradient, dtype), offset=index + 2)
        for view, trajectory in case["views"].items():
            for name, values in weights_of(model, view).items():
                expected = np.array(trajectory[index][name])
                scale[name] = np.maximum(scale[name], np.abs(expected))
                error = np.max(np.abs(values.astype(np.float64) - expected) / scale[name])
                assert error <= TOLERANCE[dtype], f"push {index + 1}, {view}: relative error {error:.2e}"


def test_everything_that_has_an_oracle_is_compared_for_twenty_pushes() -> None:
    compared = {name for case in VECTORS["cases"] for name in case["spec"].get("transforms", {})}
    elsewhere = {"clip_norm", "agc", "centralize"}  # test_whole_transforms.py
    assert compared == TRANSFORMS.keys() - {"noise"} - elsewhere
    assert all(len(trajectory) >= 20 for case in VECTORS["cases"] for trajectory in case["views"].values())
