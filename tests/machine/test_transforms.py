"""Transforms at work on a model: what a push, a snapshot and a change of the spec make of them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gradledger_server.blocks import Blocks
from gradledger_server.entries import Configure, Create
from gradledger_server.errors import InvalidSpec, ViewNotFound
from gradledger_server.kernels.cpu import CpuDevice
from gradledger_server.kernels.operations import Value
from gradledger_server.machine import image, views
from gradledger_server.machine.apply import apply, begin
from gradledger_server.machine.model import Model
from gradledger_server.machine.reconfiguration import reconfigure
from gradledger_server.optim import rules
from gradledger_server.optim.hyperparameters import Decay
from gradledger_server.wire import records, safetensors
from tests.machine.bodies import (
    NUMPY,
    Arrays,
    body,
    f32,
    model_of,
    noise,
    push,
    slots_of,
    spec,
    upload,
    weights_of,
)
from tests.machine.test_transform_vectors import VECTORS

SGD = {"rule": "sgd", "lr": 1.0}
ADAM = {"rule": "adam", "lr": 0.1}
EVERYTHING: dict[str, Any] = {
    "accumulate": {"every": 2},
    "clip_global_norm": {"max_norm": 1.0},
    "clip_value": {"limit": 0.5},
    "noise": {"eta": 0.1},
    "lookahead": {"every": 2},
    "ema": {"decay": 0.5},
    "polyak": {"after": 1},
}
VALUES = {"a": noise((33,), 1), "b": noise((9, 2), 2), "c": noise((4,), 3, np.float64)}


def same(a: Arrays, b: Arrays) -> bool:
    return a.keys() == b.keys() and all(a[name].tobytes() == b[name].tobytes() for name in a)


def gradient(seed: int, names: str = "abc") -> Arrays:
    return {name: noise(VALUES[name].shape, 100 * seed + ord(name), VALUES[name].dtype) for name in names}


def configure(model: Model, **change: Any) -> None:
    assert apply(model, 99, Configure(reconfigure(model.spec, change).json, 0)) is None


def restored(model: Model) -> Model:
    """The model as a snapshot brings it back."""
    taken = image.copy(model)
    facts = records.from_json(records.to_json(taken.facts))
    payload = b"".join([safetensors.header(taken.tensors), *(part.tobytes() for part in taken.parts)])
    return image.restore(facts, safetensors.decode(memoryview(payload), safetensors.OWN), NUMPY, Blocks())


# -- one norm for a whole push -------------------------------------------------------------------------------


def test_the_norm_is_over_all_groups_and_dtypes() -> None:
    values: Arrays = {"x": f32(0), "y.bias": f32(0), "z": np.zeros(1)}
    groups = [{"match": "*.bias", "optimizer": {"lr": 0.5}}]
    clip = {"clip_global_norm": {"max_norm": 3.5, "clip_eps": 0}}
    model = model_of(values, optimizer=SGD, groups=groups, transforms=clip)
    receipt = push(model, {"x": f32(2), "y.bias": f32(3), "z": np.array([6.0])})
    assert (receipt.grad_norm, receipt.clip_factor) == (7.0, 0.5)
    after = weights_of(model)
    assert (after["x"][0], after["y.bias"][0], after["z"][0]) == (-1.0, -0.75, -3.0)
    assert push(model, {"x": f32(1)}).clip_factor == 1.0


# -- noise ---------------------------------------------------------------------------------------------------


def test_noise_has_the_size_that_optax_measured() -> None:
    told = VECTORS["noise"]
    transforms = {"noise": {"eta": told["eta"], "gamma": told["gamma"]}}
    model = model_of({"w": np.zeros(200_000)}, optimizer=SGD, transforms=transforms)
    for deviation in told["deviations"]:
        before = weights_of(model)["w"]
        push(model, {"w": np.zeros(200_000)})
        assert np.std(weights_of(model)["w"] - before) == pytest.approx(deviation, rel=0.01)


def test_noise_depends_on_the_entry_and_the_place_alone() -> None:
    """Tensors updated equally often are one kernel call, others are several: the noise is the same."""
    transforms = {"noise": {"eta": 0.5, "seed": 3}}
    together, apart = (model_of(VALUES, optimizer=SGD, transforms=transforms) for _ in range(2))
    for model, first in ((together, "abc"), (apart, "b")):
        push(model, gradient(0, first), offset=2)
        upload(model, VALUES)
    for model in (together, apart):
        push(model, gradient(1), offset=9)
    assert same(weights_of(together), weights_of(apart))
    added = {
        name: (VALUES[name] - w - gradient(1)[name]).reshape(-1) for name, w in weights_of(apart).items()
    }
    assert not np.allclose(added["a"][:4], added["b"][:4], rtol=0.01), "one arena, other places"
    assert not np.allclose(added["a"][:4], added["c"], rtol=0.01), "the same places, another arena"
    push(together, gradient(2), offset=10)
    push(apart, gradient(2), offset=11)
    assert not same(weights_of(together), weights_of(apart))


def test_an_upload_replaces_the_weights_and_leaves_the_averages() -> None:
    model = model_of(
        {"w": f32(0)}, optimizer=SGD, transforms={"lookahead": {"every": 2}, "ema": {"decay": 0.5}}
    )
    push(model, {"w": f32(1)})
    upload(model, {"w": f32(100)})
    assert [weights_of(model, view)["w"][0] for view in ("train", "slow", "ema")] == [100, 0, -1]
    push(model, {"w": f32(0)})  # the second update: halfway back to the slow weight
    assert [weights_of(model, view)["w"][0] for view in ("train", "slow", "ema")] == [50, 50, 24.5]


# -- accumulation --------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("error")
def test_weights_that_add_up_beyond_float64_outlive_a_snapshot() -> None:
    model = model_of({"w": f32(0), "b": f32(0, 0)}, optimizer=SGD, transforms={"accumulate": {"every": 4}})
    for _ in range(3):
        push(model, {"w": f32(1), "b": f32(1, 1)}, weight=1.7e308)
    again = restored(model)
    for each in (model, again):
        assert push(each, {"w": f32(1)}, weight=1.0).fate == "applied"
    assert same(weights_of(again), weights_of(model)) and np.isfinite(weights_of(model)["w"]).all()


def test_the_mean_of_a_window_is_one_step() -> None:
    accumulating = model_of(VALUES, optimizer=ADAM, transforms={"accumulate": {"every": 4}})
    plain = model_of(VALUES, optimizer=ADAM)
    for window in range(3):
        pushed = [gradient(10 * window + i) for i in range(4)]
        means = {name: np.zeros_like(VALUES[name]) for name in VALUES}
        for n, each in enumerate(pushed):
            means = {
                name: mean + (each[name] - mean) / mean.dtype.type(n + 1) for name, mean in means.items()
            }
        receipts = [push(accumulating, each) for each in pushed]
        push(plain, means)
        assert [receipt.fate for receipt in receipts] == ["accumulated"] * 3 + ["applied"]
        assert [receipt.step for receipt in receipts] == [window] * 3 + [window + 1]
        assert [receipt.lr for receipt in receipts] == [None] * 3 + [0.1]
        assert same(weights_of(accumulating), weights_of(plain))
        assert same(slots_of(accumulating), slots_of(plain))


def test_a_window_that_is_made_shorter_closes_with_the_next_push() -> None:
    model = model_of({"w": f32(0)}, optimizer=SGD, transforms={"accumulate": {"every": 9}})
    for _ in range(4):
        push(model, {"w": f32(1)})
    configure(model, transforms={"accumulate": {"every": 2}})
    assert [push(model, {"w": f32(1)}).fate for _ in range(3)] == ["applied", "accumulated", "applied"]


def test_a_tensor_left_out_of_a_window_is_not_updated() -> None:
    model = model_of(VALUES, optimizer=ADAM, transforms={"accumulate": {"every": 2}})
    push(model, gradient(1, "a"))
    push(model, gradient(2, "ac"))
    alone = model_of({"c": VALUES["c"]}, optimizer=ADAM)
    push(alone, gradient(2, "c"))
    assert weights_of(model)["b"].tobytes() == VALUES["b"].tobytes()
    assert weights_of(model)["c"].tobytes() == weights_of(alone)["c"].tobytes(), "its mean is over one push"
    assert {p.tensor.name: int(model.updates[p.index]) for p in model.layout.places} == {
        "a": 1,
        "b": 0,
        "c": 1,
    }


def test_weights_of_pushes_may_be_left_out() -> None:
    for weighted, expected in ((True, 1.5), (False, 2.0)):
        transforms = {"accumulate": {"every": 2, "weighted": weighted}}
        model = model_of({"w": f32(0)}, optimizer=SGD, transforms=transforms)
        for g, weight in ((1.0, 3.0), (3.0, 1.0)):
            push(model, {"w": f32(g)}, weight=weight)
        assert weights_of(model)["w"][0] == -expected


@pytest.mark.parametrize("heavy", [1e308, 5e-324])
def test_pushes_of_absurd_weights_still_apply(heavy: float) -> None:
    model = model_of({"w": f32(0)}, optimizer=SGD, transforms={"accumulate": {"every": 4}})
    for weight in (heavy, heavy, 1.0, heavy):
        receipt = push(model, {"w": f32(1)}, weight=weight)
    assert receipt.fate == "applied" and weights_of(model)["w"][0] == -1.0


def test_what_overflows_while_it_is_accumulated_still_applies() -> None:
    """Each push is finite, their difference is not: it goes where IEEE says, and is never an exception."""
    transforms = {"accumulate": {"every": 2}, "clip_global_norm": {"max_norm": 1.0}}
    model = model_of({"w": f32(0, 0)}, optimizer=SGD, transforms=transforms)
    push(model, {"w": f32(3e38, 1)})
    assert push(model, {"w": f32(-3e38, 1)}).clip_factor == 0.0
    huge = model_of({"w": np.zeros(2)}, optimizer=SGD, transforms=transforms)
    push(huge, {"w": np.array([1e300, 0.0])})
    assert push(huge, {"w": np.array([0.0, 1e300])}).clip_factor == pytest.approx(math.sqrt(2) * 1e-300)


def test_an_upload_leaves_the_window_alone_and_a_retry_of_it_is_known() -> None:
    model = model_of({"w": f32(0)}, optimizer=SGD, transforms={"accumulate": {"every": 2}})
    push(model, {"w": f32(1)})
    upload(model, {"w": f32(10)}, "second")
    push(model, {"w": f32(3)})
    assert (weights_of(model)["w"][0], model.step) == (8.0, 2)
    upload(model, {"w": f32(10)}, "third")
    push(model, {"w": f32(1)})
    assert model.uploaded == "third", "the values are still the uploaded ones"


# -- state ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pushes", [0, 1, 2, 5])
def test_a_snapshot_holds_everything(pushes: int) -> None:
    model = model_of(VALUES, optimizer=ADAM, transforms=EVERYTHING)
    for seed in range(pushes):
        push(model, gradient(seed, "abc" if seed % 2 else "ab"), offset=seed + 2)
    names = {name.partition("/")[0] for name, _, _ in image.copy(model).tensors}
    assert names == {"param", "m", "v", "slow", "ema", "polyak", "accumulated", "t"}
    back = restored(model)
    for offset in range(20, 25):
        receipts = [push(each, gradient(offset), offset=offset) for each in (model, back)]
        assert receipts[0] == receipts[1]
    assert same(weights_of(model) | slots_of(model), weights_of(back) | slots_of(back))
    assert model.nbytes == model.layout.nbytes * (1 + 2 + 3 + 1)


def test_compiled_kernels_leave_the_same_state() -> None:
    shapes = {name: values.shape for name, values in VALUES.items()}
    given = spec(shapes, dtypes={"c": "F64"}, optimizer=ADAM, transforms=EVERYTHING)
    models = [
        begin(Create(given, body(VALUES), "first", 0), device, Blocks())
        for device in (NUMPY, CpuDevice(threads=2))
    ]
    for model in models:
        for seed in range(7):
            push(model, gradient(seed, "abc" if seed % 3 else "b"), offset=seed + 2)
    assert same(weights_of(models[0]) | slots_of(models[0]), weights_of(models[1]) | slots_of(models[1]))
    for view in views.names(models[0].spec):
        assert views.block(models[0], view).tobytes() == views.block(models[1], view).tobytes()


# -- the spec ------------------------------------------------------------------------------------------------


def test_an_expanded_spec_is_a_request_for_itself() -> None:
    groups = [{"match": "b", "transforms": {"ema": None, "clip_value": {"limit": 9}, "noise": {"eta": 1}}}]
    once = spec({"a": (1,), "b": (1,)}, transforms=EVERYTHING, groups=groups)
    again = spec(
        {"a": (1,), "b": (1,)}, **{k: once[k] for k in ("optimizer", "schedule", "transforms", "groups")}
    )
    assert json.dumps(once) == json.dumps(again)
    assert spec({"a": (1,)})["transforms"] == {}


def test_settings_change_and_groups_follow() -> None:
    transforms = {"clip_value": {"limit": 0.5}, "ema": {"decay": 0.5}, "noise": {"eta": 0}}
    groups = [{"match": "b", "transforms": {"clip_value": {"limit": 0.25}}}]
    model = model_of({"a": f32(0), "b": f32(0)}, optimizer=SGD, transforms=transforms, groups=groups)
    configure(model, transforms={"clip_value": {"limit": 1.0}, "ema": {"decay": 0.75}, "noise": None})
    assert model.spec.json["transforms"]["clip_value"] == {"limit": 1.0}
    assert model.spec.groups[0].transforms == {
        "clip_value": {"limit": 0.25},
        "ema": {"decay": 0.75, "start": "first"},
    }
    push(model, {"a": f32(9), "b": f32(9)})
    assert (weights_of(model)["a"][0], weights_of(model)["b"][0]) == (-1.0, -0.25)


@pytest.mark.parametrize("name", ["accumulate", "ema", "lookahead", "polyak"])
@pytest.mark.parametrize("present", [False, True])
def test_what_has_state_can_neither_come_nor_go(name: str, present: bool) -> None:
    model = model_of({"w": f32(0)}, transforms={name: EVERYTHING[name]} if present else {})
    with pytest.raises(InvalidSpec) as refused:
        reconfigure(model.spec, {"transforms": {name: None if present else EVERYTHING[name]}})
    assert name in refused.value.advice or refused.value.facts["field"] == f"transforms.{name}"
    assert "create a new model" in refused.value.advice


def test_a_group_cannot_shed_its_slots_either() -> None:
    model = model_of({"w": f32(0), "v": f32(0)}, transforms={"ema": {}}, groups=[{"match": "w"}])
    with pytest.raises(InvalidSpec, match="ema"):
        reconfigure(model.spec, {"groups": [{"match": "w", "transforms": {"ema": None}}]})


# -- views ---------------------------------------------------------------------------------------------------


def test_a_view_shows_the_weights_until_there_is_something_else() -> None:
    groups = [{"match": "c", "transforms": {"ema": None}}]
    transforms = {"ema": {"decay": 0.5}, "lookahead": {"every": 2}}
    model = model_of(VALUES, optimizer=SGD, transforms=transforms, groups=groups)
    assert views.names(model.spec) == ("train", "slow", "ema")
    assert same(weights_of(model, "ema"), weights_of(model))
    push(model, gradient(1, "ac"))
    first = weights_of(model)
    push(model, gradient(2, "ac"))
    shown, trained = weights_of(model, "ema"), weights_of(model)
    assert shown["a"].tobytes() == (first["a"] + np.float32(0.5) * (trained["a"] - first["a"])).tobytes()
    assert shown["b"].tobytes() == trained["b"].tobytes() == VALUES["b"].tobytes(), "never updated"
    assert shown["c"].tobytes() == trained["c"].tobytes(), "its group has no such average"
    assert weights_of(model, "slow")["a"].tobytes() == trained["a"].tobytes(), "they have just met"


def test_a_rule_may_have_a_view_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def ahead(w: Value, u: Value, *, momentum: Decay) -> Value:
        return w - momentum * u

    monkeypatch.setitem(rules.VIEWS, "momentum", {"eval": ahead})  # type: ignore[misc,unused-ignore]
    given = {"rule": "momentum", "lr": 1.0, "momentum": 0.5}
    groups = [{"match": "b", "optimizer": {"rule": "sgd", "lr": 1.0}}]
    model = model_of({"a": f32(4), "b": f32(4)}, optimizer=given, transforms={"ema": {}}, groups=groups)
    assert views.names(model.spec) == ("train", "ema", "eval")
    push(model, {"a": f32(2), "b": f32(2)})
    seen = weights_of(model, "eval")
    assert (seen["a"][0], seen["b"][0]) == (2.0 - 0.5 * 2.0, 2.0)
    before = views.tag(model.spec, "eval")
    assert (views.tag(model.spec, "train"), views.tag(model.spec, "ema")) == ("train", "ema")
    configure(model, optimizer={"momentum": 0.25})
    assert weights_of(model, "eval")["a"][0] == 2.0 - 0.25 * 2.0
    assert views.tag(model.spec, "eval") != before, "the same step, and another view"


def test_an_unknown_view_names_the_known_ones() -> None:
    model = model_of({"w": f32(0)}, transforms={"polyak": {}})
    with pytest.raises(ViewNotFound) as refused:
        views.block(model, "ema")
    assert refused.value.facts == {"view": "ema", "views": ["train", "polyak"]}


def test_vectors_are_named_after_their_script() -> None:
    assert (Path(__file__).parents[1] / "vectors" / VECTORS["made_by"]).exists()
