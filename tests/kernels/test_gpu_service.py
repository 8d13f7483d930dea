"""A service on a GPU, but for the GPU: what crosses to it and back, and that its bits are the CPU's.

CuPy is a stand-in (`stand_in/cupy`). The device, its kernels' source and the whole service are the real ones.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gradledger import Client, Rows, Table
from tests.service import Service

CHECKOUT = Path(__file__).resolve().parents[2]
STAND_IN = Path(__file__).parent / "stand_in"
ADAM = {"rule": "adam", "lr": 1e-2}
LARGE, SMALL = 1 << 20, 256  # elements
PUSHES = 4

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="the stand-in compiles with g++")


class OnGpu:
    """A running service, and the lines its device wrote since they were last read."""

    def __init__(self, service: Service, log: Path) -> None:
        self.service, self._log, self._read = service, log, 0

    def lines(self) -> list[str]:
        lines = self._log.read_text().splitlines()
        new, self._read = lines[self._read :], len(lines)
        return new


def environment(log: Path) -> dict[str, str]:
    """In which a GPU is found."""
    path = os.pathsep.join(map(str, (STAND_IN, CHECKOUT)))
    return {"PYTHONPATH": path, "CUPY_STAND_IN_LOG": str(log)}


@pytest.fixture(scope="module")
def gpu(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnGpu]:
    directory = tmp_path_factory.mktemp("gpu")
    log = directory / "device.log"
    arguments = ("--durability", "memory", "--device", "gpu")
    with Service(directory / "data", *arguments, **environment(log)) as service:
        yield OnGpu(service, log)


def gradients(like: dict[str, Any], count: int) -> Iterator[dict[str, Any]]:
    dice = np.random.default_rng(7)
    for _ in range(count):
        grads: dict[str, Any] = {}
        for name, value in like.items():
            if isinstance(value, Table):
                ids = dice.choice(value.shape[0], 3, replace=False)
                grads[name] = Rows(ids, dice.standard_normal((3, *value.shape[1:])).astype(np.float32))
            else:
                grads[name] = dice.standard_normal(value.shape).astype(value.dtype)
        yield grads


@pytest.mark.parametrize("elements", [LARGE, SMALL])
def test_a_push_is_one_copy_over_one_launch_and_one_copy_back(gpu: OnGpu, elements: int) -> None:
    params = {"w": np.ones(elements, np.float32)}
    with Client(gpu.service.url) as client:
        model = client.create(f"one-{elements}", params, ADAM)
        model.push(params)
        gpu.lines()
        for grads in gradients(params, PUSHES):
            model.push(grads)
        nbytes = 4 * elements
        crossed = Counter(line for line in gpu.lines() if not line.startswith(("lock", "unlock")))
        gradient = "locked" if elements == LARGE else "pageable"  # which costs nothing at this size
        assert crossed == {
            f"h2d {nbytes} {gradient}": PUSHES,
            "launch adam_float32": PUSHES,
            f"d2h {nbytes} locked": PUSHES,
        }
        model.pull()
        assert gpu.lines() == [], "readers get what is on the host already"
        model.delete()


def test_memory_is_locked_once_and_not_at_each_push(gpu: OnGpu) -> None:
    params = {"w": np.ones(LARGE, np.float32)}
    with Client(gpu.service.url) as client:
        model = client.create("locked-once", params, "sgd")
        for turn, grads in enumerate(gradients(params, 24)):
            if turn == 12:
                gpu.lines()
            model.push(grads)
        assert sum(line.startswith("lock") for line in gpu.lines()) <= 2, "for a snapshot, perhaps"
        model.delete()


WAYS: dict[str, dict[str, Any]] = {
    "elementwise": {
        "optimizer": ADAM,
        "transforms": {"clip_global_norm": {"max_norm": 1.0}, "ema": {"decay": 0.9}},
        "groups": [{"match": "emb", "transforms": {"ema": None}}],
    },
    "norms": {"optimizer": {"rule": "lamb", "lr": 1e-2}, "transforms": {"clip_norm": {"max_norm": 0.5}}},
    "matrices": {"optimizer": {"rule": "adafactor", "lr": 1e-2}, "transforms": {"centralize": {}}},
    "accumulated": {"optimizer": ADAM, "transforms": {"accumulate": {"every": 2}}},
}


def state_after_pushes(service: Service, name: str, params: dict[str, Any], spec: dict[str, Any]) -> bytes:
    with Client(service.url) as client:
        model = client.create(name, params, **spec)
        for grads in gradients(params, PUSHES):
            model.push(grads)
    return service.state(name)


@pytest.mark.parametrize("way", WAYS)
def test_its_bits_are_the_cpus(gpu: OnGpu, service: Service, way: str) -> None:
    params: dict[str, Any] = {"w": np.ones((40, 30), np.float32), "b": np.zeros(7, np.float64)}
    if way == "elementwise":
        params["emb"] = Table((100, 4))
    on_gpu, on_cpu = (
        state_after_pushes(each, f"bits-{way}", params, WAYS[way]) for each in (gpu.service, service)
    )
    assert on_gpu == on_cpu
    assert gpu.lines()
    service.request("DELETE", f"/v1/models/bits-{way}")


def test_what_a_gpu_began_a_cpu_goes_on_with(tmp_path: Path) -> None:
    """Killed in between, with the log played from its beginning by the other."""
    params = {"w": np.ones(3000, np.float32)}
    states: list[bytes] = []
    for number, device in enumerate(("gpu", "cpu")):
        with (
            Service(tmp_path, "--device", device, **environment(tmp_path / "log")) as service,
            Client(service.url) as client,
        ):
            if number:
                assert service.state("m") == states[-1]
                model = client.model("m")
            else:
                model = client.create("m", params, ADAM)
            for grads in gradients(params, PUSHES):
                model.push(grads)
            states.append(service.state("m"))
            service.kill()
    assert states[0] != states[1]
