"""Several service processes on one port: any of them may die, and all of them end together."""

from __future__ import annotations

import http.client
import json
import re
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import pytest
import urllib3

from gradledger_server.replica.bell import POLL_S
from tests.crash.load import SMALL, Target, Worker, check
from tests.crash.test_rounds_on_replicas import Trainee, create
from tests.service import Service

COUNT = 3
APPLIED, HELD = 'gradledger_pushes_total{fate="applied"}', "gradledger_models_in_memory"
GIVE_UP_S = 60.0


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service of three processes for tests that leave it running."""
    yield from serving(tmp_path_factory.mktemp("several"), COUNT)


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Service]:
    """A service of two processes for a test that ends it."""
    yield from serving(tmp_path / "data", 2)


def serving(data_dir: Path, count: int) -> Iterator[Service]:
    with Service(data_dir, "--workers", str(count), GRADLEDGER_SNAPSHOT_QUIET_S="0.2") as running:
        wait_until(lambda: is_whole(running, count))
        yield running


def is_whole(service: Service, count: int) -> bool:
    """Whether all of its processes serve, as each says when it does."""
    living, told = processes(service), "".join(service.output)
    return len(living) == count and all(f"Started server process [{each.pid}]" in told for each in living)


def processes(service: Service) -> list[psutil.Process]:
    """Those that serve, of the service's children."""
    assert service.process is not None
    return [child for child in psutil.Process(service.process.pid).children() if serves(child)]


def serves(child: psutil.Process) -> bool:
    """Whether it is a serving process; one that ends at this moment is none."""
    try:
        return bool(child.status() != psutil.STATUS_ZOMBIE and child.cmdline()[-1:] == ["replica"])
    except psutil.NoSuchProcess:
        return False


def wait_until(holds: Callable[[], Any]) -> None:
    deadline = time.monotonic() + GIVE_UP_S
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def is_ready(service: Service) -> bool:
    """Asked on a connection of its own, which any of the processes may take."""
    return urllib3.request("GET", f"{service.url}/readyz", retries=False, timeout=10).status == 200


def told(service: Service, metric: str) -> float:
    """A metric's value, 0 if there is none yet."""
    text = service.request("GET", "/metrics").data.decode()
    found = re.search(rf"(?m)^{re.escape(metric)} (\S+)$", text)
    return float(found[1]) if found else 0.0


def test_a_process_killed_under_load_loses_nothing(several: Service) -> None:
    targets = [Target(f"many{number}", {"w": (50, 20)}, SMALL.optimizer) for number in range(5)]
    for target in (SMALL, *targets):
        target.create(several)
    # Each of the many has one worker; the small one is shared, and so is the one whose rounds need everybody.
    own = [Worker(target, number, [several]) for number, target in enumerate(targets)]
    shared = [Worker(SMALL, number, [several]) for number in range(4)]
    create(several, "together", mode="bsp", lease_s=60)
    trainees = [Trainee("together", name, [several]).join() for name in "abc"]
    everybody: list[Worker | Trainee] = [*own, *shared, *trainees]
    for each in everybody:
        each.start()
    for _ in range(2):
        time.sleep(1.0)
        wait_until(lambda: is_whole(several, COUNT))
        processes(several)[0].kill()
        answered = []
        for _ in range(20):  # one of them may have taken a connection and died with it, no more than one
            try:
                answered.append(is_ready(several))
            except urllib3.exceptions.HTTPError:
                answered.append(False)
        assert answered.count(False) <= 1
    wait_until(lambda: is_whole(several, COUNT))
    time.sleep(1.0)
    for worker in (*own, *shared):
        worker.finish()
    disband(several, "together", trainees)
    for worker in own:
        assert check(several, worker.target, [worker]) > 10
    assert check(several, SMALL, shared) > 40
    check_rounds(several, "together", trainees)


def test_connections_are_shared_out_evenly_also_after_a_death(several: Service) -> None:
    """Of 24 that come a moment apart, one process would get nearly all, were it not told of the others."""
    wait_until(lambda: is_whole(several, COUNT))
    killed = processes(several)[1]
    killed.kill()
    killed.wait(GIVE_UP_S)
    wait_until(lambda: is_whole(several, COUNT))
    with ExitStack() as opened:
        for _ in range(24):
            line = opened.enter_context(closing(http.client.HTTPConnection("127.0.0.1", several.port)))
            line.request("GET", "/healthz")
            assert line.getresponse().read()
            time.sleep(0.01)
        held = [served_by(each, several.port) for each in processes(several)]
        assert sum(held) >= 24 and max(held) - min(held) <= 4, held


def served_by(process: psutil.Process, port: int) -> int:
    """The connections to the port that a process holds."""
    found = process.net_connections("tcp")
    return sum(each.status == psutil.CONN_ESTABLISHED and each.laddr.port == port for each in found)


def disband(service: Service, model: str, trainees: list[Trainee]) -> None:
    """All finish after the push at hand, and whoever has leaves, so that the others' rounds can close."""
    for trainee in trainees:
        trainee.stopping.set()

    def gone(trainee: Trainee) -> bool:
        if trainee._thread.is_alive():
            return False
        service.request("DELETE", f"/v1/models/{model}/workers/{trainee.name}")
        return True

    wait_until(lambda: all(list(map(gone, trainees))))
    for trainee in trainees:
        trainee.finish()


