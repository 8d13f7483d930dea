"""Tables: what untouched rows hold, uploads and views, and that a restored table is the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gradledger_server.blocks import Blocks
from gradledger_server.entries import Create, Json
from gradledger_server.kernels import counter
from gradledger_server.machine import image, views
from gradledger_server.machine import spec as specs
from gradledger_server.machine.apply import begin
from gradledger_server.optim.rules import VIEWS
from gradledger_server.optim.signatures import facts_of
from tests.machine.bodies import NUMPY, model_of, noise, push, upload, weights_of
from tests.machine.tables import SHAPE, bits, table_model, through_a_snapshot, touch, whole

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
