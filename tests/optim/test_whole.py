"""The rules that see whole tensors follow the trajectories of PyTorch, optax and Keras."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gradledger_server.kernels.cpu import CpuDevice
from gradledger_server.kernels.device import Device
from gradledger_server.machine.spec import Group
from gradledger_server.machine.step import Step, Update
from gradledger_server.optim import catalog, guide
from gradledger_server.optim.meanings import MEANINGS, SLOT_MEANINGS

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "vectors" / "whole.json").read_text(encoding="utf-8")
)
WHOLE = [rule for rule in catalog.RULES if rule not in catalog.ELEMENTWISE]
DTYPES = {"F32": np.float32, "F64": np.float64}
TOLERANCE = {"F32": 2e-6, "F64": 1e-12}
WIDER = {("lamb, keras", "F32"): 2e-5, ("lamb decayed, keras", "F32"): 2e-5}
"""Keras takes 1 - beta^t in float32, which is off by up to 1.3e-5 in the first steps."""

DEVICES = {"numpy": CpuDevice(compiled=False), "llvm": CpuDevice(threads=2)}


def trajectory(
    optimizer: dict[str, Any], start: np.ndarray[Any, Any], gradients: list[Any], device: Device
) -> list[np.ndarray[Any, Any]]:
    """The tensor after every update, through the step the machine takes."""
    group = Group("*", optimizer, {"name": "constant"}, {})
    step = Step.of(group, 0, start.dtype, device)
    shapes = catalog.slot_shapes(optimizer, start.shape)
    starts = catalog.slot_starts(optimizer)
    slots = [np.full(shapes.get(name, (0,)), value, start.dtype).ravel() for name, value in starts.items()]
    seen = [start.shape, start.shape, *(shapes.get(name, (0,)) for name in starts)]
    w, rows = start.ravel().copy(), []
    for s, gradient in enumerate(gradients):
        update, lr = Update(s + 2, s, 0.0), optimizer["lr"]
        step.advance(w, w, np.array(gradient, start.dtype), slots, t=s + 1, lr=lr, update=update, shapes=seen)
        rows.append(w.astype(np.float64))
    return rows


@pytest.mark.parametrize("rule", WHOLE)
def test_a_rules_signature_is_its_specification(rule: str) -> None:
    facts, told = catalog.rule_facts(rule), guide.describe(rule)
    assert facts.summary and re.search(r"\d{4}", facts.source)
    assert set(facts.hyperparameters) <= set(MEANINGS) and set(facts.slots) <= set(SLOT_MEANINGS)
    for preset in catalog.presets_of(rule):
        once = catalog.expand_optimizer({"rule": rule, "preset": preset}, where="o")
        assert catalog.expand_optimizer(once, where="o") == once
    json.dumps(told, allow_nan=False)
    equation = told["equation"]
    assert equation.count("{") == equation.count("}") and r"\mathrm{lr" not in equation
    assert told["bytes_per_parameter"] == {"lars": 8, "lamb": 12, "adafactor": 4, "muon": 8}[rule]


def test_every_rule_has_vectors_of_some_length() -> None:
    seen = {(case["optimizer"]["rule"], case["dtype"]) for case in VECTORS["cases"]}
    assert seen == {(rule, dtype) for rule in WHOLE for dtype in DTYPES}
    assert all(len(rows) >= 20 for case in VECTORS["cases"] for rows in case["trajectories"].values())


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: f"{case['name']} {case['dtype']}")
def test_trajectories(case: dict[str, Any], device: str) -> None:
    """Errors are relative to the largest value the tensor has had: where one crosses zero it has no scale."""
    dtype = case["dtype"]
    inputs, optimizer = VECTORS["inputs"][dtype], catalog.expand_optimizer(case["optimizer"], where="o")
    tolerance = WIDER.get((case["name"], dtype), TOLERANCE[dtype])
    for name, told in case["trajectories"].items():
        start = np.array(inputs["weights"][name], DTYPES[dtype]).reshape(VECTORS["shapes"][name])
        gradients = [row[name] for row in inputs["gradients"]]
        rows = trajectory(optimizer, start, gradients, DEVICES[device])
        scale = float(np.abs(start).max())
        for s, (row, expected) in enumerate(zip(rows, np.array(told), strict=True)):
            scale = max(scale, float(np.abs(expected).max()))
            error = float(np.abs(row - expected).max()) / (scale or 1.0)
            assert error <= tolerance, f"{name}, step {s + 1}: relative error {error:.2e}"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("eps_mode", ["clamp", "add"])
def test_an_adafactor_whose_eps_is_infinite_squared_stands_still(eps_mode: str) -> None:
    optimizer = {"rule": "adafactor", "eps": 3e38, "eps_mode": eps_mode}
    expanded = catalog.expand_optimizer(optimizer, where="o")
    start = np.ones((2, 3), np.float32)
    (after,) = trajectory(expanded, start, [start], DEVICES["numpy"])
    np.testing.assert_allclose(after, start.ravel())
