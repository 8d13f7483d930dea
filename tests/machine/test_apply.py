"""What each entry makes of the state."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gradledger_server.blocks import Blocks
from gradledger_server.entries import Configure, Create, Delete
from gradledger_server.kernels.cpu import CpuDevice
from gradledger_server.machine.apply import apply, begin, origin
from gradledger_server.machine.model import Model
from gradledger_server.machine.reconfiguration import reconfigure
from tests.machine.bodies import (
    NUMPY,
    body,
    f32,
    model_of,
    noise,
    push,
    push_body,
    slots_of,
    spec,
    upload,
    weights_of,
)

ADAM = {"rule": "adam", "lr": 0.1}


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a.keys() == b.keys() and all(a[name].tobytes() == b[name].tobytes() for name in a)


def test_a_push_moves_the_weights_and_answers_where_it_stands() -> None:
    model = model_of({"w": f32(1, 1)})
    receipt = push(model, {"w": f32(1, 0)}, offset=2, worker="a", sequence=1, base=0)
    np.testing.assert_array_equal(weights_of(model)["w"], f32(0.5, 1))
    assert (receipt.fate, receipt.step, receipt.offset, receipt.lr) == ("applied", 1, 2, 0.5)
    assert (receipt.base, receipt.staleness, receipt.grad_norm) == (0, 0, 1.0)
    assert (receipt.worker, receipt.sequence, receipt.durability) == ("a", 1, "memory")


def test_staleness_counts_the_steps_since_the_base() -> None:
    model = model_of({"w": f32(0)})
    for _ in range(3):
        push(model, {"w": f32(1)})
    assert push(model, {"w": f32(1)}, base=1).staleness == 2
    assert push(model, {"w": f32(1)}).staleness is None


def test_a_partial_push_leaves_the_other_tensors_alone() -> None:
    model = model_of({name: noise((5,), seed) for seed, name in enumerate("abc")}, optimizer=ADAM)
    push(model, {name: noise((5,), 9) for name in "abc"})
    weights, slots = weights_of(model), slots_of(model)
    push(model, {"b": noise((5,), 10)})
    after, slots_after = weights_of(model), slots_of(model)
    for name in "ac":
        assert after[name].tobytes() == weights[name].tobytes()
        assert slots_after[f"m/{name}"].tobytes() == slots[f"m/{name}"].tobytes()
    assert not np.array_equal(after["b"], weights["b"])
    assert model.updates.tolist() == [1, 2, 1]
    assert model.step == 2


def test_each_tensor_counts_its_own_updates() -> None:
    """Adam corrects its bias by t: a tensor's first gradient is its first, whatever the others had."""
    together = model_of({"a": f32(1), "b": f32(1)}, optimizer=ADAM)
    for _ in range(4):
        push(together, {"a": f32(2)})
    push(together, {"a": f32(2), "b": f32(3)})

    alone = model_of({"b": f32(1)}, optimizer=ADAM)
    push(alone, {"b": f32(3)})
    assert weights_of(together)["b"].tobytes() == weights_of(alone)["b"].tobytes()


def test_tensors_with_different_counts_in_one_push_equal_pushes_of_their_own() -> None:
    values = {name: noise((7,), seed) for seed, name in enumerate("abcd")}
    gradients = [{"b": noise((7,), 20)}, {"b": noise((7,), 21), "d": noise((7,), 22)}]
    last = {name: noise((7,), 30 + seed) for seed, name in enumerate("abcd")}
    together = model_of(values, optimizer=ADAM)
    for gradient in [*gradients, last]:
        push(together, gradient)
    for name in "abcd":
        alone = model_of({name: values[name]}, optimizer=ADAM)
        for gradient in [*gradients, last]:
            if name in gradient:
                push(alone, {name: gradient[name]})
        assert weights_of(together)[name].tobytes() == weights_of(alone)[name].tobytes()


def test_a_schedule_follows_the_models_step_not_the_tensors() -> None:
    halving = {"name": "exponential_decay", "decay_rate": 0.5, "decay_steps": 1}
    model = model_of({"a": f32(0), "b": f32(0)}, optimizer={"rule": "sgd", "lr": 1.0}, schedule=halving)
    assert [push(model, {"a": f32(1)}).lr for _ in range(3)] == [1.0, 0.5, 0.25]
    push(model, {"b": f32(1)})
    np.testing.assert_array_equal(weights_of(model)["b"], f32(-0.125))


def test_groups_have_optimizers_of_their_own() -> None:
    groups = [{"match": "*.bias", "optimizer": {"lr": 0.25}}]
    model = model_of({"x.bias": f32(0), "x.weight": f32(0)}, groups=groups)
    receipt = push(model, {"x.bias": f32(1), "x.weight": f32(1)})
    np.testing.assert_array_equal(weights_of(model)["x.bias"], f32(-0.25))
    np.testing.assert_array_equal(weights_of(model)["x.weight"], f32(-0.5))
    assert receipt.lr == 0.5


