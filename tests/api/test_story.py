"""The first things anybody does: the examples of the documentation, word for word."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import load, save

from tests.api.talk import Model
from tests.service import SAFETENSORS, Arrays, Service

ADAM = {"rule": "adam", "lr": 0.01, "preset": "torch"}


def test_a_gradient_in_json_comes_back_as_parameters(service: Service) -> None:
    spec = {"optimizer": ADAM, "parameters": {"w": [[0.0, 1.0]]}}
    assert service.request("PUT", "/v1/models/demo", spec).status == 201

    push = {"gradients": {"w": [[0.1, -0.2]]}, "worker": "w0", "sequence": 1, "base": 0}
    answer = service.request("POST", "/v1/models/demo/gradients", push)

    assert answer.status == 200
    receipt = answer.json["receipt"]
    assert receipt.pop("grad_norm") == pytest.approx(np.hypot(0.1, 0.2), rel=1e-6)
    assert receipt == {
        "fate": "applied",
        "step": 1,
        "offset": 2,
        "base": 0,
        "staleness": 0,
        "lr": 0.01,
        "clip_factor": 1.0,
        "durability": "memory",
        "epoch": service.request("GET", "/v1/models/demo").json["epoch"],
        "worker": "w0",
        "sequence": 1,
        "round": None,
        "zeroed": 0,
        "replayed": False,
    }
    assert answer.json["step"] == 1
    (row,) = answer.json["parameters"]["w"]
    assert row == pytest.approx([-0.01, 1.01], rel=1e-6)


def test_the_same_in_safetensors(new: Model) -> None:
    new.create({"w": [[0.0, 1.0]]}, ADAM)

    answer = new.push_bytes({"w": np.array([[0.1, -0.2]], np.float32)}, "worker=w0&sequence=1&base=0")

    assert answer.status == 200
    assert answer.headers["content-type"] == SAFETENSORS
    assert answer.receipt["fate"] == "applied"
    assert answer.receipt["step"] == 1
    assert load(answer.data)["w"].ravel() == pytest.approx([-0.01, 1.01], rel=1e-6)


def test_both_forms_give_the_same_bits(service: Service, new: Model) -> None:
    """A JSON number is its nearest float32, whichever way it came."""
    other = Model(service, new.name + ".bytes")
    for model in (new, other):
        model.create({"w": [[0.3, 1.7]]}, ADAM)
    gradients = {"w": [[0.1, -0.2]]}
    new.push(gradients)
    other.push_bytes({"w": np.array(gradients["w"], np.float32)})

    assert service.state(new.name) == service.state(other.name)


def test_shapes_first_and_the_values_later(new: Model) -> None:
    spec = {"optimizer": ADAM, "parameters": {"w": {"shape": [2, 3]}, "b": {"shape": [3], "dtype": "F64"}}}
    created = new.send("PUT", "", spec)
    assert created.status == 201
    assert created.json["missing"] == ["b", "w"]

    values: Arrays = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(3)}
    uploaded = new.send("PUT", "/parameters", save(values), Content_Type=SAFETENSORS)

    assert uploaded.status == 200
    assert uploaded.json == {"step": 0, "etag": new.describe()["etag"], "missing": []}
    pulled = load(new.send("GET", "/parameters", Accept=SAFETENSORS).data)
    for name, array in values.items():
        assert pulled[name].dtype == array.dtype
        assert pulled[name].tobytes() == array.tobytes()
    assert new.push({"w": np.ones((2, 3)).tolist()}).status == 200


def test_values_of_some_tensors_and_shapes_of_others(new: Model) -> None:
    parameters = {
        "w": [[0.0, 1.0]],
        "layer.weight": {"values": [[1.0], [2.0]], "dtype": "F64"},
        "layer.bias": {"shape": [10], "dtype": "F32"},
        "scale": 3.0,
    }
    groups = [{"match": "*.bias", "optimizer": {"weight_decay": 0.0}}]
    schedule = {"name": "exponential_decay", "decay_rate": 0.96, "decay_steps": 1000}
    new.create(parameters, ADAM, groups=groups, schedule=schedule, sync={"mode": "async"})

    described = new.describe()
    assert described["missing"] == ["layer.bias"]
    assert described["parameters"] == {
        "layer.bias": {"shape": [10], "dtype": "F32"},
        "layer.weight": {"shape": [2, 1], "dtype": "F64"},
        "scale": {"shape": [], "dtype": "F32"},
        "w": {"shape": [1, 2], "dtype": "F32"},
    }
    uploaded = new.send("PUT", "/parameters", {"parameters": {"layer.bias": [0.5] * 10}})
    assert uploaded.json["missing"] == []
    assert new.pull() == {
        "w": [[0.0, 1.0]],
        "layer.weight": [[1.0], [2.0]],
        "layer.bias": [0.5] * 10,
        "scale": 3.0,
    }
