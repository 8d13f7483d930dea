"""Five hundred worlds, each from its seed; `make simulate SEEDS=10000` lives through more."""

from __future__ import annotations

import pytest

from tests.simulation.world import World


@pytest.mark.parametrize("first", range(0, 500, 50))
def test_simulated_worlds(first: int) -> None:
    for seed in range(first, first + 50):
        World(seed).run()


def test_a_seed_tells_the_same_story_every_time() -> None:
    one, other = World(7), World(7)
    one.run()
    other.run()
    assert one.story == other.story and len(one.story) > 50
