"""The adaptive grace window: what it learns from arrivals, and that it survives a snapshot."""

from __future__ import annotations

import json

import pytest

from gradledger_server.machine.sync.pace import JITTER, LAPS, Pace

MEMBERS = ["a", "b", "c", "d"]
LEASE_MS = 30_000


def lap(pace: Pace, number: int, *offsets_ms: int, began_ms: int | None = None) -> int:
    """A round in which members came so long after its beginning, with a quorum of three; when it began."""
    began_ms = number * 100_000 if began_ms is None else began_ms
    came = {worker: began_ms + offset for worker, offset in zip(MEMBERS, offsets_ms, strict=False)}
    pace.lap(number, began_ms, came, MEMBERS, 3)
    return began_ms


def test_until_a_round_is_known_the_window_is_all_there_may_be() -> None:
    assert Pace().window_ms(LEASE_MS) == LEASE_MS


def test_it_waits_for_one_who_is_a_little_late() -> None:
    pace = Pace()
    for number in range(4):
        lap(pace, number, 900, 950, 1000, 1080)
    assert pace.window_ms(LEASE_MS) == int(80 * JITTER)
    assert pace.window_ms(50) == 50, "never longer than it may"


def test_it_does_not_wait_for_one_who_is_ten_times_slower() -> None:
    """Three gradients a second are more than four in ten seconds."""
    pace = Pace()
    for number in range(4):
        lap(pace, number, 900, 950, 1000, 10_000)
    assert pace.window_ms(LEASE_MS) == 0


def test_waiting_pays_as_long_as_it_brings_more_gradients_per_second() -> None:
    """A fourth of all gradients is worth a third more time, and not a millisecond more."""
    for after_ms, worth in ((332, True), (334, False)):
        pace = Pace()
        lap(pace, 0, 900, 950, 1000, 1000 + after_ms)
        assert (pace.window_ms(LEASE_MS) > 0) is worth


def test_who_missed_a_round_shows_with_the_next_push_how_late_it_was() -> None:
    pace = Pace()
    began_ms = lap(pace, 0, 900, 950, 1000)
    assert pace.window_ms(LEASE_MS) == 0, "nobody has come later so far"
    pace.hear("d", began_ms + 1100)
    assert pace.window_ms(LEASE_MS) == int(100 * JITTER)
    pace.hear("d", began_ms + 1200)
    assert pace.window_ms(LEASE_MS) == int(100 * JITTER), "it missed one round, and came once"


def test_its_lateness_is_measured_from_the_first_round_it_missed() -> None:
    """Else one who comes in every tenth round would look like one who is just a little late."""
    pace = Pace()
    for number in range(9):
        lap(pace, number, 900, 950, 1000, began_ms=number * 1000)
    pace.hear("d", 9_050)
    assert pace.window_ms(LEASE_MS) == 0


def test_who_left_makes_up_for_nothing() -> None:
    pace = Pace()
    began_ms = lap(pace, 0, 900, 950, 1000)
    pace.forget("d")
    pace.hear("d", began_ms + 1100)
    assert pace.window_ms(LEASE_MS) == 0


def test_a_round_without_its_quorum_teaches_nothing() -> None:
    pace = Pace()
    lap(pace, 0, 900, 950)
    assert pace.window_ms(LEASE_MS) == LEASE_MS


def test_old_rounds_are_forgotten() -> None:
    pace = Pace()
    for number in range(LAPS):
        lap(pace, number, 900, 950, 1000, 1080)
    for number in range(LAPS, 2 * LAPS):
        lap(pace, number, 900, 950, 1000, 1040)
    assert pace.window_ms(LEASE_MS) == int(40 * JITTER)


@pytest.mark.parametrize("heard", [False, True])
def test_a_snapshot_holds_it(heard: bool) -> None:
    pace = Pace()
    began_ms = lap(pace, 0, 900, 950, 1000)
    lap(pace, 1, 900, 950, 1000, 1200)
    if heard:
        pace.hear("d", began_ms + 1100)
    again = Pace.load(json.loads(json.dumps(pace.dump())))
    for one in (pace, again):
        one.hear("d", began_ms + 1300)
    assert again.window_ms(LEASE_MS) == pace.window_ms(LEASE_MS)
    assert again.dump() == pace.dump()


def test_thousands_of_workers_cost_no_more_than_a_few_windows_tried() -> None:
    members = [f"w{i}" for i in range(5000)]
    pace = Pace()
    for number in range(LAPS):
        arrivals = {worker: 1000 + index for index, worker in enumerate(members)}
        pace.lap(number, 0, arrivals, members, 100)
    assert all(len(lap.after_ms) <= 1024 for lap in pace.laps)
    assert 0 < pace.window_ms(LEASE_MS) <= LEASE_MS
