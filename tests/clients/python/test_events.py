"""Watching a model with the client: each event once, whatever becomes of connections and services."""

from __future__ import annotations

import itertools
import json
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gradledger import Client, Event, Events, Model, errors
from tests.clients.python.cutting import Cutting
from tests.clients.python.faulty import Service as Faulty
from tests.service import Service

BOUND_BYTES = 10_000
_numbers = itertools.count(1)
GRADIENT = {"w": np.ones(1, np.float32)}


@pytest.fixture
def running(service: Service) -> Iterator[Client]:
    with Client(service.url) as client:
        yield client


def created(client: Client, **spec: Any) -> Model:
    params = {"w": np.full(1, 8.0, np.float32)}
    return client.create(f"client-events.{next(_numbers)}", params, {"rule": "sgd", "lr": 1}, **spec)


def heard(events: Events, until: int) -> list[Event]:
    """What is told, up to this step. A snapshot may come at any time."""
    told: list[Event] = []
    while not told or told[-1].facts.get("step") != until:
        told += [event for event in itertools.islice(events, 1) if event.kind != "snapshot"]
    return told


def steps(events: Events, until: int) -> list[int]:
    """The steps told, up to this one."""
    return steps_in(heard(events, until))


def steps_in(told: list[Event]) -> list[int]:
    return [event.facts["step"] for event in told if event.kind == "step"]


def ids(told: list[Event]) -> set[str | None]:
    return {event.id for event in told}


def test_what_happens_after_the_call_is_heard(running: Client) -> None:
    model = created(running)
    model.push(GRADIENT)
    with model.events() as events:
        _, receipt = model.push(GRADIENT)
        event = next(events)
        assert (event.kind, event.facts["step"]) == ("step", 2)
        assert event.id == events.last_id == f"{receipt.offset}@{receipt.epoch}"
        assert event.facts["gradients"][0]["worker"] == model.worker


def test_it_goes_on_behind_an_id_and_from_the_beginning(running: Client) -> None:
    model = created(running)
    for _ in range(4):
        model.push(GRADIENT)
    with model.events(after=0) as events:
        told = [event for event in itertools.islice(events, 6) if event.kind != "snapshot"]
        assert [event.kind for event in told][:4] == ["create", "upload", "step", "step"]
    with model.events(after=told[2].id) as events:
        assert steps(events, 4) == [2, 3, 4]
    assert told[2].id is not None
    with model.events(after=int(told[2].id.partition("@")[0])) as events:
        assert steps(events, 4) == [2, 3, 4]


def test_it_ends_with_the_model(running: Client) -> None:
    model = created(running)
    events = model.events()
    model.delete()
    kinds = [event.kind for event in events if event.kind != "snapshot"]
    assert kinds == ["delete"] and list(events) == []
    with pytest.raises(errors.ModelNotFound):
        model.events()


def test_closed_is_over(running: Client) -> None:
    model = created(running)
    with model.events() as events:
        model.push(GRADIENT)
    assert list(events) == []


def test_nonsense_is_refused(running: Client) -> None:
    with pytest.raises(errors.MalformedRequest, match="expected an id"):
        created(running).events(after="yesterday")


def test_what_is_held_no_more_is_told(running: Client) -> None:
    model = created(running)
    model.push(GRADIENT)
    with model.events(after="2@another") as events:
        event = next(events)
        assert (event.kind, event.facts["step"]) == ("reset", 1) and event.id == events.last_id
        model.push(GRADIENT)
        assert steps(events, 2) == [2]


def test_wherever_the_connection_is_cut_nothing_is_lost_or_told_twice(service: Service) -> None:
    dice, pushes = random.Random(7), 100
    with Cutting(service.port) as cutting, Client(service.url) as direct, Client(cutting.url) as client:
        model = created(direct)
        cutting.cuts.extend(
            dice.choice([0, 20, 300, 301, 700, 5000]) + dice.randrange(200) for _ in range(30)
        )
        with client.model(model.name).events(after=0) as events:
            pushing = threading.Thread(target=lambda: [model.push(GRADIENT) for _ in range(pushes)])
            pushing.start()
            told = heard(events, 0) + heard(events, pushes)
            pushing.join()
        assert cutting.connections > 10
    assert steps_in(told) == list(range(1, pushes + 1))
    assert len(ids(told)) == len(told)


