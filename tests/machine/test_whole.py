"""Rules that need whole tensors, in a model: tensor by tensor, slots of their own shapes, exact replay."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from gradledger_server.blocks import Blocks
from gradledger_server.entries import Configure, Create
from gradledger_server.errors import InvalidSpec
from gradledger_server.kernels.cpu import CpuDevice
from gradledger_server.machine import image
from gradledger_server.machine import spec as specs
from gradledger_server.machine.apply import apply, begin
from gradledger_server.machine.model import Model
from gradledger_server.machine.reconfiguration import reconfigure
from gradledger_server.wire import safetensors
from tests.machine.bodies import NUMPY, Arrays, body, model_of, noise, push, slots_of, spec, weights_of

VALUES = {
    "a": noise((5, 3), 1),
    "b": noise((4, 6), 2),
    "bias": noise((7,), 3),
    "double": noise((3, 2), 4, np.float64),
    "empty": noise((0, 2), 5),
    "kernel": noise((2, 3, 2, 2), 6),
    "scalar": noise((), 7),
    "zero": np.zeros((2, 2), np.float32),
}
MATRICES = {name: VALUES[name] for name in ("a", "b", "double", "empty", "zero")}
ADAMW = {"match": "[bks]*", "optimizer": {"rule": "adamw"}}
EVERYTHING: dict[str, Any] = {
    "clip_global_norm": {"max_norm": 3.0},
    "clip_norm": {"max_norm": 1.0},
    "clip_value": {"limit": 0.5},
    "agc": {"clipping": 0.5},
    "centralize": {},
    "noise": {"eta": 0.01},
    "lookahead": {"every": 2},
    "ema": {},
}
RULES: dict[str, tuple[Arrays, dict[str, Any]]] = {
    "lars": (VALUES, {"optimizer": {"rule": "lars", "weight_decay": 0.01}}),
    "lars, optax": (VALUES, {"optimizer": {"rule": "lars", "preset": "optax", "weight_decay": 0.01}}),
    "lamb": (VALUES, {"optimizer": {"rule": "lamb", "weight_decay": 0.01}}),
    "adafactor": (VALUES, {"optimizer": {"rule": "adafactor"}}),
    "adafactor, optax": (VALUES, {"optimizer": {"rule": "adafactor", "preset": "optax", "factored_from": 3}}),
    "adafactor, transformed": (VALUES, {"optimizer": {"rule": "adafactor"}, "transforms": EVERYTHING}),
    "lamb, transformed": (VALUES, {"optimizer": {"rule": "lamb"}, "transforms": EVERYTHING}),
    "adam, transformed": (VALUES, {"optimizer": {"rule": "adam"}, "transforms": EVERYTHING}),
    "muon": (MATRICES, {"optimizer": {"rule": "muon"}}),
    "muon beside adamw": (
        VALUES,
        {"optimizer": {"rule": "muon"}, "groups": [{"match": "[bks]*", "optimizer": {"rule": "adamw"}}]},
    ),
}


PLAIN = [name for name in RULES if "transformed" not in name]
"""Without noise, which differs from push to push, and without the norm of the whole push."""


def gradient_of(values: Arrays, seed: int, scale: float = 1.0) -> Arrays:
    return {
        name: noise(v.shape, seed + i, v.dtype) * v.dtype.type(scale)
        for i, (name, v) in enumerate(values.items())
    }


def pushed(model: Model, values: Arrays) -> Model:
    """All tensors, some of them, one alone, all again: tensors are then at different t."""
    names = list(values)
    for step, chosen in enumerate((names, names[::2], names[:1], names)):
        gradient = gradient_of(values, 10 * step)
        push(model, {name: np.asarray(gradient[name], values[name].dtype) for name in chosen})
    return model


def states(model: Model) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in (weights_of(model) | slots_of(model)).items()}


@pytest.mark.parametrize("name", RULES)
def test_every_device_and_a_restored_snapshot_have_the_same_bits(name: str) -> None:
    values, given = RULES[name]
    there = pushed(model_of(values, **given), values)
    assert all(np.isfinite(array).all() for array in weights_of(there).values())
    shapes = {n: v.shape for n, v in values.items()}
    dtypes = {n: {"f4": "F32", "f8": "F64"}[v.dtype.str[1:]] for n, v in values.items()}
    create = Create(spec(shapes, dtypes=dtypes, **given), body(values), "first", 0)
    assert states(pushed(begin(create, CpuDevice(threads=2), Blocks()), values)) == states(there)
    taken = image.copy(there)
    written = b"".join([safetensors.header(taken.tensors), *(part.tobytes() for part in taken.parts)])
    tensors = safetensors.decode(memoryview(written), safetensors.OWN)
    again = image.restore(json.loads(json.dumps(taken.facts)), tensors, NUMPY, Blocks())
    assert states(again) == states(there)
    assert states(pushed(again, values)) == states(pushed(there, values))


@pytest.mark.parametrize("name", PLAIN)
def test_a_tensor_moves_by_itself_alone(name: str) -> None:
    """Whatever else a push holds, a tensor's next value follows from its own gradient, slots and t."""
    values, given = RULES[name]
    together = pushed(model_of(values, **given), values)
    gradient = {n: np.asarray(v, values[n].dtype) for n, v in gradient_of(values, 99).items()}
    apart = pushed(model_of(values, **given), values)
    push(together, gradient)
    for tensor in reversed(gradient):
        step = apart.step
        apart.step = 4
        push(apart, {tensor: gradient[tensor]}, offset=step + 2)
    assert states(apart) == states(together)