def test_order_dtype_and_alignment_of_the_body_do_not_show_in_the_bits() -> None:
    values = {"a": noise((33,), 1), "b": noise((9, 2), 2), "c": noise((4,), 3, np.float64)}
    gradient = {name: noise(array.shape, 40, np.float16) for name, array in values.items()}
    wire_order = {
        "c": gradient["c"].astype("f8"),
        "a": gradient["a"].astype("f4"),
        "b": gradient["b"].astype("f4"),
    }
    states = []
    for tensors in (
        body(gradient),
        body(wire_order),
        body(wire_order, lead_bytes=61),
        body({name: array.astype("f8") for name, array in reversed(gradient.items())}),
    ):
        model = model_of(values, optimizer=ADAM)
        for _ in range(3):
            push_body(model, tensors)
        states.append(weights_of(model) | slots_of(model))
    assert all(same(states[0], state) for state in states[1:])


def test_compiled_kernels_leave_the_same_state() -> None:
    values = {"a": noise((1001,), 1), "b": noise((77,), 2)}
    entry = Create(spec({"a": (1001,), "b": (77,)}, optimizer=ADAM), body(values), "first", 0)
    models = [begin(entry, device, Blocks()) for device in (NUMPY, CpuDevice(threads=2))]
    for model in models:
        for seed in range(5):
            push(model, {"a": noise((1001,), seed), "b": noise((77,), 50 + seed)})
    assert same(weights_of(models[0]) | slots_of(models[0]), weights_of(models[1]) | slots_of(models[1]))


def test_the_first_values_are_no_step_and_a_replacement_is_one() -> None:
    model = begin(Create(spec({"a": (1,), "b": (1,)}), None, None, 0), NUMPY, Blocks())
    assert model.missing == {"a", "b"}
    upload(model, {"a": f32(1)})
    assert (model.step, model.missing) == (0, {"b"})
    upload(model, {"b": f32(2)})
    assert (model.step, model.missing) == (0, set())
    upload(model, {"a": f32(3)})
    assert model.step == 1
    np.testing.assert_array_equal(weights_of(model)["a"], f32(3))
    np.testing.assert_array_equal(weights_of(model)["b"], f32(2))


def test_a_replacement_keeps_slots_and_counts() -> None:
    model = model_of({"w": f32(1, 1)}, optimizer=ADAM)
    push(model, {"w": f32(1, -1)})
    slots = slots_of(model)
    upload(model, {"w": f32(5, 5)})
    assert same(slots, slots_of(model))
    assert model.updates.tolist() == [1]


def test_the_last_upload_is_remembered_until_a_push_moves_it() -> None:
    model = begin(Create(spec({"w": (1,)}), None, None, 0), NUMPY, Blocks())
    upload(model, {"w": f32(1)}, "first")
    assert model.uploaded == "first"
    push(model, {"w": f32(1)})
    assert model.uploaded is None


def configure(model: Model, **change: Any) -> None:
    assert apply(model, 99, Configure(reconfigure(model.spec, change).json, 0)) is None


def test_a_new_configuration_counts_from_the_next_push_and_is_no_step() -> None:
    model = model_of({"w": f32(1)}, optimizer={"rule": "momentum", "lr": 0.5, "momentum": 0.5})
    push(model, {"w": f32(1)})
    slots = slots_of(model)
    configure(model, optimizer={"lr": 0.125})
    assert model.step == 1
    assert same(slots, slots_of(model))
    assert push(model, {"w": f32(1)}).lr == 0.125
    np.testing.assert_array_equal(weights_of(model)["w"], f32(0.5 - 0.125 * 1.5))


def test_create_and_delete_within_a_log_change_nothing() -> None:
    model = model_of({"w": f32(1)})
    before = weights_of(model)
    assert apply(model, 2, Delete(0)) is None
    assert same(before, weights_of(model))


def test_the_origin_tells_creations_apart_by_spec_and_values_not_by_time() -> None:
    asked = spec({"w": (1,)})
    assert origin(Create(asked, None, "x", 1)) == origin(Create(asked, None, "x", 2))
    assert origin(Create(asked, None, "x", 1)) != origin(Create(asked, None, "y", 1))
    other = spec({"w": (1,)}, optimizer={"rule": "sgd", "lr": 0.25})
    assert origin(Create(asked, None, "x", 1)) != origin(Create(other, None, "x", 1))


@pytest.mark.parametrize("shape", [(0,), (), (2, 0, 3)])
def test_models_of_nothing_and_of_one_number_work(shape: tuple[int, ...]) -> None:
    model = model_of({"w": np.ones(shape, np.float32)}, optimizer=ADAM)
    receipt = push(model, {"w": np.ones(shape, np.float32)})
    assert receipt.step == 1
    assert weights_of(model)["w"].shape == shape


def test_receipts_keep_to_the_pushs_own_name() -> None:
    model = model_of({"w": f32(0)})
    first = push(model, {"w": f32(1)}, worker="a", sequence=1, digest="x")
    push(model, {"w": f32(1)}, worker="b", sequence=1, digest="y")
    push(model, {"w": f32(1)}, key="a", digest="z")
    push(model, {"w": f32(1)}, digest="nobody")
    assert model.receipts.find("w:a", 1, "x") == first
    assert model.receipts.find("k:a", 1, "z") is not None
    assert [name for name, _, _ in model.receipts.workers()] == ["a", "b"]
