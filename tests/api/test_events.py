"""The stream of a model's events: what it tells, in which order, and how it is resumed."""

from __future__ import annotations

import itertools
import time
from contextlib import ExitStack

import pytest

from gradledger_server.api.events import LOOK_S, MOST_STREAMS
from tests.api.listening import listening
from tests.api.talk import SGD, Model, refused

START = {"w": [8.0]}


def test_steps_are_told_as_they_happen(new: Model) -> None:
    new.create(START)
    with listening(new.service, new.name) as stream:
        for sequence in (1, 2):
            new.push({"w": [2.0]}, worker="a", sequence=sequence, base=0)
            told = stream.next()
            assert told is not None and told.kind == "step"
            receipt = new.send("GET", f"/receipts/a/{sequence}").json
            assert told.id == f"{receipt['offset']}@{receipt['epoch']}"
            assert (told.data["step"], told.data["lr"], told.data["round"]) == (sequence, 1.0, None)
            assert told.data["gradients"] == [
                {
                    "worker": "a",
                    "sequence": sequence,
                    "fate": "applied",
                    "base": 0,
                    "staleness": sequence - 1,
                    "grad_norm": 2.0,
                }
            ]


def test_they_are_told_at_once_and_not_at_the_next_look(new: Model) -> None:
    new.create(START)
    took_s = []
    with listening(new.service, new.name) as stream:
        for _ in range(3):
            time.sleep(LOOK_S / 5)  # the stream is asleep again
            began = time.monotonic()
            new.push({"w": [1.0]})
            stream.until("step")
            took_s.append(time.monotonic() - began)
    assert min(took_s) < LOOK_S / 4


def test_a_stream_goes_on_where_it_ended(new: Model) -> None:
    new.create(START)
    with listening(new.service, new.name) as stream:
        new.push({"w": [1.0]})
        assert stream.until("step")[-1].data["step"] == 1
        last_id = stream.last_id
    for _ in range(3):
        new.push({"w": [1.0]})
    with listening(new.service, new.name, last_id) as stream:
        assert [stream.until("step")[-1].data["step"] for _ in range(3)] == [2, 3, 4]
        new.push({"w": [1.0]})
        assert stream.until("step")[-1].data["step"] == 5


def test_from_the_beginning_it_is_the_whole_story_of_a_round(new: Model) -> None:
    new.create(START, SGD, sync={"mode": "bsp", "late": "drop"})
    for worker in ("a", "b", "a"):
        new.send("POST", "/workers", {"worker": worker})
    new.push({"w": [1.0]}, worker="a", sequence=1, base=0)
    new.push({"w": [3.0]}, worker="b", sequence=1, base=0)
    new.push({"w": [3.0]}, worker="b", sequence=2, base=0)
    new.send("DELETE", "/workers/b")
    with listening(new.service, new.name, "0") as stream:
        told = [each for each in stream.until("leave") if each.kind != "snapshot"]
    assert [each.kind for each in told] == [
        "create",
        "join",
        "join",
        "waiting",
        "step",
        "round",
        "late",
        "leave",
    ]
    _, _, joined, waiting, step, closed, late, left = told
    assert (joined.data["worker"], waiting.data["worker"], waiting.data["fate"]) == ("b", "a", "waiting")
    assert {(each["worker"], each["fate"]) for each in step.data["gradients"]} == {
        ("a", "merged"),
        ("b", "merged"),
    }
    assert (step.data["step"], step.data["round"]) == (1, 0)
    facts = ("round", "step", "merged", "rejected", "closed")
    assert [closed.data[name] for name in facts] == [0, 1, 2, 0, "full"]
    assert (late.data["worker"], late.data["sequence"], late.data["staleness"]) == ("b", 2, 1)
    assert (left.data["worker"], left.data["reason"]) == ("b", "left")
    ids = [each.id for each in told]
    assert len(set(ids)) == len(ids)
    assert step.id is not None and closed.id is not None
    assert step.id.replace(".1@", "@") == closed.id, "one entry, two events"
    with listening(new.service, new.name, step.id) as stream:
        heard = stream.next()
        assert heard is not None and heard.kind == "round", "between two events of one entry"


def test_time_outs_are_told(new: Model) -> None:
    new.create(START, SGD, sync={"mode": "quorum", "quorum": 1, "grace_ms": 100, "lease_s": 0.5})
    for worker in ("a", "dead"):
        new.send("POST", "/workers", {"worker": worker})
    with listening(new.service, new.name) as stream:
        new.push({"w": [1.0]}, worker="a", sequence=1)
        told = {each.kind: each.data for each in stream.until("leave") if each.kind != "snapshot"}
    assert (told["timeout"]["round"], told["timeout"]["reason"]) == (0, "grace")
    assert (told["round"]["closed"], told["round"]["merged"]) == ("grace", 1)
    assert told["leave"]["reason"] == "lease"


