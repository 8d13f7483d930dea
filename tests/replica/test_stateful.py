"""Hypothesis tries to make two replicas of one log differ from each other or from a plain model.

Every step is something a client, a crash or another replica may do; after every step both replicas must be,
to the last bit, the fold of the pushes that were acknowledged.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from gradledger_server.errors import (
    GradledgerError,
    ModelNotFound,
    PreconditionFailed,
    SequenceGap,
    SequenceReused,
)
from gradledger_server.machine import image
from gradledger_server.replica import Answer
from gradledger_server.store import Store, open_store
from gradledger_server.store.memory import MemoryStore
from tests.replica.plain import Named, Plain, Tensor
from tests.replica.world import World, state_digest

SHAPES = {"a": (2,), "b": (3,), "c": ()}
OPTIMIZERS: list[dict[str, Any]] = [
    {"rule": "sgd", "lr": 0.5},
    {"rule": "momentum", "lr": 0.3, "momentum": 0.9},
    {"rule": "adam", "lr": 0.1, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8},
]
EXAMPLES = int(os.environ.get("GRADLEDGER_STATEFUL_EXAMPLES", "40"))
# Shrinking a failure takes minutes, so it has to be asked for. The examples are the same each time.
PHASES = tuple(Phase) if os.environ.get("GRADLEDGER_STATEFUL_SHRINK") else (Phase.generate,)
_names = itertools.count(1)
REPLICAS = st.sampled_from(["one", "two"])
WORKERS = st.sampled_from(["ada", "bob", "cyd"])
NUMBERS = st.floats(-4, 4, width=32)


def _tensors(names: list[str]) -> st.SearchStrategy[dict[str, Tensor]]:
    def array(shape: tuple[int, ...]) -> st.SearchStrategy[Tensor]:
        count = int(np.prod(shape))
        return st.lists(NUMBERS, min_size=count, max_size=count).map(
            lambda numbers: np.array(numbers, np.float32).reshape(shape)
        )

    return st.fixed_dictionaries({name: array(SHAPES[name]) for name in names})


GRADIENTS = st.lists(st.sampled_from(sorted(SHAPES)), min_size=1, unique=True).flatmap(_tensors)


def differs(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    """Whether they are two bodies: other names or other bits."""
    return a.keys() != b.keys() or any(a[name].tobytes() != b[name].tobytes() for name in a)


class Ledger(RuleBasedStateMachine):
    """One model name, two replicas, three workers."""

    new_store: Callable[[], Store] = MemoryStore

    def __init__(self) -> None:
        super().__init__()
        self.world = World(self.new_store())
        self.plain: Plain
        self.name = ""

    @initialize(optimizer=st.sampled_from(OPTIMIZERS), values=_tensors(sorted(SHAPES)))
    def create(self, optimizer: dict[str, Any], values: dict[str, Tensor]) -> None:
        self.name = self.name or f"m{next(_names)}"
        self.plain = Plain(dict(optimizer), dict(values))
        assert self.world.create(self.name, SHAPES, values, optimizer=optimizer)

    # -- pushes ----------------------------------------------------------------------------------

    @rule(replica=REPLICAS, worker=WORKERS, gradient=GRADIENTS, with_base=st.booleans())
    def push(self, replica: str, worker: str, gradient: dict[str, Tensor], with_base: bool) -> None:
        sequence = self.plain.last.get(worker, 0) + 1
        base = self.plain.step if with_base else None
        answer = self.world.push(self.name, gradient, replica, worker=worker, sequence=sequence, base=base)
        assert answer.receipt.staleness == (0 if with_base else None)
        self._fresh(answer, self._apply(worker, sequence, gradient))

    @rule(replica=REPLICAS, gradient=GRADIENTS)
    def push_by_nobody(self, replica: str, gradient: dict[str, Tensor]) -> None:
        self._fresh(self.world.push(self.name, gradient, replica), self.plain.push(gradient))

    @rule(replica=REPLICAS, key=st.sampled_from(["k1", "k2", "k3"]), gradient=GRADIENTS)
    def push_by_key(self, replica: str, key: str, gradient: dict[str, Tensor]) -> None:
        known = self.plain.keys.get(key)
        if known is None:
            answer = self.world.push(self.name, gradient, replica, key=key)
            self.plain.keys[key] = self.plain.push(gradient)
            self._fresh(answer, self.plain.keys[key])
        elif differs(known.gradient, gradient):
            with pytest.raises(SequenceReused):
                self.world.push(self.name, gradient, replica, key=key)
        else:
            self._replayed(self.world.push(self.name, gradient, replica, key=key), known)

    @precondition(lambda self: self.plain.workers)
    @rule(replica=REPLICAS, data=st.data())
    def push_again(self, replica: str, data: st.DataObject) -> None:
        (worker, sequence), known = self._some_push(data)
        answer = self.world.push(self.name, known.gradient, replica, worker=worker, sequence=sequence)
        self._replayed(answer, known)

    @precondition(lambda self: self.plain.workers)
    @rule(replica=REPLICAS, data=st.data(), gradient=GRADIENTS)
    def push_another_body_again(self, replica: str, data: st.DataObject, gradient: dict[str, Tensor]) -> None:
        (worker, sequence), known = self._some_push(data)
        if differs(known.gradient, gradient):
            with pytest.raises(SequenceReused):
                self.world.push(self.name, gradient, replica, worker=worker, sequence=sequence)

    @rule(replica=REPLICAS, worker=WORKERS, gradient=GRADIENTS, ahead=st.integers(2, 5))
    def push_with_a_gap(self, replica: str, worker: str, gradient: dict[str, Tensor], ahead: int) -> None:
        last = self.plain.last.get(worker, 0)
        with pytest.raises(SequenceGap) as caught:
            self.world.push(self.name, gradient, replica, worker=worker, sequence=last + ahead)
        assert caught.value.facts == {"worker": worker, "got": last + ahead, "expected": last + 1}

    @rule(
        replica=REPLICAS,
        gradient=GRADIENTS,
        wishes=st.lists(st.tuples(WORKERS, st.integers(-1, 3)), min_size=2, max_size=6),
    )
    def push_many_at_once(
        self, replica: str, gradient: dict[str, Tensor], wishes: list[tuple[str, int]]
    ) -> None:
        """Repeats and reordered pushes inside one group commit, judged one after the other."""
        drafts, expected = [], []
        for worker, ahead in wishes:
            sequence = max(1, self.plain.last.get(worker, 0) + ahead)
            drafts.append(self.world.draft(self.name, gradient, replica, worker=worker, sequence=sequence))
            expected.append((worker, sequence))
        answers = self.world.commit(self.name, drafts, replica)
        for (worker, sequence), answer in zip(expected, answers, strict=True):
            self._judge(worker, sequence, gradient, answer)

    @rule(replica=REPLICAS, worker=WORKERS, gradient=GRADIENTS, behind=st.integers(0, 2))
    def push_on_a_condition(
        self, replica: str, worker: str, gradient: dict[str, Tensor], behind: int
    ) -> None:
        sequence = self.plain.last.get(worker, 0) + 1
        epoch = self.world.hot(self.name, replica).epoch
        named: dict[str, Any] = {
            "worker": worker,
            "sequence": sequence,
            "if_match": f'"{epoch}.{self.plain.step - behind}"',
        }
        if behind:
            with pytest.raises(PreconditionFailed):
                self.world.push(self.name, gradient, replica, **named)
        else:
            answer = self.world.push(self.name, gradient, replica, **named)
            self._fresh(answer, self._apply(worker, sequence, gradient))

    # -- everything else -------------------------------------------------------------------------

    @rule(replica=REPLICAS)
    def snapshot(self, replica: str) -> None:
        self.world.hot(self.name, replica).save()

    @rule(replica=REPLICAS)
    def crash(self, replica: str) -> None:
        self.world.forget(self.name, replica)

    @rule(replica=REPLICAS, lr=st.sampled_from([0.5, 0.25, 0.1]))
    def configure(self, replica: str, lr: float) -> None:
        self.world.configure(self.name, {"optimizer": {"lr": lr}}, replica)
        self.plain.configure(lr)

    @rule(replica=REPLICAS, values=GRADIENTS)
    def upload(self, replica: str, values: dict[str, Tensor]) -> None:
        self.world.upload(self.name, values, replica)
        self.plain.upload(values)

    @rule(replica=REPLICAS, optimizer=st.sampled_from(OPTIMIZERS), values=_tensors(sorted(SHAPES)))
    def delete_and_recreate(self, replica: str, optimizer: dict[str, Any], values: dict[str, Tensor]) -> None:
        other = "two" if replica == "one" else "one"
        held = self.world.hot(self.name, other)
        assert self.world.delete(self.name, replica)
        with pytest.raises(ModelNotFound):
            held.look()
        with pytest.raises(ModelNotFound):
            self.world.push(self.name, {"a": values["a"]}, other)
        self.world.forget(self.name, other)
        self.create(optimizer, values)

    @precondition(lambda self: hasattr(self, "plain"))
    @invariant()
    def replicas_and_plain_model_agree(self) -> None:
        digests = set()
        for replica in ("one", "two"):
            hot = self.world.hot(self.name, replica)
            published = hot.look()
            assert hot.playback.saved <= hot.playback.applied == self.plain.offset
            assert published.step == self.plain.step
            for name, value in self.plain.values.items():
                assert published.array(name).tobytes() == value.tobytes(), name
            digests.add(state_digest(hot.model))
        assert len(digests) == 1

    @precondition(lambda self: hasattr(self, "plain"))
    @invariant()
    def slots_counts_and_workers_are_the_plain_models(self) -> None:
        model = self.world.hot(self.name, "two").model
        taken = image.copy(model)
        numbers = dict(zip([name for name, _, _ in taken.tensors], _split(taken), strict=True))
        for name, slot in self.plain.slots.items():
            assert numbers[name] == slot.tobytes(), name
        for name, t in self.plain.t.items():
            assert int.from_bytes(numbers[f"t/{name}"], "little") == t
        assert {name: last for name, last, _ in model.receipts.workers()} == self.plain.last

    # -- what an answer must say -----------------------------------------------------------------

    def _apply(self, worker: str, sequence: int, gradient: dict[str, Tensor]) -> Named:
        pushed = self.plain.push(gradient)
        self.plain.workers[worker, sequence] = pushed
        self.plain.last[worker] = sequence
        return pushed

    def _judge(
        self, worker: str, sequence: int, gradient: dict[str, Tensor], answer: Answer | GradledgerError
    ) -> None:
        last = self.plain.last.get(worker, 0)
        if sequence > last + 1:
            assert isinstance(answer, SequenceGap)
            assert answer.facts == {"worker": worker, "got": sequence, "expected": last + 1}
        elif sequence == last + 1:
            assert isinstance(answer, Answer)
            pushed = self._apply(worker, sequence, gradient)
            assert not answer.replayed
            assert (answer.receipt.offset, answer.receipt.step) == (pushed.offset, pushed.step)
        else:
            known = self.plain.workers[worker, sequence]
            if differs(known.gradient, gradient):
                assert isinstance(answer, SequenceReused)
            else:
                assert isinstance(answer, Answer)
                assert answer.replayed
                assert (answer.receipt.offset, answer.receipt.step) == (known.offset, known.step)

    def _fresh(self, answer: Answer, pushed: Named) -> None:
        receipt = answer.receipt
        assert not answer.replayed
        assert (receipt.fate, receipt.offset, receipt.step) == ("applied", pushed.offset, pushed.step)
        assert answer.published.step == self.plain.step
        assert receipt.lr == self.plain.optimizer["lr"]
        for name, value in self.plain.values.items():
            assert answer.published.array(name).tobytes() == value.tobytes()

    def _replayed(self, answer: Answer, known: Named) -> None:
        assert answer.replayed
        assert (answer.receipt.offset, answer.receipt.step) == (known.offset, known.step)
        assert answer.published.step == self.plain.step

    def _some_push(self, data: st.DataObject) -> tuple[tuple[str, int], Named]:
        name = data.draw(st.sampled_from(sorted(self.plain.workers)))
        return name, self.plain.workers[name]


def _split(taken: image.Image) -> Iterator[bytes]:
    whole, start = b"".join(part.tobytes() for part in taken.parts), 0
    for _, dtype, shape in taken.tensors:
        stop = start + int(np.prod(shape)) * (8 if dtype == "I64" else 4)
        yield whole[start:stop]
        start = stop


def run_machine(machine: type[RuleBasedStateMachine], *, examples: int, steps: int) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            derandomize=True,
            phases=PHASES,
        ),
    )


def test_on_the_store_in_memory() -> None:
    run_machine(Ledger, examples=EXAMPLES, steps=40)


@pytest.fixture(scope="module")
def real_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    store = open_store(None, tmp_path_factory.mktemp("valkey"), "memory")
    yield store
    store.close()


def test_on_a_real_server(real_store: Store) -> None:
    class OnValkey(Ledger):
        @staticmethod
        def new_store() -> Store:
            return real_store

    run_machine(OnValkey, examples=8, steps=30)
