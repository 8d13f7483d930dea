"""Programs with norms: parted where they must be, with the same bits on every backend as the rule itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from gradledger_server.kernels import cuda, latex
from gradledger_server.kernels.cpu import CpuDevice
from gradledger_server.kernels.operations import sqrt
from gradledger_server.kernels.stages import StagedKernel, split
from gradledger_server.kernels.trace import Program, trace
from gradledger_server.kernels.whole import centralized, norm, trust_ratio
from gradledger_server.optim import catalog, chain
from tests.kernels.programs import same_bits

NUMPY, LLVM = CpuDevice(compiled=False), CpuDevice(threads=3)
LR = {"lr": 0.25}
Rule = Callable[..., tuple[Any, ...]]


def traced(rule: Rule, slots: str = "") -> Program:
    return trace("test", rule, slots=tuple(slots), scalars=["lr"], known={})


def inputs_norms(w: Any, g: Any, *, lr: Any) -> tuple[Any, ...]:
    return (w - lr * trust_ratio(norm(w), norm(g), times=0.5, plus=1.0) * g,)


def two_rounds(w: Any, g: Any, m: Any, *, lr: Any) -> tuple[Any, ...]:
    r = g + 0.5 * m
    q = r / norm(r) + w
    return w - lr / (1 + norm(q)) * q, r


def old_slot_needed_late(w: Any, g: Any, m: Any, *, lr: Any) -> tuple[Any, ...]:
    new = 0.5 * m + g
    return w - lr * norm(new) * m, new


def slots_alone_first(w: Any, g: Any, m: Any, n: Any, *, lr: Any) -> tuple[Any, ...]:
    m = m + g
    return w - lr / norm(m) * n * m, m, m


def swapped(w: Any, g: Any, m: Any, n: Any, *, lr: Any) -> tuple[Any, ...]:
    return w - lr * norm(sqrt(g * g)) * m, n, m


def in_shape(w: Any, g: Any, m: Any, *, lr: Any) -> tuple[Any, ...]:
    flat = centralized(g)
    m = m + centralized(flat * norm(flat))
    return w - lr * m / norm(m), m


RULES: dict[str, tuple[Rule, str, int]] = {
    rule.__name__: (rule, slots, stages)
    for rule, slots, stages in (
        (inputs_norms, "", 1),
        (two_rounds, "m", 3),
        (old_slot_needed_late, "m", 2),
        (slots_alone_first, "mn", 2),
        (swapped, "mn", 2),
        (in_shape, "m", 3),
    )
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", RULES)
def test_staged_is_the_rule_itself(name: str, dtype: npt.DTypeLike) -> None:
    """The rule called with whole arrays, each scalar cast once, is the independent word on the bits."""
    rule, slots, stages = RULES[name]
    program = traced(rule, slots)
    assert len(split(program)) == stages
    for shape in ((1,), (3, 4), (90, 130), (2, 3, 5)):
        generator = np.random.default_rng(len(shape))
        arrays = [np.abs(generator.standard_normal(shape)).astype(dtype) for _ in program.inputs]
        expected = rule(*arrays, **LR)
        for device in (NUMPY, LLVM):
            w, g, *held = (array.ravel().copy() for array in arrays)
            out = w if device is NUMPY else np.empty_like(w)
            StagedKernel(program, np.dtype(dtype), device)(out, w, g, held, LR, [shape])
            for value, array in zip(expected, (out, *held), strict=True):
                assert same_bits(array, np.asarray(value, dtype).ravel()), (shape, device.name)
            assert same_bits(g, arrays[1].ravel()) and (out is w or same_bits(w, arrays[0].ravel()))


def test_a_rule_without_norms_is_one_kernel() -> None:
    for rule in catalog.ELEMENTWISE:
        assert not chain.program(catalog.expand_optimizer({"rule": rule}, where="o")).staged


def test_norms_of_what_goes_in_need_no_stage_of_their_own() -> None:
    lars = chain.program(catalog.expand_optimizer({"rule": "lars", "weight_decay": 0.1}, where="o"))
    [only] = split(lars)
    assert only.out == "out" and [part.of for part in only.before if hasattr(part, "of")] == ["w", "g"]


def test_as_little_as_possible_is_carried() -> None:
    for given, carried in (
        ({"rule": "lamb"}, ["k0"]),
        ({"rule": "lars", "trust_norm": "sum", "weight_decay": 0.1}, ["k0"]),
        ({"rule": "lamb", "weight_decay": 0.1, "weight_decay_mode": "first"}, ["k0", "k1"]),
    ):
        program = chain.program(catalog.expand_optimizer(given, where="o"))
        assert StagedKernel(program, np.dtype(np.float32), NUMPY).carried == carried


def test_every_stage_can_be_spelt_for_a_gpu() -> None:
    for rule, slots, _ in RULES.values():
        for stage in split(traced(rule, slots)):
            source = cuda.spell(stage.program, np.dtype(np.float32))
            for program_input in stage.program.slots:
                assert f"{program_input}_at" in source


def test_norms_are_printed_as_norms() -> None:
    told = latex.spell(chain.program(catalog.expand_optimizer({"rule": "lamb", "eps_root": 0}, where="o")))
    assert told.endswith(r"w_t = w_{t-1} - \eta_t \frac{\lVert w_{t-1} \rVert}{\lVert x_t \rVert} x_t")


def test_a_norm_of_nothing_is_zero_and_extremes_do_not_overflow() -> None:
    assert norm(np.zeros(0)) == 0.0 == norm(np.zeros((2, 2), np.float32))
    for scale in (1e300, 1e160, 1e-160, 1e-300, 5e-324):
        array: Any = np.full(4, scale)
        assert norm(array) == pytest.approx(2 * scale, rel=1e-15)
    assert norm(np.array([np.inf, 1.0])) == np.inf
    assert np.isnan(norm(np.array([np.nan, 1.0])))
    largest: Any = np.full(100, np.finfo(np.float32).max)
    assert norm(largest) == pytest.approx(10 * float(largest[0]))