def test_who_a_robust_aggregate_leaves_out_is_rejected(new: Model) -> None:
    krum = {"name": "krum", "attackers": 0}
    new.create(START, SGD, sync={"mode": "buffered", "take": 3, "aggregate": krum})
    with listening(new.service, new.name) as stream:
        for worker, value in (("a", 1.0), ("b", 1.0), ("liar", -50.0)):
            new.push({"w": [value]}, worker=worker, sequence=1)
        told = stream.until("round")
        assert told[-1].data["rejected"] == 2
        heard = stream.until("rejected")[-1].data
        assert heard["fate"] == "rejected" and heard["worker"] in ("b", "liar")


def test_changes_metrics_and_values_are_told(new: Model) -> None:
    new.create(START, SGD, schedule={"name": "plateau"})
    with listening(new.service, new.name) as stream:
        new.send("PATCH", "", {"optimizer": {"lr": 0.5}})
        assert stream.until("configure")[-1].data["changed"]["optimizer"]["lr"] == 0.5
        new.send("POST", "/metrics", {"value": 3.5, "worker": "a", "sequence": 1})
        told = stream.until("metric")[-1].data
        assert (told["value"], told["worker"], told["lr"]) == (3.5, "a", 0.5)
        new.send("PUT", "/parameters", {"parameters": {"w": [1.0]}})
        assert stream.until("upload")[-1].data["step"] == 1
        saved = stream.until("snapshot")[-1]
        assert saved.id is None and saved.data["saved_offset"] == 4, "it falls quiet and is saved"


@pytest.mark.parametrize("asked", ["999", "1@another", "0@another"])
def test_what_is_held_no_more_is_said(new: Model, asked: str) -> None:
    new.create(START)
    new.push({"w": [1.0]})
    with listening(new.service, new.name, asked) as stream:
        told = stream.next()
        assert told is not None and told.kind == "reset"
        assert (told.data["step"], told.data["offset"]) == (1, 2)
        new.push({"w": [1.0]})
        assert stream.until("step")[-1].data["step"] == 2


@pytest.mark.parametrize("asked", ["x", "-1", "1.2.3", "9" * 40, "@"])
def test_nonsense_is_refused(model: Model, asked: str) -> None:
    refused(model.send("GET", "/events", Last_Event_ID=asked), 400, "malformed-request")


def test_no_model_no_stream(new: Model) -> None:
    refused(new.send("GET", "/events"), 404, "model-not-found")


def test_it_ends_with_the_model(new: Model) -> None:
    new.create(START)
    with listening(new.service, new.name) as stream:
        new.send("DELETE", "")
        told = stream.until("delete")[-1]
        assert told.data["epoch"] and stream.next() is None


def test_what_happened_just_before_the_end_is_told(new: Model) -> None:
    new.create(START)
    with listening(new.service, new.name) as stream:
        for _ in range(3):
            new.push({"w": [1.0]})
        new.send("DELETE", "")
        told = [each.kind for each in stream.until("delete") if each.kind != "snapshot"]
    assert told == ["step", "step", "step", "delete"]


def test_streams_are_bounded_and_given_back(new: Model) -> None:
    new.create(START)
    with ExitStack() as stack:
        streams = [stack.enter_context(listening(new.service, new.name)) for _ in range(MOST_STREAMS)]
        problem = new.send("GET", "/events")
        refused(problem, 503, "too-many-streams")
        assert int(problem.headers["retry-after"]) > 0
        new.push({"w": [1.0]})
        assert {stream.until("step")[-1].data["step"] for stream in streams} == {1}
    for _ in range(100):
        try:
            with listening(new.service, new.name, "0") as stream:
                assert stream.until("step")[-1].data["step"] == 1
            return
        except AssertionError:
            time.sleep(0.05)
    raise AssertionError("streams whose clients hung up are still counted")


def test_many_steps_are_each_told_once(new: Model) -> None:
    new.create(START)
    with listening(new.service, new.name) as stream:
        for sequence in range(1, 301):
            new.push({"w": [0.0]}, worker="a", sequence=sequence)
        steps = (told.data["step"] for told in iter(stream.next, None) if told and told.kind == "step")
        assert list(itertools.islice(steps, 300)) == list(range(1, 301))
