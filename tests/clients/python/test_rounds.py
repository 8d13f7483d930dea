"""The client where pushes wait for each other, on a real service."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from gradledger import Client, Model, errors
from tests.clients.python.faulty import Service as Faulty
from tests.service import Service

_numbers = itertools.count(1)


@pytest.fixture
def running(service: Service) -> Iterator[Client]:
    with Client(service.url) as client:
        yield client


def model(client: Client, **sync: Any) -> Model:
    params = {"w": np.full(1, 8.0, np.float32)}
    spec = {"mode": "bsp", **sync}
    return client.create(f"client-rounds.{next(_numbers)}", params, {"rule": "sgd", "lr": 1}, sync=spec)


def gradient(value: float) -> dict[str, Any]:
    return {"w": np.full(1, value, np.float32)}


def test_members_push_together_and_get_one_answer(running: Client) -> None:
    first = model(running)
    workers = [first, running.model(first.name), running.model(first.name)]
    for number, worker in enumerate(workers):
        membership = worker.join(f"w{number}")
        assert (membership.worker, membership.next_sequence, worker.worker) == (f"w{number}", 1, f"w{number}")
    with ThreadPoolExecutor(3) as pool:
        for turn in (1, 2):
            pushed = [pool.submit(w.push, gradient(2.0), base=turn - 1, wait_s=20) for w in workers]
            answers = [push.result() for push in pushed]
            assert {(receipt.fate, receipt.step, receipt.round) for _, receipt in answers} == {
                ("merged", turn, turn - 1)
            }
            assert [params["w"].tolist() for params, _ in answers] == [[8.0 - 2.0 * turn]] * 3


def test_a_push_that_still_waits_says_so_and_its_fate_can_be_asked(running: Client) -> None:
    a = model(running)
    b = running.model(a.name)
    a.join("a")
    b.join("b")
    params, receipt = a.push(gradient(1.0))
    assert (receipt.fate, receipt.sequence, params["w"].tolist()) == ("waiting", 1, [8.0])
    assert a.workers()["round"]["waiting"] == ["a"]
    with pytest.raises(errors.WorkerAhead, match="waits for round 0"):
        a.push(gradient(1.0))
    with ThreadPoolExecutor(1) as pool:
        fate = pool.submit(a.fate, 1, wait_s=20)
        assert b.push_only(gradient(3.0), wait_s=20).fate == "merged"
        assert (fate.result().fate, fate.result().step) == ("merged", 1)
    assert b.fate(1, worker="a") == fate.result()
    assert a.push_only(gradient(1.0)).sequence == 2
    with pytest.raises(errors.ReceiptNotFound):
        a.fate(9)


def test_waiting_takes_no_longer_than_asked(running: Client) -> None:
    a = model(running)
    a.join("a")
    running.model(a.name).join("absent")
    began = time.monotonic()
    assert a.push_only(gradient(1.0), wait_s=0.4).fate == "waiting"
    assert 0.9 < time.monotonic() - began < 5, "whole seconds"


def test_who_has_not_joined_is_told(running: Client) -> None:
    a = model(running)
    a.join("a")
    stranger = running.model(a.name, "stranger")
    with pytest.raises(errors.NotAMember, match="Join with POST"):
        stranger.push(gradient(1.0))
    stranger.join()
    assert stranger.push_only(gradient(1.0)).fate == "waiting", "the refusal took no sequence"


def test_leaving_closes_the_round_for_those_who_stay(running: Client) -> None:
    a = model(running)
    a.join("a")
    b = running.model(a.name)
    with ThreadPoolExecutor(1) as pool, b.join("b"):
        pushed = pool.submit(a.push, gradient(1.0), wait_s=20)
        while a.workers()["round"]["waiting"] != ["a"]:
            time.sleep(0.02)
    assert pushed.result()[1].fate == "merged"
    with pytest.raises(errors.NotAMember):
        b.push(gradient(1.0))


def test_a_worker_continues_where_it_was(running: Client) -> None:
    a = model(running)
    a.join("a")
    a.push(gradient(1.0), wait_s=20)
    again = running.model(a.name)
    assert again.join("a").next_sequence == 2
    assert again.push_only(gradient(1.0), wait_s=20).step == 2


def test_a_heartbeat_outlives_the_lease_and_its_absence_does_not(running: Client) -> None:
    alive = model(running, lease_s=0.5)
    silent = running.model(alive.name)
    membership = alive.join("alive", heartbeat=True)
    lapsed = silent.join("silent")
    time.sleep(1.3)
    standing = {each["worker"]: each["membership"] for each in alive.workers()["workers"]}
    assert standing.get("alive") == "member" and standing.get("silent") is None
    with pytest.raises(errors.NotAMember):
        silent.push(gradient(1.0))
    assert lapsed.renew()["membership"] == "member", "a renewal joins anew"
    membership.leave()
    membership.leave()
    time.sleep(0.3)
    standing = {each["worker"]: each["membership"] for each in silent.workers()["workers"]}
    assert standing.get("alive") is None, "no beat after the farewell"


def test_a_stale_gradient_takes_no_sequence(running: Client) -> None:
    a = model(running, mode="async", staleness={"max": 1})
    for _ in range(2):
        a.push(gradient(1.0))
    b = running.model(a.name, "b")
    with pytest.raises(errors.StaleGradient) as refused:
        b.push(gradient(1.0), base=0)
    assert (refused.value.problem["staleness"], refused.value.problem["allowed"]) == (2, 1)
    assert b.push(gradient(1.0), base=2)[1].sequence == 1


def test_a_retry_keeps_its_patience(faulty: Faulty, client: Client) -> None:
    known = client.create("demo", {"w": np.zeros(1, np.float32)}, "sgd")
    faulty.faults.extend(["lose-answer", "lose-request"])
    _, receipt = known.push(gradient(1.0), wait_s=1)
    assert receipt.replayed and faulty.models["demo"].step == 1
    tries = faulty.pushes()
    assert len(tries) == 3 and all(each == tries[0] for each in tries)


def test_a_heartbeat_ends_with_the_client(service: Service) -> None:
    with Client(service.url) as client:
        membership = model(client, lease_s=0.3).join(heartbeat=True)
    pulse = next(each for each in threading.enumerate() if each.name == f"lease of {membership.worker}")
    pulse.join(10)
    assert not pulse.is_alive()
    with pytest.raises(errors.ClientClosed):
        membership.renew()
    with pytest.raises(KeyError), membership:  # that it cannot leave matters less
        raise KeyError
