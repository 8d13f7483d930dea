"""Pulls: one step of all or one tensor, 304 when nothing is new, and waiting for news. Uploads."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from safetensors.numpy import load, save

from tests.api.talk import SGD, Json, Model, refused
from tests.service import SAFETENSORS, Answer, Service

ONES = {"w": [[1.0, 1.0], [1.0, 1.0]]}


def test_json_says_the_step_and_the_numbers(model: Model) -> None:
    answer = model.send("GET", "/parameters")
    assert answer.headers["content-type"] == "application/json"
    assert answer.json == {"step": 0, "parameters": {"b": [1.0, 2.0, 3.0], "w": [[0.0, 0.0], [0.0, 0.0]]}}


def test_safetensors_brings_the_bits(model: Model) -> None:
    answer = model.send("GET", "/parameters", Accept=SAFETENSORS)
    pulled = load(answer.data)
    assert answer.headers["content-type"] == SAFETENSORS
    assert pulled["b"].dtype == np.float64
    assert pulled["b"].tolist() == [1.0, 2.0, 3.0]
    assert pulled["w"].dtype == np.float32
    assert pulled["w"].shape == (2, 2)


def test_json_digits_give_the_same_bits_back(new: Model) -> None:
    bits = np.array([0.1, 1e-45, 3.4028235e38, -1 / 3, 16777217.0], np.float32)
    new.create({"w": {"shape": [5]}})
    new.send("PUT", "/parameters", save({"w": bits}), Content_Type=SAFETENSORS)
    assert np.array(new.pull()["w"], np.float32).tobytes() == bits.tobytes()


def test_one_tensor(model: Model) -> None:
    answer = model.send("GET", "/parameters/b")
    assert answer.json == {"step": 0, "parameters": {"b": [1.0, 2.0, 3.0]}}
    assert list(load(model.send("GET", "/parameters/b", Accept=SAFETENSORS).data)) == ["b"]
    refused(model.send("GET", "/parameters/c"), 404, "tensor-not-found")


@pytest.mark.parametrize("name", ["layer/1/w", "ein Gewicht", "λ", "a%b", "..", "w?x", "w.0"])
def test_a_tensor_may_have_any_printable_name(new: Model, name: str) -> None:
    new.create({name: [1.0, 2.0]}, SGD)
    encoded = "".join(f"%{byte:02X}" for byte in name.encode())
    assert new.send("GET", f"/parameters/{encoded}").json["parameters"] == {name: [1.0, 2.0]}
    assert new.push({name: [1.0, 1.0]}).json["parameters"] == {name: [0.0, 1.0]}


@pytest.mark.parametrize("path", ["/parameters", "/parameters/w"])
def test_an_etag_saves_the_transfer(model: Model, path: str) -> None:
    etag = model.send("GET", path).headers["etag"]
    assert etag == model.describe()["etag"]
    for known in (etag, f"W/{etag}", f'"x.1", {etag}', "*"):
        unchanged = model.send("GET", path, If_None_Match=known)
        assert (unchanged.status, unchanged.data) == (304, b"")
        assert unchanged.headers["etag"] == etag
        assert unchanged.headers["vary"] == "Accept"
    model.push(ONES)
    changed = model.send("GET", path, If_None_Match=etag)
    assert changed.status == 200
    assert changed.headers["etag"] != etag


def test_a_waiting_pull_gets_the_news_as_it_happens(model: Model) -> None:
    etag = model.describe()["etag"]
    heard: list[tuple[Answer, float]] = []

    def wait() -> None:
        answer = model.send("GET", "/parameters", If_None_Match=etag, Prefer="wait=20")
        heard.append((answer, time.monotonic()))

    waiting = threading.Thread(target=wait)
    waiting.start()
    time.sleep(0.3)
    assert not heard
    model.push(ONES)
    pushed_at = time.monotonic()
    waiting.join(10)

    ((answer, heard_at),) = heard
    assert answer.status == 200
    assert answer.json["step"] == 1
    assert heard_at - pushed_at < 1.0


@pytest.mark.parametrize("known", ["{etag}", "W/{etag}", '"x.1", {etag}'])
def test_a_wait_without_news_ends_in_304(model: Model, known: str) -> None:
    etag = model.describe()["etag"]
    started = time.monotonic()
    answer = model.send("GET", "/parameters", If_None_Match=known.format(etag=etag), Prefer="wait=1")
    assert answer.status == 304
    assert 0.9 < time.monotonic() - started < 3.0


def test_nobody_waits_for_what_is_news_already(model: Model) -> None:
    etag = model.describe()["etag"]
    model.push(ONES)
    started = time.monotonic()
    assert model.send("GET", "/parameters", If_None_Match=etag, Prefer="wait=20").status == 200
    assert model.send("GET", "/parameters", Prefer="wait=20").status == 200
    assert time.monotonic() - started < 2.0


def test_nobody_who_waits_keeps_the_service_from_ending(own_service: Service) -> None:
    model = Model(own_service, "waited").create({"w": [0.0]})
    etag = model.describe()["etag"]
    heard: list[Answer] = []
    waiting = threading.Thread(
        target=lambda: heard.append(model.send("GET", "/parameters", If_None_Match=etag, Prefer="wait=60"))
    )
    waiting.start()
    time.sleep(0.3)
    started = time.monotonic()
    assert own_service.stop() == 0
    assert time.monotonic() - started < 5.0
    waiting.join(10)
    assert heard[0].status == 304


def test_who_waits_for_a_deleted_model_hears_of_it(model: Model) -> None:
    etag = model.describe()["etag"]
    heard: list[Answer] = []
    waiting = threading.Thread(
        target=lambda: heard.append(model.send("GET", "/parameters", If_None_Match=etag, Prefer="wait=20"))
    )
    waiting.start()
    time.sleep(0.2)
    model.send("DELETE")
    waiting.join(10)
    refused(heard[0], 404, "model-not-found")


@pytest.mark.parametrize("wait", ["soon", "-1", "1.5", "²", ""])
def test_a_wait_that_is_no_number_is_refused(model: Model, wait: str) -> None:
    refused(model.send("GET", "/parameters", Prefer=f"wait={wait}"), 400, "malformed-request")


def test_nothing_can_be_pulled_or_pushed_before_the_upload(new: Model) -> None:
    new.create({"w": {"shape": [2]}, "b": [0.0]})
    etag = new.describe()["etag"]
    with new.untouched():
        for path in ("/parameters", "/parameters/w"):
            assert refused(new.send("GET", path), 409, "parameters-missing")["missing"] == ["w"]
            refused(new.send("GET", path, If_None_Match=etag), 409, "parameters-missing")
        refused(new.push({"b": [1.0]}), 409, "parameters-missing")
        refused(new.push({"b": [1.0]}, worker="w0", sequence=1), 409, "parameters-missing")
    new.send("PUT", "/parameters", {"parameters": {"w": [1.0, 2.0]}})
    assert new.push({"b": [1.0]}, worker="w0", sequence=1).status == 200


def test_replacing_values_is_a_step(model: Model) -> None:
    values = {"parameters": {"b": [7.0, 8.0, 9.0]}}
    first, again = model.send("PUT", "/parameters", values), model.send("PUT", "/parameters", values)
    assert (first.status, first.json["step"]) == (200, 1)
    assert again.json == first.json, "a retry of an upload is harmless"
    assert model.pull() == {"b": [7.0, 8.0, 9.0], "w": [[0.0, 0.0], [0.0, 0.0]]}


def test_of_workers_that_begin_together_one_does(new: Model) -> None:
    new.create({"w": {"shape": [2]}, "b": {"shape": [1]}})

    def begin(values: Json) -> Answer:
        return new.send("PUT", "/parameters", {"parameters": values}, If_None_Match="*")

    assert begin({"w": [1.0, 2.0]}).status == 200
    assert begin({"w": [1.0, 2.0]}).status == 200, "a retry"
    with new.untouched():
        refused(begin({"w": [3.0, 4.0]}), 412, "precondition-failed")
        refused(begin({"w": [3.0, 4.0], "b": [0.0]}), 412, "precondition-failed")
    assert begin({"b": [5.0]}).status == 200
    assert new.pull() == {"w": [1.0, 2.0], "b": [5.0]}


def test_an_upload_may_ask_for_a_version(model: Model) -> None:
    values = {"parameters": {"b": [7.0, 8.0, 9.0]}}
    with model.untouched():
        refused(model.send("PUT", "/parameters", values, If_Match='"x.0"'), 412, "precondition-failed")
    etag = model.describe()["etag"]
    assert model.send("PUT", "/parameters", values, If_Match=etag).status == 200
