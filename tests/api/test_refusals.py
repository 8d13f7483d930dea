"""Bad input: each kind has its problem, which names the culprit, and none leaves a trace."""

from __future__ import annotations

import gzip
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save

from tests.api.talk import SGD, Json, Model, dumps, quoted, refused
from tests.service import SAFETENSORS

ZEROS = {"w": [[0.0, 0.0], [0.0, 0.0]], "b": [0.0, 0.0, 0.0]}
GOOD = {"b": [1.0, 1.0, 1.0]}

BAD_TENSORS: list[tuple[str, Any, int, str]] = [
    ("unknown name", {"c": [1.0]}, 422, "unknown-tensor"),
    ("a known and an unknown name", {**ZEROS, "w ": [1.0]}, 422, "unknown-tensor"),
    ("a name of a megabyte", {"x" * (1 << 20): [1.0]}, 422, "unknown-tensor"),
    ("too short", {"b": [1.0, 1.0]}, 422, "wrong-shape"),
    ("a scalar", {"b": 1.0}, 422, "wrong-shape"),
    ("one row more", {"w": [[0.0, 0.0]] * 3}, 422, "wrong-shape"),
    ("the same numbers in one row", {"w": [0.0] * 4}, 422, "wrong-shape"),
    ("what NumPy would broadcast", {"w": [[1.0, 1.0]]}, 422, "wrong-shape"),
    ("ragged", {"w": [[0.0, 0.0], [0.0]]}, 400, "malformed-body"),
    ("empty", {"b": []}, 422, "wrong-shape"),
    ("beyond float32", {"w": [[1e39, 0.0], [0.0, 0.0]]}, 422, "non-finite"),
    ("an integer beyond float64", {"b": [10**400, 0.0, 0.0]}, 422, "non-finite"),
    ("text", {"b": ["1", "2", "3"]}, 400, "malformed-body"),
    ("a truth", {"b": [True, 1.0, 1.0]}, 400, "malformed-body"),
    ("nothing", {"b": [None, 1.0, 1.0]}, 400, "malformed-body"),
    ("null", {"b": None}, 400, "malformed-body"),
    ("an object", {"b": {"values": [1.0, 1.0, 1.0]}}, 400, "malformed-body"),
]


@pytest.mark.parametrize(
    ("tensors", "status", "slug"), [b[1:] for b in BAD_TENSORS], ids=[b[0] for b in BAD_TENSORS]
)
def test_tensors_that_do_not_fit(model: Model, tensors: Json, status: int, slug: str) -> None:
    with model.untouched():
        refused(model.push(tensors, worker="w0", sequence=1), status, slug)
        refused(model.send("PUT", "/parameters", {"parameters": tensors}), status, slug)
    assert model.push(GOOD, worker="w0", sequence=1).receipt["replayed"] is False


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_number_that_is_none_is_found(model: Model, number: float, dtype: type) -> None:
    bad: NDArray[Any] = np.zeros((2, 2), dtype)
    bad[1, 0] = number
    with model.untouched():
        problem = refused(model.push_bytes({"b": np.zeros(3), "w": bad}), 422, "non-finite")
        assert (problem["tensor"], problem["index"]) == ("w", [1, 0])
        refused(
            model.send("PUT", "/parameters", save({"w": bad}), Content_Type=SAFETENSORS), 422, "non-finite"
        )


def test_a_double_beyond_float32_is_no_float32(model: Model) -> None:
    with model.untouched():
        refused(model.push_bytes({"w": np.full((2, 2), 1e39)}), 422, "non-finite")
    assert model.push_bytes({"b": np.full(3, 1e39)}).status == 200, "b is F64"


@pytest.mark.parametrize(
    ("tensors", "slug"),
    [
        ({}, "malformed-body"),
        ({"c": np.zeros(3)}, "unknown-tensor"),
        ({"b": np.zeros(4)}, "wrong-shape"),
        ({"b": np.zeros((3, 1))}, "wrong-shape"),
        ({"w": np.zeros(4, np.float32)}, "wrong-shape"),
        ({"b": np.zeros(3, np.int64)}, "wrong-dtype"),
    ],
)
def test_safetensors_that_do_not_fit(model: Model, tensors: dict[str, Any], slug: str) -> None:
    status = 400 if slug == "malformed-body" else 422
    with model.untouched():
        refused(model.push_bytes(tensors), status, slug)
        refused(model.send("PUT", "/parameters", save(tensors), Content_Type=SAFETENSORS), status, slug)


def test_bytes_too_few_and_too_many(model: Model) -> None:
    whole = save({"b": np.zeros(3)})
    with model.untouched():
        for cut in (
            whole[:-1],
            whole[:-8],
            whole[:20],
            whole[:8],
            whole[:3],
            b"",
            whole + b"\0",
            whole + whole,
        ):
            refused(model.push_bytes(cut), 400, "malformed-body")