def check_rounds(service: Service, model: str, trainees: list[Trainee]) -> None:
    """Each push counted in one round, each round made one step, and no step is missing."""
    steps = [[receipt["step"] for receipt in trainee.receipts] for trainee in trainees]
    assert all(made == list(range(1, len(made) + 1)) for made in steps)
    last = max(made[-1] for made in steps)
    assert last > 10
    seen = service.request("GET", f"/v1/models/{model}/parameters").json
    assert (seen["step"], seen["parameters"]) == (last, {"w": [-float(last)]})


def test_a_round_is_answered_soon_wherever_it_is_closed(several: Service) -> None:
    """Who waits at one process hears of a push to another one long before the next regular poll."""
    create(several, "near", mode="bsp", workers=2)
    late_s = []
    with ExitStack() as opened, ThreadPoolExecutor(1) as thread:
        waits_at, closes_at = lines_to_two_processes(several, opened)
        for sequence in range(1, 12):
            waits = thread.submit(push_and_wait, waits_at, "near", "a", sequence)
            time.sleep(0.03)
            push_and_wait(closes_at, "near", "b", sequence)
            closed_at = time.monotonic()
            late_s.append(waits.result() - closed_at)
    assert median(late_s) < POLL_S / 3


def lines_to_two_processes(service: Service, opened: ExitStack) -> list[http.client.HTTPConnection]:
    """Two connections that two different processes have taken."""
    taken: dict[int, http.client.HTTPConnection] = {}

    def found() -> bool:
        line = opened.enter_context(closing(http.client.HTTPConnection("127.0.0.1", service.port)))
        line.request("GET", "/livez")
        line.getresponse().read()
        ours = line.sock.getsockname()
        for process in processes(service):
            if ours in [connection.raddr for connection in process.net_connections("tcp4")]:
                taken[process.pid] = line
        return len(taken) >= 2

    wait_until(found)
    return list(taken.values())[:2]


def push_and_wait(line: http.client.HTTPConnection, model: str, worker: str, sequence: int) -> float:
    """When the push's round was over."""
    body = {"gradients": {"w": [1.0]}, "worker": worker, "sequence": sequence}
    headers = {"Content-Type": "application/json", "Prefer": "wait=20"}
    line.request("POST", f"/v1/models/{model}/gradients", json.dumps(body), headers)
    answer = line.getresponse()
    assert (answer.status, bool(answer.read())) == (200, True)
    return time.monotonic()


def test_sigterm_answers_who_waits_and_ends_everything(pair: Service) -> None:
    SMALL.create(pair)
    worker = Worker(SMALL, 1, [pair]).start()
    time.sleep(0.5)
    worker.finish()
    state = pair.state("small")
    etag = pair.request("GET", "/v1/models/small/parameters").headers["etag"]
    with ThreadPoolExecutor(6) as threads:
        waiting = [
            threads.submit(
                pair.request, "GET", "/v1/models/small/parameters", If_None_Match=etag, Prefer="wait=50"
            )
            for _ in range(6)
        ]
        time.sleep(0.5)
        left = [*processes(pair), *psutil.Process(pair.process.pid).children()]  # type: ignore[union-attr]
        assert pair.stop() == 0
        assert {answer.result().status for answer in waiting} <= {200, 304}
    assert not [process for process in left if process.is_running()]
    with Service(pair.data_dir) as alone:
        assert alone.state("small") == state
        check(alone, SMALL, [worker])


def test_a_killed_parent_leaves_nothing_behind(pair: Service) -> None:
    SMALL.create(pair)
    worker = Worker(SMALL, 1, [pair]).start()
    time.sleep(0.5)
    left = processes(pair)
    left[0].suspend()  # it cannot hear of anything
    pair.kill()
    wait_until(lambda: not any(process.is_running() for process in left))
    pair.start()  # on the same port and directory
    time.sleep(0.5)
    worker.finish()
    assert check(pair, SMALL, [worker]) > 10


def test_counters_are_summed_over_the_processes_and_over_their_deaths(several: Service) -> None:
    target = Target("counted", {"w": (30,)}, {"rule": "sgd", "lr": 0.1})
    target.create(several)
    before = told(several, APPLIED)
    workers = [Worker(target, number, [several], again=0.0).start() for number in range(6)]
    time.sleep(0.7)
    for worker in workers:
        worker.finish()
    pushed = before + sum(len(worker.pushed) for worker in workers)
    assert told(several, APPLIED) == pushed
    wait_until(lambda: told(several, HELD) >= COUNT)  # the sum over all of them, once each has noted it
    for process in processes(several):
        process.kill()
    several.http.clear()  # our own connections died with them
    # Nobody has asked the new ones for a model, and what the dead held does not count any more.
    wait_until(lambda: told(several, HELD) == 0.0)
    assert told(several, APPLIED) == pushed


def test_processes_that_die_at_once_are_given_up(tmp_path: Path) -> None:
    with Service(tmp_path / "data", "--workers", "2") as doomed:
        assert doomed.process is not None
        valkey = [
            each for each in psutil.Process(doomed.process.pid).children() if "replica" not in each.cmdline()
        ]
        deadline = time.monotonic() + GIVE_UP_S
        while doomed.process.poll() is None:
            assert time.monotonic() < deadline, "it goes on for ever"
            try:
                for process in processes(doomed):
                    process.send_signal(signal.SIGKILL)
            except psutil.NoSuchProcess:
                pass
            time.sleep(0.02)
        assert doomed.process.returncode == 1
        assert len(valkey) == 1 and not valkey[0].is_running()
    wait_until(lambda: "--workers 1" in "".join(doomed.output))
    assert "died 5 times" in "".join(doomed.output)
