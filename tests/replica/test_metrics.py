"""Metrics through the log: counted once, whoever hears them, and the same on every replica."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gradledger_server.entries import Metric
from gradledger_server.errors import NoPlateau, SequenceGap
from gradledger_server.replica import Reported, listed, plateaus
from gradledger_server.replica.metrics import report
from gradledger_server.store.memory import MemoryStore
from tests.replica.world import World, state_digest

PLATEAU = {"name": "plateau", "patience": 1, "factor": 0.3, "cooldown": 1}


@pytest.fixture
def world() -> World:
    world = World(MemoryStore())
    values = {"w": np.array([1.0, 2.0], np.float32)}
    made = world.create("m", {"w": (2,)}, values, optimizer={"rule": "adam", "lr": 0.1}, schedule=PLATEAU)
    assert made
    return world


def post(world: World, value: float, replica: str = "one", **named: Any) -> Reported:
    facts = {"worker": None, "sequence": None, "key": None, **named}
    return report(world.hot("m", replica), Metric(value, durability="memory", at_ms=0, **facts))


def test_replicas_hear_of_each_others_metrics(world: World) -> None:
    """A metric here, a push there: the same bits on both, after a snapshot and a replay too."""
    gradient = {"w": np.array([0.5, -0.25], np.float32)}
    for turn, value in enumerate([1.0, 1.1, 1.2, 0.9, 1.0, 1.1, 1.3, 1.3, 0.1]):
        here, there = ("one", "two") if turn % 2 else ("two", "one")
        reported = post(world, value, here, worker="judge", sequence=turn + 1)
        assert not reported.replayed
        receipt = world.push("m", gradient, there, worker="w", sequence=turn + 1).receipt
        assert receipt.lr == reported.receipt.lr
        if turn == 4:
            assert world.hot("m", here).save()
    assert plateaus(world.hot("m", "one"))[0]["reductions"] == 2
    digests = set()
    for replica in ("one", "two", "late"):
        for _ in ("played on", "loaded anew"):
            world.hot("m", replica).look()
            digests.add(state_digest(world.hot("m", replica).model))
            world.forget("m", replica)
    assert len(digests) == 1


def test_a_repeat_is_answered_with_the_first_receipt(world: World) -> None:
    first = post(world, 1.0, key="k")
    post(world, 2.0)
    again = post(world, 1.0, "two", key="k")
    assert (again.replayed, again.receipt) == (True, first.receipt)
    assert again.plateaus[0]["bad"] == 1
    assert world.hot("m", "two").playback.applied == 3


def test_a_refusal_leaves_no_trace(world: World) -> None:
    with pytest.raises(SequenceGap):
        post(world, 1.0, worker="a", sequence=2)
    world.configure("m", {"schedule": None})
    before = world.hot("m").playback.applied
    with pytest.raises(NoPlateau):
        post(world, 1.0)
    assert world.hot("m").playback.applied == before


def test_the_ledger_shows_it(world: World) -> None:
    post(world, 1.5, worker="a", sequence=1)
    world.push("m", {"w": np.ones(2, np.float32)}, worker="a", sequence=1)
    metric, push = listed(world.hot("m"), 1, 10).entries
    assert (metric["kind"], metric["value"], metric["worker"]) == ("metric", 1.5, "a")
    assert (push["kind"], push["step"]) == ("push", 1)
