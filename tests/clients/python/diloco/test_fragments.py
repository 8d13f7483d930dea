"""Fragments at different times, with and without overlap, and workers that come and go meanwhile."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from gradledger import Client, ConnectionFailed, errors
from gradledger.diloco import Fragment, OuterLoop
from tests.clients.python.diloco.conftest import Cutting

AVERAGING = {"rule": "sgd", "lr": 1.0}
Arrays = dict[str, Any]


def start() -> Arrays:
    return {name: np.full(size, 2.0, np.float32) for name, size in (("a", 3), ("b", 2), ("c", 1))}


def learn(params: Arrays, much: float = 0.25) -> None:
    for value in params.values():
        value += np.float32(much)


def test_each_fragment_has_its_turn_and_its_step(running: Client, name: str) -> None:
    params = start()
    with OuterLoop(params, client=running, name=name, every=6, fragments=3, outer=AVERAGING) as outer:
        assert [fragment.names for fragment in outer.fragments] == [("a",), ("b",), ("c",)]
        assert [fragment.model.name for fragment in outer.fragments] == [name, f"{name}.1", f"{name}.2"]
        steps = []
        for _ in range(12):
            learn(params)
            outer.step()
            steps.append([fragment.step for fragment in outer.fragments])
    assert steps[1::2] == [[1, 0, 0], [1, 1, 0], [1, 1, 1], [2, 1, 1], [2, 2, 1], [2, 2, 2]]
    assert steps[0::2] == [[0, 0, 0], *steps[1:-1:2]]
    for fragment, inner_steps in zip(outer.fragments, (8, 10, 12), strict=True):
        [value] = fragment.model.pull().values()
        np.testing.assert_array_equal(value, np.full_like(value, 2.0 + 0.25 * inner_steps))


def test_uneven_distances_between_turns_add_up(running: Client, name: str) -> None:
    with OuterLoop(start(), client=running, name=name, every=5, fragments=3) as outer:
        turns = [step for step in range(1, 16) if outer.step()]
    assert turns == [2, 4, 5, 7, 9, 10, 12, 14, 15]


@pytest.mark.parametrize(("theirs", "ours"), [(1, 3), (3, 1), (2, 3), (3, 2)])
def test_another_division_is_refused_and_leaves_no_trace(
    running: Client, name: str, theirs: int, ours: int
) -> None:
    with OuterLoop(start(), client=running, name=name, every=9, fragments=theirs):
        before = {each["name"] for each in running.models()}
        with pytest.raises(errors.ModelExists, match="another spec") as refused:
            OuterLoop(start(), client=running, name=name, every=9, fragments=ours).__enter__()
        assert "the same parameters, fragments" in refused.value.__notes__[0]
        assert {each["name"] for each in running.models()} == before


def test_groups_survive_the_division(running: Client, name: str) -> None:
    groups = [
        {"match": "c", "optimizer": {"lr": 0.5}},
        {"match": "[ab]", "optimizer": {"lr": 0.25}},
    ]
    options: dict[str, Any] = {"every": 3, "fragments": 3, "outer": AVERAGING, "groups": groups}
    params = start()
    with OuterLoop(params, client=running, name=name, **options) as outer:
        for _ in range(3):
            learn(params, 1.0)
            outer.step()
        rates = [fragment.model.describe()["groups"] for fragment in outer.fragments]
    assert [[group["match"] for group in each] for each in rates] == [["[ab]"], ["[ab]"], ["c"]]
    pulled = [next(iter(fragment.model.pull().values()))[0] for fragment in outer.fragments]
    assert pulled == [2.0 + 0.25 * 1, 2.0 + 0.25 * 2, 2.0 + 0.5 * 3]
    with pytest.raises(ValueError, match="takes no tensor"):
        OuterLoop(start(), client=running, name="none", every=3, groups=[{"match": "d"}]).__enter__()


@pytest.mark.parametrize("mixing", [0.0, 0.25, 1.0])
def test_an_overlap_ends_with_a_mixture(running: Client, name: str, mixing: float) -> None:
    """Pushed at step 2 with 2 learned, merged at step 5 when 5 are: global is 4, local 7."""
    params = {"w": np.full(2, 2.0, np.float32)}
    options: dict[str, Any] = {"every": 4, "overlap": 1, "mixing": mixing, "outer": AVERAGING}
    with OuterLoop(params, client=running, name=name, **options) as outer:
        for _ in range(4):
            learn(params, 1.0)
            assert outer.step() == []
        np.testing.assert_array_equal(params["w"], np.full(2, 6.0))
        learn(params, 1.0)
        [receipt] = outer.step()
        assert receipt.step == 1
        np.testing.assert_array_equal(params["w"], np.full(2, 6.0 + mixing))
        np.testing.assert_array_equal(outer.fragments[0].anchor["w"], np.full(2, 6.0))


def test_the_push_is_on_its_way_while_the_worker_goes_on(running: Client, name: str) -> None:
    """The other worker has not come yet, and nobody waits for it before the overlap ends."""
    mine, theirs = start(), start()
    common: dict[str, Any] = {"name": name, "every": 4, "overlap": 2, "outer": AVERAGING}
    with (
        OuterLoop(mine, client=running, worker="a", **common) as outer,
        OuterLoop(theirs, client=running, worker="b", **common) as other,
        ThreadPoolExecutor(1) as pool,
    ):
        for _ in range(5):
            learn(mine)
            outer.step()
        assert outer.fragments[0].sent is not None
        learn(mine)
        merged = pool.submit(outer.step)
        for _ in range(6):
            learn(theirs, 0.75)
            receipts = other.step()
        assert merged.result()[0].step == receipts[0].step == 1
        np.testing.assert_array_equal(mine["a"], np.full(3, 2.0 + 4 * (0.25 + 0.75) / 2))
        np.testing.assert_array_equal(mine["a"], theirs["a"])


def test_three_fragments_with_overlap_keep_workers_together(running: Client, name: str) -> None:
    common: dict[str, Any] = {"name": name, "every": 6, "fragments": 3, "overlap": 3, "mixing": 0.5}
    together = threading.Barrier(3)

    def train(index: int) -> Arrays:
        params = start()
        with OuterLoop(params, client=running, worker=f"w{index}", **common) as outer:
            together.wait()
            for _ in range(60):
                learn(params, 0.01 * (index + 1))
                outer.step()
            assert [fragment.step for fragment in outer.fragments] == [10, 9, 9]
            together.wait()  # so that nobody leaves a round that another one waits in
        return params

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(train, range(3)))
    for part in ("", ".1", ".2"):
        described = running.model(name + part).describe()
        assert described["step"] == 10


def test_who_comes_later_is_in_step_with_its_first_turn(running: Client, name: str) -> None:
    """Nobody's patience is needed: the newcomer begins with the fragment the others come to next."""
    common: dict[str, Any] = {
        "name": name,
        "every": 3,
        "fragments": 3,
        "outer": AVERAGING,
        "patience_s": None,
    }
    first, second = start(), start()
    with (
        OuterLoop(first, client=running, worker="a", **common) as early,
        ThreadPoolExecutor(1) as pool,
    ):
        for _ in range(5):
            early.step()
        assert [fragment.step for fragment in early.fragments] == [2, 2, 1]
        with OuterLoop(second, client=running, worker="b", **common) as late:
            for _ in range(6):
                told = pool.submit(early.step)
                [mine] = late.step()
                [theirs] = told.result(30)
                assert (mine.step, mine.fate) == (theirs.step, "merged")
    assert [fragment.step for fragment in late.fragments] == [4, 4, 3]


