"""Tables over HTTP: declared without an upload, pushed by rows, answered by rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, save

from tests.api.talk import Json, Model, quoted, refused
from tests.service import SAFETENSORS, Arrays, Service

EMB: Json = {"shape": [50, 3], "rows": "lazy", "init": {"name": "zeros"}}
ADAM: Json = {"rule": "adam", "lr": 0.1}


@pytest.fixture
def table(new: Model) -> Model:
    """SGD with learning rate 1: `emb` 50×3, zeros, and `w` of two numbers."""
    return new.create({"emb": EMB, "w": [0.0, 0.0]})


def gradient(rows: list[int], value: float = 1.0) -> Arrays:
    return {"emb": np.full((len(rows), 3), value, np.float32), "emb#rows": np.array(rows, np.int64)}


def rows_of(model: Model, rows: list[int]) -> Any:
    return model.send("POST", "/parameters/emb/rows", {"rows": rows}).json["parameters"]["emb"]


def test_a_table_is_declared_and_echoed_with_every_default(new: Model) -> None:
    init = {"name": "normal", "std": 0.01, "seed": 7}
    new.create({"emb": {"shape": [1_000_000, 64], "rows": "lazy", "init": init}}, ADAM)
    described = new.describe()
    assert described["parameters"]["emb"] == {
        "shape": [1_000_000, 64],
        "dtype": "F32",
        "rows": "lazy",
        "init": {"name": "normal", "mean": 0.0, "std": 0.01, "seed": 7},
    }
    assert described["missing"] == []
    assert described["parameter_bytes"] == 256_000_000
    assert (described["state_bytes"], described["rows_seen"]) == (0, {"emb": 0})
    echoed = {name: described[name] for name in ("optimizer", "schedule", "groups", "sync", "parameters")}
    assert new.service.request("PUT", new.path, echoed).status == 200


def test_a_push_answers_the_rows_it_touched_and_the_dense_tensors(table: Model) -> None:
    sent = {"emb": [[1, 1, 1], [2, 2, 2], [4, 4, 4]], "emb#rows": [7, 2, 7], "w": [1, 2]}
    answer = table.push(sent)
    assert answer.json["parameters"] == {
        "w": [-1, -2],
        "emb": [[-2, -2, -2], [-5, -5, -5]],
        "emb#rows": [2, 7],
    }
    assert answer.receipt["grad_norm"] == pytest.approx(np.sqrt(5 + 3 * 4 + 3 * 25))
    answered = load(table.push_bytes(gradient([9, 2], 0.5)).data)
    assert answered["emb#rows"].tolist() == [2, 9]
    assert answered["emb"].tolist() == [[-2.5] * 3, [-0.5] * 3]
    assert answered["w"].tolist() == [-1, -2]
    assert table.send("GET", "/parameters").json["step"] == 2
    table.push_bytes(gradient([1]))
    pulled = table.send("GET", "/parameters")
    assert pulled.json["step"] == 3, "rows alone are a step of every tensor"
    assert pulled.headers["etag"].endswith('.3"')
    minimal = table.push_bytes(gradient([1]), Prefer="return=minimal")
    assert minimal.json.keys() == {"receipt", "step"}


def test_a_pull_leaves_tables_out_and_says_so(table: Model) -> None:
    answer = table.send("GET", "/parameters")
    assert answer.json["parameters"] == {"w": [0, 0]}
    assert answer.headers["tables"] == "emb"
    assert list(load(table.send("GET", "/parameters", Accept=SAFETENSORS).data)) == ["w"]


def test_rows_are_read_in_the_order_asked_for_touched_or_not(table: Model) -> None:
    table.push_bytes(gradient([7]))
    expected = [[-1.0] * 3, [0.0] * 3, [-1.0] * 3]
    read = table.send("GET", "/parameters/emb?rows=7,3,7")
    assert read.json == {"step": 1, "parameters": {"emb": expected, "emb#rows": [7, 3, 7]}}
    asked = save({"rows": np.array([7, 3, 7])})
    answer = table.send("POST", "/parameters/emb/rows", asked, Content_Type=SAFETENSORS)
    found = load(answer.data)
    assert (found["emb"].tolist(), found["emb#rows"].tolist()) == (expected, [7, 3, 7])
    assert answer.headers["etag"] == read.headers["etag"] == table.describe()["etag"]
    assert rows_of(table, [7, 3, 7]) == expected
    whole = table.send("GET", "/parameters/emb").json["parameters"]["emb"]
    assert np.shape(whole) == (50, 3)
    assert whole[7] == [-1.0] * 3
    again = table.send("GET", "/parameters/emb?rows=7", If_None_Match=read.headers["etag"])
    assert (again.status, again.data) == (304, b"")


def test_a_repeated_push_counts_once_and_answers_its_rows_as_they_are_now(table: Model) -> None:
    table.push_bytes(gradient([4]), "worker=ada&sequence=1")
    table.push_bytes(gradient([4]), "worker=bob&sequence=1")
    again = table.push_bytes(gradient([4]), "worker=ada&sequence=1")
    assert (again.receipt["replayed"], again.receipt["step"]) == (True, 1)
    assert load(again.data)["emb"].tolist() == [[-2.0] * 3]
    refused(table.push_bytes(gradient([5]), "worker=ada&sequence=1"), 422, "sequence-reused")


def test_values_arrive_whole_or_by_row(table: Model) -> None:
    values = np.arange(150, dtype=np.float32).reshape(50, 3)
    etag = table.describe()["etag"]
    answer = table.send("PUT", "/parameters", save({"emb": values}), Content_Type=SAFETENSORS, If_Match=etag)
    assert answer.status == 200
    assert rows_of(table, [49]) == [[147.0, 148.0, 149.0]]
    answer = table.send("PUT", "/parameters", {"parameters": {"emb": [[1, 2, 3]], "emb#rows": [49]}})
    assert (answer.status, answer.json["step"]) == (200, 2)
    assert rows_of(table, [49, 48]) == [[1.0, 2.0, 3.0], [144.0, 145.0, 146.0]]


def test_a_spec_may_bring_a_tables_values(new: Model) -> None:
    new.create({"emb": {"values": [[1, 2], [3, 4]], "rows": "lazy_global_t"}})
    assert new.push({"emb": [[1, 1]], "emb#rows": [1]}).json["parameters"]["emb"] == [[2, 3]]
    new.send("DELETE")
    new.create({"emb": {"shape": [2, 2], "rows": "dense"}})
    refused(new.push({"emb": [[1, 1]], "emb#rows": [1]}), 409, "parameters-missing")
    refused(new.send("GET", "/parameters/emb?rows=1"), 409, "parameters-missing")
    new.send("PUT", "/parameters", {"parameters": {"emb": [[1, 2], [3, 4]]}})
    assert new.push({"emb": [[1, 1], [1, 1]]}).json["parameters"] == {"emb": [[0, 1], [2, 3]]}


def test_the_state_has_the_rows_seen_with_their_slots_and_counts(new: Model) -> None:
    new.create({"emb": EMB}, ADAM)
    for rows in ([5, 1], [5]):
        new.push_bytes(gradient(rows))
    state = new.state()
    assert state["rows/emb"].tolist() == [1, 5]
    assert state["t/emb"].tolist() == [1, 2]
    assert {name: array.shape for name, array in state.items() if array.ndim == 2} == {
        "param/emb": (2, 3),
        "m/emb": (2, 3),
        "v/emb": (2, 3),
    }
    assert new.describe()["rows_seen"] == {"emb": 2}


ONE = [[1.0, 1.0, 1.0]]


@pytest.mark.parametrize(
    ("sent", "status", "slug"),
    [
        ({"emb": ONE}, 422, "wrong-rows"),
        ({"emb": ONE * 50}, 422, "wrong-rows"),
        ({"emb#rows": [1]}, 422, "wrong-rows"),
        ({"emb": ONE, "emb#rows": [50]}, 422, "wrong-rows"),
        ({"emb": ONE, "emb#rows": [-1]}, 422, "wrong-rows"),
        ({"emb": ONE, "emb#rows": [1, 2]}, 422, "wrong-shape"),
        ({"emb": ONE, "emb#rows": 1}, 422, "wrong-shape"),
        ({"emb": ONE, "emb#rows": [[1]]}, 422, "wrong-shape"),
        ({"emb": ONE, "emb#rows": [1.0]}, 400, "malformed-body"),
        ({"emb": ONE, "emb#rows": [True]}, 400, "malformed-body"),
        ({"emb": ONE, "emb#rows": ["1"]}, 400, "malformed-body"),
        ({"emb": ONE, "emb#rows": [2**63]}, 400, "malformed-body"),
        ({"emb": ONE, "emb#rows": None}, 400, "malformed-body"),
        ({"emb": [[1.0, 1.0]], "emb#rows": [1]}, 422, "wrong-shape"),
        ({"emb": [[3e38] * 3] * 2, "emb#rows": [1, 1]}, 422, "non-finite"),
        ({"w": [1, 1], "w#rows": [0, 1]}, 422, "unknown-tensor"),
        ({"emb": ONE, "emb#rows": [1], "w": [1]}, 422, "wrong-shape"),
    ],
)
def test_a_push_that_does_not_fit_leaves_no_trace(table: Model, sent: Json, status: int, slug: str) -> None:
    table.push_bytes(gradient([3]))
    with table.untouched():
        refused(table.push(sent), status, slug)


@pytest.mark.parametrize(
    ("arrays", "slug"),
    [
        ({"emb": np.ones((1, 3), np.float32), "emb#rows": np.array([1], np.int32)}, "wrong-dtype"),
        ({"emb": np.ones((1, 3), np.float32), "emb#rows": np.array([1.0])}, "wrong-dtype"),
        ({"emb": np.full((1, 3), np.nan, np.float32), "emb#rows": np.array([1])}, "non-finite"),
        ({"emb": np.ones((1, 3), np.int64), "emb#rows": np.array([1])}, "wrong-dtype"),
        ({"w": np.ones(2, np.int64)}, "wrong-dtype"),
    ],
)
def test_bytes_that_do_not_fit_leave_no_trace(table: Model, arrays: Arrays, slug: str) -> None:
    with table.untouched():
        refused(table.push_bytes(arrays), 422, slug)


@pytest.mark.parametrize(
    ("path", "status", "slug"),
    [
        ("emb?rows=50", 422, "wrong-rows"),
        ("emb?rows=1,,2", 400, "malformed-request"),
        ("emb?rows=-1", 400, "malformed-request"),
        ("emb?rows=", 400, "malformed-request"),
        ("w?rows=1", 422, "invalid"),
        ("nothing?rows=1", 404, "tensor-not-found"),
    ],
)
def test_a_pull_of_rows_that_are_not_there_says_so(table: Model, path: str, status: int, slug: str) -> None:
    refused(table.send("GET", f"/parameters/{path}"), status, slug)


@pytest.mark.parametrize(
    ("body", "status", "slug"),
    [
        ({"rows": [50]}, 422, "wrong-rows"),
        ({"rows": [[1]]}, 422, "wrong-rows"),
        ({"rows": ["1"]}, 400, "malformed-body"),
        ({"rows": 1}, 422, "invalid"),
        ({"row": [1]}, 422, "invalid"),
        ({}, 422, "invalid"),
        (save({"ids": np.array([1])}), 422, "wrong-rows"),
        (save({"rows": np.array([1], np.int32)}), 422, "wrong-rows"),
        (save({"rows": np.array([1]), "more": np.array([1])}), 422, "wrong-rows"),
    ],
)
def test_a_question_for_rows_that_cannot_be_read_is_refused(
    table: Model, body: Any, status: int, slug: str
) -> None:
    headers = {"Content_Type": SAFETENSORS} if isinstance(body, bytes) else {}
    refused(table.send("POST", "/parameters/emb/rows", body, **headers), status, slug)


@pytest.mark.parametrize(
    ("declared", "field"),
    [
        ({"shape": [5, 2], "rows": "eager"}, "parameters.emb.rows"),
        ({"shape": [5, 2], "init": {"name": "zeros"}}, "parameters.emb.init"),
        ({"shape": [5, 2], "rows": "lazy", "init": {"name": "xavier"}}, "parameters.emb.init.name"),
        ({"shape": [5, 2], "rows": "lazy", "init": {}}, "parameters.emb.init.name"),
        ({"shape": [2**28 + 1, 1], "rows": "lazy", "init": {"name": "zeros"}}, "parameters.emb.shape"),
        ({"shape": [2**20, 64], "rows": "dense", "init": {"name": "zeros"}}, "parameters.emb.rows"),
        ({"values": [[1.0]], "rows": "lazy", "init": {"name": "zeros"}}, "parameters.emb.init"),
        ({"shape": [2**28, 64], "rows": "lazy"}, "parameters"),
    ],
)
def test_an_impossible_table_is_refused_by_field(new: Model, declared: Json, field: str) -> None:
    answer = new.send("PUT", body={"optimizer": ADAM, "parameters": {"emb": declared}})
    assert refused(answer, 422, "invalid-spec")["field"] == field


def test_more_of_a_table_than_one_answer_holds_is_refused(new: Model) -> None:
    new.create({"emb": {"shape": [2**28, 64], "rows": "lazy", "init": {"name": "zeros"}}})
    refused(new.send("GET", "/parameters/emb", Accept=SAFETENSORS), 422, "invalid")
    assert load(new.push_bytes({"emb": np.ones((1, 64), "f4"), "emb#rows": np.array([2**28 - 1])}).data)


def test_json_carries_few_rows_only(new: Model) -> None:
    new.create({"emb": {"shape": [100_000, 64], "rows": "lazy", "init": {"name": "zeros"}}})
    rows = {"emb": np.ones((20_000, 64), "f4"), "emb#rows": np.arange(20_000)}
    with new.untouched():
        refused(new.push_bytes(rows, Accept="application/json"), 406, "not-acceptable")
    refused(
        new.send("POST", "/parameters/emb/rows", {"rows": [1] * 20_000}, Accept="application/json"),
        406,
        "not-acceptable",
    )
    assert new.push_bytes(rows, Prefer="return=minimal").status == 200


def test_names_are_percent_encoded_in_paths_and_headers(new: Model) -> None:
    name = "词/emb, größe"
    new.create({name: EMB})
    assert new.send("GET", "/parameters").headers["tables"] == "%E8%AF%8D%2Femb%2C%20gr%C3%B6%C3%9Fe"
    assert new.send("POST", f"/parameters/{quoted(name)}/rows", {"rows": [1]}).json["parameters"][name] == [
        [0] * 3
    ]


def test_a_service_that_was_killed_has_every_row_again(own_service: Service) -> None:
    model = Model(own_service, "killed").create(
        {"emb": {"shape": [1000, 4], "rows": "lazy", "init": {"name": "normal", "seed": 3}}, "w": [0.0]}, ADAM
    )
    generator = np.random.default_rng(0)
    for sequence in range(1, 21):
        rows = generator.integers(0, 1000, 30)
        values = generator.standard_normal((30, 4)).astype(np.float32)
        answer = model.push_bytes({"emb": values, "emb#rows": rows}, f"worker=ada&sequence={sequence}")
        assert answer.status == 200
    before, whole = model.state(), model.send("GET", "/parameters/emb", Accept=SAFETENSORS).data
    own_service.kill()
    own_service.start()
    after = model.state()
    assert {name: array.tobytes() for name, array in before.items()} == {
        name: array.tobytes() for name, array in after.items()
    }
    assert model.send("GET", "/parameters/emb", Accept=SAFETENSORS).data == whole
    assert model.push_bytes({"emb": values, "emb#rows": rows}, "worker=ada&sequence=20").receipt["replayed"]


def test_rows_are_seen_in_the_views_of_their_rule(new: Model) -> None:
    """As by `view=eval` of a dense tensor with the same gradients."""
    new.create({"emb": EMB, "w": [0.0, 0.0, 0.0]}, {"rule": "schedule_free_sgd", "lr": 1.0})
    for _ in range(3):
        new.push({"emb": [[1, 2, 3]], "emb#rows": [7], "w": [1, 2, 3]})
    trained, seen = new.pull()["w"], new.send("GET", "/parameters?view=eval").json["parameters"]["w"]
    assert trained != seen
    read = new.send("GET", "/parameters/emb?rows=7,3&view=eval")
    assert read.json["parameters"]["emb"] == [seen, [0.0] * 3]
    assert new.send("GET", "/parameters/emb?view=eval").json["parameters"]["emb"][7] == seen
    asked = new.send("POST", "/parameters/emb/rows?view=eval", {"rows": [7]})
    assert asked.json["parameters"]["emb"] == [seen]
    tag = read.headers["etag"]
    assert tag == asked.headers["etag"] == new.send("GET", "/parameters?view=eval").headers["etag"]
    assert new.send("GET", "/parameters/emb?rows=7&view=eval", If_None_Match=tag).status == 304
    assert new.send("GET", "/parameters/emb?rows=7", If_None_Match=tag).json["parameters"]["emb"] == [trained]
    refused(new.send("POST", "/parameters/emb/rows?view=ema", {"rows": [7]}), 404, "view-not-found")


def test_a_model_of_tables_alone_has_the_views_of_its_rule(new: Model) -> None:
    new.create({"emb": EMB}, {"rule": "schedule_free_sgd"})
    assert new.describe()["views"] == ["train", "eval"]
    assert new.send("GET", "/parameters?view=eval").json == {"step": 0, "parameters": {}}
