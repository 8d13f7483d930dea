"""The ring of what happened: bounded, ordered, honest about what it holds no more."""

from __future__ import annotations

import pytest

from gradledger_server.machine.receipts import Receipt
from gradledger_server.replica.events import GRADIENTS_NAMED, Event, Place, Ring


def receipt(offset: int) -> Receipt:
    return Receipt("merged", 1, offset, None, None, 1.0, 1.0, 1.0, "fsync", "a", offset, 0)


def filled(count: int, most: int = 100) -> Ring:
    ring = Ring(most)
    for offset in range(1, count + 1):
        ring.add(Event("step", Place(offset), 0))
    return ring


def offsets(ring: Ring, after: Place, most: int = 1000) -> list[int]:
    events, lost = ring.after(after, most)
    assert not lost
    return [event.place.offset for event in events]


def test_what_came_behind_a_place() -> None:
    ring = filled(5)
    assert offsets(ring, Place(0)) == [1, 2, 3, 4, 5]
    assert offsets(ring, Place(3)) == [4, 5]
    assert offsets(ring, Place(5)) == []
    assert offsets(ring, Place(0), most=2) == [1, 2]


def test_it_forgets_the_oldest_and_says_so() -> None:
    ring = filled(250)
    assert offsets(ring, ring.floor) == list(range(151, 251))
    assert ring.after(Place(149), 10) == ([], True)
    assert ring.after(Place(251), 10) == ([], True), "a log that was longer"


def test_large_rounds_take_the_room_of_many_events() -> None:
    ring = Ring(100)
    for offset in range(1, 6):
        ring.add(Event("step", Place(offset), 0, {}, tuple(map(receipt, range(60)))))
    assert offsets(ring, ring.floor) == [5]


def test_one_event_is_held_however_large() -> None:
    ring, most = Ring(10), GRADIENTS_NAMED + 5
    ring.add(Event("step", Place(1), 0, {}, tuple(map(receipt, range(most)))))
    (event,), lost = ring.after(Place(0), 10)
    assert not lost and len(event.told()["gradients"]) == GRADIENTS_NAMED


def test_between_two_events_of_one_entry() -> None:
    ring = Ring()
    for ahead in (-2, -1, 0):
        ring.add(Event("step", Place(1, ahead), 0))
    assert [event.place.id for event in ring.after(Place(0), 10)[0]] == ["1.2", "1.1", "1"]
    assert [event.place.ahead for event in ring.after(Place(1, -2), 10)[0]] == [-1, 0]
    assert ring.after(Place(1), 10) == ([], False)


def test_a_snapshot_is_told_once_and_nobody_resumes_there() -> None:
    ring = filled(2)
    ring.saved(2)
    ((saved,), _) = ring.after(Place(2), 10)
    assert (saved.kind, saved.place.id) == ("snapshot", "2")
    assert ring.after(saved.place, 10) == ([], False)
    ring.add(Event("step", Place(3), 0))
    assert offsets(ring, saved.place) == [3]


def test_a_log_played_anew_begins_behind_its_snapshot() -> None:
    ring = filled(5)
    ring.begin(4)
    assert ring.after(Place(4, -1), 10) == ([], True), "half an entry was seen, the rest is in the snapshot"
    assert ring.after(Place(4), 10) == ([], False)


@pytest.mark.parametrize("place", [Place(0), Place(17), Place(17, -2)])
def test_ids_are_read_as_they_are_written(place: Place) -> None:
    assert Place.read(place.id) == place


@pytest.mark.parametrize("text", ["", "-1", "1.", "1.2.3", "x", "１", "1" * 17])
def test_other_texts_are_no_ids(text: str) -> None:
    assert Place.read(text) is None
