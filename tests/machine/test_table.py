"""Tables: what a push moves, what untouched rows hold, and that a restored table is the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gradledger_server.blocks import Blocks
from gradledger_server.entries import Configure, Create, Json, Metric
from gradledger_server.errors import InvalidSpec
from gradledger_server.kernels import counter
from gradledger_server.kernels.cpu import CpuDevice
from gradledger_server.machine import image, views
from gradledger_server.machine import spec as specs
from gradledger_server.machine.apply import apply, begin
from gradledger_server.machine.image import Image
from gradledger_server.machine.model import Model
from gradledger_server.machine.tables import MODES
from gradledger_server.optim import catalog
from gradledger_server.optim.catalog import ELEMENTWISE
from gradledger_server.optim.rules import VIEWS
from gradledger_server.optim.signatures import facts_of
from gradledger_server.wire import safetensors
from tests.elsewhere import Elsewhere
from tests.machine.bodies import NUMPY, body, f32, model_of, noise, push, upload, weights_of

SHAPE = (7, 3)
VECTORS: Json = json.loads((Path(__file__).parents[1] / "vectors" / "sparse.json").read_text())


def table_spec(
    shape: tuple[int, ...] = SHAPE,
    dtype: str = "F32",
    rows: str = "lazy",
    init: Json | None = None,
    **given: Any,
) -> specs.Spec:
    given.setdefault("optimizer", {"rule": "sgd", "lr": 0.5})
    table = {"rows": rows, "init": {"name": "zeros"} if init is None else init}
    return specs.expand(given, {"emb": (shape, dtype)}, {"emb": table})


def table_model(*, device: CpuDevice = NUMPY, **given: Any) -> Model:
    """A model of one table, `emb`."""
    return begin(Create(table_spec(**given).json, None, None, 0), device, Blocks())


def touch(model: Model, rows: list[int], values: NDArray[Any]) -> None:
    push(model, {"emb": values, "emb#rows": np.array(rows, np.int64)})


def whole(model: Model) -> NDArray[Any]:
    table = model.tables["emb"]
    return table.look(None)().reshape(table.declared.shape)


def through_a_snapshot(model: Model) -> Model:
    taken = image.copy(model)
    parts = [safetensors.header(taken.tensors), *(part.tobytes() for part in taken.parts)]
    tensors = safetensors.decode(memoryview(b"".join(parts)), safetensors.OWN)
    return image.restore(taken.facts, tensors, model.device, Blocks())


def bits(taken: Image) -> list[Any]:
    return [taken.tensors, taken.facts, [part.tobytes() for part in taken.parts]]


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


# -- first values ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "init",
    [{"name": "zeros"}, {"name": "uniform", "low": -2, "high": 3}, {"name": "normal", "mean": 1, "std": 0.5}],
    ids=lambda init: init["name"],
)
@pytest.mark.parametrize("dtype", ["F32", "F64"])
def test_first_values_do_not_depend_on_who_is_touched_when(init: Json, dtype: str) -> None:
    untouched = whole(table_model(init=init, dtype=dtype))
    kept = untouched.dtype
    models = [table_model(init=init, dtype=dtype) for _ in range(2)]
    touch(models[0], [6, 0], np.zeros((2, 3), kept))
    touch(models[0], [3], np.zeros((1, 3), kept))
    touch(models[1], [3, 4, 0], np.zeros((3, 3), kept))
    assert whole(models[0]).tobytes() == whole(models[1]).tobytes() == untouched.tobytes()


def test_first_values_are_what_the_module_says() -> None:
    places = np.arange(21, dtype=np.uint64)
    key = counter.key(7, *b"emb")
    drawn = whole(table_model(init={"name": "normal", "std": 0.1, "seed": 7}, dtype="F64"))
    assert drawn.tobytes() == (0.0 + counter.normal(key, places) * 0.1).tobytes()
    drawn = whole(table_model(init={"name": "uniform", "low": 1, "high": 3, "seed": 7}))
    assert drawn.tobytes() == (1 + counter.uniform(key, places) * 2).astype(np.float32).tobytes()
    other = whole(table_model(init={"name": "uniform", "low": 1, "high": 3, "seed": 8}))
    assert not np.isin(drawn, other).any()


def test_reading_changes_nothing() -> None:
    model = table_model(init={"name": "normal"})
    touch(model, [2], np.ones((1, 3), np.float32))
    before = bits(image.copy(model))
    whole(model)
    rows = np.array([5, 2, 5, 0])
    some = model.tables["emb"].look(rows)().reshape(4, 3)
    assert some.tobytes() == whole(model)[rows].tobytes()
    assert bits(image.copy(model)) == before


def test_what_was_read_is_not_moved_by_a_later_push() -> None:
    model = table_model()
    read = model.tables["emb"].look(np.array([1, 2]))
    touch(model, [1], np.ones((1, 3), np.float32))
    assert not read().any()


# -- uploads and snapshots -------------------------------------------------------------------------


def test_values_are_uploaded_whole_or_by_row() -> None:
    model, values = table_model(), noise(SHAPE, 5)
    touch(model, [6, 2], np.ones((2, 3), np.float32))
    upload(model, {"emb": values})
    assert whole(model).tobytes() == values.tobytes()
    assert model.step == 2
    upload(model, {"emb": noise((2, 3), 6), "emb#rows": np.array([4, 0])})
    values[[4, 0]] = noise((2, 3), 6)
    assert whole(model).tobytes() == values.tobytes()


def test_without_init_values_have_to_be_uploaded() -> None:
    spec = specs.expand({"optimizer": {"rule": "sgd"}}, {"emb": (SHAPE, "F32")}, {"emb": {"rows": "lazy"}})
    model = begin(Create(spec.json, None, None, 0), NUMPY, Blocks())
    assert model.missing == {"emb"}
    upload(model, {"emb": noise(SHAPE, 5)})
    assert not model.missing
    assert model.step == 0
    assert whole(model).tobytes() == noise(SHAPE, 5).tobytes()


@pytest.mark.parametrize("mode", ["lazy", "lazy_global_t", "dense"])
def test_a_table_out_of_a_snapshot_is_the_same_and_goes_on_the_same(mode: str) -> None:
    model = table_model(rows=mode, init={"name": "normal"}, optimizer={"rule": "adam"})
    assert bits(image.copy(through_a_snapshot(model))) == bits(image.copy(model))
    touch(model, [5, 1, 5], noise((3, 3), 1))
    touch(model, [1], noise((1, 3), 2))
    again = through_a_snapshot(model)
    assert bits(image.copy(again)) == bits(image.copy(model))
    for each in (model, again):
        touch(each, [0, 5], noise((2, 3), 3))
    assert bits(image.copy(again)) == bits(image.copy(model))
    assert whole(again).tobytes() == whole(model).tobytes()


def test_a_snapshot_holds_the_rows_seen_and_no_others() -> None:
    model = table_model(shape=(10_000_000, 64), optimizer={"rule": "adam"}, init={"name": "normal"})
    assert model.nbytes == 0
    touch(model, [9_999_999, 0, 123_456], noise((3, 64), 1))
    taken = image.copy(model)
    shapes = {name: shape for name, _, shape in taken.tensors}
    assert shapes == {
        "param/emb": (3, 64),
        "m/emb": (3, 64),
        "v/emb": (3, 64),
        "rows/emb": (3,),
        "t/emb": (3,),
    }
    assert taken.nbytes == 3 * (3 * 256 + 16)
    assert model.nbytes == 3 * 3 * 256


def test_tables_may_have_one_axis_or_many() -> None:
    for shape in ((5,), (5, 2, 3)):
        model = table_model(shape=shape, init={"name": "normal"})
        before = whole(model)
        touch(model, [4, 4], np.ones((2, *shape[1:]), np.float32))
        before[4] -= 1
        assert whole(model).tobytes() == before.tobytes()
        assert whole(through_a_snapshot(model)).tobytes() == before.tobytes()


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


# -- what a spec may say ---------------------------------------------------------------------------


def test_a_spec_is_written_out_and_expanding_it_twice_changes_nothing() -> None:
    spec = table_spec(init={"name": "normal", "std": 2})
    declared = spec.json["parameters"]["emb"]
    assert declared == {
        "shape": [7, 3],
        "dtype": "F32",
        "rows": "lazy",
        "init": {"name": "normal", "mean": 0.0, "std": 2.0, "seed": 0},
    }
    assert specs.expand(spec.json, {"emb": (SHAPE, "F32")}, {"emb": declared}).json == spec.json


def test_hyperparameters_change_for_tables_too() -> None:
    model = table_model()
    touch(model, [1], np.ones((1, 3), np.float32))
    changed = specs.reconfigure(model.spec, {"optimizer": {"lr": 0.25}})
    apply(model, 3, Configure(changed.json, 0))
    touch(model, [1], np.ones((1, 3), np.float32))
    assert whole(model)[1].tolist() == [-0.75] * 3
    with pytest.raises(InvalidSpec, match="tensor 'emb' another rule"):
        specs.reconfigure(model.spec, {"optimizer": {"rule": "adam"}})


def test_a_table_may_have_a_group_of_its_own() -> None:
    spec = specs.expand(
        {"optimizer": {"rule": "adam"}, "groups": [{"match": "emb", "optimizer": {"rule": "adagrad"}}]},
        {"emb": (SHAPE, "F32"), "w": ((2,), "F32")},
        {"emb": {"rows": "lazy", "init": {"name": "zeros"}}},
    )
    model = begin(Create(spec.json, body({"w": f32(0, 0)}), "d", 0), NUMPY, Blocks())
    assert model.tables["emb"].step.slots == ("v",)


@pytest.mark.parametrize(
    ("given", "field", "match"),
    [
        ({"init": {"name": "ones"}}, "parameters.emb.init.name", "zeros, uniform, normal"),
        ({"init": {"name": "normal", "std": -1}}, "parameters.emb.init.std", "0 <= std"),
        ({"init": {"name": "normal", "seed": 0.5}}, "parameters.emb.init.seed", "whole number"),
        ({"init": {"name": "zeros", "seed": 1}}, "parameters.emb.init.seed", "not known"),
        ({"shape": ()}, "parameters.emb.shape", "cannot be held"),
        ({"shape": (0, 3)}, "parameters.emb.shape", "cannot be held"),
        ({"shape": (3, 0)}, "parameters.emb.shape", "cannot be held"),
        ({"shape": ((1 << 28) + 1, 1)}, "parameters.emb.shape", "cannot be held"),
        ({"shape": (1 << 28, 1 << 9)}, "parameters.emb.shape", "cannot be held"),
        ({"shape": (1 << 20, 64), "rows": "dense"}, "parameters.emb.rows", "in mode dense at most"),
    ],
)
def test_impossible_tables_are_refused_by_field(given: Json, field: str, match: str) -> None:
    with pytest.raises(InvalidSpec, match=match) as refused:
        table_spec(**given)
    assert refused.value.facts["field"] == field


def test_a_transform_is_refused_with_what_to_do_instead() -> None:
    """A group may do without most of them, but not without what is about a whole push."""
    with pytest.raises(InvalidSpec) as refused:
        table_spec(transforms={"ema": {}})
    assert '{"match": "emb", "transforms": {"ema": null}}' in refused.value.advice
    with pytest.raises(InvalidSpec) as refused:
        table_spec(transforms={"accumulate": {"every": 2}})
    assert "leave it out" in refused.value.advice and "null" not in refused.value.advice


def test_first_values_are_finite() -> None:
    largest = {"name": "normal", "mean": 0.0, "std": 3e38 / 8.3}
    assert np.isfinite(whole(table_model(init=largest))).all()
    for init in (largest | {"mean": 1e38}, largest | {"mean": -1e38}, {"name": "normal", "std": 3e38}):
        with pytest.raises(InvalidSpec, match="finite") as refused:
            table_spec(init=init)
        assert refused.value.facts["field"] == "parameters.emb.init.std"


def test_all_tables_of_a_model_share_one_bound() -> None:
    table = {"rows": "lazy", "init": {"name": "zeros"}}
    shapes = dict.fromkeys(("a", "b", "c"), ((1 << 26, 1 << 9), "F32"))
    with pytest.raises(InvalidSpec, match="with every row seen"):
        specs.expand({"optimizer": {"rule": "sgd"}}, shapes, dict.fromkeys(shapes, table))


def test_a_parameter_that_is_no_table_is_not_initialised_here() -> None:
    with pytest.raises(InvalidSpec, match="no table"):
        specs.expand({"optimizer": {"rule": "sgd"}}, {"w": ((2,), "F32")}, {"w": {"init": {"name": "zeros"}}})


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


# -- views -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", VIEWS)
def test_rows_have_the_views_of_their_rule(rule: str) -> None:
    """The same bits as the views of a dense tensor; a row nobody has touched is shown as it begins."""
    given: Any = {"optimizer": {"rule": rule, "lr": 0.5}}
    model, dense = table_model(rows="dense", **given), model_of({"emb": np.zeros(SHAPE, np.float32)}, **given)
    rare = table_model(init={"name": "normal"}, **given)
    for seed in range(3):
        values = noise(SHAPE, seed)
        touch(model, [*range(7)], values)
        touch(rare, [2], values[:1])
        push(dense, {"emb": values})
    for view in VIEWS[rule]:
        assert view in views.names(model.spec)
        for rows, each in ((None, [*range(7)]), (np.array([4, 1]), [4, 1])):
            shown = views.rows(model, model.tables["emb"], rows, view)()
            assert shown.tobytes() == weights_of(dense, view)["emb"][each].tobytes()
        trained, shown = (views.rows(rare, rare.tables["emb"], None, v)() for v in (views.TRAIN, view))
        assert set(np.flatnonzero(trained != shown)) == {6, 7, 8}


def test_no_view_of_a_rule_depends_on_how_often_a_row_was_updated() -> None:
    assert {name for of in VIEWS.values() for view in of.values() for name in facts_of(view).given} == set()
