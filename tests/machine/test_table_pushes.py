"""Tables: what a push moves, in each mode, beside dense tensors and on each device."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gradledger_server.blocks import Blocks
from gradledger_server.entries import Create, Json, Metric
from gradledger_server.kernels.cpu import CpuDevice
from gradledger_server.machine import image
from gradledger_server.machine import spec as specs
from gradledger_server.machine.apply import apply, begin
from gradledger_server.machine.tables import MODES
from gradledger_server.optim import catalog
from gradledger_server.optim.catalog import ELEMENTWISE
from tests.elsewhere import Elsewhere
from tests.machine.bodies import NUMPY, body, f32, model_of, noise, push, upload, weights_of
from tests.machine.tables import SHAPE, bits, table_model, touch, whole

VECTORS: Json = json.loads((Path(__file__).parents[1] / "vectors" / "sparse.json").read_text())

# -- what a push moves -----------------------------------------------------------------------------


def test_only_the_rows_of_the_push_move() -> None:
    model = table_model()
    touch(model, [5, 1], f32(1, 1, 1, 2, 2, 2).reshape(2, 3))
    expected = np.zeros(SHAPE, np.float32)
    expected[5], expected[1] = -0.5, -1.0
    assert whole(model).tobytes() == expected.tobytes()
    assert model.tables["emb"].seen == 2


@pytest.mark.parametrize("device", [NUMPY, CpuDevice()], ids=["numpy", "llvm"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: case["name"])
def test_lazy_global_t_follows_pytorch(case: Json, dtype: str, device: CpuDevice) -> None:
    kept = {"float32": "F32", "float64": "F64"}[dtype]
    model = table_model(device=device, dtype=kept, rows="lazy_global_t", optimizer=case["optimizer"])
    upload(model, {"emb": np.array(VECTORS["start"], dtype)})
    assert len(case[dtype]) >= 20
    steps = zip(VECTORS["ids"], VECTORS["gradients"], case[dtype], strict=True)
    scale = np.abs(np.array(VECTORS["start"]))
    for rows, gradient, expected in steps:
        touch(model, rows, np.array(gradient, dtype))
        scale = np.maximum(scale, np.abs(expected))
        error = np.abs(whole(model).astype(np.float64) - expected) / scale
        assert error.max() <= {"float64": 1e-12, "float32": 2e-6}[dtype]


@pytest.mark.parametrize("late", [1, 10, 200])
def test_the_first_touch_of_a_row_is_a_first_step_however_late(late: int) -> None:
    """Adam's first step is lr, whatever the gradient; with one t for all it would be up to 3.16 lr."""
    settings: dict[str, Any] = {"optimizer": {"rule": "adam", "lr": 0.01, "eps": 1e-30}, "dtype": "F64"}
    moved = {}
    for mode in ("lazy", "lazy_global_t"):
        model = table_model(rows=mode, **settings)
        for _ in range(late - 1):
            touch(model, [0], np.ones((1, 3)))
        touch(model, [4], np.array([[1e-3, 1.0, -50.0]]))
        moved[mode] = np.abs(whole(model)[4])
    np.testing.assert_allclose(moved["lazy"], 0.01, rtol=1e-14)
    bias = (1 - 0.9) / (1 - 0.9**late) / np.sqrt((1 - 0.999) / (1 - 0.999**late))
    np.testing.assert_allclose(moved["lazy_global_t"], 0.01 * bias, rtol=1e-12)


@pytest.mark.parametrize("rule", ["adam", "momentum", "rmsprop", "adadelta"])
def test_in_mode_lazy_each_row_lives_as_if_it_were_alone(rule: str) -> None:
    generator = np.random.default_rng(2)
    together = table_model(optimizer={"rule": rule})
    alone = {row: table_model(optimizer={"rule": rule}) for row in range(7)}
    for _ in range(30):
        rows = np.flatnonzero(generator.random(7) < [0.05, 0.2, 0.4, 0.5, 0.6, 0.8, 1.0]).tolist()
        values = generator.standard_normal((len(rows), 3)).astype(np.float32)
        touch(together, rows, values)
        for row, value in zip(rows, values, strict=True):
            touch(alone[row], [row], value[None])
    for row, model in alone.items():
        assert whole(together)[row].tobytes() == whole(model)[row].tobytes()


@pytest.mark.parametrize("rule", ["sgd", "adagrad"])
def test_where_a_zero_gradient_moves_nothing_all_modes_are_one(rule: str) -> None:
    generator = np.random.default_rng(3)
    models = [table_model(rows=mode, optimizer={"rule": rule}) for mode in ("lazy", "lazy_global_t", "dense")]
    for _ in range(20):
        rows, values = generator.integers(0, 7, 4).tolist(), noise((4, 3), int(generator.integers(99)))
        for model in models:
            touch(model, rows, values)
    assert len({whole(model).tobytes() for model in models}) == 1


def test_in_mode_dense_every_row_moves_as_a_dense_tensor_would() -> None:
    optimizer = {"rule": "adam", "lr": 0.1, "weight_decay": 0.1}
    table = table_model(rows="dense", optimizer=optimizer, init={"name": "normal"})
    spec = specs.expand({"optimizer": optimizer}, {"emb": (SHAPE, "F32")})
    dense = begin(Create(spec.json, body({"emb": whole(table)}), "d", 0), NUMPY, Blocks())
    for seed in range(5):
        gradient = np.zeros(SHAPE, np.float32)
        gradient[[2, 6]] = noise((2, 3), seed)
        touch(table, [2, 6], gradient[[2, 6]])
        push(dense, {"emb": gradient})
    push(table, {"emb": gradient})  # a dense gradient is taken as it is
    push(dense, {"emb": gradient})
    assert whole(table).tobytes() == dense.weights.publish().tobytes()


