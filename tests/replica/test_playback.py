"""What a replica makes of a log that moves under its feet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from gradledger_server.blocks import Blocks
from gradledger_server.errors import GradledgerError, ModelNotFound, ModelQuarantined
from gradledger_server.kernels.cpu import CpuDevice
from gradledger_server.kernels.kernel import Bound, Kernel, bound
from gradledger_server.kernels.trace import Program
from gradledger_server.machine import receipts
from gradledger_server.replica import Hot, listed
from gradledger_server.store.contract import Append, Outcome, Snapshot
from gradledger_server.store.memory import MemoryStore
from tests.replica.world import World, state_digest


class Busy(MemoryStore):
    """A store on which others are at work: `before` and `after` run around this replica's next append,
    `loaded` after its next load of a snapshot. Each runs once."""

    def __init__(self) -> None:
        super().__init__()
        self.before: Callable[[], object] | None = None
        self.after: Callable[[], object] | None = None
        self.loaded: Callable[[], object] | None = None

    def append(self, epoch: str, appends: Sequence[Append]) -> list[Outcome]:
        before, after, self.before, self.after = self.before, self.after, None, None
        if before:
            before()
        outcomes = super().append(epoch, appends)
        if after:
            after()
        return outcomes

    def load(self, epoch: str) -> Snapshot | None:
        snapshot, loaded, self.loaded = super().load(epoch), self.loaded, None
        if loaded:
            loaded()
        return snapshot


def ones(*numbers: float) -> dict[str, Any]:
    return {"w": np.array(numbers or (1.0,), np.float32)}


@pytest.fixture
def busy() -> Busy:
    return Busy()


@pytest.fixture
def world(busy: Busy) -> World:
    world = World(busy)
    assert world.create("m", {"w": (1,)}, ones(0.0), optimizer={"rule": "adam", "lr": 0.5})
    for replica in ("one", "two"):
        world.hot("m", replica)
    return world


def agree(world: World) -> bool:
    for replica in ("one", "two"):
        world.hot("m", replica).look()
    return state_digest(world.hot("m", "one").model) == state_digest(world.hot("m", "two").model)


def test_entries_of_others_just_before_our_own_are_played_first(world: World, busy: Busy) -> None:
    busy.before = lambda: world.push("m", ones(3.0), "two", worker="b", sequence=1)
    answer = world.push("m", ones(1.0), worker="a", sequence=1)
    assert (answer.receipt.offset, answer.receipt.step) == (3, 2)
    assert answer.published.step == 2
    assert agree(world)


def test_a_named_push_that_others_saved_before_we_played_it_has_its_own_receipt(
    world: World, busy: Busy
) -> None:
    """Two pushes, one pushes, two pushes and saves: by then our entry is only to be found in the snapshot."""

    def others() -> None:
        world.push("m", ones(2.0), "two", worker="b", sequence=2)
        assert world.hot("m", "two").save()

    busy.before = lambda: world.push("m", ones(3.0), "two", worker="b", sequence=1)
    busy.after = others
    answer = world.push("m", ones(1.0), base=0, worker="a", sequence=1)
    receipt = answer.receipt
    assert (receipt.offset, receipt.step, receipt.staleness) == (3, 2, 1)
    assert (receipt.worker, receipt.sequence, receipt.lr) == ("a", 1, 0.5)
    assert not answer.replayed
    assert answer.published.step == 3
    assert agree(world)


def test_a_nameless_push_in_that_place_is_still_answered_with_where_it_lies(world: World, busy: Busy) -> None:
    def others() -> None:
        world.hot("m", "two").look()
        assert world.hot("m", "two").save()

    busy.before = lambda: world.push("m", ones(3.0), "two", worker="b", sequence=1)
    busy.after = others
    answer = world.push("m", ones(1.0))
    assert (answer.receipt.fate, answer.receipt.offset) == ("applied", 3)
    assert agree(world)


def test_a_snapshot_published_while_another_one_is_loaded_is_loaded_next(world: World, busy: Busy) -> None:
    def another() -> None:
        world.push("m", ones(1.0), "two", worker="b", sequence=2)
        assert world.hot("m", "two").save()

    world.push("m", ones(1.0), "two", worker="b", sequence=1)
    assert world.hot("m", "two").save()
    world.forget("m", "one")
    busy.loaded = another
    assert world.hot("m", "one").look().step == 2
    assert agree(world)


def test_the_first_snapshot_published_while_the_first_entry_is_looked_for(world: World, busy: Busy) -> None:
    def first() -> None:
        world.push("m", ones(1.0), "two", worker="b", sequence=1)
        assert world.hot("m", "two").save()

    world.forget("m", "one")
    busy.loaded = first
    assert world.hot("m", "one").look().step == 1


def test_a_loaded_snapshot_knows_how_long_its_keys_are_known(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a push under a key used long ago would be let through however stale it is."""
    monkeypatch.setattr(receipts, "KEYS_SURE_ENTRIES", 2)
    world.push("m", ones(1.0), key="k")
    assert world.hot("m").model.receipts.knows("k:k", 1)
    for sequence in (1, 2, 3):
        world.push("m", ones(1.0), worker="a", sequence=sequence)
    assert world.hot("m").save()
    world.forget("m")
    assert not world.hot("m").model.receipts.knows("k:k", 1)


