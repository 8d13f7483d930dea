"""Patience: pauses that grow and differ, and draw nothing from a generator that is the user's."""

from __future__ import annotations

import random
import time

import pytest

from gradledger.errors import GradledgerError
from gradledger.patience import FIRST_PAUSE_S, LONGEST_PAUSE_S, Patience

TRIES = 12


class Passing(GradledgerError):
    """A failure that another try may not meet."""

    transient = True


def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    left = Patience(for_s=60.0)
    for _ in range(TRIES):
        left.spend(Passing("passing"))
    return slept


def test_pauses_double_up_to_the_longest_and_are_spread_over_their_upper_half(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for number, pause_s in enumerate(pauses(monkeypatch)):
        longest = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**number)
        assert longest / 2 <= pause_s <= longest
    assert pauses(monkeypatch) != pauses(monkeypatch)


def test_a_seeded_training_does_not_see_its_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    random.seed(7)
    undisturbed = random.getstate()
    pauses(monkeypatch)
    assert random.getstate() == undisturbed


def test_what_cannot_help_or_is_too_late_is_raised_with_its_tries() -> None:
    with pytest.raises(Passing) as caught:
        Patience(for_s=0.0).spend(Passing("too late"))
    assert caught.value.tries == 1
    with pytest.raises(GradledgerError, match="never"):
        Patience(for_s=60.0).spend(GradledgerError("never"))
