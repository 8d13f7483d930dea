"""A receipt tells where the time of its push went."""

from __future__ import annotations

import time
from dataclasses import replace
from statistics import median

import numpy as np

from gradledger import Client, Model
from tests.service import Service

LARGE = 4 << 20  # elements
STOPS = ["receive", "decode", "queue", "append", "apply", "respond"]


def test_the_stops_and_the_reading_add_up_to_the_call(service: Service) -> None:
    with Client(service.url) as client:
        grads = {"w": np.ones(LARGE, np.float32)}
        model = client.create("client-timing", grads, "sgd")
        out = {"w": np.empty(LARGE, np.float32)}
        shares = []
        for _ in range(9):
            began = time.perf_counter()
            _, receipt = model.push(grads, out=out)
            took_ms = 1e3 * (time.perf_counter() - began)
            assert list(receipt.timing_ms) == [*STOPS, "read"]
            shares.append(sum(receipt.timing_ms.values()) / took_ms)
        assert 0.85 < median(shares) <= 1.0
        assert list(model.push_only(grads).timing_ms) == [*STOPS, "read"]
        model.delete()


def test_the_same_push_is_the_same_receipt_whatever_it_took(service: Service) -> None:
    with Client(service.url) as client:
        model = client.create("client-timing-twice", {"w": np.zeros(1, np.float32)}, "sgd")
        _, receipt = model.push({"w": np.ones(1, np.float32)})
        assert replace(receipt, replayed=True) == model.fate(1)
        assert "timing" not in repr(receipt)
        model.delete()


def test_a_service_that_tells_no_times_is_no_trouble(model: Model) -> None:
    assert list(model.push_only({"b": np.ones((2, 3)), "w": np.ones(4, np.float32)}).timing_ms) == ["read"]
