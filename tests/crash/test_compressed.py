"""Compressed gradients in the log: as few bytes as were sent, and the same state wherever it is replayed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis
from safetensors.numpy import save

from gradledger import Client, Model
from gradledger.compression import Wire
from gradledger_server.store import keys
from tests.crash.external import External
from tests.service import SAFETENSORS, Arrays, Service, normal

ELEMENTS = 1 << 20
FORMS: dict[Wire | None, float] = {None: 4, "bf16": 2, "int8": 1 + 4 / 256}  # bytes of an element
ADAM = {"rule": "adam", "lr": 0.01}

Server = Any  # redis-py's answers are typed as anything it might answer
Logged = tuple[Server, Service, Service]


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Logged]:
    """Two services that save nothing for a while, and the server that holds their log."""
    home, slow = tmp_path_factory.mktemp("logged"), {"GRADLEDGER_SNAPSHOT_QUIET_S": "600"}
    with External(tmp_path_factory.mktemp("external")) as server:
        one = Service(home / "one", "--redis-url", server.url, **slow)
        two = Service(home / "two", "--redis-url", server.url, **slow)
        with one, two, redis.Redis.from_url(server.url) as client:
            yield client, one, two


def in_log(server: Server, epoch: str) -> list[int]:
    """The tensor bytes of each entry, as the server holds them."""
    sizes = []
    for _, fields in server.xrange(keys.log(epoch)):
        if b"chunks" not in fields:
            sizes.append(len(fields[b"payload"]))
            continue
        token, count = fields[b"chunks"].decode().split(":")
        sizes.append(sum(server.strlen(keys.chunk(epoch, token, index)) for index in range(int(count))))
    return sizes


def push_each_form(model: Model, elements: int) -> None:
    for seed, form in enumerate(FORMS):
        model.push_only({"w": normal((elements,), seed)}, wire=form)


@pytest.mark.parametrize("elements", [1000, ELEMENTS])
def test_the_log_holds_what_was_sent_and_no_more(logged: Logged, elements: int) -> None:
    server, one, _ = logged
    with Client(one.url) as client:
        model = client.create(f"bytes-{elements}", {"w": np.zeros(elements, np.float32)}, ADAM)
        before = len(in_log(server, model.describe()["epoch"]))
        push_each_form(model, elements)
        sizes = in_log(server, model.describe()["epoch"])[before:]
    for size, item_bytes in zip(sizes, FORMS.values(), strict=True):
        header = size - round(elements * item_bytes)
        assert 0 < header <= 256, sizes
    if elements == ELEMENTS:
        assert sizes[1] / sizes[0] == pytest.approx(1 / 2, rel=0.001)
        assert sizes[2] / sizes[0] == pytest.approx(1 / 4, rel=0.02)


def test_another_replica_and_a_killed_one_make_the_same_bits(logged: Logged) -> None:
    _, one, two = logged
    with Client(one.url) as client, Client(two.url) as elsewhere:
        start: Arrays = {"w": normal((777,), 1), "d": np.zeros(300), "e": np.zeros((40, 10), np.float32)}
        here = client.create("bits", start, ADAM)
        there = elsewhere.model("bits")
        for seed in range(6):
            gradients = {name: normal(array.shape, seed) for name, array in start.items()}
            (here, there)[seed % 2].push_only(gradients, wire="int8" if seed < 4 else "bf16")
    states = [one.state("bits"), two.state("bits")]
    one.kill()
    one.start()
    states.append(one.state("bits"))
    assert len(set(states)) == 1


def test_a_push_that_waits_survives_a_kill_and_a_snapshot(tmp_path: Path) -> None:
    worlds: list[bytes] = []
    for interrupted in (False, True):
        saving = {"GRADLEDGER_SNAPSHOT_QUIET_S": "0.1"}
        with Service(tmp_path / f"data-{interrupted}", **saving) as service, Client(service.url) as client:
            start = {"w": normal((600,), 1)}
            model = client.create("waits", start, ADAM, sync={"mode": "bsp", "lease_s": 600})
            other = client.model("waits")
            model.join("a")
            other.join("b")
            receipt = model.push_only({"w": normal((600,), 2)}, wire="int8")
            assert receipt.fate == "waiting"
            if interrupted:
                saved_before_the_kill(service, "waits")
                service.kill()
                service.start()
            assert other.push_only({"w": normal((600,), 3)}, wire="int8").fate == "merged"
            assert model.fate(1).fate == "merged"
            worlds.append(service.state("waits"))
    assert worlds[0] == worlds[1]


def saved_before_the_kill(service: Service, model: str) -> None:
    """Waits until a snapshot holds the gradient, so that it comes back from there and not from the log."""
    deadline = time.monotonic() + 30
    while True:
        told = service.request("GET", f"/v1/models/{model}").json
        if told["saved_offset"] == told["offset"]:
            return
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_same_compressed_push_at_both_replicas_counts_once(logged: Logged) -> None:
    _, one, two = logged
    asked = {"optimizer": ADAM, "parameters": {"w": [0.0] * 300}}
    assert one.request("PUT", "/v1/models/once", asked).status == 201
    body = save({"w": np.arange(300).astype(np.int8), "w#scale": normal((2,), 1) ** 2})
    path = "/v1/models/once/gradients?worker=w&sequence=1"
    answers = [
        service.request("POST", path, body, Content_Type=SAFETENSORS, Prefer="return=minimal")
        for service in (one, two, one)
    ]
    assert [answer.receipt["replayed"] for answer in answers] == [False, True, True]
    assert one.state("once") == two.state("once")
