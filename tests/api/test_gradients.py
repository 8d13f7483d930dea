"""What a push does: to which tensors, with which learning rate, from which dtype; what its receipt says."""

from __future__ import annotations

import json
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save

from tests.api.talk import SGD, Model, refused
from tests.service import SAFETENSORS

ADAM = {"rule": "adam", "lr": 0.1}


def one_tensor(name: str, dtype: str, array: NDArray[Any]) -> bytes:
    """A safetensors body written by hand, for dtypes the library's NumPy side has no word for."""
    header = {name: {"dtype": dtype, "shape": list(array.shape), "data_offsets": [0, array.nbytes]}}
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + array.tobytes()


@pytest.mark.parametrize(
    ("dtype", "numpy_dtype"),
    [("F16", np.float16), ("BF16", ml_dtypes.bfloat16), ("F32", np.float32), ("F64", np.float64)],
)
@pytest.mark.parametrize("parameters", ["F32", "F64"])
def test_a_gradient_may_be_any_float(new: Model, dtype: str, numpy_dtype: Any, parameters: str) -> None:
    new.create({"w": {"values": [0.0, 0.0, 0.0, 0.0], "dtype": parameters}})
    gradient: NDArray[Any] = np.array([0.1, -1.5, 3.0e-5, 300.0]).astype(numpy_dtype)

    answer = new.push_bytes(one_tensor("w", dtype, gradient))

    assert answer.status == 200, answer
    wide = np.float32 if parameters == "F32" else np.float64
    assert np.array_equal(np.array(new.pull()["w"], wide), np.negative(gradient.astype(wide)))
    norm = float(np.sqrt(np.sum(gradient.astype(wide).astype(np.float64) ** 2)))
    assert answer.receipt["grad_norm"] == pytest.approx(norm, rel=1e-12)


def test_f64_parameters_are_trained_in_f64(new: Model) -> None:
    new.create({"w": {"values": [1.0], "dtype": "F64"}}, {"rule": "sgd", "lr": 1e-12})
    new.push({"w": [1.0]})
    assert new.pull()["w"] == [1.0 - 1e-12]


@pytest.mark.parametrize("dtype", ["I32", "U8", "BOOL", "I64", "F8_E4M3"])
def test_whole_numbers_are_no_gradient(model: Model, dtype: str) -> None:
    size = {"I32": 4, "U8": 1, "BOOL": 1, "I64": 8, "F8_E4M3": 1}[dtype]
    with model.untouched():
        body = one_tensor("b", dtype, np.zeros(3, f"V{size}"))
        assert refused(model.push_bytes(body), 422, "wrong-dtype")["got"] == dtype


def test_groups_by_glob_have_their_own_numbers_and_the_first_match_wins(new: Model) -> None:
    groups = [
        {"match": "head.*", "optimizer": {"lr": 0.5}},
        {"match": "*.bias", "optimizer": {"weight_decay": 0.0}},
        {"match": "slow", "optimizer": {"rule": "momentum", "lr": 0.25}},
    ]
    names = ["body.weight", "body.bias", "head.weight", "head.bias", "slow"]
    decaying = {"rule": "sgd", "lr": 1.0, "weight_decay": 0.5}
    new.create({name: [2.0] for name in names}, decaying, groups=groups)

    answer = new.push({name: [1.0] for name in names})

    assert answer.receipt["lr"] == 1.0
    assert answer.json["parameters"] == {
        "body.weight": [2.0 - (1.0 + 0.5 * 2.0)],
        "body.bias": [2.0 - 1.0],
        "head.weight": [2.0 - 0.5 * (1.0 + 0.5 * 2.0)],
        "head.bias": [2.0 - 0.5 * (1.0 + 0.5 * 2.0)],
        "slow": [2.0 - 0.25 * 1.0],
    }
    described = new.describe()["groups"]
    assert [group["match"] for group in described] == ["head.*", "*.bias", "slow"]
    head = {"rule": "sgd", "preset": "torch", "lr": 0.5, "weight_decay": 0.5, "weight_decay_mode": "l2"}
    assert described[0]["optimizer"] == head
    assert described[2]["optimizer"]["momentum"] == 0.9


def test_a_group_may_have_a_schedule_of_its_own(new: Model) -> None:
    halving = {"name": "exponential_decay", "decay_rate": 0.5, "decay_steps": 1}
    new.create({"a": [0.0], "b": [0.0]}, SGD, groups=[{"match": "b", "schedule": halving}])
    for _ in range(3):
        new.push({"a": [1.0], "b": [1.0]})
    assert new.pull() == {"a": [-3.0], "b": [-1.75]}