def test_an_idle_stream_that_is_cut_goes_on(service: Service) -> None:
    with Cutting(service.port) as cutting, Client(service.url) as direct, Client(cutting.url) as client:
        model = created(direct)
        with client.model(model.name).events() as events:
            for step in (1, 2):
                cutting.cut_all()
                model.push(GRADIENT)  # nobody listens
                assert steps(events, step) == [step]


@pytest.mark.slow
def test_a_restart_of_the_service_loses_and_doubles_nothing(tmp_path: Path) -> None:
    told: list[Event] = []
    with (
        Service(tmp_path / "data", GRADLEDGER_SNAPSHOT_QUIET_S="600") as service,
        Client(service.url) as client,
    ):
        model = created(client)
        with model.events() as events:
            for last in (20, 40):
                pushing = threading.Thread(target=lambda: [model.push(GRADIENT) for _ in range(20)])
                pushing.start()
                told += heard(events, last)
                pushing.join()
                if last == 20:
                    service.kill()
                    service.start()
            model.configure(optimizer={"lr": 0.5})
            model.delete()
            told += [event for event in events if event.kind != "snapshot"]
    assert steps_in(told) == list(range(1, 41))
    assert [event.kind for event in told[40:]] == ["configure", "delete"]
    assert len(ids(told)) == len(told)


def block(step: int, *, fields: str = "") -> bytes:
    return f"id: {step}@e1\n{fields}event: step\ndata: {json.dumps({'step': step})}\n\n".encode()


def test_every_stream_is_asked_behind_the_last_event(faulty: Faulty, model: Model) -> None:
    faulty.streams += [
        b"retry: 1000\nid: 4@e1\n\n",
        block(5) + b": nothing new\n\n" + block(6)[:-1],  # cut off before its end: it is no event yet
        b"",
        block(6, fields="colour: green\n").replace(b"\n", b"\r\n"),
        b"event: snapshot\r\ndata:{\ndata:}\n\nevent: delete\ndata: {}\n\n",
    ]
    told = [(event.kind, event.id) for event in model.events()]
    assert told == [("step", "5@e1"), ("step", "6@e1"), ("snapshot", None), ("delete", None)]
    assert faulty.resumed == [None, "4@e1", "5@e1", "5@e1", "6@e1"]


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (b"data: {\n\n", "in JSON"),
        (b"data: []\n\n", "JSON object"),
        (b"data: \xff\n\n", "not UTF-8"),
        (b"data: " + b"x" * BOUND_BYTES, "longer than"),
        (b"data: x\n" * BOUND_BYTES, "longer than"),
    ],
    ids=["no-json", "no-object", "no-text", "long-line", "many-lines"],
)
def test_what_is_no_stream_of_events_is_refused_at_once(
    faulty: Faulty, model: Model, monkeypatch: pytest.MonkeyPatch, stream: bytes, message: str
) -> None:
    monkeypatch.setattr("gradledger.events.EVENT_BYTES", BOUND_BYTES)
    faulty.streams += [stream]
    with model.events(after=1) as events, pytest.raises(errors.MalformedAnswer, match=message):
        next(events)


def test_a_stream_that_does_not_say_where_it_begins_is_refused(faulty: Faulty, model: Model) -> None:
    faulty.streams += [block(1)[len("id: 1@e1\n") :]]
    with pytest.raises(errors.MalformedAnswer, match="where it begins"):
        model.events()


def test_when_the_patience_is_over_it_says_so_and_can_be_asked_again(faulty: Faulty) -> None:
    with Client(faulty.url, timeout_s=0.5, retry_for_s=0.3) as client:
        model = client.create("demo", {"w": np.zeros(1, np.float32)}, "sgd")
        faulty.streams += [block(1), *[b""] * 20]
        events = model.events(after=0)
        assert next(events).id == "1@e1"
        with pytest.raises(errors.ConnectionFailed, match="ended") as failed:
            next(events)
        assert failed.value.tries > 1 and len(faulty.resumed) == failed.value.tries
        faulty.streams.clear()
        faulty.streams += [block(2)]
        assert next(events).facts == {"step": 2}
        events.close()


def test_no_stream_when_the_service_has_no_room(faulty: Faulty, model: Model) -> None:
    faulty.faults_meet = "events"
    faulty.faults += ["busy", "lose-request", "proxy"]
    faulty.streams += [b"id: 1@e1\n\n", block(2)]
    with model.events() as events:
        assert next(events).id == "2@e1"
