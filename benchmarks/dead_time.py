"""How long a model makes no step because a worker died: SIGKILL, and the times of the steps that follow."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise, takewhile
from pathlib import Path
from statistics import median
from typing import Any

from gradledger import Events
from tests.crash.crew import Crew, Member
from tests.service import Service

LIVING = 4  # who is left after the last death; enough for every mode to go on
WINDOW = 1.5  # in leases: a dead worker is felt no longer than one


@dataclass(frozen=True, slots=True)
class Pauses:
    """Seconds, one of each per death: until the first step after it, and the longest pause of the steps then.

    `usual` is the median pause between steps in the same time.
    """

    until_next: list[float]
    longest: list[float]
    usual: list[float]


def deaths(service: Service, directory: Path, sync: Mapping[str, Any], count: int) -> Pauses:
    """Kills `count` workers one after the other, at moments of chance, while the others go on."""
    dice = random.Random(count)
    crew = Crew(service, directory, sync, LIVING + count)
    pauses = Pauses([], [], [])
    try:
        crew.wait_for_pushes(3)
        for victim in crew.living[:count]:
            time.sleep(dice.uniform(0.1, 0.4))
            with crew.model.events() as events:
                _one(events, victim, sync["lease_s"] * WINDOW, pauses)
    finally:
        crew.dismiss()
    return pauses


def _one(events: Events, victim: Member, window_s: float, pauses: Pauses) -> None:
    killed_at = time.time()
    victim.kill()
    steps = (event.facts["at_ms"] / 1000 for event in events if event.kind == "step")
    later = (at for at in steps if at > killed_at)
    times = [next(later)]  # one at least, however long it takes
    times += takewhile(lambda at: at < killed_at + window_s, later)
    gaps = [after - before for before, after in pairwise([killed_at, *times])]
    pauses.until_next.append(gaps[0])
    pauses.longest.append(max(gaps))
    pauses.usual.append(median(gaps))
