"""The whole state out and in again: the same bits, and the same future."""

from __future__ import annotations

import hashlib
import json
import weakref
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load

from gradledger_server.blocks import Blocks
from gradledger_server.entries import Create
from gradledger_server.errors import GradledgerError
from gradledger_server.machine import image
from gradledger_server.machine.apply import begin
from gradledger_server.machine.model import Model
from gradledger_server.wire import safetensors
from tests.machine.bodies import (
    NUMPY,
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

VALUES = {
    "a": noise((5, 3), 1),
    "b.bias": noise((7,), 2),
    "c": noise((), 3, np.float64),
    "e": noise((0, 2), 4),
}


def busy_model() -> Model:
    """Two dtypes, two groups, tensors updated unequally often, pushes by name, by key and by nobody."""
    model = model_of(
        VALUES,
        optimizer={"rule": "adam", "lr": 0.1},
        groups=[{"match": "*.bias", "optimizer": {"rule": "momentum", "lr": 0.2, "momentum": 0.9}}],
    )
    push(
        model,
        {name: noise(array.shape, 10, array.dtype) for name, array in VALUES.items()},
        worker="a",
        sequence=1,
    )
    push(model, {"a": noise((5, 3), 11)}, key="k")
    push(model, {"b.bias": noise((7,), 12)})
    return model


def written(taken: image.Image) -> bytes:
    return b"".join([safetensors.header(taken.tensors), *(part.tobytes() for part in taken.parts)])


def reborn(model: Model) -> Model:
    taken = image.copy(model)
    tensors = safetensors.decode(memoryview(written(taken)), safetensors.OWN)
    return image.restore(json.loads(json.dumps(taken.facts)), tensors, NUMPY, Blocks())


def digest(model: Model) -> str:
    taken = image.copy(model)
    return hashlib.sha256(written(taken) + json.dumps(taken.facts, sort_keys=True).encode()).hexdigest()


def test_restored_is_the_same_to_the_last_bit() -> None:
    model = busy_model()
    assert digest(reborn(model)) == digest(model)


def test_restored_goes_on_as_if_nothing_had_happened() -> None:
    uninterrupted, interrupted = busy_model(), busy_model()
    for seed in range(6):
        interrupted = reborn(interrupted)
        gradient = {name: noise(array.shape, 20 + seed, array.dtype) for name, array in VALUES.items()}
        if seed % 2:
            del gradient["a"]
        facts: dict[str, Any] = {"worker": "a", "sequence": seed + 2, "base": 1}
        assert push(uninterrupted, gradient, **facts) == push(interrupted, gradient, **facts)
        assert digest(interrupted) == digest(uninterrupted)


def test_the_image_is_a_safetensors_file_any_tool_can_read() -> None:
    model = busy_model()
    found = load(written(image.copy(model)))
    for name, array in weights_of(model).items():
        np.testing.assert_array_equal(found[f"param/{name}"], array)
    for name, array in slots_of(model).items():
        np.testing.assert_array_equal(found[name], array)
    assert {name: int(found[f"t/{name}"]) for name in VALUES} == {"a": 2, "b.bias": 2, "c": 1, "e": 1}
    assert found.keys() == {
        *(f"param/{name}" for name in VALUES),
        *(f"{slot}/{name}" for slot in "mv" for name in ("a", "c", "e")),
        "u/b.bias",
        *(f"t/{name}" for name in VALUES),
    }


def test_an_image_is_of_one_step_whatever_comes_after() -> None:
    model = busy_model()
    taken = image.copy(model)
    before = written(taken)
    for seed in range(3):
        push(model, {name: noise(array.shape, seed, array.dtype) for name, array in VALUES.items()})
    assert written(taken) == before


def test_copies_come_in_pieces_that_can_be_let_go_of_and_the_parameters_are_not_copied(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = busy_model()
    whole = written(image.copy(model))
    monkeypatch.setattr(image, "PIECE_BYTES", 16)
    taken = image.copy(model)
    assert written(taken) == whole
    published = model.weights.publish()
    at = next(index for index, part in enumerate(taken.parts) if part is published)
    assert at > 8 and all(part.nbytes <= 16 for part in taken.parts[:at])
    pieces = [weakref.ref(part) for part in taken.parts[:at]]
    for left in range(at, 0, -1):
        assert sum(piece() is not None for piece in pieces) == left
        taken.parts.pop(0)  # as a store does


def test_missing_values_and_the_last_upload_are_part_of_the_state() -> None:
    model = begin(Create(spec({"a": (1,), "b": (1,)}), None, None, 0), NUMPY, Blocks())
    upload(model, {"a": f32(4)}, "digest")
    again = reborn(model)
    assert (again.missing, again.uploaded, again.step, again.origin) == ({"b"}, "digest", 0, model.origin)


def test_a_snapshot_without_a_tensor_is_refused_by_name() -> None:
    taken = image.copy(model_of({"w": f32(1)}))
    with pytest.raises(GradledgerError, match="param/w"):
        image.restore(taken.facts, body({"other": f32(1)}), NUMPY, Blocks())
