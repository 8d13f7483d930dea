"""Workers whose pushes wait for each other at two services on one Valkey, and time-outs that come once."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import urllib3

from tests.crash.external import External
from tests.service import Answer, Service

Pair = tuple[Service, Service]
LEASE_S = 1.5
GIVE_UP_S = 30.0


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Two services on one server, that keep the whole log of a short story."""
    home, slow = tmp_path_factory.mktemp("pair"), {"GRADLEDGER_SNAPSHOT_QUIET_S": "600"}
    with External(tmp_path_factory.mktemp("external")) as server:
        one = Service(home / "one", "--redis-url", server.url, **slow)
        two = Service(home / "two", "--redis-url", server.url, **slow)
        with one, two:
            yield one, two


def create(service: Service, model: str, **sync: Any) -> None:
    asked = {"optimizer": {"rule": "sgd", "lr": 1.0}, "parameters": {"w": [0.0]}, "sync": sync}
    assert service.request("PUT", f"/v1/models/{model}", asked).status == 201


def entries(service: Service, model: str) -> list[dict[str, Any]]:
    answer = service.request("GET", f"/v1/models/{model}/entries?limit=1000")
    listed: list[dict[str, Any]] = answer.json["entries"]
    assert listed[0]["offset"] == 1 or answer.json["saved_offset"] == 0
    return listed


def step(service: Service, model: str) -> int:
    return int(service.request("GET", f"/v1/models/{model}").json["step"])


class Trainee:
    """A member that pushes 1.0 and waits for its rounds; `services` take turns when one fails."""

    def __init__(self, model: str, name: str, services: Sequence[Service]) -> None:
        self.model, self.name, self.services = model, name, list(services)
        self.receipts: list[dict[str, Any]] = []
        self.failure: BaseException | None = None
        self.stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def join(self) -> Trainee:
        assert self._ask("POST", "/workers", {"worker": self.name}).status == 200
        return self

    def start(self) -> Trainee:
        self._thread.start()
        return self

    def finish(self) -> None:
        """It falls silent after the push at hand, as if it had died."""
        self.stopping.set()
        self._thread.join(GIVE_UP_S)
        assert not self._thread.is_alive(), f"{self.name} hangs"
        if self.failure is not None:
            raise self.failure

    def push(self) -> dict[str, Any]:
        """Its next push, sent until it has its fate; the receipt."""
        push = {"gradients": {"w": [1.0]}, "worker": self.name, "sequence": len(self.receipts) + 1}
        deadline = time.monotonic() + GIVE_UP_S
        while time.monotonic() < deadline:
            answer = self._ask("POST", "/gradients", push, Prefer="wait=5")
            if answer.status == 200:
                self.receipts.append(answer.json["receipt"])
                return self.receipts[-1]
            if answer.status == 409 and answer.problem == "not-a-member":
                self.join()
                continue
            assert answer.status == 202, answer
        raise AssertionError(f"a push of {self.name} hangs")

    def _ask(self, verb: str, path: str, body: Any, **headers: str) -> Answer:
        deadline = time.monotonic() + GIVE_UP_S
        while True:
            try:
                return self.services[0].request(verb, f"/v1/models/{self.model}{path}", body, **headers)
            except urllib3.exceptions.HTTPError:
                assert time.monotonic() < deadline
                self.services.reverse()
                time.sleep(0.02)

    def _run(self) -> None:
        try:
            while not self.stopping.is_set():
                self.push()
        except BaseException as failure:
            self.failure = failure


def members(pair: Pair, model: str, names: str) -> list[Trainee]:
    """Joined workers, at one service and the other by turns."""
    return [Trainee(model, name, pair[:: 1 if i % 2 else -1]).join() for i, name in enumerate(names)]


