"""A gradient on its way from the body to the arenas: views, copies, the norm, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gradledger_server.blocks import Blocks
from gradledger_server.entries import Tensors
from gradledger_server.errors import (
    GradledgerError,
    MalformedBody,
    NonFinite,
    UnknownTensor,
    WrongDtype,
    WrongShape,
)
from gradledger_server.kernels.cpu import CpuDevice
from gradledger_server.machine.gradient import Stretch, check, gather, norm
from gradledger_server.machine.layout import Declared, Layout
from gradledger_server.machine.reading import KEPT
from tests.machine.bodies import BFLOAT16, NUMPY, body, f32, noise

LAYOUT = Layout([Declared("a", (2, 3), "F32", 0), Declared("b", (4,), "F32", 0), Declared("c", (), "F32", 0)])
A, B, C = noise((2, 3), 1), noise((4,), 2), noise((), 3)


def laid(layout: Layout, tensors: Tensors) -> list[Stretch]:
    check(layout, tensors)
    return [part for part in gather(layout, tensors, Blocks()) if isinstance(part, Stretch)]


def is_view(stretch: Stretch, tensors: Tensors) -> bool:
    return np.shares_memory(stretch.values, np.frombuffer(tensors.payload, np.uint8))


def test_a_whole_model_in_wire_order_is_one_view() -> None:
    tensors = body({"a": A, "b": B, "c": C})
    [stretch] = laid(LAYOUT, tensors)
    assert is_view(stretch, tensors)
    assert (stretch.run.start, stretch.run.stop, stretch.run.first, stretch.run.last) == (0, 11, 0, 3)
    np.testing.assert_array_equal(stretch.values, np.concatenate([A.ravel(), B, C.ravel()]))


def test_another_order_is_copied_into_place() -> None:
    tensors = body({"c": C, "b": B, "a": A})
    [stretch] = laid(LAYOUT, tensors)
    assert not is_view(stretch, tensors)
    np.testing.assert_array_equal(stretch.values, np.concatenate([A.ravel(), B, C.ravel()]))


def test_an_unaligned_body_is_copied_not_misread() -> None:
    tensors = body({"a": A, "b": B, "c": C}, lead_bytes=61)
    [stretch] = laid(LAYOUT, tensors)
    assert not is_view(stretch, tensors)
    assert stretch.values.flags.aligned
    np.testing.assert_array_equal(stretch.values, np.concatenate([A.ravel(), B, C.ravel()]))


def test_a_gap_makes_two_stretches_and_each_is_a_view() -> None:
    tensors = body({"a": A, "c": C})
    first, second = laid(LAYOUT, tensors)
    assert is_view(first, tensors) and is_view(second, tensors)
    assert (first.run.start, first.run.stop, second.run.start, second.run.stop) == (0, 6, 10, 11)


def test_one_foreign_tensor_in_a_run_copies_the_run_and_widens_it() -> None:
    [stretch] = laid(LAYOUT, body({"a": A, "b": B.astype(np.float64), "c": C}))
    assert stretch.values.dtype == np.float32
    np.testing.assert_array_equal(stretch.values, np.concatenate([A.ravel(), B, C.ravel()]))


@pytest.mark.parametrize("sent", [np.float16, BFLOAT16, np.float32, np.float64])
@pytest.mark.parametrize("kept", ["F32", "F64"])
def test_every_gradient_dtype_reaches_every_parameter_dtype(sent: Any, kept: str) -> None:
    layout = Layout([Declared("w", (1000,), kept, 0)])
    numbers = noise((1000,), 4, sent)
    [stretch] = laid(layout, body({"w": numbers}))
    target = np.float32 if kept == "F32" else np.float64
    assert stretch.values.dtype == target
    np.testing.assert_array_equal(stretch.values, numbers.astype(target))


def test_arenas_of_two_dtypes_make_two_views() -> None:
    layout = Layout([Declared("n", (3,), "F32", 0), Declared("w", (2,), "F64", 0)])
    tensors = body({"w": noise((2,), 5, np.float64), "n": noise((3,), 6)})
    stretches = laid(layout, tensors)
    assert [stretch.values.dtype for stretch in stretches] == [np.float64, np.float32]
    assert all(is_view(stretch, tensors) for stretch in stretches)


@pytest.mark.parametrize("reverse", [False, True])
def test_empty_tensors_among_others_change_nothing(reverse: bool) -> None:
    layout = Layout(
        [Declared(n, s, "F32", 0) for n, s in {"a": (0,), "b": (2,), "c": (3, 0), "d": ()}.items()]
    )
    arrays: dict[str, NDArray[Any]] = {
        "a": f32(),
        "b": f32(1, 2),
        "c": np.zeros((3, 0), np.float32),
        "d": f32(3).reshape(()),
    }
    tensors = body(dict(reversed(arrays.items())) if reverse else arrays)
    [stretch] = laid(layout, tensors)
    np.testing.assert_array_equal(stretch.values, f32(1, 2, 3))


def test_a_gradient_of_empty_tensors_alone_has_norm_zero() -> None:
    layout = Layout([Declared("a", (0,), "F32", 0)])
    assert norm(layout, laid(layout, body({"a": f32()})), NUMPY) == 0.0


@pytest.mark.parametrize(
    ("arrays", "refusal", "words"),
    [
        ({}, MalformedBody, "no tensor"),
        ({"d": B}, UnknownTensor, "'d'"),
        ({"b": B[:3]}, WrongShape, r"\[3\]; expected \[4\]"),
        ({"b": B.reshape(4, 1)}, WrongShape, r"\[4, 1\]; expected \[4\]"),
        ({"b": C}, WrongShape, r"\[\]; expected \[4\]"),  # a scalar is not broadcast
        ({"c": C.reshape(1)}, WrongShape, r"\[1\]; expected \[\]"),
        ({"b": np.arange(4)}, WrongDtype, "I64; expected one of F16, BF16, F32, F64"),
    ],
)
def test_what_does_not_fit_is_refused(
    arrays: dict[str, NDArray[Any]], refusal: type[GradledgerError], words: str
) -> None:
    with pytest.raises(refusal, match=words):
        check(LAYOUT, body(arrays))


def test_the_norm_is_the_euclidean_one() -> None:
    gradient = laid(LAYOUT, body({"a": A, "b": B, "c": C}))
    whole = np.concatenate([A.ravel(), B, C.ravel()]).astype(np.float64)
    assert norm(LAYOUT, gradient, NUMPY) == pytest.approx(math.sqrt(float((whole * whole).sum())), rel=1e-15)


def test_the_norm_has_the_same_bits_on_either_kernel_and_however_the_bytes_arrived() -> None:
    layout = Layout([Declared("a", (70_001,), "F32", 0), Declared("b", (50_003,), "F32", 0)])
    arrays = {"a": noise((70_001,), 7), "b": noise((50_003,), 8)}
    in_order, reversed_ = body(arrays), body(dict(reversed(arrays.items())))
    norms = {
        norm(layout, laid(layout, tensors), device)
        for tensors in (in_order, reversed_)
        for device in (NUMPY, CpuDevice(threads=2))
    }
    assert len(norms) == 1


def test_numbers_whose_squares_overflow_still_have_a_norm() -> None:
    layout = Layout([Declared("w", (2,), "F64", 0), Declared("x", (1,), "F32", 0)])
    gradient = laid(layout, body({"w": np.array([3e200, 4e200]), "x": f32(1)}))
    assert norm(layout, gradient, NUMPY) == pytest.approx(5e200, rel=1e-15)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_the_first_number_that_is_none_is_named(bad: float) -> None:
    b = B.copy()
    b[2] = bad
    with pytest.raises(
        NonFinite, match=r"tensor 'b' holds 1 NaN or infinite number, the first at \[2\]"
    ) as caught:
        norm(LAYOUT, laid(LAYOUT, body({"a": A, "b": b, "c": C})), NUMPY)
    assert caught.value.facts == {"tensor": "b", "index": [2]}


def test_a_bad_number_is_named_in_its_tensor_behind_empty_ones_and_in_many_dimensions() -> None:
    layout = Layout(
        [Declared("a", (0,), "F32", 0), Declared("b", (2, 3), "F32", 0), Declared("c", (0,), "F32", 0)]
    )
    b = np.zeros((2, 3), np.float32)
    b[1, 0] = b[1, 2] = math.nan
    with pytest.raises(NonFinite, match=r"tensor 'b' holds 2 .* first at \[1, 0\]"):
        norm(layout, laid(layout, body({"a": f32(), "b": b, "c": f32()})), NUMPY)


def test_a_number_too_large_for_the_parameter_is_not_finite() -> None:
    beyond = r"'b' holds 1 .* the first at \[1\]; beyond 3.4e\+38 all numbers are infinite in float32"
    with pytest.raises(NonFinite, match=beyond):
        norm(LAYOUT, laid(LAYOUT, body({"b": np.array([0, 1e39, 0, 0])})), NUMPY)


def test_nothing_is_kept_of_a_header_with_names_of_its_own() -> None:
    """Else whoever sends long headers fills the memory of every model there is."""
    layout = Layout([Declared("a", (2,), "F32", 0)])
    for number in range(10):
        with pytest.raises(UnknownTensor):
            check(layout, body({f"x{number}": f32(1, 2)}))
    assert layout.readings == {}
    for _ in range(10):
        check(layout, body({"a": f32(1, 2)}))
    assert 1 <= len(layout.readings) <= KEPT
