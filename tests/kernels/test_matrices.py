"""Products and sums of matrices have one order of additions: what the modules say, whoever computes it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from gradledger_server.kernels import products, reductions, sums, units
from gradledger_server.kernels.crew import Crew
from gradledger_server.kernels.llvm import Compiled
from gradledger_server.kernels.llvm_products import Product, spell
from tests.kernels.programs import same_bits

DTYPES = (np.float32, np.float64)
Array = npt.NDArray[Any]


def drawn(*shape: int, dtype: npt.DTypeLike, seed: int = 0) -> Array:
    """Magnitudes far apart, so that another order of additions shows."""
    generator = np.random.default_rng(seed)
    return (generator.standard_normal(shape) * 10.0 ** generator.integers(-8, 8, shape)).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [8, 16])
def test_a_product_adds_from_the_first_to_the_last(dtype: npt.DTypeLike, width: int) -> None:
    compiled = Product(np.dtype(dtype), Crew(2), width=width)
    for m, k, n in ((1, 1, 1), (2, 0, 3), (0, 2, 3), (5, 7, 9), (6, 40, 16), (13, 33, 17), (64, 65, 100)):
        a, b = drawn(m, k, dtype=dtype), drawn(k, n, dtype=dtype, seed=1)
        expected = np.zeros((m, n))
        for i in range(k):
            expected = expected + np.outer(a[:, i].astype(np.float64), b[i].astype(np.float64))
        assert same_bits(products.product(a, b), expected.astype(dtype))
        got = compiled(a, b)
        assert got.flags.c_contiguous and same_bits(got, expected.astype(dtype)), (m, k, n)
    assert not same_bits(
        drawn(9, 900, dtype=np.float64) @ drawn(900, 9, dtype=np.float64),
        products.product(drawn(9, 900, dtype=np.float64), drawn(900, 9, dtype=np.float64)),
    ), "another order gives other bits, or these numbers show nothing"


def test_float64_products_are_never_fused() -> None:
    for width in (8, 16):
        assembly = Compiled(spell(width, may_fuse=False)).assembly()
        assert "vfmadd" not in assembly and "fmla" not in assembly


def test_products_go_where_ieee_says_and_refuse_what_does_not_fit() -> None:
    a = np.array([[np.inf, 1.0], [np.nan, 1.0], [1e38, 1e38]], np.float32)
    b = np.array([[1.0, 10.0], [1.0, 10.0]], np.float32)
    for product in (products.product, Product(np.dtype(np.float32), Crew(1))):
        c = product(a, b)
        assert c[0, 0] == np.inf == c[2, 1] and np.isnan(c[1]).all()
        for left, right in ((a, b[:1]), (a[0], b), (a, b.astype(np.float64))):
            with pytest.raises(ValueError, match="cannot be multiplied"):
                product(left, right)


def literal_rows(matrix: Array) -> Array:
    """Each row by the tree of the sum of squares: the squares' own roots have exactly these squares."""
    return np.array([reductions.sum_of_squares(np.sqrt(row)) for row in matrix.astype(np.float64)])


@pytest.mark.parametrize("width", [1, 31, 32, 33, 1023, 1024, 1025, 4096, 5000])
def test_rows_are_summed_by_the_canonical_tree(width: int) -> None:
    roots = np.random.default_rng(width).integers(1, 2**25, (3, width)).astype(np.float64) * 2.0**-12
    assert same_bits(sums.row_sums(roots * roots), literal_rows(roots * roots))


@pytest.mark.parametrize("rows", [1, 31, 32, 33, 64, 100, 1000])
def test_columns_are_summed_in_blocks_of_32(rows: int) -> None:
    matrix = drawn(rows, 3, dtype=np.float32)
    for column in range(3):
        numbers = [float(x) for x in matrix[:, column]]
        parts = [0.0] * -(-rows // 32)
        for i, x in enumerate(numbers):
            parts[i // 32] += x
        while len(parts) & (len(parts) - 1):
            parts.append(0.0)
        while len(parts) > 1:
            parts = [
                low + high
                for low, high in zip(parts[: len(parts) // 2], parts[len(parts) // 2 :], strict=True)
            ]
        assert sums.column_sums(matrix)[column] == parts[0]


def test_sums_do_not_depend_on_what_else_is_summed() -> None:
    many = drawn(300, 40, 70, dtype=np.float32)
    rows, columns = sums.row_sums(many), sums.column_sums(many)
    assert rows.shape == (300, 40) and columns.shape == (300, 70)
    for i in (0, 93, 299):
        assert same_bits(rows[i], sums.row_sums(many[i])) and same_bits(columns[i], sums.column_sums(many[i]))
    assert sums.row_sums(many[0].T).shape == (70,)
    assert sums.row_sums(np.ones((3, 0))).tolist() == [0, 0, 0] and sums.column_sums(
        np.ones((0, 2))
    ).tolist() == [0, 0]
    assert sums.row_sums(np.ones((0, 3))).shape == (0,) and sums.column_sums(np.ones((4, 0, 3))).shape == (
        4,
        3,
    )


@pytest.mark.parametrize(
    "shape", [(), (5,), (1, 5), (4, 3), (2, 3, 4), (2, 2, 3, 4), (2, 1, 2, 3, 4), (0, 3), (3, 0)]
)
def test_units_have_the_norms_of_their_axes(shape: tuple[int, ...]) -> None:
    x = np.asarray(np.random.default_rng(0).standard_normal(shape))
    narrow = sum(extent > 1 for extent in shape) <= 1 or not x.size
    axes = tuple(range(x.ndim)) if narrow else (0,) if x.ndim <= 3 else tuple(range(x.ndim - 1))
    np.testing.assert_allclose(units.column_norms(x), np.sqrt((x * x).sum(axes, keepdims=True)), rtol=1e-14)
    axes = tuple(range(x.ndim)) if narrow else tuple(range(1, x.ndim))
    np.testing.assert_allclose(units.row_norms(x), np.sqrt((x * x).sum(axes, keepdims=True)), rtol=1e-14)
    centred = units.centralized(x)
    assert centred.shape == x.shape and (x.ndim > 1 or same_bits(centred, x))
    if x.ndim > 1 and x.size:
        assert np.abs(centred.reshape(len(x), -1).mean(1)).max() < 1e-15
