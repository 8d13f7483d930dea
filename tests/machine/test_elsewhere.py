"""A model whose arrays lie on a device: only kernels compute on them, and the bits are NumPy's."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from gradledger_server.blocks import Blocks
from gradledger_server.kernels.device import Device
from gradledger_server.machine import image, views
from gradledger_server.machine.model import Model
from gradledger_server.optim import catalog
from gradledger_server.wire import safetensors
from tests.elsewhere import Elsewhere, There
from tests.machine.bodies import NUMPY, Arrays, f32, model_of, noise, push, upload, weights_of

MATRICES: Arrays = {
    "a": noise((33, 7), 1),
    "b": noise((1, 3), 2),
    "c": noise((4, 9), 3, np.float64),
    "empty": noise((0, 2), 4),
}
OTHERS: Arrays = {
    "kernel": noise((2, 3, 5), 5),
    "scalar": noise((), 6),
}  # in a group of adam's: muon refuses them
VALUES: Arrays = {**MATRICES, **OTHERS}
TRANSFORMS: dict[str, Any] = {
    "accumulate": {"every": 2},
    "clip_global_norm": {"max_norm": 1.0},
    "clip_norm": {"max_norm": 0.9},
    "clip_value": {"limit": 0.5},
    "agc": {"clipping": 0.5},
    "centralize": {},
    "noise": {"eta": 0.1},
    "lookahead": {"every": 2},
    "ema": {"start": "debiased"},
    "polyak": {},
}
CHAINS: dict[str, dict[str, Any]] = {
    "no transforms": {},
    "all elementwise": {
        name: TRANSFORMS[name] for name in ("clip_global_norm", "clip_value", "noise", "ema")
    },
    "all": TRANSFORMS,
}

COMBINED = sorted(
    {(rule, list(CHAINS)[turn % 3]) for turn, rule in enumerate(catalog.RULES)}
    | {(rule, chain) for rule in ("sgd", "lamb", "adafactor") for chain in CHAINS}
)
"""Every rule with one of the chains, and one rule of each kind with all."""


def state(model: Model) -> list[bytes]:
    """Everything that is kept, and everything that can be seen."""
    seen = [weights_of(model, view) for view in views.names(model.spec)]
    return [
        *(part.tobytes() for part in image.copy(model).parts),
        *(array.tobytes() for weights in seen for array in weights.values()),
    ]


def pushed(model: Model, first: int = 0) -> Model:
    """Some pushes of everything, of some tensors, of one."""
    for number in range(first, first + 5):
        names = [name for i, name in enumerate(VALUES) if i % (1, 2, 1, 3, 1)[number % 5] == 0]
        push(model, {n: noise(VALUES[n].shape, 10 * number + len(n), VALUES[n].dtype) for n in names})
    return model


def again(model: Model, device: Device) -> Model:
    """The model as a snapshot brings it back."""
    taken = image.copy(model)
    payload = b"".join([safetensors.header(taken.tensors), *(part.tobytes() for part in taken.parts)])
    tensors = safetensors.decode(memoryview(payload), safetensors.OWN)
    return image.restore(json.loads(json.dumps(taken.facts)), tensors, device, Blocks())


@pytest.mark.parametrize(("rule", "chain"), COMBINED)
def test_a_device_is_asked_for_kernels_and_copies_alone(rule: str, chain: str) -> None:
    given: dict[str, Any] = {
        "optimizer": {"rule": rule},
        "groups": [{"match": "[ks]*", "optimizer": {"rule": "adam"}}],
        "transforms": CHAINS[chain],
    }
    here, there = (model_of(VALUES, device=device, **given) for device in (NUMPY, Elsewhere()))
    assert all(isinstance(arena, There) for arena in there.weights.arenas)
    assert state(there) == state(here), "nothing is updated yet"
    assert state(pushed(there)) == state(pushed(here))
    assert state(again(there, Elsewhere())) == state(here)
    assert state(pushed(again(there, Elsewhere()), 5)) == state(pushed(here, 5))
    for model in (here, pushed(there, 5)):
        upload(model, {name: array + 1 for name, array in VALUES.items()})
    assert state(there) == state(here)


@pytest.mark.parametrize("size", [1e200, 1e-200])
def test_numbers_whose_squares_cannot_be_held_are_measured_at_home(size: float) -> None:
    values: Arrays = {"w": noise((40, 3), 1, np.float64)}
    for given in (
        {"optimizer": {"rule": "lamb"}},
        {"transforms": {"accumulate": {"every": 2}, "clip_global_norm": {"max_norm": 1.0}}},
    ):
        models = [model_of(values, device=device, **given) for device in (NUMPY, Elsewhere())]
        for number in range(2):
            for model in models:
                push(model, {"w": noise((40, 3), number, np.float64) * size})
        assert state(models[0]) == state(models[1])
        assert np.isfinite(weights_of(models[1])["w"]).all()


def test_a_mean_that_is_not_finite_is_told_as_one() -> None:
    """Two large numbers may have a difference that is no number any more."""
    given: dict[str, Any] = {
        "transforms": {"accumulate": {"every": 2}, "clip_global_norm": {"max_norm": 1.0}}
    }
    models = [model_of({"w": f32(0, 1)}, device=device, **given) for device in (NUMPY, Elsewhere())]
    for model in models:
        push(model, {"w": f32(3e38, 1)})
        push(model, {"w": f32(-3e38, 1)})
    assert state(models[0]) == state(models[1])


def test_the_device_of_these_tests_refuses_what_it_must() -> None:
    device: Any = Elsewhere()
    array = device.to_device(f32(1, 2))
    for wrong in (
        lambda: array + 1,
        lambda: f32(1, 2) * array,
        lambda: -array,
        lambda: np.isfinite(array),
        lambda: np.asarray(array),
        lambda: np.abs(array),
        lambda: float(array[:1]),
        lambda: array == array,
        lambda: array[0],
        lambda: array.__setitem__(slice(None), 1),
        lambda: array.__setitem__(slice(None), f32(1, 2)),
        lambda: array.__setitem__(slice(0, 1), array),
        lambda: device.host.sum_of_squares(array),
    ):
        with pytest.raises((AssertionError, TypeError)):
            wrong()
