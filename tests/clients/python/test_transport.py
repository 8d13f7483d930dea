"""What the transport writes and reads itself, beside the standard library's word for it."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import numpy as np
import pytest

from gradledger.transport import Answer, _encoded

NOTHING = np.empty(0, np.uint8)


@pytest.mark.parametrize(
    "query",
    [
        {"worker": "w-1", "sequence": 12, "base": 0},
        {"worker": "a b&c=d/ü+%", "weight": 0.5},
        {"weight": 1e-7, "base": 10**20},
        {"weight": 1e30, "exact": True},
        {"base": np.int64(7), "weight": np.float32(0.25)},
        {},
    ],
)
def test_a_query_is_what_urllib_makes_of_it(query: dict[str, Any]) -> None:
    assert _encoded(query) == urlencode(query)


@pytest.mark.parametrize(
    ("told", "stops"),
    [
        ("decode;dur=0.064, append;dur=1.25", {"decode": 0.064, "append": 1.25}),
        ("decode;dur=3,append;dur=4.5", {"decode": 3.0, "append": 4.5}),
        ("cache, db;dur=x, app;dur=1e9, late;dur=-1, apply;dur=2", {"apply": 2.0}),
        ('edge;desc="a;dur=9";dur=1, apply;dur=2.5', {"apply": 2.5}),
        ("", {}),
    ],
)
def test_stops_that_are_numbers_are_told(told: str, stops: dict[str, float]) -> None:
    answer = Answer(200, {"Server-Timing": told}, NOTHING, 1, 0.5)
    assert answer.timing_ms == stops | {"read": 0.5}