def test_what_another_replica_saved_need_not_be_saved_again(world: World) -> None:
    world.push("m", ones(1.0), "one", worker="a", sequence=1)
    assert agree(world)
    assert world.hot("m", "two").save()
    one = world.hot("m", "one")
    assert not one.save()
    assert (one.playback.saved, one.playback.unsaved_entries, one.playback.unsaved_bytes) == (2, 0, 0)


def test_entries_can_be_listed_after_another_replica_saved(world: World) -> None:
    for sequence in (1, 2, 3):
        world.push("m", ones(1.0), "one", worker="a", sequence=sequence)
    world.hot("m", "two").look()
    assert world.hot("m", "two").save()
    world.push("m", ones(1.0), "one", worker="a", sequence=4)
    entries = listed(world.hot("m", "one"), 0, 100).entries
    assert [(entry["offset"], entry["kind"], entry["step"]) for entry in entries] == [(5, "push", 4)]


def test_a_replica_that_only_reads_does_not_collect_receipts(world: World) -> None:
    for sequence in range(1, 20):
        world.push("m", ones(1.0), "one", worker="a", sequence=sequence)
        world.hot("m", "two").look()
    assert len(world.hot("m", "two").playback.receipts) <= 1


def test_a_replica_of_a_deleted_model_can_neither_look_nor_save(world: World) -> None:
    world.push("m", ones(1.0), "two", worker="a", sequence=1)
    held = world.hot("m", "one")
    world.delete("m", "two")
    with pytest.raises(ModelNotFound):
        held.look()
    with pytest.raises(ModelNotFound):
        held.save()


class Stumbling(CpuDevice):
    """A device whose kernel fails once, midway: it has changed a slot and not yet the weight."""

    def __init__(self) -> None:
        super().__init__(compiled=False)
        self.stumbles = False

    def kernel(self, program: Program, dtype: Any) -> Any:
        return Hurdle(self, super().kernel(program, dtype))


class Hurdle:
    """Its kernel."""

    def __init__(self, device: Stumbling, sound: Kernel) -> None:
        self.device, self.sound = device, sound

    def __call__(self, out: Any, w: Any, g: Any, slots: Sequence[Any], scalars: Sequence[float]) -> None:
        if self.device.stumbles:
            self.device.stumbles = False
            slots[0][:] = 99
            raise MemoryError("no room")
        self.sound(out, w, g, slots, scalars)

    def bind(self, w: Any, slots: Sequence[Any]) -> Bound:
        return bound(self, w, slots)


def test_an_update_that_broke_off_midway_is_not_applied_on_top_of_its_half(world: World) -> None:
    device = Stumbling()
    epoch = world.store.find("m")
    assert epoch is not None
    hot = Hot("m", epoch, world.store, device, Blocks())
    device.stumbles = True
    push = world.draft("m", ones(1.0), worker="a", sequence=1)
    with pytest.raises(ModelQuarantined, match="entry 2"):
        hot.commit([push])

    # It was logged, so it counts; the next who asks plays it, once, from what is known to be whole.
    (again,) = hot.commit([push])
    assert not isinstance(again, GradledgerError)
    assert again.replayed
    assert again.receipt.step == 1
    world.hot("m", "two").look()
    assert state_digest(hot.model) == state_digest(world.hot("m", "two").model)
