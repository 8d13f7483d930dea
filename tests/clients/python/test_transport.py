"""What the transport reads of an answer."""

from __future__ import annotations

from email.message import Message

import numpy as np
import pytest

from gradledger.answer import Answer

NOTHING = np.empty(0, np.uint8)


@pytest.mark.parametrize(
    ("told", "stops"),
    [
        ("decode;dur=0.064, append;dur=1.25", {"decode": 0.064, "append": 1.25}),
        ("decode;dur=3,append;dur=4.5", {"decode": 3.0, "append": 4.5}),
        ("cache, db;dur=x, app;dur=1e9, late;dur=-1, apply;dur=2", {"apply": 2.0}),
        ("append;dur=7.25, apply;dur=0.5", {"append": 7.25, "apply": 0.5}),
        ('edge;desc="a;dur=9";dur=1, apply;dur=2.5', {"apply": 2.5}),
        ("", {}),
    ],
)
def test_stops_that_are_numbers_are_told(told: str, stops: dict[str, float]) -> None:
    """And what is left of the time until the answer's head; clocks that disagree make no negative times."""
    headers = Message()
    headers["Server-Timing"] = told
    answer = Answer(200, headers, NOTHING, 1, 7.5, 0.5)
    network = max(0.0, 7.5 - sum(stops.values()))
    assert answer.timing_ms == stops | {"network": network, "read": 0.5}


def test_a_proxy_may_tell_of_stops_of_its_own_on_another_line() -> None:
    headers = Message()
    headers["Server-Timing"] = "edge;dur=1"
    headers["server-timing"] = "apply;dur=2"
    assert Answer(200, headers, NOTHING, 1, 7.0, 0.5).timing_ms == {
        "edge": 1, "apply": 2, "network": 4.0, "read": 0.5,
    }  # fmt: skip
