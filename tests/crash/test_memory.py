"""How much memory the service takes, as the kernel counts it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator

import numpy as np
import psutil
import pytest
from safetensors.numpy import save

from tests.service import SAFETENSORS, Service, normal

MIB = 1 << 20
MODEL_MIB = int(os.environ.get("GRADLEDGER_MEMORY_MIB", "64"))


@pytest.fixture
def thrifty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that saves after half a second and forgets after two; nothing in it yet."""
    quick = {"GRADLEDGER_SNAPSHOT_QUIET_S": "0.5", "GRADLEDGER_IDLE_DROP_S": "2"}
    with Service(tmp_path_factory.mktemp("thrifty"), "--durability", "memory", **quick) as service:
        yield service


@pytest.fixture
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that keeps its models in memory."""
    quick = {"GRADLEDGER_SNAPSHOT_QUIET_S": "0.5"}
    with Service(tmp_path_factory.mktemp("lasting"), "--durability", "memory", **quick) as service:
        yield service


def resident_bytes(service: Service) -> int:
    assert service.process is not None
    return int(psutil.Process(service.process.pid).memory_info().rss)


def settled(service: Service, enough: Callable[[int], bool], within_s: float = 12.0) -> int:
    """The resident bytes once they are `enough`, or after `within_s`."""
    deadline = time.monotonic() + within_s
    while not enough(resident := resident_bytes(service)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return resident


def warmed_up(service: Service) -> int:
    """The interpreter with everything loaded that a push needs, and no model worth mentioning."""
    tiny(service, "warm")
    for sequence in range(1, 4):
        assert service.push("warm", {"w": normal((4,), 1)}, worker="a", sequence=sequence).status == 200
    return resident_bytes(service)


def tiny(service: Service, model: str) -> None:
    asked = {"optimizer": {"rule": "adam", "lr": 0.01}, "parameters": {"w": {"shape": [4]}}}
    assert service.request("PUT", f"/v1/models/{model}", asked).status == 201
    zeros = save({"w": np.zeros(4, np.float32)})
    uploaded = service.request("PUT", f"/v1/models/{model}/parameters", zeros, Content_Type=SAFETENSORS)
    assert uploaded.status == 200


def large(service: Service, model: str, mib: int) -> dict[str, tuple[int, ...]]:
    """An Adam model of so many MiB of parameters in four tensors."""
    shapes: dict[str, tuple[int, ...]] = {f"layer{index}": (mib * MIB // 16,) for index in range(4)}
    declared = {name: {"shape": list(shape)} for name, shape in shapes.items()}
    asked = {"optimizer": {"rule": "adam", "lr": 0.01}, "parameters": declared}
    assert service.request("PUT", f"/v1/models/{model}", asked).status == 201
    values = save({name: normal(shape, 1) for name, shape in shapes.items()})
    uploaded = service.request("PUT", f"/v1/models/{model}/parameters", values, Content_Type=SAFETENSORS)
    assert uploaded.status == 200
    return shapes


def test_at_rest_a_model_takes_its_state_and_one_published_copy(lasting: Service) -> None:
    baseline = warmed_up(lasting)
    shapes = large(lasting, "big", MODEL_MIB)
    gradient = {name: normal(shape, 2) for name, shape in shapes.items()}
    for sequence in range(1, 6):
        assert lasting.push("big", gradient, worker="a", sequence=sequence).status == 200
    parameters = MODEL_MIB * MIB
    bound = baseline + 1.3 * (parameters + 2 * parameters + parameters)
    resident = settled(lasting, lambda now: now <= bound)
    print(f"\n{MODEL_MIB} MiB Adam model: {(resident - baseline) / parameters:.2f} x its parameters at rest")
    assert resident <= bound, f"{(resident - baseline) / MIB:.0f} MiB for a model of {MODEL_MIB} MiB"


def test_many_pushes_leave_nothing_behind(lasting: Service) -> None:
    """What a push takes it gives back: after a thousand more, the memory is what it was."""
    warmed_up(lasting)
    sequences = iter(range(4, 10_000))

    def push(count: int) -> None:
        for _ in range(count):
            answer = lasting.push("warm", {"w": normal((4,), 1)}, worker="a", sequence=next(sequences))
            assert answer.status == 200

    push(500)
    before = settled(lasting, lambda _: False, within_s=1.5)
    push(1000)
    after = settled(lasting, lambda now: now <= before + 4 * MIB, within_s=4.0)
    assert after <= before + 4 * MIB


def test_a_model_nobody_uses_leaves_memory_and_comes_back_the_same(thrifty: Service) -> None:
    baseline = warmed_up(thrifty)
    shapes = large(thrifty, "idle", MODEL_MIB)
    gradient = {name: normal(shape, 2) for name, shape in shapes.items()}
    first = thrifty.push("idle", gradient, worker="a", sequence=1)
    state = thrifty.state("idle")

    quarter = baseline + MODEL_MIB * MIB // 4
    assert settled(thrifty, lambda now: now <= quarter) <= quarter

    assert thrifty.state("idle") == state
    again = thrifty.push("idle", gradient, worker="a", sequence=1)
    assert again.receipt == {**first.receipt, "replayed": True}
    assert thrifty.push("idle", gradient, worker="a", sequence=2).receipt["step"] == 2


def test_a_body_too_large_is_refused_before_it_costs_anything(lasting: Service) -> None:
    baseline = warmed_up(lasting)
    path = "/v1/models/warm/gradients"
    refused = lasting.request("POST", path, b"x" * (64 * MIB), Content_Type=SAFETENSORS)
    assert (refused.status, refused.problem) == (413, "body-too-large")
    assert resident_bytes(lasting) < baseline + 16 * MIB
