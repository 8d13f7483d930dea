"""Transforms that keep state, draw noise or wait: every replica makes the same of them, come what may."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gradledger_server.machine import views
from gradledger_server.store.memory import MemoryStore
from tests.replica.world import World, state_digest

SHAPES = {"a": (5,), "b": (3, 2), "c": ()}
SPEC: dict[str, Any] = {
    "optimizer": {"rule": "adam", "lr": 0.1, "weight_decay": 0.1, "weight_decay_mode": "decoupled"},
    "transforms": {
        "accumulate": {"every": 3},
        "clip_global_norm": {"max_norm": 1.0},
        "clip_value": {"limit": 0.4},
        "noise": {"eta": 0.1},
        "lookahead": {"every": 2},
        "ema": {"decay": 0.9, "start": "warmup"},
        "polyak": {},
    },
    "groups": [{"match": "c", "transforms": {"noise": {"seed": 5}, "polyak": None}}],
}


@pytest.mark.parametrize("seed", range(4))
def test_crashes_snapshots_and_other_replicas_leave_no_trace_in_the_bits(seed: int) -> None:
    """One model lives through everything, its twin gets the same log in peace."""
    random = np.random.default_rng(seed)
    troubled, calm = World(MemoryStore()), World(MemoryStore())
    values = {name: random.standard_normal(shape).astype("f4") for name, shape in SHAPES.items()}
    for world in (troubled, calm):
        assert world.create("m", SHAPES, values, **SPEC)
    sequences = {"ada": 0, "bob": 0}
    for _ in range(40):
        replica, worker = str(random.choice(["one", "two"])), str(random.choice(list(sequences)))
        event = random.choice(["push", "push", "push", "repeat", "crash", "snapshot", "configure"])
        names = [name for name in SHAPES if random.random() < 0.7] or ["a"]
        gradient = {name: random.standard_normal(SHAPES[name]).astype("f4") for name in names}
        if event == "push":
            sequences[worker] += 1
            named: dict[str, Any] = {
                "worker": worker,
                "sequence": sequences[worker],
                "weight": random.uniform(1, 3),
            }
            answers = [troubled.push("m", gradient, replica, **named), calm.push("m", gradient, **named)]
            assert answers[0].receipt == answers[1].receipt
            last = gradient, named
        elif event == "repeat" and sum(sequences.values()):
            assert troubled.push("m", last[0], replica, **last[1]).replayed
        elif event == "crash":
            troubled.forget("m", replica)
        elif event == "snapshot":
            troubled.hot("m", replica).save()
        elif event == "configure":
            change = {"transforms": {"ema": {"decay": float(random.choice([0.5, 0.9]))}}}
            troubled.configure("m", change, replica)
            calm.configure("m", change)
    models = [
        world.hot("m", replica) for world, replica in ((troubled, "one"), (troubled, "two"), (calm, "one"))
    ]
    for hot in models:
        hot.look()
    assert len({state_digest(hot.model) for hot in models}) == 1
    for view in views.names(models[0].model.spec):
        assert len({hot.view(view).block.tobytes() for hot in models}) == 1
