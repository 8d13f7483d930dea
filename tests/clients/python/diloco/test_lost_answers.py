"""A lost response never costs a round: connections that break at every place, and workers that die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import numpy as np
import pytest

from gradledger import Client, ConnectionFailed
from gradledger.diloco import OuterLoop, fragment
from tests.clients.python.diloco.conftest import Cutting
from tests.service import Service

AVERAGING = {"rule": "sgd", "lr": 1.0}


def start() -> dict[str, Any]:
    return {"w": np.array([1.0, 1.5], np.float32)}


@pytest.mark.parametrize("losing", ["requests", "answers"])
def test_who_gave_up_goes_on_training_and_the_next_turn_finds_out(
    far: Client, cutting: Cutting, name: str, losing: str
) -> None:
    params = start()
    with OuterLoop(params, client=far, name=name, every=1, outer=AVERAGING) as outer:
        params["w"] += np.float32(0.25)
        cutting.losing = losing
        with pytest.raises(ConnectionFailed):
            outer.step(weight=2)
        np.testing.assert_array_equal(params["w"], start()["w"] + np.float32(0.25))

        params["w"] += np.float32(0.125)
        with pytest.raises(ConnectionFailed):
            outer.step(weight=2)

        cutting.losing = None
        params["w"] += np.float32(0.0625)
        receipts = outer.step(weight=2)
        np.testing.assert_array_equal(params["w"], start()["w"] + np.float32(0.4375))
        params["w"] += np.float32(0.5)
        receipts += outer.step(weight=2)
        # What was given up came first, under its own name; what was learned meanwhile came after it.
        assert [(receipt.sequence, receipt.step) for receipt in receipts][:2] == [(1, 1), (2, 2)]
    np.testing.assert_array_equal(far.model(name).pull()["w"], params["w"])
    entries = far.model(name).describe()["step"]
    assert entries == len(receipts), "every push counted once"


def test_a_push_that_arrived_is_not_made_again(
    far: Client, cutting: Cutting, running: Client, name: str
) -> None:
    params = start()
    with OuterLoop(params, client=far, name=name, every=1, outer=AVERAGING) as outer:
        params["w"] += np.float32(0.25)
        cutting.losing = "answers"
        with pytest.raises(ConnectionFailed):
            outer.step()
        assert running.model(name).describe()["step"] == 1, "it arrived, and its answer was lost"
        cutting.losing = None
        params["w"] += np.float32(0.125)
        first, second = outer.step(weight=3)
        assert first.replayed and (first.sequence, second.sequence) == (1, 2)
    np.testing.assert_array_equal(running.model(name).pull()["w"], start()["w"] + np.float32(0.375))


@pytest.mark.parametrize("losing", ["requests", "answers"])
@pytest.mark.parametrize("wire", ["int8", "bf16"])
def test_what_compression_loses_is_not_lost_with_the_connection(
    far: Client, cutting: Cutting, name: str, wire: Any, losing: str
) -> None:
    """global = start + learned + what is still in the residual, whatever happened on the way."""
    params = {"w": np.linspace(-1, 1, 300).astype(np.float32)}
    learned = params["w"].astype(np.float64)
    drawn = np.random.default_rng(1)
    with OuterLoop(params, client=far, name=name, every=2, outer=AVERAGING, wire=wire) as outer:
        for inner_step in range(1, 17):
            walked = drawn.normal(size=300).astype(np.float32)
            params["w"] += walked
            learned += walked
            cutting.losing = losing if inner_step in (4, 6, 10) else None
            with suppress(ConnectionFailed):
                outer.step()
        residual = outer.fragments[0].residual
        assert residual is not None and 0 < np.abs(residual.lost["w"]).max() < 0.1
        np.testing.assert_allclose(params["w"], learned + residual.lost["w"], rtol=0, atol=1e-5)


def test_what_is_not_finite_cannot_be_compressed(running: Client, name: str) -> None:
    params = start()
    with OuterLoop(params, client=running, name=name, every=1, wire="int8") as outer:
        params["w"][0] = np.inf
        with pytest.raises(ValueError, match="not finite"):
            outer.step(weight=2)
        params["w"][0] = 1.0
        assert outer.step(weight=2)[0].sequence == 1


def test_others_go_on_and_what_comes_late_still_counts(
    far: Client, cutting: Cutting, running: Client, name: str
) -> None:
    """The lease of the one who is away runs out; back again it is a member, and brings what it had."""
    sync = {"mode": "bsp", "lease_s": 0.6}
    away, present = start(), start()
    common: dict[str, Any] = {"name": name, "every": 1, "outer": AVERAGING, "sync": sync}
    with (
        OuterLoop(away, client=far, worker="away", **common) as lost,
        OuterLoop(present, client=running, worker="present", **common) as outer,
    ):
        cutting.losing = "requests"
        away["w"] += np.float32(0.5)
        with pytest.raises(ConnectionFailed):
            lost.step()
        present["w"] += np.float32(0.25)
        [alone] = outer.step()
        assert alone.step == 1
        np.testing.assert_array_equal(present["w"], start()["w"] + np.float32(0.25))

        cutting.losing = None
        with ThreadPoolExecutor(1) as pool:
            later = pool.submit(lost.step)
            while not _waiting(running, name) and not later.done():
                time.sleep(0.02)
            [together] = outer.step()
        [late] = later.result()
        assert late.sequence == 1 and late.fate == "merged"
        assert together.step == 2 or late.step == 2
        final = running.model(name).pull()["w"]
    expected = start()["w"] + np.float32(0.25) + np.float32(0.5 if late.step != together.step else 0.25)
    np.testing.assert_array_equal(final, expected)


def test_a_gradient_too_stale_is_computed_anew_on_what_the_others_made(running: Client, name: str) -> None:
    sync = {"mode": "async", "staleness": {"max": 0}}
    params = start()
    with OuterLoop(params, client=running, name=name, every=1, outer=AVERAGING, sync=sync) as outer:
        running.model(name).push({"w": np.array([-1.0, -1.0], np.float32)}, base=0)
        params["w"] += np.float32(0.25)
        assert outer.step(weight=5) == []
        np.testing.assert_array_equal(params["w"], start()["w"] + np.float32(1.25))
        assert outer.fragments[0].weight == 5
        [receipt] = outer.step(weight=1)
        assert (receipt.step, receipt.staleness) == (2, 0)
    np.testing.assert_array_equal(running.model(name).pull()["w"], start()["w"] + np.float32(1.25))


def test_who_is_no_member_any_more_joins_and_pushes(service: Service, running: Client, name: str) -> None:
    params = start()
    with OuterLoop(params, client=running, name=name, worker="w0", every=1, outer=AVERAGING) as outer:
        assert service.request("DELETE", f"/v1/models/{name}/workers/w0").status == 204
        params["w"] += np.float32(0.25)
        assert [receipt.sequence for receipt in outer.step()] == [1]
    np.testing.assert_array_equal(running.model(name).pull()["w"], start()["w"] + np.float32(0.25))


def test_who_comes_back_awaits_the_round_its_earlier_push_is_in(
    running: Client, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fragment, "WAIT_S", 1.0)
    params, other = start(), start()
    common: dict[str, Any] = {"client": running, "name": name, "every": 1, "outer": AVERAGING}
    earlier = OuterLoop(start(), worker="w0", **common).__enter__()
    with OuterLoop(other, worker="other", **common) as outer, ThreadPoolExecutor(1) as pool:
        earlier.fragments[0].model.push_only({"w": np.array([-0.5, -0.5], np.float32)}, base=0)
        later = pool.submit(OuterLoop(params, worker="w0", **common).__enter__)
        time.sleep(1.5)
        assert not later.done(), "longer than one request waits"
        assert outer.step()[0].step == 1
        with later.result() as again:
            np.testing.assert_array_equal(params["w"], start()["w"] + np.float32(0.25))
            assert again.fragments[0].step == 1


WORKER = """
import sys, time
import numpy as np
from gradledger import Client
from gradledger.diloco import OuterLoop, fragment

