"""SIGKILL at random moments: what was acknowledged is applied, once, and nothing else is.

The service dies in odd rounds and its Valkey in even ones, while workers push to a model whose gradients ride
inside their entries and to one whose gradients are sent ahead in chunks. A kill leaves the page cache alone,
so this says nothing about power cuts; durability `fsync` does.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from tests.crash.external import External
from tests.crash.load import LARGE, MIDDLING, SMALL, Worker, check
from tests.service import SAFETENSORS, Service, gone, normal

ROUNDS = int(os.environ.get("GRADLEDGER_CRASH_ROUNDS", "12"))
SEED = int(os.environ.get("GRADLEDGER_CRASH_SEED", "20260801"))
TARGETS = (SMALL, MIDDLING, LARGE)


def wait_until(true: Callable[[], bool], within_s: float) -> None:
    """Waits for `true()`; fails when it takes longer."""
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline, f"not within {within_s} s"
        time.sleep(0.02)


def wait_until_progress(workers: list[Worker]) -> None:
    """Waits until another push is acknowledged."""
    before = sum(len(worker.pushed) for worker in workers)

    def progress() -> bool:
        for worker in workers:
            worker.raise_failure()
        return sum(len(worker.pushed) for worker in workers) > before

    wait_until(progress, 30)


def kill_valkey(service: Service) -> int:
    pid = service.valkey_pid()
    os.kill(pid, signal.SIGKILL)
    return pid


@pytest.mark.timeout(60 + 15 * ROUNDS)
def test_nothing_acknowledged_is_lost_or_repeated_however_often_things_are_killed(
    tmp_path: Path,
) -> None:
    dice = random.Random(SEED)
    # Saved after a tenth of a second of quiet: kills fall into snapshots, too.
    with Service(tmp_path / "data", GRADLEDGER_SNAPSHOT_QUIET_S="0.1") as service:
        workers: dict[str, list[Worker]] = {}
        for target in TARGETS:
            target.create(service)
            workers[target.name] = [Worker(target, number, [service]).start() for number in range(3)]
        for turn in range(1, ROUNDS + 1):
            time.sleep(dice.uniform(0.05, 0.7))
            if turn % 2:
                service.kill()
                service.start()
            else:
                kill_valkey(service)
            for its in workers.values():
                wait_until_progress(its)
        for its in workers.values():
            for worker in its:
                worker.finish()
        pushed = {target.name: check(service, target, workers[target.name]) for target in TARGETS}
        retries = sum(worker.retries for its in workers.values() for worker in its)
        slowest_s = max(worker.slowest_s for its in workers.values() for worker in its)
        print(f"\n{ROUNDS} kills: {pushed} pushes, {retries} retries, the slowest took {slowest_s:.1f} s")
        assert min(pushed.values()) > 4 * ROUNDS  # they went on between the kills, however slow the machine
        assert retries > ROUNDS

        service.kill()  # and once more, for what recovery makes of the whole of it
        service.start()
        for target in TARGETS:
            check(service, target, workers[target.name])


def test_sigterm_under_load_drains_and_exits_cleanly(own_service: Service) -> None:
    SMALL.create(own_service)
    workers = [Worker(SMALL, number, [own_service]).start() for number in range(4)]
    wait_until(lambda: min(len(worker.pushed) for worker in workers) > 20, 20)
    valkey = own_service.valkey_pid()
    assert own_service.stop() == 0
    assert gone(valkey)
    own_service.start()
    for worker in workers:
        worker.finish()
    check(own_service, SMALL, workers)


def test_the_embedded_server_does_not_outlive_a_killed_service(own_service: Service) -> None:
    valkey = own_service.valkey_pid()
    own_service.kill()
    wait_until(lambda: gone(valkey), 5)


def test_a_killed_service_starts_again_at_once_on_the_same_data(own_service: Service) -> None:
    sgd(own_service)
    for sequence in range(1, 4):
        pushed = own_service.push("m", {"w": normal((2,), sequence)}, worker="a", sequence=sequence)
        assert pushed.status == 200
        before = own_service.state("m")
        own_service.kill()
        own_service.start()
        assert own_service.state("m") == before
        again = own_service.push("m", {"w": normal((2,), sequence)}, worker="a", sequence=sequence)
        assert again.receipt == {**pushed.receipt, "replayed": True}


def test_two_services_cannot_have_the_same_data_directory(own_service: Service) -> None:
    """The second start neither joins nor harms the first."""
    other = Service(own_service.data_dir)
    with pytest.raises(AssertionError, match="did not start"):
        other.start()
    assert own_service.request("GET", "/readyz").status == 200


def test_the_embedded_valkey_killed_comes_back_by_itself(own_service: Service) -> None:
    """Whoever pushes meanwhile is told to try again, or has to wait a little; nobody starts anything."""
    sgd(own_service)
    assert own_service.push("m", {"w": normal((2,), 1)}, worker="a", sequence=1).status == 200
    killed = kill_valkey(own_service)
    deadline = time.monotonic() + 20
    while (answer := own_service.push("m", {"w": normal((2,), 2)}, worker="a", sequence=2)).status != 200:
        assert (answer.status, answer.problem) == (503, "store-unavailable")
        assert int(answer.headers["retry-after"]) >= 1
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert answer.receipt["step"] == 2
    assert own_service.valkey_pid() != killed
    assert own_service.request("GET", "/v1/models/m").json["step"] == 2


@pytest.mark.parametrize("elements", [2, 1 << 18], ids=["inline", "staged"])
def test_while_an_external_server_is_away_pushes_get_503_and_afterwards_they_succeed(
    tmp_path: Path, elements: int
) -> None:
    home = tmp_path / "valkey"
    home.mkdir()
    with External(home) as server, Service(tmp_path / "s", "--redis-url", server.url) as service:
        sgd(service, elements)
        assert service.push("m", {"w": normal((elements,), 1)}, worker="a", sequence=1).status == 200
        before = service.state("m")

        server.kill()
        for _ in range(3):
            refused = service.push("m", {"w": normal((elements,), 2)}, worker="a", sequence=2)
            assert (refused.status, refused.problem) == (503, "store-unavailable")
            assert int(refused.headers["retry-after"]) >= 1
        pulled = service.request("GET", "/v1/models/m/parameters")
        assert (pulled.status, pulled.problem) == (503, "store-unavailable")
        assert service.request("GET", "/livez").status == 200
        assert service.request("GET", "/readyz").status == 503

        server.start()
        assert service.request("GET", "/readyz").status == 200
        assert service.state("m") == before  # what was refused left nothing behind
        accepted = service.push("m", {"w": normal((elements,), 2)}, worker="a", sequence=2)
        assert (accepted.status, accepted.receipt["step"], accepted.receipt["replayed"]) == (200, 2, False)


def sgd(service: Service, elements: int = 2) -> None:
    """A model `m` with so many zeros."""
    asked = {"optimizer": {"rule": "sgd", "lr": 1.0}, "parameters": {"w": {"shape": [elements]}}}
    assert service.request("PUT", "/v1/models/m", asked).status == 201
    zeros = save({"w": np.zeros(elements, np.float32)})
    assert service.request("PUT", "/v1/models/m/parameters", zeros, Content_Type=SAFETENSORS).status == 200
