"""Rows on their way from the body to a table: summed in one order, and refused when they do not fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gradledger_server.blocks import Blocks
from gradledger_server.errors import GradledgerError, NonFinite, WrongDtype, WrongRows, WrongShape
from gradledger_server.machine.gradient import check, gather, norm
from gradledger_server.machine.layout import Declared, Layout
from gradledger_server.machine.row_gradient import FEW, Touched, summed
from gradledger_server.machine.tables import ROWS_OF_PUSH, DeclaredTable
from tests.machine.bodies import NUMPY, body, f32, noise

ZEROS = {"name": "zeros"}
EMB = DeclaredTable("emb", (6, 2), "F32", 0, "lazy", ZEROS)
LAYOUT = Layout(
    [Declared("w", (3,), "F32", 0)],
    [
        EMB,
        DeclaredTable("all", (3, 2), "F32", 0, "dense", ZEROS),
        DeclaredTable("given", (3,), "F64", 0, "lazy_global_t", None),
        DeclaredTable("deep", (4, 2, 3), "F32", 0, "lazy", ZEROS),
    ],
)


def ids(*rows: int) -> NDArray[np.int64]:
    return np.array(rows, np.int64)


def one_by_one(rows: NDArray[np.int64], values: NDArray[Any]) -> dict[int, NDArray[Any]]:
    """The definition: each row's gradients added up in the order of appearance."""
    total: dict[int, NDArray[Any]] = {}
    for row, value in zip(rows.tolist(), values, strict=True):
        total[row] = total[row] + value if row in total else value
    return total


@pytest.mark.parametrize("distinct", [1, 2, FEW + 1, 300])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_duplicates_are_summed_in_the_order_of_appearance(distinct: int, dtype: Any) -> None:
    generator = np.random.default_rng(distinct)
    rows = generator.integers(0, distinct, 400)
    values = (
        generator.standard_normal((rows.size, 3)) * 10.0 ** generator.integers(-6, 6, (rows.size, 1))
    ).astype(dtype)
    found, total = summed(rows, values, Blocks())
    expected = one_by_one(rows, values)
    assert found.tolist() == sorted(expected)
    assert total.tobytes() == b"".join(expected[row].tobytes() for row in found.tolist())


def test_ascending_rows_are_taken_as_they_lie() -> None:
    values = noise((3, 2), 1)
    rows, total = summed(ids(0, 2, 5), values, Blocks())
    assert total is values
    assert rows.tolist() == [0, 2, 5]


def test_no_row_at_all_is_a_gradient_too() -> None:
    tensors = body({"emb": np.zeros((0, 2), np.float32), "emb#rows": ids()})
    check(LAYOUT, tensors)
    (touched,) = gather(LAYOUT, tensors, Blocks())
    assert isinstance(touched, Touched)
    assert touched.values.size == 0
    assert norm(LAYOUT, [touched], NUMPY) == 0.0


def test_the_norm_is_that_of_the_sums() -> None:
    tensors = body({"w": f32(0, 0, 2), "emb": f32(3, 0, -1, 0, 1, 1).reshape(3, 2), "emb#rows": ids(4, 4, 1)})
    check(LAYOUT, tensors)
    gradient = gather(LAYOUT, tensors, Blocks())
    assert norm(LAYOUT, gradient, NUMPY) == pytest.approx(np.sqrt(2.0**2 + 2.0**2 + 1 + 1), rel=1e-15)


@pytest.mark.parametrize("sent", ["f2", "f4", "f8"])
def test_any_float_is_widened_to_the_tables_dtype(sent: str) -> None:
    tensors = body({"given": np.array([0.5, 2.0], sent), "given#rows": ids(2, 0)})
    check(LAYOUT, tensors)
    (touched,) = gather(LAYOUT, tensors, Blocks())
    assert touched.values.dtype == np.float64
    assert touched.values.tolist() == [2.0, 0.5]


ROW = f32(1, 2).reshape(1, 2)