BAD_FACTS: list[tuple[Json, str]] = [
    ({"worker": "w0"}, "sequence"),
    ({"sequence": 1}, "worker"),
    *(({"worker": "w0", "sequence": number}, "sequence") for number in (0, -1, 2**53, 2**60, 10**30, 1.5)),
    *(({"worker": "w0", "sequence": word}, "sequence") for word in ("one", "1_0", "0x1", "١")),
    *(({"worker": name, "sequence": 1}, "worker") for name in ("a b", "ü", "x" * 129, ".a", "a\n")),
    ({"base": -1}, "base"),
    ({"base": 1}, "base"),
    ({"base": 2**52}, "base"),
    ({"base": "zero"}, "base"),
    *(({"weight": weight}, "weight") for weight in (0, -1.0, "heavy", "1.2.3", ".")),
    ({"speed": 1}, "speed"),
]


@pytest.mark.parametrize(("facts", "culprit"), BAD_FACTS, ids=lambda value: str(value)[:40])
def test_facts_that_cannot_be(model: Model, facts: Json, culprit: str) -> None:
    """In the body and in the query, with the same problem."""
    with model.untouched():
        assert culprit in refused(model.push(GOOD, **facts), 422, "invalid")["detail"]
        query = "&".join(f"{name}={quoted(str(value))}" for name, value in facts.items())
        assert culprit in refused(model.push_bytes({"b": np.zeros(3)}, query), 422, "invalid")["detail"]


@pytest.mark.parametrize(
    "facts", [{"worker": "w0", "sequence": "1"}, {"worker": "w0", "sequence": True}, {"base": "0"}]
)
def test_json_says_numbers_as_numbers(model: Model, facts: Json) -> None:
    with model.untouched():
        refused(model.push(GOOD, **facts), 422, "invalid")


@pytest.mark.parametrize("query", ["worker=w0&sequence=1&sequence=2", "base=0&base=0"])
def test_nothing_is_said_twice_in_a_query(model: Model, query: str) -> None:
    with model.untouched():
        refused(model.push_bytes({"b": np.zeros(3)}, query), 400, "malformed-request")


def test_nothing_is_said_in_the_query_and_in_the_body(model: Model) -> None:
    with model.untouched():
        body = {"gradients": GOOD, "base": 0}
        refused(model.send("POST", "/gradients?base=0", body), 400, "malformed-request")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"1",
        b"null",
        b'"gradients"',
        b'{"gradients": {"b": [1, 1, 1]}} x',
        b'{"gradients": {"b": [NaN, 1, 1]}}',
        b'{"gradients": {"b": [Infinity, 1, 1]}}',
        b'{"gradients": {"b": [1e999, 1, 1]}}',
        b'{"gradients": {"b": [1, 1, 1]}, "gradients": {"b": [2, 2, 2]}}',
        b'{"gradients": {"b": [1, 1, 1], "b": [2, 2, 2]}}',
        b'{"gradients": {"\xff": [1, 1, 1]}}',
        b'{"gradients": {"\\ud800": [1, 1, 1]}}',
        b'{"gradients": {"b": ' + b"[" * 100_000 + b"]" * 100_000 + b"}}",
        b'{"gradients": {"b": [1' + b"0" * 10_000 + b", 1, 1]}}",
    ],
    ids=lambda body: body[:40].decode("latin-1"),
)
def test_json_that_is_not(model: Model, body: bytes) -> None:
    with model.untouched():
        for verb, path in (("POST", "/gradients"), ("PUT", "/parameters"), ("PUT", ""), ("PATCH", "")):
            refused(model.send(verb, path, body, Content_Type="application/json"), 400, "malformed-body")


@pytest.mark.parametrize("depth", [33, 70, 500])
def test_lists_deeper_than_any_tensor(model: Model, depth: int) -> None:
    deep: Any = 1.0
    for _ in range(depth):
        deep = [deep]
    with model.untouched():
        assert model.push({"b": deep}).problem in ("wrong-shape", "malformed-body")


@pytest.mark.parametrize("body", [{}, {"gradients": {}}, {"gradients": [1.0]}, {"gradients": None}])
def test_a_push_brings_gradients(model: Model, body: Json) -> None:
    with model.untouched():
        assert "gradients" in refused(model.send("POST", "/gradients", body), 422, "invalid")["detail"]


