"""Creating, pulling, describing, and how failures look."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from gradledger import Client, ConnectionFailed, errors
from gradledger.errors import MalformedAnswer, Problem, problem_from
from gradledger.receipt import Receipt
from gradledger_server import errors as service_errors
from tests.clients.python.faulty import Service

PARAMS = {"w": np.arange(3, dtype=np.float32)}


def test_a_model_is_created_with_its_values(faulty: Service, client: Client) -> None:
    model = client.create("demo", PARAMS, {"rule": "adam", "lr": 0.1}, groups=[])
    assert model.step == 0
    np.testing.assert_array_equal(model.pull()["w"], PARAMS["w"])
    spec = faulty.models["demo"].spec
    assert spec["parameters"] == {"w": {"shape": [3], "dtype": "F32"}}
    assert (spec["optimizer"], spec["groups"]) == ({"rule": "adam", "lr": 0.1}, [])
    assert model.describe()["step"] == 0
    assert client.models() == [{"model": "demo"}]
    assert model.configure(optimizer={"lr": 0.2})["optimizer"] == {"lr": 0.2}


def test_an_existing_model_is_taken_only_if_that_is_meant(faulty: Service, client: Client) -> None:
    client.create("demo", PARAMS, "sgd").push({"w": np.ones(3, np.float32)})
    with pytest.raises(errors.ModelExists, match="exist_ok"):
        client.create("demo", PARAMS, "sgd")
    again = client.create("demo", PARAMS, "sgd", exist_ok=True)
    assert again.step == faulty.models["demo"].step == 1
    with pytest.raises(errors.ModelExists, match="another spec"):
        client.create("demo", PARAMS, "adam", exist_ok=True)


def test_of_many_creators_one_chooses_the_values(faulty: Service) -> None:
    def create(value: float) -> None:
        with Client(faulty.url) as client:
            model = client.create("demo", {"w": np.full(3, value, np.float32)}, "sgd", exist_ok=True)
            model.push({"w": np.zeros(3, np.float32)})
            values.add(float(model.pull()["w"][0]))

    values: set[float] = set()
    threads = [threading.Thread(target=create, args=(float(value),)) for value in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(values) == 1
    assert faulty.models["demo"].step == 8


@pytest.mark.parametrize("lost", ["PUT /v1/models/demo", "PUT /v1/models/demo/parameters"])
def test_a_lost_answer_to_creation_does_no_harm(faulty: Service, client: Client, lost: str) -> None:
    faulty.faults_meet = lost
    faulty.faults.append("lose-answer")
    model = client.create("demo", PARAMS, "sgd")
    assert (model.step, faulty.models["demo"].step) == (0, 0)
    assert not faulty.faults


def test_pulling_transfers_only_what_is_new(faulty: Service, client: Client) -> None:
    model = client.create("demo", PARAMS, "sgd")
    first, second = model.pull(), model.pull()
    assert np.shares_memory(first["w"], second["w"])
    client.model("demo").push({"w": np.ones(3, np.float32)})
    assert model.pull(wait_s=0.1)["w"][0] == -0.5
    assert model.step == 1


def test_an_older_answer_that_comes_late_does_not_take_the_place_of_a_newer_one(faulty: Service) -> None:
    with Client(faulty.url, timeout_s=5) as client:
        model = client.create("demo", PARAMS, "sgd")
        faulty.faults.append("stall")
        slow = threading.Thread(target=model.push, args=({"w": np.ones(3, np.float32)},))
        slow.start()
        while faulty.models["demo"].step == 0:
            time.sleep(0.01)
        client.model("demo").push({"w": np.ones(3, np.float32)})
        assert model.pull()["w"][0] == -1
        slow.join()
        assert model.step == 2
        assert model.pull()["w"][0] == -1


def test_one_connection_serves_call_after_call(faulty: Service, client: Client) -> None:
    model = client.create("demo", PARAMS, "sgd")
    for _ in range(3):
        model.push({"w": np.ones(3, np.float32)})
        model.pull()
        model.push_only({"w": np.ones(3, np.float32)})
    with pytest.raises(errors.NonFinite):
        model.push({"w": np.full(3, np.inf, np.float32)})
    model.delete()
    client.models()
    assert faulty.connections == 1


def test_parameters_are_read_only_so_that_what_was_seen_stays_true(client: Client) -> None:
    params = client.create("demo", PARAMS, "sgd").pull()
    with pytest.raises(ValueError, match="read-only"):
        params["w"][0] = 7


def test_a_lost_answer_to_deletion_is_no_error_but_a_second_deletion_is(
    faulty: Service, client: Client
) -> None:
    model = client.create("demo", PARAMS, "sgd")
    faulty.faults_meet = "DELETE"
    faulty.faults.append("lose-answer")
    model.delete()
    with pytest.raises(errors.ModelNotFound):
        model.delete()
    with pytest.raises(errors.ModelNotFound):
        model.push({"w": PARAMS["w"]})


def test_a_recreated_model_is_another_one(client: Client) -> None:
    model = client.create("demo", PARAMS, "sgd")
    for _ in range(3):
        model.push({"w": np.ones(3, np.float32)})
    model.delete()
    client.create("demo", PARAMS, "sgd")
    np.testing.assert_array_equal(model.pull()["w"], PARAMS["w"])
    with pytest.raises(errors.SequenceGap):
        model.push({"w": np.ones(3, np.float32)})
    assert model.push({"w": np.ones(3, np.float32)})[1].sequence == 1


def test_names_travel_in_the_path_whole(faulty: Service, client: Client) -> None:
    with pytest.raises(errors.ModelNotFound):
        client.model("a/b c?d").describe()
    assert faulty.seen[-1][1] == "/v1/models/a%2Fb%20c%3Fd"


def test_nobody_there_is_said_with_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
    monkeypatch.setenv("GRADLEDGER_URL", url)
    with Client(retry_for_s=0) as client, pytest.raises(ConnectionFailed, match=url):
        client.models()


def test_every_problem_of_the_service_has_its_class() -> None:
    def family(root: type[service_errors.GradledgerError]) -> Iterator[type[service_errors.GradledgerError]]:
        yield root
        for child in root.__subclasses__():
            yield from family(child)

    for kind in (*family(service_errors.Refused), *family(service_errors.Unavailable)):
        body = b'{"type": "https://example.org/problems/%s"}' % kind.problem.encode()
        caught = problem_from(599, body, None, 0.0)
        assert type(caught).slug == kind.problem


@pytest.mark.parametrize(
    ("status", "kind"),
    [(404, errors.NotFound), (418, errors.Refused), (500, errors.Internal), (504, errors.ServiceUnavailable)],
)
def test_other_answers_are_told_by_their_status(status: int, kind: type[Problem]) -> None:
    for body in (b"<html>", b'{"type": "about:blank", "title": "so"}', b"[]"):
        assert type(problem_from(status, body, None, 0.0)) is kind


def test_something_else_behind_the_url_is_noticed(faulty: Service, client: Client) -> None:
    client.create("demo", PARAMS, "sgd")
    faulty.models["demo"].epoch, faulty.models["demo"].step = "?", -1
    with pytest.raises(MalformedAnswer, match="ETag"):
        client.model("demo").pull()
    with pytest.raises(MalformedAnswer):
        Receipt.from_json({"fate": "applied"})


def test_a_failure_says_the_next_move_in_a_sentence_of_its_own() -> None:
    unknown = problem_from(
        404, b'{"detail": "There is no rule.", "hint": "Did you mean \'adam\'?"}', None, 0.0
    )
    assert str(unknown) == "There is no rule. Did you mean 'adam'?"
    for url in ("http://127.0.0.1:1", "http://127.0.0.1:1/v1", "127.0.0.1:1/"):
        with pytest.raises(
            ConnectionFailed, match=r"GET http://127\.0\.0\.1:1/v1/models: .*\)\. Is the service running"
        ):
            Client(url, retry_for_s=0).models()


def test_gradients_without_names_are_refused(client: Client) -> None:
    given: Any = np.ones(3)
    model = client.model("any")
    for call in (
        lambda: model.push(given),
        lambda: model.push(given, wire="int8"),
        lambda: model.push_async(given, copy=True).result(5),
        lambda: client.create("any", given, "sgd"),
    ):
        with pytest.raises(TypeError, match="got ndarray; expected arrays by tensor name"):
            call()


@pytest.mark.parametrize("path", ["/v1", "/v1/"])
def test_an_address_may_be_that_of_the_api(client: Client, path: str) -> None:
    assert Client(client.url + path).models() == client.models()


def test_after_its_end_nothing_is_sent(faulty: Service, client: Client) -> None:
    model = client.create("demo", PARAMS, "sgd")
    with Client(faulty.url) as closed:
        over = closed.model("demo")
        over.pull()
    asked = len(faulty.seen)
    for call in (
        closed.models,
        over.pull,
        over.join,
        lambda: next(over.events()),
        lambda: over.push({"w": np.ones(3, np.float32)}),
        lambda: over.push_async({"w": np.ones(3, np.float32)}).result(5),
    ):
        with pytest.raises(errors.ClientClosed, match=rf"{faulty.url} is closed\. Go on within its `with`"):
            call()
    assert len(faulty.seen) == asked
    assert model.push({"w": np.ones(3, np.float32)})[1].step == 1, "another client's end is its own"
