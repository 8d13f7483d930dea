"""Every rule follows the trajectory of the libraries that have it, and every preset is theirs.

The vectors are written by the scripts beside them. Errors are relative to the largest value the weight has
had: where it crosses zero it has no scale.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gradledger_server.kernels.device import open_device
from gradledger_server.optim import catalog, chain
from gradledger_server.optim.presets import PRESETS
from gradledger_server.optim.rules import VIEWS
from gradledger_server.optim.schedules.catalog import expand_schedule, learning_rate

ORACLES: dict[str, Any] = {
    oracle: json.loads((Path(__file__).parents[1] / "vectors" / f"{oracle}.json").read_text(encoding="utf-8"))
    for oracle in ("torch", "optax", "keras")
}
CASES = [(oracle, case) for oracle, vectors in ORACLES.items() for case in vectors["cases"]]
TOLERANCE = {"F32": 2e-6, "F64": 1e-12}
DEVICES = {compiled: open_device("cpu", compiled=compiled) for compiled in (False, True)}
DTYPES = {"F32": np.float32, "F64": np.float64}

DEVIATIONS = {
    ("keras", "adamw", "F32"): (1e-5, "1 - beta2^t and 1 - lr wd are taken in float32, which costs digits"),
}
"""(oracle, rule, dtype) → how far it is off, and why it is the oracle that deviates."""

NO_ORACLE = {
    "fedadagrad": "the libraries that have it are servers; test_published.py has the paper's equations",
    "fedadam": "as fedadagrad",
    "fedyogi": "as fedadagrad",
}

NO_PARITY = {
    ("optax", "rprop"): "Optax 0.2.8 takes every step one update late, so the preset does not exist",
}


def test_every_rule_has_an_oracle_in_both_dtypes_and_trajectories_of_some_length() -> None:
    seen = {(case["optimizer"]["rule"], case["dtype"]) for _, case in CASES}
    assert seen == {
        (rule, dtype) for rule in catalog.ELEMENTWISE if rule not in NO_ORACLE for dtype in DTYPES
    }
    for vectors in ORACLES.values():
        assert vectors["kept"][-1] >= 20 and vectors["versions"]
        assert all(len(given["gradients"]) == vectors["kept"][-1] for given in vectors["inputs"].values())


def test_every_preset_with_an_oracle_is_held_against_it() -> None:
    held = {(case["optimizer"].get("preset", "torch"), case["optimizer"]["rule"]) for _, case in CASES}
    claimed = {
        (preset, rule)
        for preset in ("optax", "keras")
        for rule in PRESETS[preset]
        if rule in catalog.ELEMENTWISE
    }
    assert claimed <= held
    assert not claimed & set(NO_PARITY)


def name_of(value: Any) -> str:
    return f"{value['name']} {value['dtype']}" if isinstance(value, dict) else str(value)


@pytest.mark.parametrize("compiled", [False, True], ids=["numpy", "llvm"])
@pytest.mark.parametrize(("oracle", "case"), CASES, ids=name_of)
def test_trajectories(oracle: str, case: dict[str, Any], compiled: bool) -> None:
    error = max(errors(oracle, case, compiled=compiled))
    key = (oracle, case["optimizer"]["rule"], case["dtype"])
    tolerance, _ = DEVIATIONS.get(key, (TOLERANCE[case["dtype"]], ""))
    assert error <= tolerance, f"relative error {error:.2e} from {case['oracle']}"


def errors(oracle: str, case: dict[str, Any], *, compiled: bool) -> list[float]:
    """The relative error after each update that is kept."""
    vectors, dtype = ORACLES[oracle], DTYPES[case["dtype"]]
    inputs = vectors["inputs"][case["dtype"]]
    optimizer = catalog.expand_optimizer(case["optimizer"], where="optimizer")
    schedule = expand_schedule(case["schedule"], where="schedule")
    device = DEVICES[compiled]
    kernel = device.kernel(chain.program(optimizer), dtype)
    w = np.array(inputs["weights"], dtype)
    slots = {
        name: device.full(w.size, dtype, start) for name, start in catalog.slot_starts(optimizer).items()
    }
    scale, found = np.abs(w), []
    expected = dict(zip(vectors["kept"], case["trajectory"], strict=True))
    for s, gradient in enumerate(inputs["gradients"]):
        lr = learning_rate(schedule, float(optimizer["lr"]), s)
        scalars = chain.scalars(optimizer, t=s + 1, lr=lr)
        kernel(w, w, np.array(gradient, dtype), list(slots.values()), scalars)
        scale = np.maximum(scale, np.abs(w))
        if s + 1 in expected:
            seen = viewed(case, optimizer, w, slots).astype(np.float64)
            found.append(float(np.max(np.abs(seen - np.array(expected[s + 1])) / scale)))
    return found


def viewed(case: dict[str, Any], optimizer: catalog.Optimizer, w: Any, slots: dict[str, Any]) -> Any:
    if "view" not in case:
        return w
    beta = "momentum" if case["optimizer"]["rule"] == "schedule_free_sgd" else "beta1"
    view = VIEWS[case["optimizer"]["rule"]][case["view"]]
    return view(w, slots["a"], **{beta: optimizer[beta]})
