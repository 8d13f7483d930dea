"""Every rule follows PyTorch's trajectory, and its torch preset holds PyTorch's numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gradledger_server.kernels.device import open_device
from gradledger_server.optim import catalog, chain
from gradledger_server.optim.schedules.catalog import expand_schedule, learning_rate

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "vectors" / "torch.json").read_text(encoding="utf-8")
)
TOLERANCE = {"F32": 2e-6, "F64": 1e-12}
DTYPES = {"F32": np.float32, "F64": np.float64}


def test_every_rule_and_dtype_has_vectors_of_some_length() -> None:
    seen = {(case["optimizer"]["rule"], case["dtype"]) for case in VECTORS["cases"]}
    assert seen == {(rule, dtype) for rule in catalog.ELEMENTWISE for dtype in DTYPES}
    assert all(len(case["trajectory"]) >= 20 for case in VECTORS["cases"])


@pytest.mark.parametrize("compiled", [False, True], ids=["numpy", "llvm"])
@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: f"{case['name']} {case['dtype']}")
def test_trajectories(case: dict[str, Any], compiled: bool) -> None:
    """Errors are relative to the largest value the weight has had: where it crosses zero it has no scale."""
    inputs, dtype = VECTORS["inputs"][case["dtype"]], DTYPES[case["dtype"]]
    optimizer = catalog.expand_optimizer(case["optimizer"], where="optimizer")
    schedule = expand_schedule(case["schedule"], where="schedule")
    device = open_device("cpu", compiled=compiled)
    kernel = device.kernel(chain.program(optimizer), dtype)
    w = np.array(inputs["weights"], dtype)
    slots = [device.full(w.size, dtype, start) for start in catalog.slot_starts(optimizer).values()]
    scale = np.abs(w)
    for s, (gradient, row) in enumerate(zip(inputs["gradients"], case["trajectory"], strict=True)):
        lr = learning_rate(schedule, float(optimizer["lr"]), s)
        kernel(w, w, np.array(gradient, dtype), slots, chain.scalars(optimizer, t=s + 1, lr=lr))
        expected = np.array(row)
        scale = np.maximum(scale, np.abs(expected))
        error = np.max(np.abs(w.astype(np.float64) - expected) / scale)
        assert error <= TOLERANCE[case["dtype"]], f"step {s + 1}: relative error {error:.2e}"


@pytest.mark.parametrize(
    ("rule", "kind", "names"),
    [
        ("sgd", "SGD", {}),
        ("momentum", "SGD", {"momentum": None}),
        ("nesterov", "SGD", {"momentum": None}),
        ("adagrad", "Adagrad", {"initial_accumulator_value": "initial_accumulator"}),
        ("rmsprop", "RMSprop", {"alpha": "rho", "momentum": None}),
        ("adadelta", "Adadelta", {"eps": "eps_root"}),
        ("adam", "Adam", {}),
        ("adamw", "AdamW", {}),
    ],
)
def test_the_torch_preset_holds_torchs_defaults(rule: str, kind: str, names: dict[str, str | None]) -> None:
    ours = catalog.expand_optimizer({"rule": rule, "preset": "torch"}, where="optimizer")
    theirs = dict(VECTORS["defaults"][kind])
    if "betas" in theirs:
        theirs["beta1"], theirs["beta2"] = theirs.pop("betas")
    if rule in ("sgd", "nesterov"):
        del theirs["dampening"]
    if rule == "sgd":
        del theirs["momentum"]
    for name, value in theirs.items():
        own = names.get(name, name)
        if own is not None:
            assert ours[own] == value, name
