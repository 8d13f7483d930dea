"""However often a push is sent, it counts once; and nobody can pass another push off as it."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tests.api.talk import Model, refused
from tests.service import SAFETENSORS

GRADIENT = {"b": [1.0, 1.0, 1.0]}
OTHER = {"b": [2.0, 1.0, 1.0]}


def test_a_repeat_gets_the_original_receipt(model: Model) -> None:
    first = model.push(GRADIENT, worker="w0", sequence=1, base=0)
    model.push(OTHER, worker="w1", sequence=1)
    with model.untouched():
        again = model.push(GRADIENT, worker="w0", sequence=1, base=0)

    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert again.receipt == first.receipt | {"replayed": True}
    assert again.json["step"] == 2, "the parameters are the newest, not those of the first answer"
    assert again.json["parameters"]["b"] == [-2.0, 0.0, 1.0]


def test_a_repeat_may_ask_for_another_form_of_answer(model: Model) -> None:
    first = model.push(GRADIENT, worker="w0", sequence=1)
    again = model.push(GRADIENT, worker="w0", sequence=1, headers={"Accept": SAFETENSORS})
    assert again.receipt == first.receipt | {"replayed": True}
    alone = model.push(GRADIENT, worker="w0", sequence=1, headers={"Prefer": "return=minimal"})
    assert alone.receipt == again.receipt


def test_a_repeat_in_safetensors(model: Model) -> None:
    gradient = {"b": np.ones(3)}
    first = model.push_bytes(gradient, "worker=w0&sequence=1")
    again = model.push_bytes(gradient, "worker=w0&sequence=1")
    assert again.receipt == first.receipt | {"replayed": True}
    assert again.headers["idempotent-replayed"] == "true"


def test_a_used_sequence_with_another_body_is_refused(model: Model) -> None:
    model.push(GRADIENT, worker="w0", sequence=1)
    with model.untouched():
        problem = refused(model.push(OTHER, worker="w0", sequence=1), 422, "sequence-reused")
        assert problem["worker"] == "w0"


def test_a_gap_names_the_sequence_expected(model: Model) -> None:
    with model.untouched():
        assert refused(model.push(GRADIENT, worker="w0", sequence=2), 409, "sequence-gap")["expected"] == 1
    model.push(GRADIENT, worker="w0", sequence=1)
    with model.untouched():
        assert refused(model.push(GRADIENT, worker="w0", sequence=3), 409, "sequence-gap")["expected"] == 2
    assert model.push(GRADIENT, worker="w0", sequence=2).status == 200


def test_a_refused_push_does_not_use_its_sequence_up(model: Model) -> None:
    refused(model.push({"nope": [1.0]}, worker="w0", sequence=1), 422, "unknown-tensor")
    assert model.push(GRADIENT, worker="w0", sequence=1).receipt["replayed"] is False


def test_workers_count_each_for_themselves(model: Model) -> None:
    for sequence, worker in itertools.product((1, 2), ("w0", "w:1", "a.b-c_d")):
        assert model.push(GRADIENT, worker=worker, sequence=sequence).receipt["replayed"] is False
    assert model.describe()["step"] == 6


def test_a_key_names_a_push_without_a_worker(model: Model) -> None:
    key = {"Idempotency_Key": "a-key"}
    first = model.push(GRADIENT, headers=key)
    with model.untouched():
        again = model.push(GRADIENT, headers={"Idempotency_Key": '"a-key"'})
        refused(model.push(OTHER, headers=key), 422, "sequence-reused")

    assert (first.receipt["worker"], first.receipt["sequence"]) == (None, None)
    assert again.receipt == first.receipt | {"replayed": True}
    assert again.headers["idempotent-replayed"] == "true"
    assert model.push(GRADIENT, headers={"Idempotency_Key": "another"}).receipt["replayed"] is False


def test_a_key_never_stands_for_a_worker_of_that_name(model: Model) -> None:
    model.push(GRADIENT, worker="same", sequence=1)
    assert model.push(GRADIENT, headers={"Idempotency_Key": "same"}).receipt["replayed"] is False
    assert model.push(GRADIENT, headers={"Idempotency_Key": "w:same"}).receipt["replayed"] is False


@pytest.mark.parametrize("key", ["", " ", "a key", "x" * 256, "schlüssel", '""'])
def test_a_key_is_short_visible_ascii(model: Model, key: str) -> None:
    with model.untouched():
        refused(model.push(GRADIENT, headers={"Idempotency_Key": key}), 400, "malformed-request")


def test_a_push_without_a_name_counts_every_time(model: Model) -> None:
    model.push(GRADIENT)
    assert model.push(GRADIENT).json["step"] == 2


def test_a_receipt_older_than_those_kept_is_a_bare_one(model: Model) -> None:
    for sequence in range(1, 67):
        model.push(GRADIENT, worker="w0", sequence=sequence, headers={"Prefer": "return=minimal"})
    with model.untouched():
        old = model.push(GRADIENT, worker="w0", sequence=2)
        kept = model.push(GRADIENT, worker="w0", sequence=3)

    assert (old.status, old.receipt["fate"], old.receipt["replayed"]) == (200, "repeated", True)
    assert (old.receipt["worker"], old.receipt["sequence"]) == ("w0", 2)
    assert old.headers["idempotent-replayed"] == "true"
    assert (kept.receipt["fate"], kept.receipt["step"]) == ("applied", 3)


def test_the_same_push_sent_many_times_at_once_counts_once(model: Model) -> None:
    with ThreadPoolExecutor(8) as crowd:
        answers = list(crowd.map(lambda _: model.push(GRADIENT, worker="w0", sequence=1), range(24)))

    assert [answer.status for answer in answers] == [200] * 24
    assert sorted(answer.receipt["replayed"] for answer in answers) == [False] + [True] * 23
    assert {answer.receipt["offset"] for answer in answers} == {2}
    assert model.pull()["b"] == [0.0, 1.0, 2.0]


def test_if_match_makes_a_push_conditional(model: Model) -> None:
    etag = model.describe()["etag"]
    pushed = model.push(GRADIENT, worker="w0", sequence=1, headers={"If_Match": etag})
    assert pushed.status == 200
    assert pushed.headers["etag"] == model.describe()["etag"] != etag

    with model.untouched():
        for named in ({"worker": "w0", "sequence": 2}, {}):
            problem = refused(
                model.push(GRADIENT, headers={"If_Match": etag}, **named), 412, "precondition-failed"
            )
            assert problem["current"] == pushed.headers["etag"]
        again = model.push(GRADIENT, worker="w0", sequence=1, headers={"If_Match": etag})
        assert again.receipt["replayed"], "a retry succeeds although its own first try moved the version"
    assert model.push(GRADIENT, headers={"If_Match": "*"}).status == 200
    newest = model.push(GRADIENT).headers["etag"]
    assert model.push(GRADIENT, headers={"If_Match": f'"elsewhere.1", {newest}'}).status == 200


def test_of_many_conditional_pushes_at_once_one_is_made(model: Model) -> None:
    etag = model.describe()["etag"]
    with ThreadPoolExecutor(8) as crowd:
        answers = list(crowd.map(lambda _: model.push(GRADIENT, headers={"If_Match": etag}), range(8)))
    assert sorted(answer.status for answer in answers) == [200] + [412] * 7
    assert model.describe()["step"] == 1
