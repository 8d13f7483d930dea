"""exp and cos are the right float64s, for every argument, and soon."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import pytest

from gradledger_server.optim import elementary

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "vectors" / "elementary.json").read_text(encoding="utf-8")
)


@pytest.mark.parametrize("name", ["exp", "cos_half_turns"])
def test_every_bit_is_right(name: str) -> None:
    function = getattr(elementary, name)
    wrong = [
        (x, function(float.fromhex(x)).hex(), right)
        for x, right in VECTORS[name]
        if function(float.fromhex(x)).hex() != right
    ]
    assert len(VECTORS[name]) > 300
    assert wrong == []


def test_the_wave_is_exact_where_it_can_be() -> None:
    quarters = [elementary.cos_half_turns(n / 2) for n in range(-4, 5)]
    assert quarters == [1, 0, -1, 0, 1, 0, -1, 0, 1]
    assert elementary.cos_half_turns(2.0**1000) == 1
    assert elementary.cos_half_turns(2.0**52 + 1) == -1
    assert elementary.cos_half_turns(5e-324) == 1


def test_exp_beyond_float64() -> None:
    assert elementary.exp(1e308) == elementary.exp(710.0) == math.inf
    assert elementary.exp(-1e308) == elementary.exp(-746.0) == 0
    assert elementary.exp(-745.0) == 5e-324


def test_no_argument_takes_long() -> None:
    extremes = [sign * 1.5 * 2.0**power for power in range(-1070, 1023, 10) for sign in (1, -1)]
    started = time.process_time()
    for x in extremes:
        elementary.exp(x)
        elementary.cos_half_turns(x)
    assert time.process_time() - started < 2