def test_weight_decay_reaches_a_row_when_it_is_touched_and_only_then() -> None:
    model = table_model(
        init={"name": "uniform", "low": 1, "high": 1},
        optimizer={"rule": "adamw", "lr": 0.1, "weight_decay": 0.5},
    )
    for _ in range(4):
        touch(model, [0], np.zeros((1, 3), np.float32))
    touch(model, [1], np.zeros((1, 3), np.float32))
    np.testing.assert_allclose(whole(model)[:3, 0], [0.95**4, 0.95, 1.0], rtol=1e-6)


def test_a_slot_begins_where_its_rule_says_whenever_its_row_is_first_touched() -> None:
    model = table_model(optimizer={"rule": "adagrad", "lr": 1.0, "initial_accumulator": 3.0, "eps": 0.0})
    for row in (2, 5):
        touch(model, [row], np.ones((1, 3), np.float32))
    assert whole(model)[[2, 5]].tolist() == [[-0.5] * 3] * 2


def test_dense_tensors_and_rows_go_in_one_push_and_neither_waits_for_the_other() -> None:
    spec = specs.expand(
        {"optimizer": {"rule": "sgd", "lr": 1.0}},
        {"emb": (SHAPE, "F32"), "w": ((2,), "F32")},
        {"emb": {"rows": "lazy", "init": {"name": "zeros"}}},
    )
    model = begin(Create(spec.json, body({"w": f32(0, 0)}), "d", 0), NUMPY, Blocks())
    receipt = push(model, {"w": f32(1, 2), "emb": f32(3, 3, 3).reshape(1, 3), "emb#rows": np.array([1])})
    assert receipt.step == 1
    before = model.weights.publish()
    touch(model, [1], f32(1, 1, 1).reshape(1, 3))
    assert model.weights.publish() is before, "rows alone copy no dense block"
    assert model.step == 2
    assert whole(model)[1].tolist() == [-4.0] * 3


def test_beside_a_gpu_a_table_stays_on_the_host_with_the_same_bits() -> None:
    spec = specs.expand(
        {"optimizer": {"rule": "adam", "lr": 0.1}},
        {"emb": (SHAPE, "F32"), "w": ((2,), "F32")},
        {"emb": {"rows": "lazy", "init": {"name": "normal"}}},
    )
    taken = []
    for device in (NUMPY, Elsewhere()):
        model = begin(Create(spec.json, body({"w": f32(0, 0)}), "d", 0), device, Blocks())
        for rows in ([1, 2], [2, 3]):
            push(model, {"w": f32(1, 2), "emb": noise((2, 3), 1), "emb#rows": np.array(rows)})
        taken.append(bits(image.copy(model)))
    assert taken[0] == taken[1]


# -- beside everything else ------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("rule", ELEMENTWISE)
def test_a_table_of_which_every_push_brings_all_rows_is_a_dense_tensor(rule: str, mode: str) -> None:
    """Clipped by the norm of the whole push, in a group of its own, its lr lowered by metrics, decayed."""
    group: dict[str, Any] = {"match": "emb", "optimizer": {"rule": rule, "lr": 0.25, "weight_decay": 0.125}}
    if not catalog.rule_facts(rule).fixed_rate:
        group["schedule"] = {"name": "plateau", "patience": 0, "factor": 0.5}
    given: Any = {
        "optimizer": {"rule": "sgd", "lr": 0.5},
        "transforms": {"clip_global_norm": {"max_norm": 2.0}, "clip_value": {"limit": 0.9}},
        "groups": [group],
    }
    values = {"emb": np.zeros(SHAPE, np.float32), "w": f32(1, 2)}
    shapes = {name: (array.shape, "F32") for name, array in values.items()}
    table = {"emb": {"rows": mode, "init": {"name": "zeros"}}}
    spec = specs.expand(given, shapes, table)
    models = (
        model_of(values, **given),
        begin(Create(spec.json, body({"w": values["w"]}), "d", 0), NUMPY, Blocks()),
    )
    for offset in range(2, 8):
        gradient = {"emb": noise(SHAPE, offset), "w": f32(1, -1)}
        dense, sparse = (
            push(model, gradient | extra, offset=offset)
            for model, extra in zip(models, ({}, {"emb#rows": np.arange(7)}), strict=True)
        )
        assert dense == sparse and dense.clip_factor is not None and 0 < dense.clip_factor < 1
        for model in models:
            if model.watches:
                apply(model, offset, Metric(float(offset), None, None, None, "memory", 0))
    assert weights_of(models[0])["emb"].tobytes() == whole(models[1]).tobytes()
    assert weights_of(models[0])["w"].tobytes() == weights_of(models[1])["w"].tobytes()


@pytest.mark.parametrize("rows", ["lazy", "lazy_global_t"])
@pytest.mark.parametrize("rule", ["sgd", "adam", "nadam", "schedule_free_adamw"])
def test_compiled_or_not_a_table_is_the_same(rule: str, rows: str) -> None:
    generator = np.random.default_rng(6)
    settings: dict[str, Any] = {
        "shape": (40, 5),
        "rows": rows,
        "optimizer": {"rule": rule},
    }
    models = [table_model(device=device, **settings) for device in (NUMPY, CpuDevice())]
    for count in (0, 1, 7, 30, 60):
        ids, values = generator.integers(0, 40, count).tolist(), noise((count, 5), count)
        for model in models:
            touch(model, ids, values)
    one, other = (bits(image.copy(model)) for model in models)
    assert one == other
