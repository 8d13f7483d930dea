"""Rounds by hand, mode by mode, and a few hundred simulated worlds."""

from __future__ import annotations

from typing import Any

import pytest

from gradledger_server.machine.sync.policy import Policy, expand
from gradledger_server.machine.sync.rounds import Held, Rounds
from tests.machine.sync.simulation import World


class Story:
    """Pushes by name, and the steps they make."""

    def __init__(self, **sync: Any) -> None:
        self.rounds = Rounds(Policy.read(expand(sync)))
        self.offset = 0
        self.sequences: dict[str, int] = {}

    def join(self, *workers: str, at_ms: int = 0) -> None:
        for worker in workers:
            self.rounds.join(worker, at_ms)

    def push(self, worker: str, at_ms: int = 0) -> list[list[str]]:
        """The steps that this push makes, each with the workers in it."""
        self.offset += 1
        self.sequences[worker] = self.sequences.get(worker, 0) + 1
        self.rounds.hold(Held(self.offset, worker, self.sequences[worker], None, 1.0, at_ms))
        return self.steps()

    def steps(self) -> list[list[str]]:
        made = []
        while group := self.rounds.due():
            made.append([push.worker for push in group])
            self.rounds.settle(group, 0)
        return made


def test_bsp_waits_for_every_member_and_adds_up_in_the_order_of_names() -> None:
    story = Story(mode="bsp")
    story.join("a", "b", "c")
    assert (story.push("c"), story.push("a")) == ([], [])
    assert story.rounds.is_ahead("a")
    assert story.push("b") == [["a", "b", "c"]]
    assert not story.rounds.is_ahead("a")


def test_a_member_that_leaves_is_waited_for_no_longer_and_still_counts_with_what_it_gave() -> None:
    story = Story(mode="bsp")
    story.join("a", "b", "c")
    story.push("c")
    story.rounds.members.leave("c")
    assert story.push("a") == [], "b is alive and has given nothing"
    assert story.push("b") == [["a", "b", "c"]]
    story.push("a")
    story.rounds.members.leave("b")
    assert story.steps() == [["a"]]


def test_a_round_whose_members_all_died_is_over_with_what_is_there() -> None:
    story = Story(mode="bsp")
    story.join("a", "b")
    story.push("a")
    story.rounds.members.leave("a")
    assert story.steps() == []
    story.rounds.members.leave("b")
    assert story.steps() == [["a"]]


def test_who_joins_in_the_middle_of_a_round_is_waited_for_from_the_next_one_on() -> None:
    story = Story(mode="bsp")
    story.join("a", "b")
    story.push("a")
    story.join("c")
    assert story.push("b") == [["a", "b"]]
    story.push("a")
    assert story.push("b") == []
    assert story.push("c") == [["a", "b", "c"]]


def test_a_fixed_number_of_workers_needs_no_joining() -> None:
    story = Story(mode="bsp", workers=3)
    assert (story.push("a"), story.push("b"), story.push("c")) == ([], [], [["a", "b", "c"]])


def test_who_never_comes_is_given_up_when_a_lease_is_over() -> None:
    story = Story(mode="bsp", workers=3, lease_s=2)
    story.push("a", at_ms=100)
    story.push("b", at_ms=900)
    assert story.rounds.deadline() == (2100, "lease")
    story.rounds.close(0)
    assert story.steps() == [["a", "b"]]
    story.rounds.close(0)  # another replica says it, too late
    story.push("a", at_ms=3000)
    assert story.steps() == []


def test_a_fixed_number_that_is_all_there_is_waited_for_as_long_as_it_lives() -> None:
    story = Story(mode="bsp", workers=2, lease_s=2)
    story.push("a", at_ms=100)
    assert story.push("b", at_ms=200) == [["a", "b"]]
    story.push("a", at_ms=300)
    assert story.rounds.deadline() is None, "b is slow, and has a lease of its own"


