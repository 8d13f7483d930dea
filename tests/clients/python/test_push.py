"""A push counts once, whatever happens to the request or to its answer."""

from __future__ import annotations

import multiprocessing
import threading
import time
from typing import Any

import numpy as np
import pytest

from gradledger import Client, ConnectionFailed, Model, errors
from tests.clients.python.faulty import LR, Service

PUSHES = 20


def gradient(value: float = 1.0) -> dict[str, Any]:
    return {"b": np.full((2, 3), value), "w": np.full(4, value, np.float32)}


def test_a_push_answers_the_new_parameters_and_a_receipt(faulty: Service, model: Model) -> None:
    params, receipt = model.push(gradient())
    np.testing.assert_array_equal(params["w"], np.full(4, -LR, np.float32))
    assert (receipt.fate, receipt.step, receipt.sequence, receipt.base, receipt.staleness) == (
        "applied",
        1,
        1,
        0,
        0,
    )
    assert receipt.worker == model.worker
    assert not receipt.replayed
    assert receipt.extra == {"colour": "green"}
    assert model.step == 1
    _, receipt = model.push(gradient(), base=0, weight=2.0)
    assert (receipt.sequence, receipt.staleness) == (2, 1)
    assert faulty.pushes()[-1][2]["weight"] == "2.0"


def test_push_only_answers_the_receipt_alone(model: Model) -> None:
    receipt = model.push_only(gradient())
    assert (receipt.step, model.step) == (1, 0)
    assert model.pull()["w"][0] == -LR


@pytest.mark.parametrize(
    "faults",
    [
        ["lose-request"],
        ["lose-answer"],
        ["cut-answer"],
        ["stall"],
        ["busy"],
        ["too-many"],
        ["proxy"],
        ["lose-answer", "lose-request", "busy", "cut-answer"],
    ],
)
def test_every_fault_ends_in_one_update(faulty: Service, model: Model, faults: list[str]) -> None:
    model.push(gradient())
    faulty.faults.extend(faults)
    params, receipt = model.push(gradient(2.0))
    assert faulty.models["demo"].step == 2
    assert receipt.step == 2
    assert receipt.replayed == any(fault in ("lose-answer", "cut-answer", "stall") for fault in faults)
    np.testing.assert_array_equal(params["w"], np.full(4, -3 * LR, np.float32))
    tries = faulty.pushes()[1:]
    assert len(tries) == len(faults) + 1
    assert all(each == tries[0] for each in tries), "a retry must repeat name and bytes"
    assert model.push(gradient())[1].sequence == 3


def test_retry_after_is_honoured(faulty: Service, model: Model) -> None:
    faulty.faults.append("busy")
    start = time.monotonic()
    model.push(gradient())
    assert time.monotonic() - start >= 0.3


def test_a_refusal_is_not_retried_and_takes_no_sequence(faulty: Service, model: Model) -> None:
    with pytest.raises(errors.NonFinite, match="NaN in w") as caught:
        model.push(gradient(np.nan))
    assert (caught.value.status, caught.value.request_id, caught.value.tries) == (422, "r-7", 1)
    assert caught.value.problem["type"] == "/problems/non-finite"
    assert len(faulty.pushes()) == 1
    assert model.push(gradient())[1].sequence == 1


@pytest.mark.parametrize(("fault", "steps"), [("lose-answer", 2), ("lose-request", 1)])
def test_after_giving_up_the_next_push_finds_out_what_happened(
    faulty: Service, fault: str, steps: int
) -> None:
    with Client(faulty.url, retry_for_s=0) as client:
        model = client.create("demo", {"w": np.zeros(2, np.float32)}, "sgd")
        faulty.faults.append(fault)
        with pytest.raises(ConnectionFailed):
            model.push({"w": np.ones(2, np.float32)})
        _, receipt = model.push({"w": np.full(2, 5, np.float32)})
    assert not receipt.replayed
    assert receipt.step == faulty.models["demo"].step == steps
    assert receipt.sequence == steps


def test_a_named_worker_goes_on_counting_where_it_stopped(
    faulty: Service, client: Client, model: Model
) -> None:
    first = client.model("demo", worker="w0")
    assert [first.push_only(gradient()).sequence for _ in range(3)] == [1, 2, 3]
    assert client.model("demo", worker="w0").push_only(gradient()).sequence == 4
    assert client.model("demo", worker="w1").push_only(gradient()).sequence == 1


def test_a_lost_acknowledged_push_is_an_error_and_then_over(faulty: Service, model: Model) -> None:
    model.push(gradient())
    model.push(gradient())
    faulty.models["demo"].pushed[model.worker].pop()
    with pytest.raises(errors.SequenceGap) as caught:
        model.push(gradient())
    assert caught.value.problem["expected"] == 2
    assert model.push(gradient())[1].sequence == 2


def test_two_processes_under_one_name_are_noticed(client: Client, model: Model) -> None:
    one, other = client.model("demo", worker="w0"), client.model("demo", worker="w0")
    one.push(gradient(1.0))
    other.push(gradient(2.0))
    with pytest.raises(errors.SequenceReused):
        one.push(gradient(3.0))
    assert one.push(gradient(3.0))[1].sequence == 3


def test_threads_take_turns(faulty: Service, model: Model) -> None:
    sequences: list[int | None] = []

    def work() -> None:
        sequences.extend(model.push(gradient())[1].sequence for _ in range(10))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(each or 0 for each in sequences) == list(range(1, 41))
    assert faulty.models["demo"].step == 40


def _push_often(model: Model, answers: Any) -> None:
    sequences = [model.push_only(gradient()).sequence for _ in range(PUSHES)]
    answers.put((model.worker, sequences))


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_counts_under_a_name_of_its_own(faulty: Service, model: Model) -> None:
    model.push(gradient())
    fork = multiprocessing.get_context("fork")
    answers = fork.SimpleQueue()
    children = [fork.Process(target=_push_often, args=(model, answers)) for _ in range(2)]
    for child in children:
        child.start()
    told = [(model.worker, [1, *(model.push_only(gradient()).sequence for _ in range(PUSHES - 1))])]
    told += [answers.get() for _ in children]
    for child in children:
        child.join()
    assert {name for name, _ in told} == set(faulty.models["demo"].pushed)
    assert [sequences for _, sequences in told] == [list(range(1, PUSHES + 1))] * 3
    assert faulty.models["demo"].step == 3 * PUSHES
    assert faulty.connections == 3


def test_tries_end_when_their_time_is_over(faulty: Service, model: Model) -> None:
    with Client(faulty.url, retry_for_s=0.4) as client:
        patient = client.model("demo")
        faulty.faults.extend(["lose-request"] * 50)
        start = time.monotonic()
        with pytest.raises(ConnectionFailed, match=r"\(\d tries\)") as caught:
            patient.push(gradient())
        assert time.monotonic() - start < 2
        assert caught.value.tries > 2
        faulty.faults.clear()
        faulty.faults.extend(["busy", "busy"])
        with pytest.raises(errors.StoreUnavailable, match="Valkey is away"):
            patient.push(gradient())


def test_the_second_tensor_order_is_the_services(faulty: Service, client: Client, model: Model) -> None:
    model.push({"w": np.ones(4, np.float32), "b": np.ones((2, 3))})
    model.push({"b": np.ones((2, 3)), "w": np.ones(4, np.float32)})
    first, second = faulty.pushes()
    assert first[3] == second[3]
