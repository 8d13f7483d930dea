"""Server-Timing: where a push's time went, and that nothing of it is missing."""

from __future__ import annotations

import http.client
import time
from statistics import median

import numpy as np
import pytest
from safetensors.numpy import save

from gradledger_server.replica.laps import STOPS, Laps
from gradledger_server.store import MemoryStore
from tests.api.talk import Model
from tests.replica.world import World
from tests.service import SAFETENSORS, Answer, Service

LARGE = 4 << 20  # elements
ALWAYS = [stop for stop in STOPS if stop != "wait"]


def timing_ms(header: str) -> dict[str, float]:
    """Milliseconds by stop."""
    parts = [part.split(";dur=") for part in header.split(", ")]
    return {stop: float(ms) for stop, ms in parts}


def told(answer: Answer) -> list[str]:
    """The stops an answer names, in its order."""
    timing = timing_ms(answer.headers["server-timing"])
    assert all(ms >= 0 for ms in timing.values())
    return list(timing)


def test_every_push_says_where_its_time_went(model: Model) -> None:
    gradient = {name: np.ones(np.shape(value), np.float32) for name, value in model.pull().items()}
    nested = {name: array.tolist() for name, array in gradient.items()}
    etag = model.describe()["etag"]
    assert told(model.push(nested, headers={"If_Match": etag})) == ALWAYS
    assert told(model.push(nested, worker="w", sequence=1)) == ALWAYS
    assert told(model.push(nested, worker="w", sequence=1)) == ALWAYS, "a repeat has its own"
    assert told(model.push_bytes(gradient)) == ALWAYS
    assert told(model.push_bytes(gradient, Prefer="return=minimal")) == ALWAYS


def test_waiting_for_others_is_a_stop_of_its_own(new: Model) -> None:
    new.create({"w": [0.0]}, sync={"mode": "bsp", "workers": 2})
    push = {"gradients": {"w": [1.0]}, "worker": "a", "sequence": 1}
    waited = new.send("POST", "/gradients", push, Prefer="wait=1")
    assert waited.status == 202
    assert told(waited) == list(STOPS)
    timing = timing_ms(waited.headers["server-timing"])
    assert timing["wait"] > 0.9 * sum(timing.values())
    assert told(new.push({"w": [1.0]}, worker="b", sequence=1)) == ALWAYS


def test_the_stops_add_up_to_what_the_client_measures(new: Model) -> None:
    new.create({"w": {"shape": [LARGE]}}, {"rule": "adam", "lr": 0.01})
    gradient = save({"w": np.ones(LARGE, np.float32)})
    new.send("PUT", "/parameters", gradient, Content_Type=SAFETENSORS)
    shares = [share_told(new.service, f"{new.path}/gradients", gradient) for _ in range(9)]
    assert 0.9 < median(shares) <= 1.0


def share_told(service: Service, path: str, body: bytes) -> float:
    """The part of the time from the request's first byte to the answer's head that the answer explains."""
    line = http.client.HTTPConnection("127.0.0.1", service.port)
    line.connect()
    began = time.perf_counter()
    line.request("POST", path, body, {"Content-Type": SAFETENSORS})
    answer = line.getresponse()
    took_ms = 1e3 * (time.perf_counter() - began)
    header = answer.headers["Server-Timing"]
    assert answer.status == 200
    line.close()
    return sum(timing_ms(header).values()) / took_ms


def test_pushes_committed_together_tell_their_own_updates() -> None:
    world = World(MemoryStore())
    zeros = {"w": np.zeros(LARGE // 2, np.float32)}
    world.create("m", {"w": (LARGE // 2,)}, zeros, optimizer={"rule": "adam", "lr": 0.01})
    world.push("m", zeros)
    drafts = [world.draft("m", zeros) for _ in range(4)]
    began = time.perf_counter()
    world.commit("m", drafts)
    took_ms = 1e3 * (time.perf_counter() - began)
    timings = [timing_ms(draft.laps.header) for draft in drafts]
    assert sum(timing["apply"] for timing in timings) < 1.1 * took_ms, "not each the whole batch's"
    assert all(sum(timing.values()) > 0.9 * took_ms for timing in timings), "yet nothing is missing"
    assert all(timing["queue"] > timing["apply"] for timing in timings[:1] + timings[-1:])


def test_a_lap_that_is_run_twice_counts_both_times(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([0, 1_000_000, 3_000_000, 7_000_000])
    monkeypatch.setattr("gradledger_server.replica.laps.perf_counter_ns", lambda: next(ticks))
    laps = Laps()
    laps.end("queue")
    laps.end("receive")
    laps.end("queue")
    assert laps.header == "receive;dur=2.000, queue;dur=5.000"
