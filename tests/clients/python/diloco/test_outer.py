"""The outer loop against closed forms, on a real service."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest

from gradledger import Client, errors
from gradledger.diloco import OuterLoop

AVERAGING = {"rule": "sgd", "lr": 1.0}
Arrays = dict[str, Any]


def start() -> Arrays:
    return {"w": np.array([1.0, 1.5, -1.25], np.float32), "b": np.array(2.0, np.float32)}


def same(params: Arrays, expected: Arrays) -> None:
    assert params.keys() == expected.keys()
    for name, value in params.items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)


def test_one_worker_that_averages_with_nobody_trains_as_if_alone(running: Client, name: str) -> None:
    """anchor - (anchor - local) is local to the bit while they are within a factor of two (Sterbenz)."""
    params, alone = start(), start()
    with OuterLoop(params, client=running, name=name, worker="w0", every=1, outer=AVERAGING) as outer:
        for turn in range(20):
            for each in (params, alone):
                for value in each.values():
                    value -= np.float32(0.013) * value
            [receipt] = outer.step()
            assert (receipt.fate, receipt.step, receipt.sequence) == ("merged", turn + 1, turn + 1)
            same(params, alone)
    same(dict(running.model(name).pull()), alone)


def test_rounds_come_every_h_steps(running: Client, name: str) -> None:
    params = start()
    with OuterLoop(params, client=running, name=name, every=5) as outer:
        rounds = [len(outer.step()) for _ in range(12)]
    assert rounds == [0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0]


def test_two_workers_are_averaged_by_their_weights(running: Client, name: str) -> None:
    workers = [start(), start()]
    with ExitStack() as stack, ThreadPoolExecutor(2) as pool:
        outers = [
            stack.enter_context(
                OuterLoop(params, client=running, name=name, worker=f"w{i}", every=3, outer=AVERAGING)
            )
            for i, params in enumerate(workers)
        ]

        def train(index: int) -> list[Any]:
            receipts = []
            for _ in range(3):
                workers[index]["w"] -= 1.0 + index
                receipts += outers[index].step(weight=[10.0, 30.0][index])
            return receipts

        [first], [second] = pool.map(train, (0, 1))
    assert first.fate == second.fate == "merged" and first.step == second.step == 1
    expected = start() | {"w": start()["w"] - np.float32((30 * 3.0 + 90 * 6.0) / 120)}
    same(workers[0], expected)
    same(workers[1], expected)


def test_the_outer_rule_is_nesterov_momentum_over_rounds(running: Client, name: str) -> None:
    params = start()
    w, u = start()["w"].astype(np.float64), np.zeros(3)
    drawn = np.random.default_rng(3)
    with OuterLoop(params, client=running, name=name, every=2) as outer:
        for _ in range(6):
            walked = drawn.normal(size=(2, 3)) * 0.1
            for each in walked:
                params["w"] -= each.astype(np.float32)
                outer.step()
            g = walked.sum(0)
            u = 0.9 * u + g
            w = w - 0.7 * (g + 0.9 * u)
            np.testing.assert_allclose(params["w"], w, rtol=2e-6, atol=2e-6)
    assert running.model(name).describe()["optimizer"]["rule"] == "nesterov"


@pytest.mark.parametrize("rule", ["fedadagrad", "fedadam", "fedyogi"])
def test_federated_rules_move_towards_the_clients(running: Client, name: str, rule: str) -> None:
    params = start()
    outer = {"rule": rule, "lr": 0.1}
    with OuterLoop(params, client=running, name=name, every=1, outer=outer) as loop:
        before = params["w"].copy()
        params["w"] += 1.0
        loop.step(weight=17)
    assert (params["w"] > before).all()


def test_a_second_worker_takes_the_first_ones_values(running: Client, name: str) -> None:
    first, second = start(), {key: np.zeros_like(value) for key, value in start().items()}
    with (
        OuterLoop(first, client=running, name=name, every=4, worker="a"),
        OuterLoop(second, client=running, name=name, every=4, worker="b"),
    ):
        same(second, start())


def test_synchronize_makes_a_round_of_what_is_left(running: Client, name: str) -> None:
    params = start()
    with OuterLoop(params, client=running, name=name, every=10, outer=AVERAGING) as outer:
        assert outer.synchronize() == []
        params["w"] *= 0.75
        outer.step(5)
        assert [receipt.step for receipt in outer.synchronize()] == [1]
    np.testing.assert_array_equal(running.model(name).pull()["w"], start()["w"] * np.float32(0.75))


def test_leaving_ends_the_membership(running: Client, name: str) -> None:
    with OuterLoop(start(), client=running, name=name, every=1, worker="w0"):
        [listed] = running.model(name).workers()["workers"]
        assert listed["membership"] == "member"
    with pytest.raises(errors.NotAMember):
        running.model(name, "w0").push({key: value * 0 for key, value in start().items()})


def test_half_precision_rounds_what_it_gets_and_the_master_copy_keeps_it(running: Client, name: str) -> None:
    """A worker that learned nothing sends nothing, although its copy is not the master's."""
    fine = {"w": np.array([1.0 + 2.0**-15, 1.25 + 2.0**-14], np.float32)}
    coarse = {"w": fine["w"].astype(np.float16)}
    with OuterLoop(fine, client=running, name=name, every=1, outer=AVERAGING):
        pass
    with OuterLoop(coarse, client=running, name=name, every=1, outer=AVERAGING) as outer:
        assert coarse["w"].dtype == np.float16
        outer.step()
        coarse["w"] += np.float16(0.5)
        outer.step()
    np.testing.assert_array_equal(running.model(name).pull()["w"], fine["w"] + np.float32(0.5))


