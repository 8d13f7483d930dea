"""Writes elementary.json beside this file: exp and cos(pi x) to 60 digits, rounded to float64 once.

Run with a Python that has mpmath. Arguments and values are float64 in hexadecimal.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

from mpmath import cospi, exp, mp, mpf

SEED = 20170601
SPECIAL = [0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.0**-30, 0.5 - 2.0**-54, 0.5 + 2.0**-53, 1 - 2.0**-53]
LARGE = [1e3 + 0.1, 2.0**40 + 0.125, 2.0**51 + 0.5, 2.0**53, 2.0**53 - 1, 1e300]


def rounded(function: Callable[[mpf], mpf], arguments: list[float]) -> list[list[str]]:
    return [[x.hex(), float(function(mpf(x))).hex()] for x in arguments]


def main() -> None:
    mp.dps = 60
    chance = random.Random(SEED)
    document = {
        "made_by": "make_elementary_vectors.py",
        "cos_half_turns": rounded(
            cospi,
            SPECIAL
            + LARGE
            + [chance.uniform(0, 2) for _ in range(300)]
            + [chance.uniform(0, 1e6) for _ in range(50)]
            + [0.5 + chance.uniform(-1, 1) * 2.0**-k for k in range(2, 50)],
        ),
        "exp": rounded(
            exp,
            [0.0, 1.0, -1.0, 709.5, -708.0, 2.0**-40, -(2.0**-60)]
            + [chance.uniform(-700, 700) for _ in range(150)]
            + [chance.uniform(-5, 5) for _ in range(150)],
        ),
    }
    Path(__file__).with_name("elementary.json").write_text(json.dumps(document, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