url, name = sys.argv[1:]
params = {"w": np.zeros(2, np.float32)}
options = {"rule": "sgd", "lr": 1.0}
with Client(url) as client:
    with OuterLoop(params, client=client, name=name, worker="mortal", every=2, outer=options) as outer:
        print("begins", params["w"][0], outer.fragments[0].step, flush=True)
        while True:
            params["w"] += 1
            outer.step()
            print("stepped", flush=True)
"""


def test_a_worker_that_is_killed_comes_back_and_goes_on(service: Service, running: Client, name: str) -> None:
    """It is killed while its push waits for the other worker, whose round it still belongs to."""
    params = {"w": np.zeros(2, np.float32)}
    with OuterLoop(params, client=running, name=name, worker="other", every=1, outer=AVERAGING) as outer:
        with _worker(service, name) as mortal:
            assert _told(mortal) == "begins 0.0 0"
            assert _told(mortal) == "stepped"
            _until_waiting(running, name)
            os.kill(mortal.pid, signal.SIGKILL)
        with _worker(service, name) as mortal:
            params["w"] += 4
            [receipt] = outer.step(weight=2)
            assert receipt.step == 1, "what the dead had pushed counts, and nobody waited for it"
            np.testing.assert_array_equal(params["w"], np.full(2, 3.0))
            assert _told(mortal) == "begins 3.0 1"
            _until_waiting(running, name)
            assert outer.step(weight=2)[0].step == 2
            np.testing.assert_array_equal(params["w"], np.full(2, 4.0))
            os.kill(mortal.pid, signal.SIGKILL)


def _worker(service: Service, name: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, service.url, name], stdout=subprocess.PIPE, text=True
    )


def _told(worker: subprocess.Popen[str]) -> str:
    assert worker.stdout is not None
    return worker.stdout.readline().strip()


def _waiting(client: Client, name: str) -> list[str]:
    waiting: list[str] = client.model(name).workers()["round"]["waiting"]
    return waiting


def _until_waiting(client: Client, name: str) -> None:
    while not _waiting(client, name):
        time.sleep(0.02)
