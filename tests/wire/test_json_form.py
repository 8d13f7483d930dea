"""The JSON form: strict on the way in, exact both ways."""

from __future__ import annotations

import json
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from gradledger_server.dtypes import NUMPY_DTYPE
from gradledger_server.entries import Placement
from gradledger_server.errors import BodyTooLarge, MalformedBody, NonFinite, UnknownTensor, WrongDtype
from gradledger_server.wire import json_form
from tests.attacks.bodies import JSON_ATTACKS, JSON_VALUES, Attack

Arrays = hnp.arrays(
    st.sampled_from([np.float32, np.float64]),
    hnp.array_shapes(min_dims=0, min_side=0, max_side=4),
    elements={"allow_nan": False, "allow_infinity": False},
)


def array(tensors: Any, name: str) -> NDArray[Any]:
    place = tensors.table[name]
    flat: NDArray[Any] = np.frombuffer(tensors[name], NUMPY_DTYPE[place.dtype])
    return flat.reshape(place.shape)


@given(Arrays)
def test_rendered_and_parsed_are_the_same_bits(values: NDArray[Any]) -> None:
    if 0 in values.shape[:-1]:
        values = values.reshape(0)  # nested lists forget the extents behind an empty one
    dtype = "F32" if values.dtype == np.float32 else "F64"
    read = json_form.parse(json_form.render({"parameters": {"w": values}}))
    again = array(json_form.tensors(read["parameters"], {"w": dtype}), "w")
    assert (again.shape, again.dtype, again.tobytes()) == (values.shape, values.dtype, values.tobytes())


def test_every_exponent_of_float32_comes_back() -> None:
    random = np.random.default_rng(11)
    patterns = random.integers(0, 1 << 32, 200_000, np.uint32)
    values = patterns.view(np.float32)
    values = values[np.isfinite(values)]
    read = json_form.parse(json_form.render({"w": values}))
    assert array(json_form.tensors(read, {"w": "F32"}), "w").tobytes() == values.tobytes()


def test_the_order_of_the_model_rules() -> None:
    dtypes = {"a": "F64", "b": "F32", "c": "F32"}
    one = json_form.tensors({"a": 1, "c": [2.0]}, dtypes)
    other = json_form.tensors({"c": [3.0], "a": 4}, dtypes)
    assert one.table is other.table
    assert dict(one.table) == {"a": Placement("F64", (), 0, 8), "c": Placement("F32", (1,), 8, 12)}
    assert len(one.payload) - len(one.data) == 128  # aligned like every header of ours


def test_shapes() -> None:
    shapes: dict[str, Any] = {
        "s": 1.5,
        "empty": [],
        "rows": [[], []],
        "deep": [[[[1], [2]]]],
        "mixed": [1, 2.5],
    }
    tensors = json_form.tensors(shapes, dict.fromkeys(shapes, "F32"))
    assert {name: place.shape for name, place in tensors.table.items()} == {
        "s": (),
        "empty": (0,),
        "rows": (2, 0),
        "deep": (1, 1, 2, 1),
        "mixed": (2,),
    }


def test_whole_numbers_beyond_int64_are_numbers() -> None:
    tensors = json_form.tensors({"w": [10**20, -(10**38)]}, {"w": "F32"})
    assert array(tensors, "w").tolist() == [np.float32(1e20), np.float32(-1e38)]


@pytest.mark.parametrize("attack", JSON_ATTACKS, ids=lambda attack: attack.name)
def test_attacks_are_refused_in_words(attack: Attack) -> None:
    with pytest.raises(MalformedBody) as refusal:
        json_form.parse(memoryview(attack.body))
    assert attack.expect in refusal.value.detail
    assert refusal.value.advice
    assert len(refusal.value.detail) < 1000


@pytest.mark.parametrize(("value", "expect"), [v[1:] for v in JSON_VALUES], ids=[v[0] for v in JSON_VALUES])
def test_what_is_no_tensor_is_refused_in_words(value: object, expect: str) -> None:
    with pytest.raises(MalformedBody, match="'w'") as refusal:
        json_form.tensors({"w": value}, {"w": "F32"})
    assert expect in refusal.value.detail
    assert refusal.value.facts["tensor"] == "w"


@pytest.mark.parametrize(
    ("value", "dtype", "where"),
    [
        ([[0.0, 3.5e38]], "F32", "[0, 1]"),
        (-3.5e38, "F32", "[]"),
        ([1, 10**400], "F64", "[1]"),
        ([float("nan")], "F64", "[0]"),
    ],
)
def test_too_large_for_the_dtype(value: object, dtype: str, where: str) -> None:
    with pytest.raises(NonFinite) as refusal:
        json_form.tensors({"w": value}, {"w": dtype})
    assert f"at {where};" in refusal.value.detail
    assert "'w'" in refusal.value.detail


def test_names_and_dtypes_that_do_not_fit() -> None:
    with pytest.raises(UnknownTensor, match="'v'"):
        json_form.tensors({"v": 1}, {"w": "F32"})
    with pytest.raises(WrongDtype, match="BF16"):
        json_form.tensors({"w": 1}, {"w": "BF16"})


def test_the_limit() -> None:
    assert json_form.parse(b'{"a": 1}', 8) == {"a": 1}
    with pytest.raises(BodyTooLarge, match="9 bytes"):
        json_form.parse(b'{"a": 1} ', 8)


def test_pairs_of_surrogates_are_characters() -> None:
    assert json_form.parse(b'{"\\ud83d\\ude00": "\\\\ud800"}') == {"😀": "\\ud800"}
    for half in (b'{"a": "\\uDC00"}', b'{"a": ["\\ud83d "]}'):
        with pytest.raises(MalformedBody):
            json_form.parse(half)


def test_what_render_takes() -> None:
    grid = np.arange(6, dtype=np.float32).reshape(2, 3)
    members = MappingProxyType(
        {
            "step": 3,
            "strided": grid[:, ::2],
            "scalar": np.array(0.1, np.float32),
            "number": np.float32(0.1),
            "facts": MappingProxyType({"lr": 0.1, "worker": None}),
            "lost": np.array([np.nan, np.inf]),
        }
    )
    assert json.loads(json_form.render(members)) == {
        "step": 3,
        "strided": [[0.0, 2.0], [3.0, 5.0]],
        "scalar": 0.1,
        "number": 0.1,
        "facts": {"lr": 0.1, "worker": None},
        "lost": [None, None],
    }
    with pytest.raises(TypeError, match="set"):
        json_form.render({"a": {1}})
