"""Metrics as entries: what they do to a model, and what of it survives a snapshot and a change of spec."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gradledger_server.blocks import Blocks
from gradledger_server.entries import Configure, Metric
from gradledger_server.errors import NoPlateau, SequenceGap, SequenceReused
from gradledger_server.machine import image
from gradledger_server.machine.apply import apply
from gradledger_server.machine.metrics import foreseen, known, require_plateau, standing
from gradledger_server.machine.model import Model
from gradledger_server.machine.receipts import KEYS_KEPT_ENTRIES
from gradledger_server.machine.reconfiguration import reconfigure
from gradledger_server.wire import safetensors
from tests.machine.bodies import NUMPY, f32, model_of, push

PLATEAU = {"name": "plateau", "patience": 0, "factor": 0.5}


def plateau_model(**given: Any) -> Model:
    given = {"optimizer": {"rule": "sgd", "lr": 1.0}, "schedule": PLATEAU} | given
    return model_of({"w": f32(1, 2), "b": f32(3)}, **given)


def metric(value: float, **named: Any) -> Metric:
    facts = {"worker": None, "sequence": None, "key": None, **named}
    return Metric(value, durability="memory", at_ms=0, **facts)


def post(model: Model, *values: float) -> None:
    for value in values:
        assert apply(model, 9, metric(value)) is None


def configure(model: Model, **change: Any) -> None:
    apply(model, 9, Configure(reconfigure(model.spec, change).json, 0))


def reborn(model: Model) -> Model:
    taken = image.copy(model)
    body = b"".join([safetensors.header(taken.tensors), *(part.tobytes() for part in taken.parts)])
    facts = json.loads(json.dumps(taken.facts))
    return image.restore(facts, safetensors.decode(memoryview(body), safetensors.OWN), NUMPY, Blocks())


def test_a_bad_metric_halves_the_learning_rate_of_the_next_push() -> None:
    model = plateau_model()
    post(model, 1.0)
    assert push(model, {"w": f32(0, 0)}).lr == 1.0
    post(model, 1.0)
    assert (model.lr, model.step) == (0.5, 1)
    assert push(model, {"w": f32(2, 2)}).lr == 0.5
    assert standing(model) == [
        {"match": "*", "lr": 0.5, "best": 1.0, "bad": 0, "cooldown": 0, "reductions": 1}
    ]


def test_every_group_has_a_watch_of_its_own() -> None:
    patient = {"match": "b", "schedule": PLATEAU | {"patience": 2}}
    model = plateau_model(groups=[patient])
    post(model, 1.0, 1.0, 1.0)
    assert [(told["match"], told["lr"]) for told in standing(model)] == [("b", 1.0), ("*", 0.25)]


def test_what_is_foreseen_is_what_happens() -> None:
    model = plateau_model()
    for value in (1.0, 2.0, 0.5, 0.6):
        entry = metric(value, worker="a", sequence=model.metrics.last("w:a") + 1)
        assert known(model, entry) is None
        watches, receipt = foreseen(model, 7, entry)
        assert apply(model, 7, entry) is None
        assert model.watches == watches
        assert known(model, entry) == receipt
        assert receipt.lr == model.lr
        assert receipt.reduced is (value in (2.0, 0.6))


def test_a_named_metric_is_told_apart_from_another_one() -> None:
    model = plateau_model()
    apply(model, 2, metric(1.0, worker="a", sequence=1))
    apply(model, 3, metric(2.0, key="k"))
    assert push(model, {"w": f32(0, 0)}, worker="a", sequence=1).sequence == 1, "pushes have other names"
    for repeat in (metric(1.5, worker="a", sequence=1), metric(1.0, key="k")):
        with pytest.raises(SequenceReused):
            known(model, repeat)
    with pytest.raises(SequenceGap) as gap:
        known(model, metric(1.0, worker="a", sequence=3))
    assert gap.value.facts["expected"] == 2
    assert known(model, metric(2.0)) is None


def test_a_snapshot_remembers_watches_and_names() -> None:
    model = plateau_model(groups=[{"match": "b", "schedule": PLATEAU | {"patience": 5}}])
    apply(model, 2, metric(0.1 + 0.2, worker="a", sequence=1))
    apply(model, 3, metric(7.0, key="k"))
    again = reborn(model)
    assert again.watches == model.watches
    assert again.metrics.dump() == model.metrics.dump()
    for one in (model, again):
        post(one, 8.0)
    assert image.copy(again).facts == image.copy(model).facts


def test_only_a_changed_plateau_begins_anew() -> None:
    model = plateau_model()
    post(model, 1.0, 1.0)
    configure(model, optimizer={"lr": 2.0})
    assert model.lr == 1.0, "half of the new one"
    configure(model, schedule=PLATEAU)
    assert model.lr == 1.0
    configure(model, schedule=PLATEAU | {"factor": 0.1})
    assert (model.lr, standing(model)[0]["best"]) == (2.0, None)
    configure(model, schedule=None)
    assert standing(model) == []
    with pytest.raises(NoPlateau, match="constant"):
        require_plateau(model)


def test_a_key_is_free_again_after_many_entries() -> None:
    model = plateau_model()
    apply(model, 2, metric(1.0, key="k"))
    apply(model, 2 + KEYS_KEPT_ENTRIES, metric(1.0))
    assert known(model, metric(1.0, key="k")) is not None
    apply(model, 3 + KEYS_KEPT_ENTRIES, metric(1.0))
    assert known(model, metric(2.0, key="k")) is None
