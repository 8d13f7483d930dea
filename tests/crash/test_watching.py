"""Events are the same at every replica, and outlive each of them."""

from __future__ import annotations

import time

from tests.api.listening import listening
from tests.crash.test_replicas import Pair, sgd
from tests.service import Service


def push(service: Service, model: str, sequence: int) -> None:
    gradient = {"gradients": {"w": [1.0, 1.0]}, "worker": "a", "sequence": sequence}
    assert service.request("POST", f"/v1/models/{model}/gradients", gradient).status == 200


def test_what_one_replica_appends_is_told_by_the_other(replicas: Pair) -> None:
    sgd(replicas[0], "watched")
    with listening(replicas[0], "watched") as one, listening(replicas[1], "watched") as two:
        ids = []
        for sequence in (1, 2, 3):
            push(replicas[sequence % 2], "watched", sequence)
            told = [stream.until("step")[-1] for stream in (one, two)]
            assert told[0] == told[1] and told[0].data["step"] == sequence
            ids.append(told[0].id)
    assert len(set(ids)) == 3


def test_a_stream_is_resumed_at_the_other_replica(replicas: Pair) -> None:
    sgd(replicas[0], "moved")
    with listening(replicas[0], "moved") as stream:
        push(replicas[0], "moved", 1)
        stream.until("step")
        last_id = stream.last_id
    with listening(replicas[1], "moved"):  # this one holds the model, so that it plays what comes
        push(replicas[0], "moved", 2)
        push(replicas[0], "moved", 3)
        with listening(replicas[1], "moved", last_id) as stream:
            assert [stream.until("step")[-1].data["step"] for _ in range(2)] == [2, 3]


def test_a_deletion_elsewhere_ends_the_stream(replicas: Pair) -> None:
    sgd(replicas[0], "gone")
    with listening(replicas[0], "gone") as stream:
        assert replicas[1].request("DELETE", "/v1/models/gone").status == 204
        assert stream.until("delete") and stream.next() is None


def test_a_stream_ends_when_the_service_drains_and_goes_on_after(own_service: Service) -> None:
    sgd(own_service, "drained")
    push(own_service, "drained", 1)
    with listening(own_service, "drained") as stream:
        began = time.monotonic()
        assert own_service.stop() == 0
        assert time.monotonic() - began < 8
        assert all(told.kind == "snapshot" for told in iter(stream.next, None) if told), "it ends cleanly"
        last_id = stream.last_id
    own_service.start()
    push(own_service, "drained", 2)
    with listening(own_service, "drained", last_id) as stream:
        assert [told.kind for told in stream.until("step")] == ["step"], "nothing was missed: no reset"
    with listening(own_service, "drained", "1") as stream:
        told = stream.next()
        assert told is not None and told.kind == "reset", "the snapshot holds what came before"
