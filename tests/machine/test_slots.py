"""Slots that depend on a setting: held, saved and restored where they are; and what no change may touch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gradledger_server.errors import InvalidSpec
from gradledger_server.machine import image
from gradledger_server.machine import spec as specs
from gradledger_server.machine.reconfiguration import reconfigure
from tests.machine.bodies import f32, model_of, push, slots_of, spec, upload, weights_of
from tests.machine.test_image import reborn

RMSPROP = {"rule": "rmsprop", "lr": 0.01}
FULL = RMSPROP | {"momentum": 0.9, "centered": True, "initial_accumulator": 0.5}


@pytest.mark.parametrize(
    ("optimizer", "slots"),
    [
        (RMSPROP, ["v"]),
        (RMSPROP | {"centered": True}, ["v", "m"]),
        (RMSPROP | {"momentum": 0.5}, ["v", "u"]),
        (FULL, ["v", "m", "u"]),
    ],
)
def test_a_model_holds_the_slots_its_settings_ask_for(optimizer: dict[str, Any], slots: list[str]) -> None:
    model = model_of({"w": f32(1.0, 2.0)}, optimizer=optimizer)
    assert model.nbytes == 8 * (1 + len(slots))
    push(model, {"w": f32(0.5, -0.5)})
    assert [name for name, _, _ in image.copy(model).tensors] == [
        *(f"{slot}/w" for slot in slots),
        "param/w",
        "t/w",
    ]


def test_a_conditional_slot_survives_a_snapshot() -> None:
    model = model_of({"w": f32(1.0, 2.0)}, optimizer=FULL)
    push(model, {"w": f32(0.5, -0.5)})
    restored = reborn(model)
    assert set(slots_of(restored)) == {"v/w", "m/w", "u/w"}
    for one in (model, restored):
        push(one, {"w": f32(0.1, 3.0)})
    assert weights_of(restored)["w"].tobytes() == weights_of(model)["w"].tobytes()


def reconfigured(optimizer: dict[str, Any], change: dict[str, Any], **given: Any) -> specs.Spec:
    before = specs.read(spec({"w": (2,), "b": (1,)}, optimizer=optimizer, **given))
    return reconfigure(before, change)


@pytest.mark.parametrize(
    ("optimizer", "change", "words"),
    [
        (RMSPROP, {"momentum": 0.9}, "would add slot u for"),
        (FULL, {"momentum": 0}, "would remove slot u for"),
        (RMSPROP, {"centered": True}, "would add slot m for"),
        (FULL, {"initial_accumulator": 0.1}, "would start slot v from 0.1 instead of 0.5 for"),
        ({"rule": "yogi"}, {"preset": "optax"}, "start slot m from 1e-06 instead of 0"),
    ],
)
def test_a_change_that_needs_other_slots_is_refused(
    optimizer: dict[str, Any], change: dict[str, Any], words: str
) -> None:
    with pytest.raises(InvalidSpec, match="slots are fixed when a model is created") as refused:
        reconfigured(optimizer, {"optimizer": change})
    assert words in refused.value.detail and refused.value.facts["field"] == "optimizer"


def test_a_group_whose_slots_would_change_is_named() -> None:
    groups = [{"match": "b", "optimizer": {"momentum": 0.5}}]
    with pytest.raises(InvalidSpec, match="remove slot u for the tensors of 'b'"):
        reconfigured(RMSPROP, {"groups": [{"match": "b", "optimizer": {}}]}, groups=groups)


def test_what_changes_no_slot_may_change() -> None:
    after = reconfigured(FULL, {"optimizer": {"momentum": 0.5, "lr": 0.5}})
    assert after.json["optimizer"]["momentum"] == 0.5


DECAY = {"name": "exponential_decay", "decay_rate": 0.5, "decay_steps": 10}


@pytest.mark.parametrize("rule", ["schedule_free_sgd", "schedule_free_adamw", "ftrl", "rprop"])
def test_a_fixed_learning_rate_is_moved_by_nothing(rule: str) -> None:
    optimizer = {"rule": rule, "lr": 0.01}
    with pytest.raises(InvalidSpec, match=f"constant, with rule '{rule}'") as refused:
        spec({"w": (2,)}, optimizer=optimizer, schedule=DECAY)
    assert refused.value.facts["field"] == "schedule.name"
    with pytest.raises(InvalidSpec, match="exponential_decay"):
        reconfigured(optimizer, {"schedule": DECAY})
    with pytest.raises(InvalidSpec, match=r"moves the lr of the tensors of .* from 0\.01 to 0\.02"):
        reconfigured(optimizer, {"optimizer": {"lr": 0.02}})
    assert reconfigured(optimizer, {"schedule": None}).json["schedule"] == {"name": "constant"}


def test_a_group_with_a_fixed_learning_rate_needs_the_constant_schedule() -> None:
    free = {"match": "b", "optimizer": {"rule": "schedule_free_sgd"}}
    shapes = {"w": (2,), "b": (1,)}
    with pytest.raises(InvalidSpec) as refused:
        spec(shapes, optimizer={"rule": "sgd"}, schedule=DECAY, groups=[free])
    assert refused.value.facts["field"] == "groups[0].schedule.name"
    spec(
        shapes, optimizer={"rule": "sgd"}, schedule=DECAY, groups=[free | {"schedule": {"name": "constant"}}]
    )


def test_parameters_uploaded_anew_take_the_schedule_free_offset_along() -> None:
    """The slot holds how far z is ahead of the weight, so z moves with it and all goes on, moved."""
    free = {"rule": "schedule_free_sgd", "lr": 0.125}
    stayed, moved = (model_of({"w": f32(1.0, 2.0)}, optimizer=free) for _ in range(2))
    for model in (stayed, moved):
        push(model, {"w": f32(0.5, -0.5)})
        push(model, {"w": f32(0.25, 1.0)})
    upload(moved, {"w": weights_of(moved)["w"] + 1})
    for model in (stayed, moved):
        push(model, {"w": f32(-1.0, 0.5)})
    np.testing.assert_allclose(weights_of(moved)["w"], weights_of(stayed)["w"] + 1, rtol=1e-6)
    assert slots_of(moved)["a/w"].tobytes() == slots_of(stayed)["a/w"].tobytes()
