"""DiLoCo around a PyTorch module: only where PyTorch is installed (`make test EXTRAS=torch`)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from gradledger import Client
from gradledger.receipt import Receipt
from tests.service import Service

torch = pytest.importorskip("torch")
AVERAGING = {"rule": "sgd", "lr": 1.0}
_numbers = itertools.count(1)


@pytest.fixture
def running(service: Service) -> Iterator[Client]:
    with Client(service.url) as client:
        yield client


@pytest.fixture
def name() -> str:
    return f"torch.{next(_numbers)}"


def module(seed: int = 0) -> Any:
    torch.manual_seed(seed)
    layers = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2))
    layers[2].bias.requires_grad_(False)
    return layers


def batches(seed: int, count: int) -> Any:
    draw = torch.Generator().manual_seed(seed)
    for _ in range(count):
        yield torch.randn(8, 3, generator=draw), torch.randn(8, 2, generator=draw)


def train(net: Any, inner: Any, step: Any, seed: int, count: int) -> list[Receipt]:
    receipts: list[Receipt] = []
    for x, y in batches(seed, count):
        inner.zero_grad()
        torch.nn.functional.mse_loss(net(x), y).backward()
        receipts += step() or []
    return receipts


def trainable(net: Any) -> dict[str, Any]:
    return {key: each.detach().clone() for key, each in net.named_parameters() if each.requires_grad}


def test_alone_it_trains_as_its_inner_optimizer(running: Client, name: str) -> None:
    """Between them is nothing but the rounding of anchor - (anchor - local)."""
    from gradledger.torch import DiLoCo

    with_service, alone = module(), module()
    optimizers = [torch.optim.AdamW(net.parameters(), lr=1e-2) for net in (with_service, alone)]
    options: Any = {"client": running, "name": name, "every": 4, "outer": AVERAGING}
    with DiLoCo(with_service, optimizers[0], **options) as diloco:
        receipts = train(with_service, optimizers[0], diloco.step, 1, 12)
    train(alone, optimizers[1], optimizers[1].step, 1, 12)
    assert [receipt.step for receipt in receipts] == [1, 2, 3]
    for key, value in trainable(alone).items():
        torch.testing.assert_close(trainable(with_service)[key], value, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(running.model(name).pull()[key], value, rtol=1e-5, atol=1e-6)


def test_what_takes_part_are_the_parameters_that_are_trained(running: Client, name: str) -> None:
    from gradledger.torch import DiLoCo

    net, other = module(0), module(1)
    options: Any = {"client": running, "name": name, "every": 1}
    with (
        DiLoCo(net, torch.optim.SGD(net.parameters()), **options),
        DiLoCo(other, torch.optim.SGD(other.parameters()), **options),
    ):
        assert set(running.model(name).pull()) == {"0.weight", "0.bias", "1.weight", "1.bias", "2.weight"}
        for key, value in trainable(net).items():
            torch.testing.assert_close(trainable(other)[key], value, rtol=0, atol=0)
        assert not torch.equal(other[2].bias, net[2].bias), "frozen ones stay one's own"


def test_two_workers_end_with_the_same_parameters(running: Client, name: str) -> None:
    from gradledger.torch import DiLoCo

    nets = [module(seed) for seed in (0, 1)]
    optimizers = [torch.optim.AdamW(net.parameters(), lr=1e-2) for net in nets]
    options: Any = {"client": running, "name": name, "every": 6, "fragments": 2}
    with (
        DiLoCo(nets[0], optimizers[0], worker="a", **options) as first,
        DiLoCo(nets[1], optimizers[1], worker="b", **options) as second,
        ThreadPoolExecutor(2) as pool,
    ):

        def work(index: int) -> int:
            outer = (first, second)[index]
            return len(train(nets[index], optimizers[index], outer.step, index, 12) + outer.synchronize())

        assert list(pool.map(work, (0, 1))) == [5, 5]
    for key, value in trainable(nets[0]).items():
        torch.testing.assert_close(trainable(nets[1])[key], value, rtol=1e-6, atol=1e-7)


def test_bfloat16_modules_have_a_master_copy(running: Client, name: str) -> None:
    from gradledger.torch import DiLoCo

    net = module().to(torch.bfloat16)
    inner = torch.optim.SGD(net.parameters(), lr=0.0)
    with DiLoCo(net, inner, client=running, name=name, every=1, outer=AVERAGING) as diloco:
        running.model(name, "finer").configure(sync="async")
        before = running.model(name).pull()
        fine = {key: np.full_like(value, -(2.0**-12)) for key, value in before.items()}
        running.model(name, "finer").push(fine)
        diloco.step()
        diloco.step()
    after = running.model(name).pull()
    for key, value in before.items():
        assert value.dtype == after[key].dtype == np.float32
        np.testing.assert_allclose(after[key], value + 2.0**-12, rtol=0, atol=2.0**-24)