def test_who_comes_back_while_its_push_waits_has_its_place_again() -> None:
    story = Story(mode="bsp")
    story.join("a", "b")
    story.push("a")
    story.rounds.members.leave("a")
    story.join("a")
    story.rounds.members.leave("b")
    assert story.steps() == [["a"]], "nobody else is left to open the next round for it"


def test_one_of_a_fixed_number_that_joins_in_the_middle_of_a_round_is_in_it() -> None:
    story = Story(mode="bsp", workers=2)
    story.push("a")
    story.join("b")
    assert story.push("b") == [["a", "b"]]


def test_who_left_is_not_missing_from_a_number_fixed_later() -> None:
    story = Story(mode="bsp")
    story.join("a", "b")
    story.rounds.members.leave("a")
    story.rounds.members.leave("b")
    story.rounds.configure(Policy.read(expand({"mode": "bsp", "workers": 2})), 0)
    assert story.push("c") == [], "two are expected, whoever was there before"
    assert story.push("d") == [["c", "d"]]


def test_a_fixed_number_that_never_was_does_not_hold_ssp_back_for_longer_than_a_lease() -> None:
    story = Story(mode="ssp", slack=0, workers=2, lease_s=2)
    assert story.push("a", at_ms=100) == [["a"]]
    assert story.push("a", at_ms=200) == []
    assert story.rounds.deadline() == (2200, "lease")
    story.rounds.close(0)
    assert story.steps() == [["a"]]


def test_backup_takes_the_first_of_a_round() -> None:
    story = Story(mode="backup", take=2)
    story.join("a", "b", "c")
    assert (story.push("c"), story.push("a")) == ([], [["a", "c"]])


def test_a_backup_round_wants_no_more_than_there_are() -> None:
    story = Story(mode="backup", take=3)
    story.join("a", "b")
    assert (story.push("a"), story.push("b")) == ([], [["a", "b"]])


def test_buffered_takes_any() -> None:
    story = Story(mode="buffered", take=3)
    assert (story.push("a"), story.push("a"), story.push("b")) == ([], [], [["a", "a", "b"]])
    assert not story.rounds.is_ahead("a")


def test_a_quorum_is_enough_once_the_grace_is_over() -> None:
    story = Story(mode="quorum", quorum=2, grace_ms=500)
    story.join("a", "b", "c")
    story.push("a", at_ms=1000)
    assert story.rounds.deadline() is None, "one is no quorum, however long it waits"
    story.push("b", at_ms=1200)
    assert story.rounds.deadline() == (1700, "grace")
    story.rounds.close(0)
    assert story.steps() == [["a", "b"]]
    assert (story.push("a"), story.push("b"), story.push("c")) == ([], [], [["a", "b", "c"]])


def test_ssp_lets_nobody_run_further_ahead_than_its_slack() -> None:
    story = Story(mode="ssp", slack=2)
    story.join("fast", "slow")
    assert [story.push("fast") for _ in range(3)] == [[["fast"]]] * 3
    assert story.push("fast") == []
    assert story.rounds.is_ahead("fast")
    assert story.push("slow") == [["slow"], ["fast"]] or story.rounds.waiting == []


def test_ssp_is_not_held_back_by_who_has_left() -> None:
    story = Story(mode="ssp", slack=0)
    story.join("fast", "slow")
    assert story.push("fast") == [["fast"]]
    assert story.push("fast") == []
    story.rounds.members.leave("slow")
    assert story.steps() == [["fast"]]


def test_a_newcomer_starts_where_the_slowest_is() -> None:
    story = Story(mode="ssp", slack=1)
    story.join("a")
    for _ in range(10):
        story.push("a")
    story.join("b")
    assert story.push("a") == [["a"]]
    assert story.push("a") == [["a"]]
    assert story.push("a") == [], "b has made none of its own"


@pytest.mark.parametrize("first", range(0, 600, 100))
def test_simulated_worlds(first: int) -> None:
    for seed in range(first, first + 100):
        World(seed).run()
