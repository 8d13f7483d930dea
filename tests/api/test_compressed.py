"""I8 gradients with their scales, over HTTP: what they do, and that they count once."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load, save

from tests.api.talk import SGD, Model, refused
from tests.service import SAFETENSORS, Arrays, normal

EDGES = [0, 1, 255, 256, 257, 511, 512, 513]


def i8(name: str, shape: tuple[int, ...], seed: int) -> Arrays:
    """A gradient and its scales, as a body holds them."""
    dice = np.random.default_rng(seed)
    scales = dice.random(-(-int(np.prod(shape)) // 256), np.float32)
    return {name: dice.integers(-128, 128, shape, dtype=np.int8), f"{name}#scale": scales}


def plain(arrays: Arrays, name: str, dtype: Any) -> NDArray[Any]:
    """The definition: each number by the scale of its block, in the parameter's dtype."""
    values, scales = arrays[name], arrays[f"{name}#scale"]
    widened = np.repeat(scales.astype(dtype), 256)[: values.size].reshape(values.shape)
    product: NDArray[Any] = values.astype(dtype) * widened
    return product


def upload(model: Model, values: Arrays) -> Model:
    assert model.send("PUT", "/parameters", save(values), Content_Type=SAFETENSORS).status == 200
    return model


def test_every_edge_of_a_block_in_one_push(new: Model) -> None:
    shapes = {f"w{size}": (size,) for size in EDGES} | {"deep": (3, 5, 40), "scalar": ()}
    start = {name: normal(shape, seed) for seed, (name, shape) in enumerate(shapes.items())}
    start |= {f"{name}.f64": array.astype(np.float64) for name, array in start.items()}
    declared = {n: {"shape": list(a.shape), "dtype": f"F{8 * a.itemsize}"} for n, a in start.items()}
    upload(new.create(declared), start)
    gradient: Arrays = {}
    for seed, (name, array) in enumerate(start.items()):
        gradient |= i8(name, array.shape, seed)
    answer = new.push_bytes(gradient)
    assert answer.status == 200, answer
    moved = load(answer.data)
    for name, array in start.items():
        assert moved[name].tobytes() == (array - plain(gradient, name, array.dtype)).tobytes(), name
    squares = sum(float((plain(gradient, n, np.float64) ** 2).sum()) for n in start)
    assert answer.receipt["grad_norm"] == pytest.approx(np.sqrt(squares), rel=1e-6)


def test_a_push_may_mix_forms(new: Model) -> None:
    new.create({"a": [1.0, 2.0], "b": [3.0], "c": [4.0]})
    half = np.array([0.5], np.float16)
    answer = new.push_bytes({**i8("a", (2,), 1), "b": half, "c": np.array([0.25])})
    moved = load(answer.data)
    assert (
        moved["a"].tobytes()
        == (np.array([1, 2], np.float32) - plain(i8("a", (2,), 1), "a", np.float32)).tobytes()
    )
    assert (moved["b"].tolist(), moved["c"].tolist()) == ([2.5], [3.75])


def test_rows_come_as_whole_numbers_and_leave_as_floats(new: Model) -> None:
    new.create({"emb": {"shape": [50, 100], "rows": "lazy", "init": {"name": "zeros"}}})
    gradient = i8("emb", (3, 100), 1) | {"emb#rows": np.array([9, 4, 9])}
    answer = new.push_bytes(gradient)
    rows = plain(gradient, "emb", np.float32)
    moved = load(answer.data)
    assert moved["emb#rows"].tolist() == [4, 9]
    assert moved["emb"].tobytes() == (0 - np.stack([rows[1], rows[0] + rows[2]])).tobytes()


def test_an_answer_too_large_for_json_is_refused_before_the_push(new: Model) -> None:
    # As I8 the rows would fit a JSON answer; as the floats they leave as they do not.
    new.create({"emb": {"shape": [4096, 1024], "rows": "lazy", "init": {"name": "zeros"}}})
    gradient = i8("emb", (2048, 1024), 1) | {"emb#rows": np.arange(2048)}
    with new.untouched():
        problem = refused(new.push_bytes(gradient, Accept="application/json"), 406, "not-acceptable")
        assert str(4 * 2048 * 1024) in problem["detail"]
    assert new.push_bytes(gradient).status == 200


