"""Pushes that wait for each other, machine level: bits, fates, replay, and what a stale one becomes."""

from __future__ import annotations

import json
from itertools import permutations
from typing import Any

import numpy as np
import pytest

from gradledger_server.blocks import Blocks
from gradledger_server.entries import Close, Configure, Create, Entry, Join, Leave, Push, Tensors
from gradledger_server.errors import Invalid, InvalidSpec, NotAMember, StaleGradient, WorkerAhead
from gradledger_server.machine import arrivals, image
from gradledger_server.machine import spec as specs
from gradledger_server.machine.apply import apply, begin
from gradledger_server.machine.model import Model
from gradledger_server.machine.receipts import Receipt
from gradledger_server.machine.reconfiguration import reconfigure
from gradledger_server.wire import safetensors
from tests.machine.bodies import NUMPY, Arrays, body, f32, model_of, noise, push, spec, weights_of

ADAM = {"rule": "adam", "lr": 0.1}
START = {"w": f32(1.0, -2.0, 3.0), "b": f32(0.5)}


class World:
    """A model and its log's next offset; workers push in their own sequences."""

    def __init__(self, start: Arrays = START, **given: Any) -> None:
        given.setdefault("optimizer", ADAM)
        self.model = model_of(start, **given)
        self.offset = 1
        self.sequences: dict[str, int] = {}

    def enter(self, entry: Entry) -> None:
        self.offset += 1
        apply(self.model, self.offset, entry)

    def join(self, *workers: str) -> World:
        for worker in workers:
            self.enter(Join(worker, 0))
        return self

    def push(self, worker: str, gradient: Arrays, **facts: Any) -> Receipt:
        self.offset += 1
        self.sequences[worker] = self.sequences.get(worker, 0) + 1
        named = {"worker": worker, "sequence": self.sequences[worker], "digest": f"{worker}{self.offset}"}
        return push(self.model, gradient, offset=self.offset, **named, **facts)

    def fate(self, worker: str) -> Receipt:
        """Of the worker's latest push, by now."""
        found = self.model.receipts.kept(f"w:{worker}", self.sequences[worker])
        assert found is not None
        return found


def gradients(count: int, seed: int = 3) -> list[dict[str, Any]]:
    return [{"w": noise((3,), seed + i), "b": noise((1,), seed + 50 + i)} for i in range(count)]


def restored(model: Model) -> Model:
    """The model as a snapshot brings it back."""
    taken = image.copy(model)
    joined = b"".join([safetensors.header(taken.tensors), *(part.tobytes() for part in taken.parts)])
    facts = json.loads(json.dumps(taken.facts))
    return image.restore(facts, safetensors.decode(memoryview(joined), safetensors.OWN), NUMPY, Blocks())


def state(model: Model) -> tuple[Any, ...]:
    taken = image.copy(model)
    return json.dumps(taken.facts, sort_keys=True), [part.tobytes() for part in taken.parts]


def test_bsp_is_one_worker_with_the_averaged_gradient_bit_for_bit() -> None:
    world, alone = World(sync={"mode": "bsp"}).join("a", "b", "c"), World()
    for turn in range(4):
        given = gradients(3, seed=turn * 7)
        for worker, gradient in zip("cab", [given[2], given[0], given[1]], strict=True):
            receipt = world.push(worker, gradient)
        assert (receipt.fate, receipt.step, receipt.round) == ("merged", turn + 1, turn)
        mean = {name: ((given[0][name] + given[1][name]) + given[2][name]) / np.float32(3) for name in START}
        alone.push("solo", mean)
    for name, values in weights_of(alone.model).items():
        assert weights_of(world.model)[name].tobytes() == values.tobytes()


def test_the_order_of_arrival_does_not_matter() -> None:
    given = dict(zip("abcd", gradients(4), strict=True))
    seen = set()
    for order in permutations("abcd"):
        world = World(sync={"mode": "bsp"}).join(*"abcd")
        for worker in order:
            world.push(worker, given[worker])
        seen.add(weights_of(world.model)["w"].tobytes())
    assert len(seen) == 1


def test_a_mean_weighs_examples() -> None:
    world = World(sync={"mode": "bsp"}, optimizer={"rule": "sgd", "lr": 1.0}).join("a", "b")
    world.push("a", {"w": f32(4, 0, 0), "b": f32(0)}, weight=1.0)
    world.push("b", {"w": f32(0, 4, 0), "b": f32(0)}, weight=3.0)
    assert weights_of(world.model)["w"].tolist() == [0.0, -5.0, 3.0]


