"""Gradient transforms that see whole tensors: as optax has them, and in a chain before any rule."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gradledger_server.kernels.cpu import CpuDevice
from gradledger_server.kernels.stages import StagedKernel
from gradledger_server.kernels.tensor import Tensor
from gradledger_server.kernels.trace import trace
from gradledger_server.optim import whole_transforms
from gradledger_server.optim.matrices import muon
from gradledger_server.optim.rules.descent import momentum

VECTORS: Any = json.loads((Path(__file__).parents[1] / "vectors" / "whole.json").read_text(encoding="utf-8"))
DTYPES = {"F32": np.float32, "F64": np.float64}
TOLERANCE = {"F32": 2e-6, "F64": 1e-12}
DEVICES = (CpuDevice(compiled=False), CpuDevice(threads=2))
THERE: Any = whole_transforms  # called with arrays, which are values too
agc, centralize, clip_norm = THERE.agc, THERE.centralize, THERE.clip_norm
TRANSFORMS = {"agc": agc, "centralize": centralize}


@pytest.mark.parametrize("case", VECTORS["transforms"], ids=lambda case: f"{case['name']} {case['dtype']}")
def test_they_are_optaxs(case: dict[str, Any]) -> None:
    """Traced, with a weight that becomes the gradient, as a rule would see it."""
    transform, settings = TRANSFORMS[case["name"]], case["settings"]
    symbols, dtype = sorted(settings), np.dtype(DTYPES[case["dtype"]])
    program = trace("t", lambda w, g, **s: (transform(w, g, **s),), slots=(), scalars=symbols, known={})
    for name, tensor in case["tensors"].items():
        w, g = (np.array(tensor[key], dtype) for key in "wg")
        results = []
        for device in DEVICES:
            out = np.empty_like(w)
            kernel = StagedKernel(program, dtype, device)
            kernel(out, w, g, [], settings, [tuple(tensor["shape"])])
            results.append(out)
        assert results[0].tobytes() == results[1].tobytes()
        expected = np.array(tensor["after"])
        error = float(np.abs(results[0] - expected).max() / np.abs(expected).max())
        assert error <= TOLERANCE[case["dtype"]], (name, error)


def test_a_clipped_tensor_is_as_long_as_allowed_and_a_short_one_untouched() -> None:
    w: Any = np.zeros((3, 4))
    g: Any = np.arange(12.0).reshape(3, 4)
    length = float(np.sqrt((g * g).sum()))
    np.testing.assert_allclose(clip_norm(w, g, max_norm=2.0), g * (2.0 / length), rtol=1e-15)
    np.testing.assert_allclose(  # PyTorch's form ends a little shorter
        clip_norm(w, g, max_norm=2.0, clip_eps=1e-6),
        g * (2.0 / (length + 1e-6)),
        rtol=1e-15,
    )
    for same in (g, 0.0 * g, np.zeros((0, 2))):
        assert np.array_equal(clip_norm(w, same, max_norm=length), same)
    tiny: Any = np.full(3, 1e-200)
    np.testing.assert_allclose(clip_norm(tiny, tiny, max_norm=1e-300), 1e-300 / np.sqrt(3), rtol=1e-14)


def test_rows_may_be_units_too() -> None:
    w, g = np.ones((4, 3)), np.arange(12.0).reshape(4, 3)
    rows: Any = agc(w, g, clipping=0.1, rows_are="out")
    columns: Any = agc(w.T.copy(), g.T.copy(), clipping=0.1, rows_are="in")
    np.testing.assert_allclose(rows, columns.T, rtol=1e-15)
    np.testing.assert_allclose(np.sqrt((rows**2).sum(1)), 0.1 * np.sqrt(3), rtol=1e-14)


def chained(w: Any, g: Any, u: Any, *, t: Any, lr: Any, max_norm: Any) -> tuple[Any, ...]:
    g = centralize(w, agc(w, clip_norm(w, g, max_norm=max_norm), clipping=0.5))
    return momentum(w, g, u, t=t, lr=lr)


def test_a_chain_of_them_before_a_rule_has_the_bits_of_its_parts() -> None:
    program = trace("chained", chained, slots=("u",), scalars=["t", "lr", "max_norm"], known={})
    generator = np.random.default_rng(5)
    arrays: list[Any] = [generator.standard_normal((6, 5, 4)) for _ in "wgu"]
    values = {"t": 3, "lr": 0.1, "max_norm": 2.0}
    w, u = chained(*arrays, **values)
    for device in DEVICES:
        after = [array.ravel().copy() for array in arrays]
        StagedKernel(program, np.dtype(np.float64), device)(
            after[0], after[0], after[1], after[2:], values, [(6, 5, 4)]
        )
        assert after[0].tobytes() == w.tobytes() and after[2].tobytes() == u.tobytes()


def test_they_stand_before_rules_on_matrices_too() -> None:
    arrays = [np.random.default_rng(seed).standard_normal((4, 3)) for seed in range(3)]
    results = []
    for device in DEVICES:
        w, g, u = (Tensor(array, device) for array in arrays)
        g = centralize(w, agc(w, clip_norm(w, g, max_norm=1.0)))
        results.append(muon(w, g, u, t=1)[0].values)
    plain: Any = centralize(arrays[0], agc(arrays[0], clip_norm(arrays[0], arrays[1], max_norm=1.0)))
    assert g.values.tobytes() == plain.tobytes()
    assert results[0].tobytes() == results[1].tobytes()