@pytest.mark.parametrize("fields", [50_000, 1])
def test_unknown_fields_are_refused_however_many(model: Model, fields: int) -> None:
    many = dict.fromkeys((f"f{number}" for number in range(fields)), 0)
    with model.untouched():
        for verb, path, good in (
            ("POST", "/gradients", {"gradients": GOOD}),
            ("PUT", "/parameters", {"parameters": GOOD}),
            ("PUT", "", {"optimizer": SGD, "parameters": {"w": [0.0]}}),
            ("PATCH", "", {"optimizer": {"lr": 0.5}}),
        ):
            answer = model.send(verb, path, dumps({**good, **many}), Content_Type="application/json")
            assert (answer.status, answer.json["field"]) == (422, "f0")


def test_a_name_given_twice_is_found_however_many_there_are(model: Model) -> None:
    """In time linear in the body."""
    many = b", ".join(b'"f%d": 0' % number for number in range(100_000))
    body = b'{"gradients": {%s, "f99999": 1}}' % many
    with model.untouched():
        answer = model.send("POST", "/gradients", body, Content_Type="application/json")
        assert "f99999" in refused(answer, 400, "malformed-body")["detail"]


@pytest.mark.parametrize(
    ("body", "detail", "hint"),
    [
        ({"gradients": {}}, "gradients is an empty object; ", 'Give "gradients": {"w": [0.1, -0.2]}.'),
        ({"gradient": GOOD}, "body: field gradient is not known; ", "Did you mean 'gradients'?"),
        ({"gradients": GOOD, "wroker": "w0"}, "body: field wroker is not known; ", "Did you mean 'worker'?"),
        ({"gradients": GOOD, "zzz": 1}, "body: field zzz is not known; ", "Remove it."),
        (
            {"gradients": GOOD, "worker": "a b", "sequence": 1},
            "worker is 'a b'; expected 1 to 128 ASCII letters, digits, '.', '_', ':' or '-', ",
            'Give "worker": "w0".',
        ),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_push_is_told_what_it_should_have_said(model: Model, body: Json, detail: str, hint: str) -> None:
    with model.untouched():
        problem = refused(model.send("POST", "/gradients", body), 422, "invalid")
        assert problem["detail"].startswith(detail)
        assert problem["hint"] == hint


@pytest.mark.parametrize(
    ("query", "detail"),
    [
        ("limit=abc", "limit is 'abc'; expected a whole number"),
        ("limit=0", "limit is '0'; expected at least 1"),
        ("limit=1001", "limit is '1001'; expected at most 1000"),
    ],
)
def test_a_list_is_told_what_its_query_said(model: Model, query: str, detail: str) -> None:
    problem = refused(model.send("GET", f"/entries?{query}"), 422, "invalid")
    assert (problem["detail"], problem["hint"]) == (detail, "Correct it, or leave it out.")


def test_an_unknown_tensor_learns_the_first_of_the_known_ones(model: Model, new: Model) -> None:
    for answer in (model.push({"c": [1.0]}), model.push_bytes({"c": np.zeros(3)})):
        detail = refused(answer, 422, "unknown-tensor")["detail"]
        assert detail == "tensor 'c' is not part of the model, which has 'b', 'w'"
    many = Model(new.service, f"{new.name}.many").create({f"w{number}": [0.0] for number in range(7)})
    detail = refused(many.push({"c": [1.0]}), 422, "unknown-tensor")["detail"]
    assert detail.endswith("which has 'w0', 'w1', 'w2', 'w3', 'w4' and 2 more")


def test_a_metric_behind_a_gap_learns_the_one_expected(new: Model) -> None:
    new.create({"w": [0.0]}, schedule={"name": "plateau"})
    gap = new.send("POST", "/metrics", {"value": 1.0, "worker": "w0", "sequence": 5})
    problem = refused(gap, 409, "sequence-gap")
    assert problem["detail"] == "worker 'w0' sent metric 5; expected sequence 1"
    assert (problem["got"], problem["expected"]) == (5, 1)


def test_a_change_that_takes_an_average_away_says_so(new: Model) -> None:
    new.create({"w": [0.0]}, transforms={"ema": {}})
    problem = refused(new.send("PATCH", "", {"transforms": {"ema": None}}), 422, "invalid-spec")
    assert problem["detail"] == (
        "the change would remove slot ema for the tensors of '*'; slots are fixed when a model is created"
    )


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"", "the body is empty; expected JSON"),
        (gzip.compress(b"{}"), "the body is gzip; expected JSON"),
        (b'{"\xff": 1}', "the body is not JSON: byte 2 cannot be read as UTF-8"),
        (b'{"\\ud800": 1}', "the body is not JSON: it has half of a surrogate pair, which is no character"),
    ],
    ids=["empty", "gzip", "latin", "half a pair"],
)
def test_a_body_that_is_no_json_learns_what_it_is(model: Model, body: bytes, detail: str) -> None:
    answer = model.send("POST", "/gradients", body, Content_Type="application/json")
    assert refused(answer, 400, "malformed-body")["detail"] == detail