def test_tensors_left_out_stay_as_they_are_and_count_their_own_updates(new: Model) -> None:
    new.create({"a": [0.0], "b": [0.0], "c": [0.0]}, ADAM)
    new.push({"a": [1.0], "b": [1.0], "c": [1.0]})
    new.push({"b": [1.0]})
    new.push({"c": [1.0], "a": [1.0]})

    state = new.state()
    assert [int(state[f"t/{name}"]) for name in "abc"] == [2, 2, 2]
    assert state["param/a"].tobytes() == state["param/b"].tobytes() == state["param/c"].tobytes()
    assert new.describe()["step"] == 3


def test_the_order_of_the_tensors_does_not_matter(new: Model) -> None:
    new.create({"a": [0.0], "b": [[0.0, 0.0]], "c": {"values": 0.0, "dtype": "F64"}})
    new.push({"c": 3.0, "a": [1.0], "b": [[2.0, 2.5]]})
    mixed = {"b": np.array([[2, 2.5]], np.float16), "c": np.array(3.0), "a": np.ones(1, np.float32)}
    assert new.push_bytes(save(mixed)).status == 200
    assert new.pull() == {"a": [-2.0], "b": [[-4.0, -5.0]], "c": -6.0}


def test_tensors_of_no_elements_and_no_dimensions(new: Model) -> None:
    new.create({"none": {"shape": [0, 3]}, "point": 1.0, "w": [1.0]})
    assert new.describe()["missing"] == ["none"]
    refused(new.send("PUT", "/parameters", {"parameters": {"none": []}}), 422, "wrong-shape")
    empty = save({"none": np.zeros((0, 3), np.float32)})
    assert new.send("PUT", "/parameters", empty, Content_Type=SAFETENSORS).status == 200
    assert (
        new.push_bytes({"none": np.zeros((0, 3), np.float32), "point": np.ones((), np.float32)}).status == 200
    )
    assert new.pull() == {"none": [], "point": 0.0, "w": [1.0]}


def test_the_schedule_shows_in_the_receipt(new: Model) -> None:
    decay = {"name": "exponential_decay", "decay_rate": 0.5, "decay_steps": 2}
    new.create({"w": [0.0]}, {"rule": "sgd", "lr": 0.8}, schedule=decay)
    rates = [new.push({"w": [1.0]}).receipt["lr"] for _ in range(5)]
    assert rates == pytest.approx([0.8 * 0.5 ** (s / 2) for s in range(5)], rel=1e-15)
    assert new.describe()["lr"] == pytest.approx(0.8 * 0.5**2.5, rel=1e-15)


def test_a_staircase_goes_down_at_whole_multiples(new: Model) -> None:
    decay = {"name": "exponential_decay", "decay_rate": 0.5, "decay_steps": 2, "staircase": True}
    new.create({"w": [0.0]}, {"rule": "sgd", "lr": 0.8}, schedule=decay)
    rates = [new.push({"w": [1.0]}).receipt["lr"] for _ in range(5)]
    assert rates == [0.8, 0.8, 0.4, 0.4, 0.2]


def test_staleness_is_the_steps_made_since_the_base(model: Model) -> None:
    gradient = {"b": [1.0, 1.0, 1.0]}
    bases = [0, 0, 2, None, 1]
    receipts = [model.push(gradient, base=base).receipt for base in bases]
    assert [receipt["base"] for receipt in receipts] == bases
    assert [receipt["staleness"] for receipt in receipts] == [0, 1, 0, None, 3]


def test_facts_of_a_json_push_may_stand_in_the_query(model: Model) -> None:
    answer = model.send(
        "POST", "/gradients?worker=7&sequence=1&base=0&weight=2.5", {"gradients": {"b": [1.0, 1.0, 1.0]}}
    )
    receipt = answer.receipt
    assert (receipt["worker"], receipt["sequence"], receipt["base"]) == ("7", 1, 0)


def test_a_step_far_beyond_float32_is_still_measured(new: Model) -> None:
    new.create({"w": {"values": [0.0, 0.0], "dtype": "F64"}}, {"rule": "sgd", "lr": 1e-300})
    receipt = new.push({"w": [3e200, 4e200]}).receipt
    assert receipt["grad_norm"] == pytest.approx(5e200, rel=1e-12)
