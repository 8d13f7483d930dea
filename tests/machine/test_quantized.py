"""I8 gradients with their scales on the way to the arenas and to tables, and what is refused of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gradledger_server.blocks import Blocks
from gradledger_server.entries import Tensors
from gradledger_server.errors import (
    GradledgerError,
    NonFinite,
    UnknownTensor,
    WrongDtype,
    WrongRows,
    WrongScale,
    WrongShape,
)
from gradledger_server.machine.gradient import Stretch, check, gather, norm
from gradledger_server.machine.layout import Declared, Layout
from gradledger_server.machine.row_gradient import Touched
from gradledger_server.machine.tables import DeclaredTable
from tests.machine.bodies import NUMPY, body, f32, model_of, noise, push, weights_of

Arrays = dict[str, NDArray[Any]]

ZEROS = {"name": "zeros"}
LAYOUT = Layout(
    [Declared("a", (2, 3), "F32", 0), Declared("b", (300,), "F32", 0), Declared("e", (0,), "F32", 0)],
    [
        DeclaredTable("emb", (6, 200), "F32", 0, "lazy", ZEROS),
        DeclaredTable("all", (2, 2), "F64", 0, "dense", ZEROS),
    ],
)


def i8(shape: tuple[int, ...], seed: int) -> NDArray[np.int8]:
    return np.random.default_rng(seed).integers(-128, 128, shape, dtype=np.int8)


def quantized(name: str, shape: tuple[int, ...], seed: int) -> Arrays:
    """A tensor and its scales, as a body holds them."""
    blocks = -(-int(np.prod(shape)) // 256)
    return {name: i8(shape, seed), f"{name}#scale": np.abs(noise((blocks,), seed + 1))}


def plain(arrays: Arrays, name: str, dtype: Any = np.float32) -> NDArray[Any]:
    """The definition, element by element."""
    values, scales = arrays[name].reshape(-1), arrays[f"{name}#scale"]
    return np.array([dtype(v) * dtype(scales[i // 256]) for i, v in enumerate(values)], dtype)


def laid(layout: Layout, tensors: Tensors) -> list[Any]:
    check(layout, tensors)
    return gather(layout, tensors, Blocks())


A, B = quantized("a", (2, 3), 1), quantized("b", (300,), 3)
ROWS = quantized("emb", (3, 200), 5) | {"emb#rows": np.array([4, 1, 4])}


@pytest.mark.parametrize("kept", ["F32", "F64"])
@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 511, 512, 513])
def test_a_tensor_of_any_size_reaches_its_arena(size: int, kept: str) -> None:
    layout = Layout([Declared("w", (size,), kept, 0)])
    arrays = quantized("w", (size,), size)
    [stretch] = laid(layout, body(arrays))
    expected = plain(arrays, "w", np.float32 if kept == "F32" else np.float64)
    assert stretch.values.dtype == expected.dtype
    assert stretch.values.tobytes() == expected.tobytes()


@pytest.mark.parametrize("reverse", [False, True])
def test_a_body_may_mix_forms_in_any_order(reverse: bool) -> None:
    arrays = {**A, "b": noise((300,), 9), **quantized("e", (0,), 7), **ROWS}
    stretch, touched = laid(LAYOUT, body(dict(reversed(arrays.items())) if reverse else arrays))
    assert isinstance(stretch, Stretch)
    assert isinstance(touched, Touched)
    assert stretch.values.tobytes() == plain(A, "a").tobytes() + arrays["b"].tobytes()
    rows = plain(ROWS, "emb").reshape(3, 200)
    assert touched.rows is not None
    assert touched.rows.tolist() == [1, 4]
    assert touched.values.tobytes() == np.stack([rows[1], rows[0] + rows[2]]).tobytes()


def test_a_dense_table_takes_whole_numbers_too() -> None:
    arrays = quantized("all", (2, 2), 11)
    [touched] = laid(LAYOUT, body(arrays))
    assert touched.rows is None
    assert touched.values.tobytes() == plain(arrays, "all", np.float64).tobytes()


def test_equal_headers_have_one_plan() -> None:
    tensors = body({**A, **B})
    first = laid(LAYOUT, tensors)
    again = laid(LAYOUT, tensors)
    assert first[0].run is again[0].run


def scaled(values: NDArray[Any], *, name: str = "b") -> Arrays:
    return {name: B["b"], f"{name}#scale": values}


@pytest.mark.parametrize(
    ("arrays", "refusal", "words"),
    [
        ({"b": B["b"]}, WrongScale, "'b' is I8, but 'b#scale' is not in the body"),
        ({"b#scale": B["b#scale"]}, WrongScale, "'b', which is not in the body; expected I8"),
        ({"b": noise((300,), 1), "b#scale": B["b#scale"]}, WrongScale, "'b', which is F32; expected I8"),
        (
            {"a": A["a"], "a#scale": f32()},
            WrongShape,
            r"\[0\]; expected \[1\]: a scale for each 256 of the 6",
        ),
        (scaled(f32(1)), WrongShape, r"'b#scale' has shape \[1\]; expected \[2\]"),
        (scaled(f32(1, 1, 1)), WrongShape, r"\[3\]; expected \[2\]"),
        (scaled(f32(1, 1).reshape(2, 1)), WrongShape, r"\[2, 1\]; expected \[2\]"),
        ({"e": i8((0,), 1), "e#scale": f32(1)}, WrongShape, r"\[1\]; expected \[0\]"),
        (scaled(np.ones(2)), WrongDtype, "'b#scale' has dtype F64; expected one of F32"),
        (scaled(f32(1, -1)), WrongScale, r"b#scale\[1\] is -1.0; a scale is never negative"),
        (scaled(f32(-0.0, 1)), WrongScale, r"b#scale\[0\] is -0.0"),
        (scaled(f32(1, np.nan)), NonFinite, r"'b' holds NaN or infinite numbers: b#scale\[1\] is nan"),
        (scaled(f32(np.inf, 1)), NonFinite, r"'b' .*: b#scale\[0\] is inf"),
        (scaled(f32(1, -np.inf)), NonFinite, r"'b' .*: b#scale\[1\] is -inf"),
        ({"b": B["b"].reshape(3, 100), "b#scale": B["b#scale"]}, WrongShape, r"'b' has shape \[3, 100\]"),
        (scaled(f32(1, 1), name="c"), UnknownTensor, "'c'"),
        (B | {"c#scale": f32(1)}, UnknownTensor, "'c#scale'"),
        (B | {"b#scale#scale": f32(1)}, UnknownTensor, "'b#scale#scale'"),
        (B | {"#scale": f32(1)}, UnknownTensor, "'#scale'"),
        (ROWS | {"emb#rows#scale": f32(1)}, UnknownTensor, "'emb#rows#scale'"),
        ({"emb": ROWS["emb"], "emb#rows": ROWS["emb#rows"]}, WrongScale, "'emb' is I8"),
        ({"emb#scale": ROWS["emb#scale"]}, WrongScale, "'emb', which is not in the body"),
        ({"emb": ROWS["emb"], "emb#scale": ROWS["emb#scale"]}, WrongRows, "'emb#rows' is missing"),
        (ROWS | {"emb#scale": f32(1, 1)}, WrongShape, r"expected \[3\]: a scale for each 256 of the 600"),
        (ROWS | {"emb#scale": f32(1, 1, -1)}, WrongScale, r"emb#scale\[2\]"),
    ],
)
def test_what_does_not_fit_is_refused(
    arrays: Mapping[str, NDArray[Any]], refusal: type[GradledgerError], words: str
) -> None:
    with pytest.raises(refusal, match=words) as caught:
        check(LAYOUT, body(arrays))
    assert caught.value.facts["tensor"]


@pytest.mark.parametrize(("arrays", "name"), [(B, "b"), (ROWS, "emb")])
def test_values_are_not_uploaded_as_whole_numbers(arrays: Arrays, name: str) -> None:
    with pytest.raises(WrongDtype, match=f"'{name}' has dtype I8; expected one of F16, BF16, F32, F64"):
        check(LAYOUT, body(arrays), upload=True)


def test_a_product_too_large_for_the_parameter_is_not_finite() -> None:
    gradient = laid(LAYOUT, body(scaled(f32(3e38, 1))))
    with pytest.raises(NonFinite, match="tensor 'b' holds"):
        norm(LAYOUT, gradient, NUMPY)


def test_a_push_moves_the_weights_as_its_numbers_would() -> None:
    values = {"w": noise((700,), 1), "b": noise((3,), 2, np.float64)}
    arrays = {**quantized("w", (700,), 3), **quantized("b", (3,), 4)}
    models = [model_of(values, optimizer={"rule": "adam", "lr": 0.1}) for _ in range(2)]
    numbers = {"w": plain(arrays, "w"), "b": plain(arrays, "b", np.float64)}
    assert push(models[0], arrays) == push(models[1], numbers)
    one, other = (weights_of(model) for model in models)
    assert {name: array.tobytes() for name, array in one.items()} == {
        name: array.tobytes() for name, array in other.items()
    }
