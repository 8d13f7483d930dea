"""Tables in a spec: what is written out, what may change, and what is refused by field."""

from __future__ import annotations

import numpy as np
import pytest

from gradledger_server.blocks import Blocks
from gradledger_server.entries import Configure, Create, Json
from gradledger_server.errors import InvalidSpec
from gradledger_server.machine import spec as specs
from gradledger_server.machine.apply import apply, begin
from gradledger_server.machine.reconfiguration import reconfigure
from tests.machine.bodies import NUMPY, body, f32
from tests.machine.tables import SHAPE, table_model, table_spec, touch, whole


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
    changed = reconfigure(model.spec, {"optimizer": {"lr": 0.25}})
    apply(model, 3, Configure(changed.json, 0))
    touch(model, [1], np.ones((1, 3), np.float32))
    assert whole(model)[1].tolist() == [-0.75] * 3
    with pytest.raises(InvalidSpec, match="tensor 'emb' another rule"):
        reconfigure(model.spec, {"optimizer": {"rule": "adam"}})


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
