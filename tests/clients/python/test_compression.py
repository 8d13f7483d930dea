"""Gradients in fewer bytes: what is lost, what is not, and how they arrive at a real service."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, Literal

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from gradledger import (
    Client,
    Quantized,
    Residual,
    Rows,
    Table,
    bfloat16,
    compressed,
    errors,
    quantized,
)
from gradledger_server.dtypes import dequantize
from tests.service import Service

EDGES = [0, 1, 2, 255, 256, 257, 511, 512, 513, 1000, 65_536, 65_537, 131_327]
WIRES: list[Literal["bf16", "int8"]] = ["bf16", "int8"]
F32 = np.dtype(np.float32)

_numbers = itertools.count(1)


def noise(size: int | tuple[int, ...], seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(size, np.float32)


def one_block(block: NDArray[np.float32]) -> tuple[list[int], float]:
    """The definition, number by number."""
    scale = np.float32(max(abs(float(x)) for x in block)) / np.float32(127)
    return [round(float(x / scale)) if scale else 0 for x in block], float(scale)


@pytest.mark.parametrize("size", EDGES)
def test_each_block_has_its_own_scale(size: int) -> None:
    array = noise(size) * np.repeat(noise(size // 256 + 1, 1) ** 5, 256)[:size]
    made = quantized(array)
    assert (made.values.dtype.name, made.scales.dtype.name) == ("int8", "float32")
    blocks = [one_block(array[start : start + 256]) for start in range(0, size, 256)]
    assert made.values.tolist() == list(itertools.chain.from_iterable(values for values, _ in blocks))
    assert made.scales.tolist() == [scale for _, scale in blocks]
    assert made.widen().tobytes() == served(made).tobytes()


def served(made: Quantized) -> NDArray[Any]:
    """What the service reads."""
    return dequantize(memoryview(made.values.tobytes()), memoryview(made.scales.tobytes()), F32)


def test_halves_go_to_the_even_neighbour() -> None:
    array = np.array([127, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 3.25], np.float32)
    assert quantized(array).values.tolist() == [127, 0, 2, 2, 0, -2, -2, 3]


def test_shapes_are_kept_and_strides_are_not() -> None:
    array = noise((5, 3, 40))
    for given_ in (array, array[:, ::-1], array.T, np.float32(3), array[:, :0], array.astype(">f4")):
        made = quantized(given_)
        assert made.values.shape == made.widen().shape == np.shape(given_)
        flat = quantized(np.ascontiguousarray(given_).reshape(-1))
        assert made.scales.tobytes() == flat.scales.tobytes()
        np.testing.assert_array_equal(made.values.reshape(-1), flat.values)
        assert bfloat16(given_).widen().shape == np.shape(given_)


@given(
    arrays.arrays(
        np.float32,
        st.integers(1, 600),
        elements=st.floats(-(2.0**120), 2.0**120, width=32),
        fill=st.just(np.float32(0)),
    )
)
def test_no_number_is_further_off_than_half_a_scale(array: NDArray[np.float32]) -> None:
    made = quantized(array)
    scales = np.repeat(made.scales.astype(np.float64), 256)[: array.size]
    off = np.abs(made.values * scales - array)
    smallest = float(
        np.finfo(np.float32).smallest_subnormal
    )  # the scale's own rounding, below normal numbers
    assert (off <= scales / 2 * (1 + 2**-20) + 127 * smallest).all()
    assert not np.signbit(made.scales).any()
    assert made.values.min() >= -127


@pytest.mark.parametrize("zero", [0.0, -0.0, 1e-45])
def test_a_block_of_nothing_has_scale_zero(zero: float) -> None:
    made = quantized(np.full(300, zero, np.float32))
    assert made.scales.tobytes() == bytes(8)
    assert not made.values.any()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_stays_so_in_its_block_alone(bad: float) -> None:
    array = noise(600)
    array[300] = bad
    made = quantized(array)
    assert not np.isfinite(made.scales[1])
    assert not np.isfinite(made.widen()[256:512]).any()
    assert np.isfinite(made.widen()[[*range(256), *range(512, 600)]]).all()
    assert not np.isfinite(bfloat16(array).widen()[300])


def test_every_half_of_a_float_rounds_as_ml_dtypes_does() -> None:
    # All upper halves, with lower halves at, below and above the middle.
    upper = np.arange(1 << 16, dtype=np.uint32) << 16
    for lower in (0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF):
        array = (upper | lower).view(np.float32)
        with np.errstate(all="ignore"):
            expected = array.astype(ml_dtypes.bfloat16)
        wide = bfloat16(array).widen()
        nan = np.isnan(array)
        assert np.isnan(wide[nan]).all()
        assert (wide[~nan] == expected.astype(np.float32)[~nan]).all()
        assert (np.signbit(wide) == np.signbit(array)).all()


def test_an_unknown_form_is_refused() -> None:
    with pytest.raises(ValueError, match="wire is 'int4'; expected 'bf16' or 'int8'"):
        compressed({"w": noise(3)}, "int4")  # type: ignore[arg-type]


def widened(sent: dict[str, Any], name: str) -> NDArray[Any]:
    """What a body says of a tensor."""
    if f"{name}#scale" in sent:
        return Quantized(sent[name], sent[f"{name}#scale"]).widen()
    wide: NDArray[Any] = sent[name].widen()
    return wide


@pytest.mark.parametrize("wire", WIRES)
def test_what_was_sent_and_what_is_lost_are_what_was_given(wire: Literal["bf16", "int8"]) -> None:
    residual = Residual(wire)
    total_sent, total_given = np.zeros(1000), np.zeros(1000)
    for seed in range(50):
        gradient = noise(1000, seed) * np.float32(10.0 ** (seed % 5 - 2))
        before = residual.lost.get("w", np.zeros(1000, np.float32))
        sent = widened(residual.compressed({"w": gradient}), "w")
        residual.settle()
        # To the last bit: what is lost is small beside its number, and float32 holds the difference.
        assert (sent + residual.lost["w"] == gradient + before).all()
        total_sent += sent
        total_given += gradient
    np.testing.assert_allclose(total_sent + residual.lost["w"], total_given, atol=1e-4)
    alone = sum(widened(compressed({"w": noise(1000, seed)}, wire), "w") for seed in range(50))
    assert np.abs(residual.lost["w"]).max() < np.abs(alone).max() / 20


def test_a_small_number_beside_a_large_one_arrives_in_the_end() -> None:
    gradient = np.array([100.0, 0.125], np.float32)
    residual, total = Residual("int8"), np.zeros(2)
    for _ in range(1000):
        total += widened(residual.compressed({"w": gradient}), "w")
        residual.settle()
    assert quantized(gradient).values[1] == 0, "alone it would never arrive"
    np.testing.assert_allclose(total, 1000 * gradient, rtol=0.01)


def test_a_residual_changes_only_when_it_is_settled() -> None:
    residual = Residual("int8")
    first = residual.compressed({"w": noise(9), "b": noise(2)})
    again = residual.compressed({"w": noise(9), "b": noise(2)})
    assert [each.tobytes() for each in first.values()] == [each.tobytes() for each in again.values()]
    residual.settle()
    kept = residual.lost["w"].copy()
    for bad in (np.full(9, np.nan), np.full(9, np.inf), noise(3), np.float32(1)):
        with pytest.raises(ValueError, match="'w'"):
            residual.compressed({"b": noise(2), "w": bad})
    residual.settle()
    residual.compressed({"b": noise(2)})
    residual.settle()
    assert residual.lost["w"].tobytes() == kept.tobytes()


@pytest.fixture
def running(service: Service) -> Iterator[Client]:
    with Client(service.url) as client:
        yield client


@pytest.fixture
def name() -> str:
    return f"client-compressed.{next(_numbers)}"


SGD = {"rule": "sgd", "lr": 1.0}


def form_of(gradient: NDArray[Any], wire: Literal["bf16", "int8"]) -> NDArray[np.float32]:
    return (bfloat16(gradient) if wire == "bf16" else quantized(gradient)).widen()


@pytest.mark.parametrize("wire", WIRES)
def test_a_compressed_push_moves_the_parameters_by_what_it_says(
    running: Client, name: str, wire: Literal["bf16", "int8"]
) -> None:
    start = {"w": noise((3, 7, 31), 1), "b": noise(256, 2), "n": np.zeros((0, 4), np.float32)}
    model = running.create(name, start, SGD)
    gradients = {key: noise(array.shape, seed) for seed, (key, array) in enumerate(start.items(), 5)}
    params, receipt = model.push(gradients, wire=wire)
    assert (receipt.step, receipt.fate) == (1, "applied")
    for key, array in start.items():
        assert params[key].tobytes() == (array - form_of(gradients[key], wire)).tobytes()
    assert model.push_only(gradients, wire=wire).step == 2
    _, receipt = model.push({**compressed({"w": gradients["w"]}, wire), "b": gradients["b"]})
    pulled = model.pull()
    assert pulled["b"].tobytes() == (params["b"] - form_of(gradients["b"], wire) - gradients["b"]).tobytes()
    assert receipt.step == 3


@pytest.mark.parametrize("wire", WIRES)
def test_rows_are_compressed_too(running: Client, name: str, wire: Literal["bf16", "int8"]) -> None:
    model = running.create(name, {"emb": Table((50, 200)), "w": np.zeros(3, np.float32)}, SGD)
    values = noise((3, 200), 4)
    params, _ = model.push({"emb": Rows([7, 3, 7], values), "w": noise(3)}, wire=wire)
    wide = form_of(values, wire)
    assert params["emb"].ids.tolist() == [3, 7]
    assert params["emb"].values.tobytes() == (0 - np.stack([wide[1], wide[0] + wide[2]])).tobytes()
    again, _ = model.push({"emb": Rows([3], values[:1]), "w": noise(3)}, wire=Residual(wire))
    assert again["emb"].values.tobytes() == (0 - wide[1] - form_of(values[:1], wire)[0]).tobytes()


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_refused_by_name(
    running: Client, name: str, wire: Literal["bf16", "int8"], bad: float
) -> None:
    model = running.create(name, {"b": np.zeros(2, np.float32), "w": np.zeros(300, np.float32)}, SGD)
    gradient = {"b": noise(2), "w": noise(300)}
    gradient["w"][299] = bad
    with pytest.raises(errors.NonFinite, match="tensor 'w'") as refusal:
        model.push(gradient, wire=wire)
    assert refusal.value.problem["tensor"] == "w"
    with pytest.raises(ValueError, match="'w'"):
        model.push(gradient, wire=Residual(wire))
    gradient["w"][299] = 0
    assert model.push(gradient, wire=wire)[1].sequence == 1


def test_scales_that_do_not_fit_have_an_error_of_their_own(running: Client, name: str) -> None:
    model = running.create(name, {"w": np.zeros(3, np.float32)}, SGD)
    with pytest.raises(errors.WrongScale, match="'w#scale' is not in the body"):
        model.push({"w": np.ones(3, np.int8)})


def test_a_refused_push_leaves_the_residual_as_it_was(running: Client, name: str) -> None:
    model, residual = running.create(name, {"w": np.zeros(3, np.float32)}, SGD), Residual("int8")
    with pytest.raises(errors.UnknownTensor):
        model.push({"w": noise(3), "v": noise(3)}, wire=residual)
    assert residual.lost == {}
    total = np.zeros(3)
    for seed in range(30):
        params, _ = model.push({"w": noise(3, seed)}, wire=residual)
        total += noise(3, seed)
    np.testing.assert_allclose(params["w"], residual.lost["w"] - total, atol=1e-5)
