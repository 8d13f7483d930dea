"""Parameters read into arrays of the caller's, whatever happens on the way."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
import pytest

from gradledger import Client, Model, Rows, Table, tensors
from gradledger.errors import MalformedAnswer
from gradledger.landing import Landing
from tests.clients.python.faulty import LR, Service
from tests.service import Service as Real

SEVERAL = 300_000  # elements: more than one piece is read


def gradient(value: float = 1.0) -> dict[str, Any]:
    return {"b": np.full((2, 3), value), "w": np.full(4, value, np.float32)}


def room() -> dict[str, Any]:
    return {"w": np.full(4, np.nan, np.float32), "b": np.full((2, 3), np.nan)}


def test_what_is_pushed_and_pulled_lands_in_the_arrays_given(model: Model) -> None:
    out = room()
    params, _ = model.push(gradient(), out=out)
    assert params["w"] is out["w"] and params["b"] is out["b"]
    assert (out["w"].tolist(), out["b"].tolist()) == ([-LR] * 4, [[1 - LR] * 3] * 2)
    model.push_only(gradient())
    assert model.pull(out=out)["w"] is out["w"]
    assert (out["w"].tolist(), model.step) == ([-2 * LR] * 4, 2)


def test_what_the_caller_changes_is_never_taken_for_the_services(faulty: Service, model: Model) -> None:
    out = room()
    model.push(gradient(), out=out)
    out["w"].fill(99)
    assert model.pull()["w"].tolist() == [-LR] * 4
    model.pull(out=out)
    assert out["w"].tolist() == [-LR] * 4, "nothing was new, and yet it is there"
    out["w"].fill(99)
    assert model.pull()["w"].tolist() == [-LR] * 4
    model.push(gradient(), out=out)
    out["w"].fill(99)
    assert model.pull(wait_s=1, out=out)["w"].tolist() == [-2 * LR] * 4, "after waiting in vain too"


def test_names_not_given_get_new_arrays(model: Model) -> None:
    out = {"b": np.empty((2, 3))}
    params, _ = model.push(gradient(), out=out)
    assert params["b"] is out["b"]
    assert params["w"].tolist() == [-LR] * 4
    assert not params["w"].flags.writeable


@pytest.mark.parametrize("faults", [["cut-answer"], ["cut-answer", "cut-answer", "busy", "cut-answer"]])
def test_an_answer_cut_in_the_middle_is_read_anew(faulty: Service, client: Client, faults: list[str]) -> None:
    model = client.create("large", {"w": np.zeros(SEVERAL, np.float32)}, "sgd")
    ramp = np.arange(SEVERAL, dtype=np.float32)
    out = {"w": np.full(SEVERAL, np.nan, np.float32)}
    faulty.faults.extend(faults)
    params, receipt = model.push({"w": ramp}, out=out)
    assert receipt.replayed and params["w"] is out["w"]
    np.testing.assert_array_equal(out["w"], np.float32(-LR) * ramp)
    faulty.faults_meet = "parameters"
    model.push_only({"w": ramp})
    faulty.faults.extend(faults)
    np.testing.assert_array_equal(model.pull(out=out)["w"], np.float32(-2 * LR) * ramp)


@pytest.mark.parametrize(
    ("array", "why"),
    [
        ([0.0] * 4, "list, not an array"),
        (np.broadcast_to(np.float32(0), 4), "read-only"),
        (np.zeros(8, np.float32)[::2], "not contiguous"),
        (np.zeros(4, ">f4"), "not little-endian"),
    ],
)
def test_what_cannot_be_written_to_is_refused_before_anything_is_sent(
    faulty: Service, model: Model, array: Any, why: str
) -> None:
    arrived = len(faulty.seen)
    for call in (lambda out: model.push(gradient(), out=out), lambda out: model.pull(out=out)):
        with pytest.raises(ValueError, match=f"'w'.* is {why}"):
            call({"w": array})
    assert len(faulty.seen) == arrived


@pytest.mark.parametrize("array", [np.zeros(5, np.float32), np.zeros(4), np.zeros((2, 2), np.float32)])
def test_an_array_unlike_the_parameter_is_an_error_and_the_next_push_goes_on(
    faulty: Service, model: Model, array: Any
) -> None:
    with pytest.raises(ValueError, match=r"out\['w'\] is .*the service sends float32 of \(4,\)"):
        model.push(gradient(), out={"w": array})
    assert not array.any(), "it is left alone"
    assert model.push(gradient())[1].sequence == 2 == faulty.models["demo"].step
    with pytest.raises(ValueError, match="the service sends"):
        model.pull(out={"w": array})


def test_numbers_are_read_straight_to_where_they_belong() -> None:
    arrays: dict[str, Any] = {
        "a": np.arange(700, dtype=np.float32),
        "none": np.zeros((0, 3), np.float32),
        "b": np.eye(5),
    }
    body = b"".join(tensors.encode(arrays))
    out = {"b": np.zeros((5, 5))}
    landing = Landing(out)
    for _ in range(2):
        source = BytesIO(body)
        asked: list[int] = []

        def read_into(room: memoryview, asked: list[int] = asked, source: BytesIO = source) -> None:
            asked.append(source.readinto(room))

        landing.fill(read_into, len(body))
        landed = landing.params()
        assert landed["b"] is out["b"]
        for name, array in arrays.items():
            np.testing.assert_array_equal(landed[name], array)
        assert asked[2:] == [2800, 200], "in one piece each, behind the header"


@pytest.mark.parametrize("body", [b"", b"\0" * 7, b"\x09" + b"\0" * 15])
def test_a_body_without_room_for_its_header_is_none(body: bytes) -> None:
    with pytest.raises(MalformedAnswer, match=f"body of {len(body)} bytes cannot have a header"):
        Landing({}).fill(lambda room: room.__setitem__(slice(None), body[: len(room)]), len(body))
    with pytest.raises(MalformedAnswer, match=f"body of {len(body)} bytes cannot have a header"):
        tensors.decode(np.frombuffer(body, np.uint8))


def test_rows_of_tables_come_beside_what_lands(service: Real) -> None:
    with Client(service.url) as client:
        values: dict[str, Any] = {"emb": Table((10, 2)), "w": np.zeros(3, np.float32)}
        model = client.create("landing-rows", values, {"rule": "sgd", "lr": 1})
        out = {"w": np.empty(3, np.float32)}
        for turn in (1, 2):
            grads: dict[str, Any] = {
                "emb": Rows([turn, 5], np.ones((2, 2), np.float32)),
                "w": np.ones(3, np.float32),
            }
            params, _ = model.push(grads, out=out)
            assert (out["w"].tolist(), params["emb"].ids.tolist()) == ([-turn] * 3, [turn, 5])
            assert params["emb"].values.tolist() == [[-1, -1], [-turn, -turn]]
        model.delete()


def test_while_a_push_waits_the_newest_parameters_land(service: Real) -> None:
    with Client(service.url) as client:
        a = client.create("landing-wait", {"w": np.full(2, 8, np.float32)}, "sgd", sync={"mode": "bsp"})
        b = client.model(a.name)
        a.join("a"), b.join("b")
        out = {"w": np.zeros(2, np.float32)}
        params, receipt = a.push({"w": np.ones(2, np.float32)}, out=out)
        assert (receipt.fate, out["w"].tolist()) == ("waiting", [8, 8])
        assert params["w"] is out["w"]
        a.delete()