def test_every_waiting_push_gets_its_fate_when_the_round_closes() -> None:
    world = World(sync={"mode": "bsp"}).join("a", "b")
    one, two = gradients(2)
    assert world.push("a", one).fate == "waiting"
    assert world.push("b", two).fate == "merged"
    first = world.fate("a")
    assert (first.fate, first.step, first.round, first.lr) == ("merged", 1, 0, 0.1)
    assert world.model.held == {} and world.model.step == 1


def test_a_tensor_is_averaged_over_those_who_brought_it() -> None:
    world = World(sync={"mode": "bsp"}, optimizer={"rule": "sgd", "lr": 1.0}).join("a", "b")
    world.push("a", {"w": f32(2, 2, 2), "b": f32(8)})
    world.push("b", {"w": f32(4, 4, 4)})
    after = weights_of(world.model)
    assert after["w"].tolist() == [-2.0, -5.0, 0.0] and after["b"].tolist() == [-7.5]


def test_whom_krum_does_not_choose_is_told() -> None:
    sync = {"mode": "bsp", "workers": 5, "aggregate": {"name": "krum", "attackers": 1}}
    world = World(sync=sync, optimizer={"rule": "sgd", "lr": 1.0})
    for worker in "abcd":
        world.push(worker, {"w": f32(1, 1, 1) + noise((3,), ord(worker)) / 100, "b": f32(1)})
    world.push("evil", {"w": f32(-1e6, 1e6, 0), "b": f32(0)})
    fates = [world.fate(worker).fate for worker in ("a", "b", "c", "d", "evil")]
    assert sorted(fates) == ["merged", "rejected", "rejected", "rejected", "rejected"]
    assert fates[-1] == "rejected"
    assert np.allclose(weights_of(world.model)["w"], START["w"] - 1, atol=0.05)


@pytest.mark.parametrize(
    "sync", [{"mode": "bsp"}, {"mode": "ssp", "slack": 1}, {"mode": "buffered", "take": 3}]
)
def test_a_snapshot_in_the_middle_of_a_round_changes_nothing(sync: dict[str, Any]) -> None:
    world = World(sync=sync).join("a", "b", "c")
    given = gradients(12)
    for turn in range(4):
        for index, worker in enumerate("abc"):
            world.push(worker, given[turn * 3 + index])
            before = state(world.model)
            world.model = restored(world.model)
            assert state(world.model) == before
    lived = World(sync=sync).join("a", "b", "c")
    for turn in range(4):
        for index, worker in enumerate("abc"):
            lived.push(worker, given[turn * 3 + index])
    assert state(lived.model) == state(world.model)


def test_time_outs_are_entries() -> None:
    world = World(sync={"mode": "quorum", "quorum": 2, "grace_ms": 500, "lease_s": 5}).join("a", "b", "c")
    one, two = gradients(2)
    world.push("a", one)
    world.push("b", two)
    assert arrivals.overdue(world.model, 499) is None
    assert arrivals.overdue(world.model, 501) == Close(0, "grace", 501)
    world.enter(Close(0, "grace", 501))
    world.enter(Close(0, "grace", 502))
    assert world.model.step == 1 and world.fate("a").fate == "merged"
    assert arrivals.overdue(world.model, 5001) == Leave("a", "lease", 5001)
    assert arrivals.next_deadline_ms(world.model) == 5001


def test_objections_come_before_the_log() -> None:
    world = World(sync={"mode": "bsp", "staleness": {"max": 1}}).join("a", "b")
    one, two = gradients(2)
    world.push("a", one)

    def objection(**facts: Any) -> Any:
        named = {"worker": None, "sequence": None, "key": None, "base": None} | facts
        return arrivals.objection(world.model, entry_of(one, **named))

    assert isinstance(objection(), Invalid)
    assert isinstance(objection(worker="c", sequence=1), NotAMember)
    assert isinstance(objection(worker="a", sequence=2), WorkerAhead)
    assert objection(worker="a", sequence=1) is None, "a retry joins the wait"
    for worker, gradient in (("b", two), ("a", one), ("b", two)):
        world.push(worker, gradient)
    assert isinstance(objection(worker="a", sequence=3, base=0), StaleGradient)


