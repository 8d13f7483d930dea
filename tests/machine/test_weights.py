"""Published parameters: one pull is one step, forever."""

from __future__ import annotations

import numpy as np
import pytest

from tests.machine.bodies import f32, model_of, noise, push, upload, weights_of


def test_a_published_block_is_never_written_again() -> None:
    model = model_of({"a": noise((100,), 1), "b": noise((50,), 2)}, optimizer={"rule": "adam", "lr": 0.1})
    seen = []
    for seed in range(12):
        block = model.weights.publish()
        seen.append((block, bytes(block)))
        push(model, {"a": noise((100,), seed)} if seed % 3 else {"b": noise((50,), seed)})
        if seed == 6:
            upload(model, {"a": noise((100,), 99)})
    assert all(bytes(block) == was for block, was in seen)
    assert len({was for _, was in seen}) == len(seen)


def test_the_same_block_is_published_until_the_next_step() -> None:
    model = model_of({"w": f32(1)})
    first = model.weights.publish()
    assert np.shares_memory(first, model.weights.publish())
    push(model, {"w": f32(1)})
    assert not np.shares_memory(first, model.weights.publish())


def test_a_published_block_cannot_be_written() -> None:
    block = model_of({"w": f32(1)}).weights.publish()
    with pytest.raises(ValueError, match="read-only"):
        block[0] = 1
    assert block.data.readonly


def test_steps_nobody_saw_are_made_in_place() -> None:
    model = model_of({"w": noise((1000,), 1)})
    model.weights.publish()
    push(model, {"w": noise((1000,), 2)})
    arena = model.weights.arenas[0]
    push(model, {"w": noise((1000,), 3)})
    push(model, {"w": noise((1000,), 4)})
    assert model.weights.arenas[0] is arena


@pytest.mark.parametrize("touched", ["a", "b", "c", "ab", "bc", "ac", "abc", ""])
def test_what_a_push_does_not_touch_is_carried_into_the_new_block(touched: str) -> None:
    values = {
        name: noise((3,), seed, np.float64 if name == "c" else np.float32) for seed, name in enumerate("abc")
    }
    model = model_of(values)
    model.weights.publish()
    push(model, {name: np.ones_like(values[name]) for name in touched})
    after = weights_of(model)
    for name, before in values.items():
        expected = before - before.dtype.type(0.5) if name in touched else before
        assert after[name].tobytes() == expected.tobytes()
