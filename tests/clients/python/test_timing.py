"""A receipt tells where the time of its push went."""

from __future__ import annotations

import time
from dataclasses import replace
from statistics import median

import numpy as np
import pytest

from gradledger import Client, Model
from tests.service import Service

SIZES = {1 << 10: 0.8, 4 << 20: 0.9}  # elements, and how much of the call is told: the rest is this process's
STOPS = ["receive", "decode", "queue", "append", "apply", "respond"]


@pytest.mark.parametrize("elements", SIZES)
def test_all_together_is_the_call(service: Service, elements: int) -> None:
    with Client(service.url) as client:
        grads = {"w": np.ones(elements, np.float32)}
        model = client.create(f"client-timing-{elements}", grads, "sgd")
        out = {"w": np.empty(elements, np.float32)}
        shares = []
        for _ in range(9):
            began = time.perf_counter()
            _, receipt = model.push(grads, out=out)
            took_ms = 1e3 * (time.perf_counter() - began)
            assert list(receipt.timing_ms) == [*STOPS, "network", "read"]
            shares.append(sum(receipt.timing_ms.values()) / took_ms)
        assert SIZES[elements] < median(shares) <= 1.0
        assert list(model.push_only(grads).timing_ms) == [*STOPS, "network", "read"]
        model.delete()


def test_the_same_push_is_the_same_receipt_whatever_it_took(service: Service) -> None:
    with Client(service.url) as client:
        model = client.create("client-timing-twice", {"w": np.zeros(1, np.float32)}, "sgd")
        _, receipt = model.push({"w": np.ones(1, np.float32)})
        assert replace(receipt, replayed=True) == model.fate(1)
        assert "timing" not in repr(receipt)
        model.delete()


def test_a_service_that_tells_no_times_is_no_trouble(model: Model) -> None:
    receipt = model.push_only({"b": np.ones((2, 3)), "w": np.ones(4, np.float32)})
    assert list(receipt.timing_ms) == ["network", "read"]