@pytest.mark.parametrize(
    ("arrays", "error", "match"),
    [
        ({"emb": ROW}, WrongRows, "'emb#rows' is missing"),
        ({"emb": noise((6, 2), 1)}, WrongRows, "must say which rows"),  # a dense gradient of the right shape
        ({"emb#rows": ids(1)}, WrongRows, "'emb' is not in the body"),
        ({"emb": ROW, "emb#rows": ids(6)}, WrongRows, r"emb#rows\[0\] is 6; 'emb' has rows 0 to 5"),
        ({"emb": ROW, "emb#rows": ids(-1)}, WrongRows, "is -1"),
        ({"emb": ROW, "emb#rows": ids(-(2**63))}, WrongRows, "is -9223372036854775808"),
        ({"emb": ROW, "emb#rows": ids(1, 2)}, WrongShape, r"\[1, 2\]; expected \[2, 2\]"),
        ({"emb": f32(1, 2), "emb#rows": ids(1, 2)}, WrongShape, r"\[2\]; expected \[2, 2\]"),
        ({"emb": f32(1).reshape(1, 1), "emb#rows": ids(1)}, WrongShape, r"\[1, 1\]; expected \[1, 2\]"),
        ({"emb": ROW, "emb#rows": ids(1).reshape(1, 1)}, WrongShape, "expected one dimension"),
        ({"emb": ROW, "emb#rows": f32(1)}, WrongDtype, "'emb#rows' has dtype F32; expected one of I64"),
        ({"emb": ids(1, 2).reshape(1, 2), "emb#rows": ids(1)}, WrongDtype, "'emb' has dtype I64"),
        ({"deep": noise((1, 6), 1), "deep#rows": ids(1)}, WrongShape, r"expected \[1, 2, 3\]"),
        ({"all": noise((2, 2), 1)}, WrongShape, r"expected \[3, 2\]"),
    ],
)
def test_what_does_not_fit_is_refused(
    arrays: dict[str, Any], error: type[GradledgerError], match: str
) -> None:
    with pytest.raises(error, match=match):
        check(LAYOUT, body(arrays))


def test_more_rows_than_a_body_may_name_are_refused() -> None:
    many = ROWS_OF_PUSH + 1
    tensors = body({"given": np.zeros(many), "given#rows": np.zeros(many, np.int64)})
    with pytest.raises(WrongRows, match=f"names {many} rows"):
        check(LAYOUT, tensors)


def test_an_upload_names_a_row_once_and_may_bring_a_whole_table() -> None:
    bodies: list[dict[str, Any]] = [
        {"emb": noise((6, 2), 1)},
        {"emb": ROW, "emb#rows": ids(3)},
        {"given": np.zeros(3)},
    ]
    for arrays in bodies:
        check(LAYOUT, body(arrays), upload=True)
    with pytest.raises(WrongRows, match="twice"):
        check(LAYOUT, body({"emb": noise((2, 2), 1), "emb#rows": ids(3, 3)}), upload=True)
    with pytest.raises(WrongRows, match="no init"):
        check(LAYOUT, body({"given": np.zeros(1), "given#rows": ids(1)}), upload=True)


@pytest.mark.parametrize(
    ("name", "values", "rows", "index"),
    [
        ("emb", [[0, 1], [np.nan, np.inf]], (5, 2), "[2, 0]"),
        ("emb", [[3e38, 0], [3e38, 0]], (4, 4), "[4, 0]"),  # each finite, but not their sum
        ("deep", [[[0, 0, 0], [0, 0, np.inf]]], (3,), "[3, 1, 2]"),
    ],
)
def test_the_first_number_that_is_none_is_named(
    name: str, values: Any, rows: tuple[int, ...], index: str
) -> None:
    tensors = body({name: np.array(values, np.float32), f"{name}#rows": ids(*rows)})
    check(LAYOUT, tensors)
    with pytest.raises(NonFinite) as refused:
        norm(LAYOUT, gather(LAYOUT, tensors, Blocks()), NUMPY)
    assert str(refused.value.facts["index"]) == index
