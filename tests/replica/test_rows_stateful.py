"""Hypothesis tries to make two replicas of a table differ, from each other or from plain arithmetic.

Pushes name rows in any order, some twice; replicas crash, catch up, save and read in between. After every
step both must be the fold of what was acknowledged, to the last bit.
"""

from __future__ import annotations

import itertools
import os
from typing import Any

import hypothesis.strategies as st
import numpy as np
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from numpy.typing import NDArray

from gradledger_server.replica import TRAIN, Answer
from gradledger_server.store.memory import MemoryStore
from tests.replica.world import World, state_digest

F32 = np.float32
ROWS, WIDTH, LR, BETA1, BETA2, EPS = 6, 2, 0.1, 0.9, 0.99, 1e-8
ADAM = {"rule": "adam", "lr": LR, "beta1": BETA1, "beta2": BETA2, "eps": EPS}
INITS: list[dict[str, Any]] = [{"name": "zeros"}, {"name": "normal", "seed": 5}]
EXAMPLES = int(os.environ.get("GRADLEDGER_STATEFUL_EXAMPLES", "25"))
REPLICAS = st.sampled_from(["one", "two"])
WORKERS = st.sampled_from(["ada", "bob"])
IDS = st.lists(st.integers(0, ROWS - 1), min_size=0, max_size=5)
SEEDS = st.integers(0, 9)
_names = itertools.count(1)


class PlainAdam:
    """A table in mode lazy, as plainly as can be: a few numbers for each row."""

    def __init__(self, first: NDArray[np.float32]) -> None:
        self.w = first.copy()
        self.m, self.v = np.zeros_like(first), np.zeros_like(first)
        self.t = [0] * ROWS

    def push(self, ids: list[int], values: NDArray[np.float32]) -> None:
        sums: dict[int, NDArray[np.float32]] = {}
        for row, value in zip(ids, values, strict=True):
            sums[row] = sums[row] + value if row in sums else value
        for row, g in sums.items():
            self.t[row] += 1
            self.m[row] = F32(BETA1) * self.m[row] + F32(1 - BETA1) * g
            self.v[row] = F32(BETA2) * self.v[row] + F32(1 - BETA2) * g * g
            m_hat = self.m[row] / F32(1 - BETA1 ** self.t[row])
            v_hat = self.v[row] / F32(1 - BETA2 ** self.t[row])
            self.w[row] -= F32(LR) * m_hat / (np.sqrt(v_hat) + F32(EPS))


class Rows(RuleBasedStateMachine):
    """One model of a table, `emb`, and a dense tensor, `w`, on two replicas."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(MemoryStore())
        self.name = f"m{next(_names)}"
        self.last: dict[str, int] = {}
        self.pushed: dict[tuple[str, int], Any] = {}
        self.w = F32(0)

    @initialize(init=st.sampled_from(INITS))
    def create(self, init: dict[str, Any]) -> None:
        tables = {"emb": {"rows": "lazy", "init": init}}
        shapes = {"emb": (ROWS, WIDTH), "w": (1,)}
        groups = [{"match": "w", "optimizer": {"rule": "sgd", "lr": 1.0}}]
        values = {"w": np.zeros(1, F32)}
        assert self.world.create(self.name, shapes, values, tables, optimizer=ADAM, groups=groups)
        self.plain = PlainAdam(self.read("one"))

    def read(self, replica: str, ids: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        _, found = self.world.hot(self.name, replica).look_at("emb", ids, TRAIN)
        return found.arrays()["emb"]

    @rule(replica=REPLICAS, worker=WORKERS, ids=IDS, seed=SEEDS, dense=st.booleans())
    def push(self, replica: str, worker: str, ids: list[int], seed: int, dense: bool) -> None:
        values = np.random.default_rng(seed).standard_normal((len(ids), WIDTH)).astype(F32)
        gradient: dict[str, Any] = {"emb": values, "emb#rows": np.array(ids, np.int64)}
        if dense:
            gradient["w"] = np.ones(1, F32)
            self.w -= F32(1)
        sequence = self.last[worker] = self.last.get(worker, 0) + 1
        self.pushed[worker, sequence] = gradient
        self.plain.push(ids, values)
        answer = self.world.push(self.name, gradient, replica, worker=worker, sequence=sequence)
        assert not answer.replayed
        assert answer.published.step == answer.receipt.step
        self.check_answer(answer, ids)

    @precondition(lambda self: self.pushed)
    @rule(replica=REPLICAS, data=st.data())
    def push_again(self, replica: str, data: st.DataObject) -> None:
        worker, sequence = data.draw(st.sampled_from(sorted(self.pushed)))
        gradient = self.pushed[worker, sequence]
        answer = self.world.push(self.name, gradient, replica, worker=worker, sequence=sequence)
        assert answer.replayed
        self.check_answer(answer, gradient["emb#rows"].tolist())

    def check_answer(self, answer: Answer, ids: list[int]) -> None:
        (touched,) = answer.rows
        assert touched.ids is not None
        assert touched.ids.tolist() == sorted(set(ids))
        assert touched.arrays()["emb"].tobytes() == self.plain.w[sorted(set(ids))].tobytes()
        assert answer.published.array("w")[0] == self.w

    @rule(replica=REPLICAS, ids=st.lists(st.integers(0, ROWS - 1), min_size=1, unique=True), seed=SEEDS)
    def upload_rows(self, replica: str, ids: list[int], seed: int) -> None:
        values = np.random.default_rng(seed + 100).standard_normal((len(ids), WIDTH)).astype(F32)
        self.plain.w[ids] = values
        self.world.upload(self.name, {"emb": values, "emb#rows": np.array(ids, np.int64)}, replica)

    @rule(replica=REPLICAS, seed=SEEDS)
    def upload_whole(self, replica: str, seed: int) -> None:
        self.plain.w = np.random.default_rng(seed + 200).standard_normal((ROWS, WIDTH)).astype(F32)
        self.world.upload(self.name, {"emb": self.plain.w}, replica)

    @rule(replica=REPLICAS)
    def crash(self, replica: str) -> None:
        self.world.forget(self.name, replica)

    @rule(replica=REPLICAS)
    def save(self, replica: str) -> None:
        self.world.hot(self.name, replica).save()

    @rule(replica=REPLICAS, ids=IDS)
    def read_rows(self, replica: str, ids: list[int]) -> None:
        asked = np.array(ids, np.int64)
        assert self.read(replica, asked).tobytes() == self.plain.w[asked].tobytes()

    @invariant()
    def both_replicas_are_the_fold(self) -> None:
        if not hasattr(self, "plain"):
            return
        digests = set()
        for replica in ("one", "two"):
            assert self.read(replica).tobytes() == self.plain.w.tobytes()
            digests.add(state_digest(self.world.hot(self.name, replica).model))
        assert len(digests) == 1


def test_replicas_of_a_table_never_differ() -> None:
    checked = settings(
        max_examples=EXAMPLES,
        stateful_step_count=20,
        deadline=None,
        derandomize=True,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(Rows, settings=checked)