def test_a_repeat_counts_once_and_another_scale_is_another_push(new: Model) -> None:
    new.create({"w": [0.0] * 300})
    gradient = i8("w", (300,), 1)
    first = new.push_bytes(gradient, "worker=w0&sequence=1")
    other = gradient | {"w#scale": gradient["w#scale"] * 2}
    with new.untouched():
        again = new.push_bytes(gradient, "worker=w0&sequence=1")
        refused(new.push_bytes(other, "worker=w0&sequence=1"), 422, "sequence-reused")
        wide = {"w": plain(gradient, "w", np.float32)}
        refused(new.push_bytes(wide, "worker=w0&sequence=1"), 422, "sequence-reused")
    assert again.receipt == first.receipt | {"replayed": True}
    assert new.push_bytes(other, "worker=w0&sequence=2").receipt["step"] == 2


def test_a_round_of_compressed_pushes_is_a_round_of_their_numbers(new: Model) -> None:
    models = [new, Model(new.service, new.name + ".plain")]
    start = {"w": normal((700,), 1)}
    for model in models:
        upload(model.create({"w": {"shape": [700]}}, {"rule": "adam", "lr": 0.1}, sync="bsp"), start)
        for worker in "abc":
            model.send("POST", "/workers", {"worker": worker})
    for turn in (1, 2):
        for seed, worker in enumerate("abc"):
            gradient = i8("w", (700,), 10 * turn + seed)
            query = f"worker={worker}&sequence={turn}&weight={seed + 1}"
            fates = [
                model.push_bytes(body, query, Prefer="return=minimal").receipt["fate"]
                for model, body in zip(
                    models, (gradient, {"w": plain(gradient, "w", np.float32)}), strict=True
                )
            ]
            assert fates == ["merged" if worker == "c" else "waiting"] * 2
    one, other = (model.state() for model in models)
    assert {n: a.tobytes() for n, a in one.items()} == {n: a.tobytes() for n, a in other.items()}


@pytest.mark.parametrize("rule", ["momentum", "adam", "lion"])
def test_rules_see_the_numbers_alone(new: Model, rule: str) -> None:
    models = [new, Model(new.service, new.name + ".plain")]
    for model in models:
        model.create({"w": [0.5] * 300}, {"rule": rule, "lr": 0.1})
    for seed in range(3):
        gradient = i8("w", (300,), seed)
        models[0].push_bytes(gradient)
        models[1].push_bytes({"w": plain(gradient, "w", np.float32)})
    assert models[0].pull() == models[1].pull()


def test_json_has_no_scales_and_says_so(new: Model) -> None:
    new.create({"w": [0.0, 0.0]}, SGD)
    with new.untouched():
        problem = refused(new.push({"w": [1, 2], "w#scale": [0.5]}), 422, "unknown-tensor")
        assert "'w#scale'" in problem["detail"]
        assert "the numbers themselves" in problem["hint"]
        assert "the numbers" not in refused(new.push({"v": [1, 2]}), 422, "unknown-tensor")["hint"]


def test_whole_numbers_are_no_values(new: Model) -> None:
    new.create({"w": {"shape": [2]}})
    with new.untouched():
        answer = new.send("PUT", "/parameters", save(i8("w", (2,), 1)), Content_Type=SAFETENSORS)
        assert "'w' has dtype I8; expected one of F16, BF16" in refused(answer, 422, "wrong-dtype")["detail"]


def test_a_header_of_many_compressed_tensors_is_read(new: Model) -> None:
    names = [f"layers.{index}.weight" for index in range(5000)]
    new.create({name: {"shape": [2]} for name in names})
    upload(new, {name: np.zeros(2, np.float32) for name in names})
    gradient: Arrays = {}
    for seed, name in enumerate(names):
        gradient |= i8(name, (2,), seed)
    moved = load(new.push_bytes(gradient).data)
    for name in names:
        assert moved[name].tobytes() == (0 - plain(gradient, name, np.float32)).tobytes()


def test_more_tensors_than_a_body_may_hold_are_refused(new: Model) -> None:
    names = [f"w{index}" for index in range(10_001)]
    spec: dict[str, Any] = {name: {"shape": [0]} for name in names}
    new.create(spec)
    members = {
        f"{name}{suffix}": dtype for name in names for suffix, dtype in (("", "I8"), ("#scale", "F32"))
    }
    header = json.dumps(
        {name: {"dtype": dtype, "shape": [0], "data_offsets": [0, 0]} for name, dtype in members.items()}
    ).encode()
    problem = refused(new.push_bytes(len(header).to_bytes(8, "little") + header), 400, "malformed-body")
    assert "at most 20000 in one body" in problem["detail"]