def test_adafactor_keeps_rows_and_columns_only() -> None:
    model = pushed(model_of(VALUES, optimizer={"rule": "adafactor"}), VALUES)
    shapes = {name: shape for name, _, shape in image.copy(model).tensors}
    assert shapes["r/a"] == (5, 1) and shapes["c/a"] == (1, 3) and "v/a" not in shapes
    assert shapes["r/kernel"] == (2, 3, 2, 1) and shapes["c/kernel"] == (2, 3, 1, 2)
    assert shapes["v/bias"] == (7,) and shapes["v/scalar"] == () and "r/bias" not in shapes
    large = model_of({"w": np.zeros((300, 200), np.float32)}, optimizer={"rule": "adafactor"})
    assert large.nbytes == 4 * (300 * 200 + 300 + 200)


def test_muon_refuses_what_is_no_matrix_and_says_which_group_would_help() -> None:
    with pytest.raises(InvalidSpec, match=r"parameters\.bias has 1 dimensions") as caught:
        spec({"w": (3, 2), "bias": (3,)}, optimizer={"rule": "muon"})
    hint = caught.value.advice
    group = json.loads(hint[hint.index("{") : hint.rindex("}") + 1])
    spec({"w": (3, 2), "bias": (3,)}, optimizer={"rule": "muon"}, groups=[group])
    with pytest.raises(InvalidSpec, match=r"it falls to groups\[0\], rule muon"):
        spec({"w": (3, 2), "bias": (3,)}, groups=[{"match": "b*", "optimizer": {"rule": "muon"}}])


def test_a_patch_changes_numbers_and_not_the_shapes_of_slots() -> None:
    model = pushed(model_of(VALUES, optimizer={"rule": "adafactor"}), VALUES)
    for change in ({"factored_from": 4}, {"factored": "largest", "factored_from": 100}):
        with pytest.raises(InvalidSpec, match="slots of other shapes"):
            reconfigure(model.spec, {"optimizer": change})
    after = reconfigure(model.spec, {"optimizer": {"lr": 0.5, "weight_decay": 0.1}})
    apply(model, 20, Configure(after.json, 0))
    before = weights_of(model)["a"]
    push(model, {"a": noise((5, 3), 50)}, offset=21)
    assert not np.array_equal(weights_of(model)["a"], before)
    assert (
        specs.expand(after.json, {n: (v.shape, "F32") for n, v in VALUES.items()}).json["optimizer"]
        == (after.json["optimizer"])
    ), "what is expanded is a request again"


@pytest.mark.parametrize("name", [name for name in PLAIN if name != "muon beside adamw"])
@pytest.mark.parametrize("scale", [0.0, 1e-38, 1e30])
def test_gradients_of_any_size_leave_finite_weights(name: str, scale: float) -> None:
    values, given = RULES[name]
    model = model_of(values, **given)
    for step in range(3):
        push(model, {n: np.asarray(g, values[n].dtype) for n, g in gradient_of(values, step, scale).items()})
    for tensor, weights in weights_of(model).items():
        assert np.isfinite(weights).all(), tensor
        if scale == 0.0 and "decay" not in str(given) and "muon" not in name:
            assert weights.tobytes() == values[tensor].tobytes(), "an element never touched stays put"