def require_one_truth(pair: Pair, model: str, workers: Sequence[Trainee]) -> None:
    """Each push is in the log once and has one fate; each time-out is there once; both hold the same bits."""
    listed = entries(pair[0], model)
    assert listed == entries(pair[1], model)
    pushed = Counter((e["worker"], e["sequence"]) for e in listed if e["kind"] == "push")
    assert set(pushed.values()) == {1}
    assert pushed.keys() >= {(w.name, r["sequence"]) for w in workers for r in w.receipts}
    closed = Counter(entry["round"] for entry in listed if entry["kind"] == "close")
    assert set(closed.values()) <= {1}, "one round, one close"
    by_round = Counter((r["round"], r["step"]) for w in workers for r in w.receipts if r["fate"] == "merged")
    assert len({made for _, made in by_round}) == len(by_round), "one round, one step"
    assert pair[0].state(model) == pair[1].state(model)


@pytest.mark.parametrize("mode", ["bsp", "quorum"])
def test_a_dead_worker_is_given_up_once_by_whichever_replica(pair: Pair, mode: str) -> None:
    model, more = f"dead-{mode}", {"quorum": 2, "grace_ms": 100} if mode == "quorum" else {}
    create(pair[0], model, mode=mode, lease_s=LEASE_S, **more)
    workers = members(pair, model, "abcd")
    for worker in workers:
        worker.start()
    time.sleep(1.0)
    workers[3].finish()
    died_at, at_step = time.monotonic(), step(pair[1], model)
    while step(pair[1], model) < at_step + 3:
        assert time.monotonic() < died_at + LEASE_S + 5, "the living wait for the dead"
        time.sleep(0.02)
    time.sleep(max(0.0, died_at + LEASE_S + 1 - time.monotonic()))
    for worker in workers[:3]:
        worker.stopping.set()
    for worker in workers[:3]:
        worker.finish()
    left = [e["worker"] for e in entries(pair[0], model) if e["kind"] == "leave" and e["worker"] == "d"]
    assert left == ["d"], "its lease runs out once, whosever alarm rang first"
    # Where the machine stalls for a lease the living are given up too, and that overtakes a push on its way.
    given_up = {e["worker"] for e in entries(pair[0], model) if e["kind"] == "leave"}
    for worker in workers:
        fates = {receipt["fate"] for receipt in worker.receipts}
        assert fates <= ({"merged", "rejected"} if worker.name in given_up - {"d"} else {"merged"})
    require_one_truth(pair, model, workers)


def test_who_waits_at_a_killed_replica_is_counted_once_at_the_other(pair: Pair) -> None:
    one, two = pair
    create(one, "killed", mode="bsp", lease_s=60)
    a, b, c = (
        Trainee("killed", name, services).join()
        for name, services in zip("abc", [pair, pair, (two,)], strict=True)
    )
    for turn in range(2):
        waiting = [threading.Thread(target=worker.push) for worker in (a, b)]
        for thread in waiting:
            thread.start()
        deadline = time.monotonic() + 10
        while len(two.request("GET", "/v1/models/killed/workers").json["round"]["waiting"]) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        one.kill()
        time.sleep(0.5 * turn)  # the others may have found the other replica by then, or not
        assert c.push()["fate"] == "merged"
        for thread in waiting:
            thread.join(GIVE_UP_S)
        one.start()
        for worker in (a, b):
            worker.services = [one, two]
        assert [w.receipts[-1]["step"] for w in (a, b, c)] == [turn + 1] * 3
    assert one.request("GET", "/v1/models/killed/parameters").json["parameters"] == {"w": [-2.0]}
    require_one_truth(pair, "killed", [a, b, c])


def test_a_grace_window_ends_though_the_replica_that_opened_it_is_killed(pair: Pair) -> None:
    one, _ = pair
    create(one, "window", mode="quorum", quorum=2, grace_ms=800, lease_s=60)
    a, b, c = (Trainee("window", name, pair).join() for name in "abc")
    waiting = [threading.Thread(target=worker.push) for worker in (a, b)]
    for thread in waiting:
        thread.start()
    time.sleep(0.4)
    one.kill()
    for thread in waiting:
        thread.join(GIVE_UP_S)
    one.start()
    assert [(w.receipts[0]["fate"], w.receipts[0]["step"]) for w in (a, b)] == [("merged", 1)] * 2
    assert c.receipts == []
    require_one_truth(pair, "window", [a, b])
