"""Whoever is silent is hung up on, and nobody else: what the keep-alive timer does when it goes off."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from gradledger_server.api.protocol import Protocol

LIMIT_S = 5.0
NOW = 100.0


def armed_again(*, closing: bool, paused: bool, rests_since: float | None) -> list[float]:
    """For how many seconds the timer is set once more."""
    armed: list[float] = []
    connection = SimpleNamespace(
        transport=SimpleNamespace(is_closing=lambda: closing),
        flow=SimpleNamespace(write_paused=paused),
        loop=SimpleNamespace(time=lambda: NOW),
        timeout_keep_alive=LIMIT_S,
        _rests_since=rests_since,
        _wait_for_more=armed.append,
    )
    Protocol.timeout_keep_alive_handler(connection)  # type: ignore[arg-type]
    return armed


@pytest.mark.parametrize(
    ("closing", "paused", "rests_since", "seconds"),
    [
        pytest.param(False, False, None, [LIMIT_S], id="a request is at work"),
        pytest.param(False, False, NOW - 2, [LIMIT_S - 2], id="it rests for less"),
        pytest.param(False, True, NOW - 60, [LIMIT_S], id="its answer is still under way"),
        pytest.param(True, False, None, [], id="it was reset in the middle of a request"),
        pytest.param(True, False, NOW - 60, [], id="it is closing anyway"),
    ],
)
def test_the_timer_is_set_again_as_long_as_there_is_something_to_wait_for(
    *, closing: bool, paused: bool, rests_since: float | None, seconds: list[float]
) -> None:
    assert armed_again(closing=closing, paused=paused, rests_since=rests_since) == seconds
