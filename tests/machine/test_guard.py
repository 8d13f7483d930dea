"""Guard rails, machine level: what is left out, who is quarantined, and that rounds go on without them."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from gradledger_server.blocks import Blocks
from gradledger_server.entries import Join, Push, Quarantine
from gradledger_server.errors import InvalidSpec, NonFinite, WorkerQuarantined
from gradledger_server.machine import arrivals, image
from gradledger_server.machine.apply import apply
from gradledger_server.machine.finite import measured
from gradledger_server.machine.gradient import gather
from gradledger_server.machine.guard import FEWEST, Guard, Policy, expand
from gradledger_server.machine.model import Model
from gradledger_server.machine.receipts import Receipt
from gradledger_server.replica.draft import Sender, draft
from gradledger_server.wire import records, safetensors
from tests.machine.bodies import NUMPY, body, f32, model_of, weights_of

SGD = {"rule": "sgd", "lr": 1.0}
OUTLIERS = {"outliers": {"factor": 10.0, "strikes": 2, "window": 32}}


class World:
    """A model whose entries all go through their records, as in a log."""

    def __init__(self, **given: Any) -> None:
        self.model: Model = model_of({"w": f32(0.0, 0.0)}, optimizer=SGD, **given)
        self.offset = 1
        self.sequences: dict[str, int] = {}

    def enter(self, entry: Any) -> Receipt | None:
        self.offset += 1
        return apply(self.model, self.offset, records.from_record(records.to_record(entry)))

    def push(self, worker: str | None, *numbers: float, at_ms: int = 0) -> Receipt:
        made = self.drafted(worker, *numbers, at_ms=at_ms)
        receipt = self.enter(made)
        assert receipt is not None
        return receipt

    def drafted(self, worker: str | None, *numbers: float, at_ms: int = 0) -> Push:
        if worker is not None:
            self.sequences[worker] = self.sequences.get(worker, 0) + 1
        tensors = safetensors.decode(
            memoryview(b"".join(safetensors.encode([("w", "F32", (2,), f32(*numbers).data)])))
        )
        sender = Sender(worker, self.sequences.get(worker or ""))
        return draft(
            tensors,
            sender,
            self.model.layout,
            device=NUMPY,
            blocks=Blocks(),
            durability="memory",
            at_ms=at_ms,
            nonfinite=self.model.guard.policy.nonfinite,
        ).push

    @property
    def w(self) -> list[float]:
        return [float(x) for x in weights_of(self.model)["w"]]

    def restored(self) -> Model:
        taken = image.copy(self.model)
        joined = b"".join([safetensors.header(taken.tensors), *(part.tobytes() for part in taken.parts)])
        facts = json.loads(records.to_json(taken.facts))
        return image.restore(facts, safetensors.decode(memoryview(joined), safetensors.OWN), NUMPY, Blocks())


def usual(world: World, count: int = FEWEST) -> None:
    for _ in range(count):
        world.push("good", 1.0, 0.0)


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"nonfinite": "ignore"}, "guard.nonfinite"),
        ({"nonfinite": None}, "guard.nonfinite"),
        ({"outliers": {"factor": 0.5}}, "guard.outliers.factor"),
        ({"outliers": {"factor": math.inf}}, "guard.outliers.factor"),
        ({"outliers": {"strikes": 0}}, "guard.outliers.strikes"),
        ({"outliers": {"window": 5000}}, "guard.outliers.window"),
        ({"outliers": {"k": 3}}, "guard.outliers.k"),
        ({"outliers": 10}, "guard.outliers"),
        ({"nan": "skip"}, "guard.nan"),
        ([], "guard"),
    ],
)
def test_nonsense_is_refused_by_name(given: Any, field: str) -> None:
    with pytest.raises(InvalidSpec) as refused:
        expand(given)
    assert refused.value.facts["field"] == field


def test_an_expanded_guard_is_a_valid_request() -> None:
    assert expand(None) == expand({}) == {"nonfinite": "reject", "outliers": None}
    expanded = expand({"nonfinite": "zero", "outliers": {}})
    assert expanded["outliers"] == {"factor": 10.0, "strikes": 3, "window": 64}
    assert expand(expanded) == expanded


def test_by_default_what_is_not_finite_is_refused() -> None:
    with pytest.raises(NonFinite):
        World().push("a", math.nan, 1.0)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_skipped_push_is_taken_and_moves_nothing(bad: float) -> None:
    world = World(guard={"nonfinite": "skip"})
    world.push("a", 1.0, 1.0)
    receipt = world.push("a", bad, 1.0)
    assert (receipt.fate, receipt.step, receipt.lr, receipt.grad_norm) == ("skipped", 1, None, None)
    assert world.w == [-1.0, -1.0] and world.model.step == 1
    assert world.model.receipts.last("w:a") == 2, "its sequence is used up"
    assert world.push("a", 1.0, 1.0).step == 2


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_zero_lets_the_rest_of_a_gradient_count(bad: float) -> None:
    world = World(guard={"nonfinite": "zero"})
    receipt = world.push("a", bad, 3.0)
    assert (receipt.fate, receipt.zeroed, receipt.grad_norm) == ("applied", 1, 3.0)
    assert world.w == [0.0, -3.0]
    assert world.push("a", 1.0, 1.0).zeroed == 0


def test_a_float64_gradient_too_large_for_the_parameter_counts_as_not_finite() -> None:
    model = model_of({"w": f32(0.0, 0.0)}, optimizer=SGD)
    gradient = gather(model.layout, body({"w": np.array([1e300, 2.0])}), model.blocks)
    cleaned, norm, zeroed = measured(model.layout, gradient, NUMPY, "zero")
    assert (norm, zeroed, cleaned[0].values.tolist()) == (2.0, 1, [0.0, 2.0])


def test_an_outlier_is_left_out_and_its_worker_quarantined_after_its_strikes() -> None:
    world = World(guard=OUTLIERS)
    usual(world)
    assert world.push("bad", 9.0, 0.0).fate == "applied", "nine times is within the factor"
    before = world.w
    assert world.push("bad", 11.0, 0.0).fate == "outlier"
    assert world.model.guard.strikes == {"bad": 1}
    assert world.push("bad", 0.0, 1.0).fate == "applied" and not world.model.guard.strikes, (
        "one is taken back"
    )
    assert [world.push("bad", -500.0, 0.0).fate for _ in range(2)] == ["outlier", "outlier"]
    assert world.model.guard.quarantined == {"bad"}
    assert world.w == [before[0], before[1] - 1.0]
    blocked = world.drafted("bad", 1.0, 0.0)
    assert isinstance(arrivals.objection(world.model, blocked), WorkerQuarantined)
    receipt = world.enter(blocked)  # it overtook the news on its way to the log
    assert receipt is not None and receipt.fate == "quarantined"
    world.enter(Quarantine("bad", False, 0))
    assert world.push("bad", 1.0, 0.0).fate == "applied"


def test_a_worker_that_is_quarantined_may_still_ask_for_an_old_push() -> None:
    world = World(guard=OUTLIERS)
    first = world.drafted("a", 1.0, 0.0)
    world.enter(first)
    world.enter(Quarantine("a", True, 0))
    assert arrivals.objection(world.model, first) is None, "the receipt answers it"


def test_the_median_follows_when_all_gradients_grow() -> None:
    world = World(guard={"outliers": {"factor": 10.0, "strikes": 1000, "window": 16}})
    usual(world)
    fates = [world.push("good", 50.0, 0.0).fate for _ in range(16)]
    assert fates[0] == "outlier" and fates[-1] == "applied"


def test_few_loud_workers_do_not_move_the_median() -> None:
    world = World(guard={"outliers": {"factor": 10.0, "strikes": 1000, "window": 16}})
    usual(world, 16)
    for _ in range(20):
        assert world.push("bad", 1e30, 0.0).fate == "outlier"
        assert world.push("good", 1.0, 0.0).fate == "applied"
        assert world.push("good", 1.0, 0.0).fate == "applied"


def test_norms_of_zero_judge_nobody() -> None:
    world = World(guard=OUTLIERS)
    for _ in range(FEWEST):
        world.push("idle", 0.0, 0.0)
    assert world.push("a", 5.0, 0.0).fate == "applied"


def test_a_norm_that_overflows_can_be_written_down() -> None:
    guard = Guard(Policy.read(expand({"outliers": {"window": 1}})))
    push = World().drafted(None, 1.0, 1.0)
    assert guard.left_out(push._replace(grad_norm=math.inf)) is None
    assert json.loads(records.to_json(guard.dump()))["norms"] == [pytest.approx(1.797e308, rel=1e-3)]


@pytest.mark.parametrize(
    "mode", [{"mode": "bsp"}, {"mode": "bsp", "workers": 3}, {"mode": "backup", "take": 2}]
)
def test_a_round_does_not_wait_for_what_is_left_out(mode: dict[str, Any]) -> None:
    world = World(sync=mode, guard={"nonfinite": "skip"})
    for worker in "abc":
        world.enter(Join(worker, 0))
    assert world.push("a", math.nan, 0.0).fate == "waiting"
    assert world.push("b", 2.0, 0.0).fate == "waiting"
    last = world.push("c", 4.0, 0.0)
    assert (last.fate, last.step, last.round) == ("merged", 1, 0)
    skipped = world.model.receipts.kept("w:a", 1)
    assert skipped is not None and (skipped.fate, skipped.step, skipped.round) == ("skipped", 0, 0)
    assert world.w == [-3.0, 0.0], "the mean is that of two"


def test_a_round_of_nothing_but_what_is_left_out_ends_without_a_step() -> None:
    world = World(sync={"mode": "bsp"}, guard={"nonfinite": "skip"})
    for worker in "ab":
        world.enter(Join(worker, 0))
    world.push("a", math.nan, 0.0)
    assert world.push("b", math.inf, 0.0).fate == "skipped"
    assert (world.model.step, world.model.rounds.number, world.model.held) == (0, 1, {})
    world.push("a", 1.0, 0.0)
    assert world.push("b", 3.0, 0.0).step == 1


def test_in_buffered_mode_what_is_left_out_takes_no_place() -> None:
    world = World(sync={"mode": "buffered", "take": 2}, guard={"nonfinite": "skip"})
    assert world.push("a", math.nan, 0.0).fate == "skipped"
    assert world.push("a", 1.0, 0.0).fate == "waiting"
    assert world.push("b", 3.0, 0.0).fate == "merged"


def test_nobody_waits_for_a_quarantined_worker() -> None:
    world = World(sync={"mode": "bsp"}, guard=OUTLIERS)
    for worker in "abc":
        world.enter(Join(worker, 0))
    world.push("a", 1.0, 0.0)
    world.push("b", 3.0, 0.0)
    world.enter(Quarantine("c", True, 0))
    assert (world.model.step, world.w) == (1, [-2.0, 0.0])
    world.enter(Join("c", 0))  # it overtook the news on its way to the log
    assert "c" not in world.model.rounds.members
    world.enter(Quarantine("c", False, 0))
    world.enter(Join("c", 0))
    assert "c" in world.model.rounds.members


def test_an_outlier_in_a_round_ends_its_workers_membership_at_the_last_strike() -> None:
    world = World(sync={"mode": "bsp"}, guard={"outliers": {"factor": 10.0, "strikes": 1, "window": 8}})
    for worker in "ab":
        world.enter(Join(worker, 0))
    for _ in range(4):
        world.push("a", 1.0, 0.0)
        world.push("b", 1.0, 0.0)
    before = world.w[0]
    assert world.push("b", 1000.0, 0.0).fate == "waiting"
    assert world.model.rounds.members.present.keys() == {"a"}
    assert world.push("a", 1.0, 0.0).fate == "merged" and world.w[0] == before - 1.0
    found = world.model.receipts.kept("w:b", 5)
    assert found is not None and found.fate == "outlier"


@pytest.mark.parametrize("nonfinite", ["skip", "zero"])
def test_a_snapshot_and_a_replay_hold_it_all(nonfinite: str) -> None:
    world = World(sync={"mode": "bsp"}, guard={"nonfinite": nonfinite, **OUTLIERS})
    for worker in "ab":
        world.enter(Join(worker, 0))
    for turn in range(6):
        world.push("a", 1.0, math.nan if turn == 3 else 1.0)
        world.push("b", 1.0, 1.0)
    world.push("a", math.inf, 2.0)  # waits in the snapshot
    world.enter(Quarantine("c", True, 0))
    again = world.restored()
    assert again.guard.dump() == world.model.guard.dump()
    live, world.model = world.model, again
    last = world.drafted("b", 500.0, 1.0)
    for model in (live, again):
        apply(model, world.offset + 1, last)
    assert weights_of(live)["w"].tobytes() == weights_of(again)["w"].tobytes()
    assert live.guard.dump() == again.guard.dump() and live.guard.strikes == {"b": 1}
