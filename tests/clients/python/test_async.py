"""Pushes in the background: in order, one at a time, each counted once, with the bytes they had."""

from __future__ import annotations

from concurrent.futures import Future
from threading import Event, Thread
from typing import Any

import numpy as np
import pytest

from gradledger import Client, Model, Params, Receipt, errors
from tests.clients.python.faulty import LR, Service

Pushed = Future[tuple[Params, Receipt]]


def gradient(value: float = 1.0) -> dict[str, Any]:
    return {"b": np.full((2, 3), value), "w": np.full(4, value, np.float32)}


def test_the_caller_goes_on_while_the_push_is_on_its_way(faulty: Service, model: Model) -> None:
    faulty.faults.append("busy")  # for a while
    pushed = model.push_async(gradient(), base=0)
    assert not pushed.done()
    assert not pushed.cancel(), "it has a name: taking it back is not ours"
    params, receipt = pushed.result(10)
    np.testing.assert_array_equal(params["w"], np.full(4, -LR, np.float32))
    assert (receipt.step, receipt.sequence, receipt.base, model.step) == (1, 1, 0, 1)


def test_pushes_count_in_the_order_of_the_calls_and_go_one_at_a_time(faulty: Service, model: Model) -> None:
    faulty.faults.extend(["busy", "lose-answer", "busy"])
    pushed: list[Pushed] = []
    for turn in range(6):
        pushed.append(model.push_async(gradient(float(turn)), base=0))
        assert all(before.done() for before in pushed[:-1]), "the one before was waited for"
    assert [each.result(10)[1].sequence for each in pushed] == [1, 2, 3, 4, 5, 6]
    assert model.push(gradient())[1].sequence == 7
    assert faulty.models["demo"].step == 7


@pytest.mark.parametrize("fault", ["lose-request", "lose-answer", "cut-answer", "stall", "busy", "proxy"])
def test_every_fault_ends_in_one_update(faulty: Service, model: Model, fault: str) -> None:
    faulty.faults.append(fault)
    assert model.push_async(gradient()).result(10)[1].step == 1
    tries = faulty.pushes()
    assert len(tries) == 2 and tries[0] == tries[1]


def test_a_copy_may_be_changed_at_once(faulty: Service, model: Model) -> None:
    faulty.faults.append("busy")
    grads = gradient()
    pushed = model.push_async(grads, copy=True)
    for array in grads.values():
        array.fill(np.nan)
    params, _ = pushed.result(10)
    np.testing.assert_array_equal(params["w"], np.full(4, -LR, np.float32))
    tries = faulty.pushes()
    assert len(tries) == 2 and tries[0] == tries[1]


def test_what_goes_wrong_is_in_the_future_and_takes_no_sequence(faulty: Service, model: Model) -> None:
    refused = model.push_async(gradient(np.nan))
    with pytest.raises(errors.NonFinite, match="NaN in w"):
        refused.result(10)
    with pytest.raises(TypeError, match="cast it to float32"):
        model.push_async({"w": np.array(["a"])}).result(10)
    assert model.push_async(gradient()).result(10)[1].sequence == 1


def test_who_hears_of_an_answer_may_push_again(model: Model) -> None:
    again: list[Receipt] = []
    done = Event()

    def push_again(_: Pushed) -> None:
        again.append(model.push_only(gradient()))
        done.set()

    model.push_async(gradient()).add_done_callback(push_again)
    assert done.wait(10)
    assert [receipt.sequence for receipt in again] == [2]


def test_it_reads_into_given_arrays(model: Model) -> None:
    rooms: list[Params] = [{"w": np.empty(4, np.float32), "b": np.empty((2, 3))} for _ in range(2)]
    for turn in range(4):
        params, receipt = model.push_async(gradient(), base=turn, out=rooms[turn % 2]).result(10)
        assert params["w"] is rooms[turn % 2]["w"]
        assert (receipt.staleness, params["w"].tolist()) == (0, [-LR * (turn + 1)] * 4)
    assert rooms[0]["w"].tolist() == [-LR * 3] * 4, "the other one is left alone"


def test_what_is_begun_is_sent_also_if_the_client_ends_first(
    client: Client, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has its name, and whoever leaves the `with` block at once means it as much as others."""
    closed = Event()

    class Late(Thread):
        def run(self) -> None:
            assert closed.wait(10)
            super().run()

    monkeypatch.setattr("gradledger.outbox.threading.Thread", Late)
    pushed = model.push_async(gradient())
    client.close()
    closed.set()
    assert pushed.result(10)[1].step == 1