def entry_of(gradient: Arrays, **named: Any) -> Any:
    tensors: Tensors = body(gradient)
    return Push(tensors, "d", weight=1.0, grad_norm=1.0, durability="memory", at_ms=0, **named)


def test_what_slips_past_the_objections_is_told_and_moves_nothing() -> None:
    world = World(sync={"mode": "backup", "take": 1 + 1}).join("a", "b", "c")
    one, two = gradients(2)
    world.push("a", one, base=0)
    world.push("b", two, base=0)
    before = weights_of(world.model)["w"].tobytes()
    assert world.push("c", one, base=0).fate == "late"
    assert world.push("stranger", one).fate == "rejected"
    assert weights_of(world.model)["w"].tobytes() == before and world.model.step == 1


def test_a_stale_gradient_moves_less() -> None:
    sync = {"staleness": {"scale": 0.5}}
    world = World(sync=sync, optimizer={"rule": "sgd", "lr": 1.0})
    still = {"w": f32(0, 0, 0), "b": f32(0)}
    for _ in range(3):
        world.push("a", still)
    receipt = world.push("b", {"w": f32(1, 0, 0), "b": f32(0)}, base=0)
    assert receipt.staleness == 3 and receipt.lr == 0.5, "(1 + 3) ** -0.5"
    assert weights_of(world.model)["w"].tolist() == [0.5, -2.0, 3.0]


def test_delay_compensation_is_its_equation() -> None:
    sync = {"staleness": {"compensate": 0.25, "history": 4}}
    world = World({"w": f32(1.0, 2.0)}, sync=sync, optimizer={"rule": "sgd", "lr": 1.0})
    world.push("a", {"w": f32(0.5, -1.0)})
    world.model = restored(world.model)
    w_base, w = f32(1.0, 2.0), f32(0.5, 3.0)
    assert weights_of(world.model)["w"].tolist() == w.tolist()
    g = f32(2.0, -4.0)
    world.push("b", {"w": g}, base=0)
    expected = w - (g + f32(0.25) * g * g * (w - w_base))
    assert weights_of(world.model)["w"].tobytes() == expected.tobytes()
    for _ in range(5):
        world.push("a", {"w": f32(0.0, 0.0)})
    before = weights_of(world.model)["w"]
    world.push("b", {"w": g}, base=0)
    assert (weights_of(world.model)["w"] == before - g).all(), "weights no longer held cannot compensate"


def test_the_mode_changes_at_the_edge_of_a_round() -> None:
    world = World(sync={"mode": "bsp"}).join("a", "b")
    one, two = gradients(2)
    world.push("a", one)
    asynchronous = reconfigure(world.model.spec, {"sync": {"mode": "async"}}).json
    world.enter(Configure(asynchronous, 0))
    assert world.model.rounds.policy.mode == "bsp", "the round goes on as it began"
    world.model = restored(world.model)
    assert world.push("b", two).fate == "merged"
    assert world.model.rounds.policy.mode == "async"
    assert world.push("b", two).fate == "applied"


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"sync": {"mode": "bsp"}, "transforms": {"accumulate": {"every": 2}}}, "transforms.accumulate"),
        (
            {"sync": {"mode": "bsp", "staleness": {"compensate": 1, "history": 1}}},
            "sync.staleness.compensate",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(given: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidSpec) as refused:
        spec({"w": (2,)}, **given)
    assert refused.value.facts["field"] == field


def test_rows_of_a_table_are_averaged_over_all_pushes_of_the_round() -> None:
    shapes = {"emb": ((4, 2), "F32")}
    given = {"optimizer": {"rule": "sgd", "lr": 1.0}, "sync": {"mode": "bsp"}}
    table = {"emb": {"rows": "lazy", "init": {"name": "zeros"}}}
    model = begin(Create(specs.expand(given, shapes, table).json, None, None, 0), NUMPY, Blocks())
    for offset, worker in enumerate("ab", 2):
        apply(model, offset, Join(worker, 0))
    one = {"emb": np.array([[4, 4], [8, 8]], np.float32), "emb#rows": np.array([3, 1])}
    two = {"emb": np.array([[2, 2]], np.float32), "emb#rows": np.array([3])}
    for offset, (worker, gradient) in enumerate({"a": one, "b": two}.items(), 4):
        push(model, gradient, offset=offset, worker=worker, sequence=1)
    assert model.tables["emb"].look(None)().reshape(4, 2)[:, 0].tolist() == [0, -4, 0, -3]
    assert state(restored(model)) == state(model)