def test_who_comes_into_an_open_round_begins_after_it(running: Client, name: str) -> None:
    common: dict[str, Any] = {"client": running, "name": name, "every": 1, "outer": AVERAGING}
    mine, theirs, newest = start(), start(), start()
    with (
        OuterLoop(mine, worker="a", **common) as outer,
        OuterLoop(theirs, worker="b", **common) as other,
        ThreadPoolExecutor(2) as pool,
    ):
        learn(mine, 1.0)
        waits = pool.submit(outer.step)
        while running.model(name).workers()["round"]["waiting"] != ["a"]:
            time.sleep(0.02)
        comes = pool.submit(OuterLoop(newest, worker="c", **common).__enter__)
        time.sleep(0.3)
        assert not comes.done()
        other.step()
        waits.result(30)
        with comes.result(30) as late:
            assert late.fragments[0].step == 1
            np.testing.assert_array_equal(newest["a"], np.full(3, 2.5))


def test_a_turn_that_belongs_to_another_fragment_by_now_is_left_to_it(running: Client, name: str) -> None:
    """Fragment 0 went on without this worker, whose push of it was part of a later step than it knew."""
    sync = {"mode": "buffered", "take": 2}
    options: dict[str, Any] = {
        "every": 2,
        "fragments": 2,
        "outer": AVERAGING,
        "sync": sync,
        "patience_s": 0.2,
    }
    params = start()
    with OuterLoop(params, client=running, name=name, **options) as outer:
        first, second = outer.fragments

        def push(fragment: Fragment) -> None:
            nothing = {key: np.zeros_like(params[key]) for key in fragment.names}
            running.model(fragment.model.name, "other").push_only(nothing)

        push(first)
        push(first)
        assert outer.step() == [] and outer.step() == []
        push(first)
        push(second)
        [receipt] = outer.step()
        assert (receipt.step, first.step, first.sent) == (2, 2, None)
        assert outer.step()[0].step == 1 and second.sent is not None


def test_who_was_away_for_a_round_finds_back_into_step(
    running: Client, far: Client, cutting: Cutting, name: str
) -> None:
    """It waits in one fragment's round, the other in another's: patience ends that, and once is enough."""
    sync = {"mode": "bsp", "lease_s": 0.9}
    common: dict[str, Any] = {"name": name, "every": 2, "fragments": 2, "outer": AVERAGING, "sync": sync}
    mine, theirs = start(), start()
    with (
        OuterLoop(mine, client=far, worker="a", **common) as outer,
        OuterLoop(theirs, client=running, worker="b", **common) as other,
        ThreadPoolExecutor(1) as pool,
    ):
        cutting.losing = "requests"
        learn(mine)
        with pytest.raises(ConnectionFailed):
            outer.step()
        learn(theirs)
        assert other.step()[0].step == 1, "alone, once the lease had run out"
        cutting.losing = None
        while len(running.model(f"{name}.1").workers()["workers"]) < 2:
            time.sleep(0.02)
        done = pool.submit(_steps, other, theirs, 8)
        learned = 1 + _steps(outer, mine, 10)
        done.result(60)
    assert learned == 11
    final = [fragment.step for fragment in outer.fragments]
    assert min(final) >= 4 and max(final) - min(final) <= 1, final


def _steps(outer: OuterLoop, params: Arrays, count: int) -> int:
    for _ in range(count):
        learn(params)
        outer.step()
    return count
