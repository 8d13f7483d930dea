"""Simulates worlds: `python -m tests.simulation --seeds 10000`, or `--seed 17` to hear one story again."""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures import ProcessPoolExecutor

from tests.simulation.world import Broken, World, reproduction


def story_of(seed: int) -> tuple[int, str | None]:
    """The seed, and its story if it breaks a promise."""
    try:
        World(seed).run()
    except Broken as broken:
        return seed, str(broken)
    return seed, None


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many worlds")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--seed", type=int, help="tell this one world's story")
    asked = parser.parse_args()
    if asked.seed is not None:
        world = World(asked.seed)
        try:
            world.run()
        finally:
            print("\n".join(world.story))
        return 0
    began, broken = time.monotonic(), []
    with ProcessPoolExecutor() as pool:
        seeds = range(asked.first, asked.first + asked.seeds)
        for seed, story in pool.map(story_of, seeds, chunksize=50):
            if story is not None:
                broken.append(seed)
                print(story if len(broken) == 1 else f"also broken: {reproduction(seed)}", flush=True)
    print(f"{asked.seeds} worlds in {time.monotonic() - began:.0f} s, {len(broken)} of them broken")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