def test_double_precision_stays_double(running: Client, name: str) -> None:
    params = {"w": np.array([1.0 + 2.0**-40])}
    with OuterLoop(params, client=running, name=name, every=1, outer=AVERAGING) as outer:
        params["w"] += 2.0**-41
        outer.step()
    assert running.model(name).pull()["w"] == np.array([1.0 + 2.0**-40 + 2.0**-41])


def test_a_refusal_leaves_local_work_and_weight_as_they_were(running: Client, name: str) -> None:
    params = start()
    with OuterLoop(params, client=running, name=name, every=1, outer=AVERAGING) as outer:
        params["w"][0] = np.nan
        with pytest.raises(errors.NonFinite):
            outer.step(weight=3)
        assert np.isnan(params["w"][0])
        params["w"][:] = [0.75, 1.5, -1.25]
        assert outer.fragments[0].weight == 3
        [receipt] = outer.step(weight=4)
        assert receipt.sequence == 1 and outer.fragments[0].weight == 0
    np.testing.assert_array_equal(running.model(name).pull()["w"], params["w"])


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"fragments": 0}, "fragments is 0"),
        ({"fragments": 6}, "fragments is 6"),
        ({"overlap": 5}, "overlap is 5"),
        ({"overlap": -1}, "overlap is -1"),
        ({"mixing": 0.5}, "mixing is 0.5"),
        ({"wire": "int4"}, "wire is 'int4'"),
        ({"overlap": 1, "mixing": 1.5}, "mixing is 1.5"),
        ({"every": 0}, "every is 0"),
    ],
)
def test_options_that_do_not_fit_are_refused(running: Client, options: Any, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        OuterLoop(start(), **{"client": running, "name": "none", "every": 5, **options})


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"fragmets": 2}, "'fragmets'; did you mean 'fragments'"),
        ({"zzz": 2}, "no option 'zzz'$"),
        ({"every": ...}, "'every' is missing"),
        ({"client": "http://127.0.0.1:8000"}, "client is of type str"),
    ],
)
def test_options_there_are_none_of_are_refused(running: Client, options: Any, word: str) -> None:
    given = {"client": running, "name": "none", "every": 5, **options}
    with pytest.raises(TypeError, match=word):
        OuterLoop(start(), **{name: value for name, value in given.items() if value is not ...})


def test_who_takes_no_part_cannot_go_on_unnoticed(running: Client, name: str) -> None:
    """Its steps would never be synchronised."""
    outer = OuterLoop(start(), client=running, name=name, every=1)
    with pytest.raises(RuntimeError, match="takes no part"):
        outer.step()
    with outer:
        assert len(outer.step()) == 1
    for call in (outer.step, outer.synchronize):
        with pytest.raises(RuntimeError, match="takes no part"):
            call()


@pytest.mark.parametrize("weight", [-1.0, np.inf, np.nan])
def test_weights_are_finite_and_not_negative(running: Client, name: str, weight: float) -> None:
    with OuterLoop(start(), client=running, name=name, every=5) as outer:
        with pytest.raises(ValueError, match="weight is"):
            outer.step(weight)
        assert outer.inner_step == 0


def test_whole_numbers_are_no_parameters(running: Client) -> None:
    with pytest.raises(TypeError, match="'n' is int64"):
        OuterLoop({"n": np.arange(3)}, client=running, name="none", every=1)
