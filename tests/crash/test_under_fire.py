"""Every mode with real worker processes, some of which are killed, and with the service killed mid-round.

What must hold: whoever lives goes on within a lease; each acknowledged push has one fate, the one its worker
was told; and the log, played again by a fresh service on other kernels, tells the same story and ends in the
same bits. `make crash` does it in every mode with 16 workers of which 4 die, `make test` with 5 in one mode.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from gradledger import Event
from gradledger_server.machine.sync.policy import MODES
from tests.crash.crew import Crew, Member, Told
from tests.service import Service

FULL = "GRADLEDGER_CRASH_ROUNDS" in os.environ
WORKERS, KILLED = (16, 4) if FULL else (5, 2)
LEASE_S = 2.0
GRACE_MS = 400
SCHEDULING_S = 2 * LEASE_S  # what a busy machine may add; it runs all of these processes on few cores
KEEP_ALL = {"GRADLEDGER_SNAPSHOT_QUIET_S": "600"}  # the ledger from its first entry

Name = tuple[str, int]  # a push: its worker and sequence


def sync(mode: str) -> dict[str, Any]:
    """The mode with numbers that fit so many workers; it goes on without the killed."""
    living = WORKERS - KILLED
    more: dict[str, dict[str, Any]] = {
        "ssp": {"slack": 2},
        "backup": {"take": living - 1},
        "buffered": {"take": living // 2},
        "quorum": {"quorum": living - 1, "grace_ms": GRACE_MS},
    }
    return {"mode": mode, "lease_s": LEASE_S, **more.get(mode, {})}


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("mode", MODES if FULL else ["bsp"])  # where one dead worker holds up everybody
def test_workers_and_the_service_die_and_every_push_has_one_fate(tmp_path: Path, mode: str) -> None:
    with ExitStack() as cleanup:
        service = cleanup.enter_context(Service(tmp_path / "data", **KEEP_ALL))
        crew = Crew(service, tmp_path, sync(mode), WORKERS)
        cleanup.callback(crew.dismiss)
        crew.wait_for_pushes(2)
        kill(crew.living[: KILLED // 2])
        crew.wait_for_pushes(2)
        kill(crew.living[KILLED // 2 - KILLED :])  # leases run out by name: now the dead come last
        time.sleep(LEASE_S / 4)  # the living wait for the dead: their round is open
        down_from = time.monotonic()
        service.kill()
        service.start()
        down = down_from, time.monotonic()
        crew.wait_for_pushes(3)
        crew.finish()
        require_no_hang(crew, down)
        require_one_fate_each(crew, service)
        require_the_same_again(crew, service)


def kill(members: list[Member]) -> None:
    for member in members:
        member.kill()


def require_no_hang(crew: Crew, down: tuple[float, float]) -> None:
    """Whoever lived waited for a fate no longer than a lease and the grace window, the down time aside."""
    longest_s = max(waited_s(told, down) for member in crew.living for told in member.settled)
    print(f"\n{crew.mode}: {len(crew.story)} events, the longest wait {longest_s:.2f} s, lease {LEASE_S} s")
    assert longest_s < LEASE_S + GRACE_MS / 1000 + SCHEDULING_S


def waited_s(told: Told, down: tuple[float, float]) -> float:
    without = max(0.0, min(told.ended, down[1]) - max(told.began, down[0]))
    return told.ended - told.began - without


def require_one_fate_each(crew: Crew, service: Service) -> None:
    """Of ledger, story and workers, none knows a push or a fate that the others do not."""
    fates = Counter(told_fates(crew.story))
    assert set(fates.values()) == {1}
    by_name = {name: (fate, step) for name, fate, step in fates}
    assert len(by_name) == len(fates), "two fates of one push"
    logged = Counter(pushes(service, crew.model.name))
    assert set(logged.values()) == {1}
    waiting = logged.keys() - by_name.keys()
    assert len(waiting) < (crew.sync["take"] if crew.mode == "buffered" else 1), waiting
    assert by_name.keys() <= logged.keys()
    for member in crew.members:
        assert {(member.name, told.sequence) for told in member.told} <= logged.keys(), (
            "acknowledged, and lost"
        )
        for told in member.settled:
            assert by_name[member.name, told.sequence] == (told.fate, told.step)
    assert crew.model.describe()["step"] == max(step for _, _, step in fates)


def told_fates(story: list[Event]) -> list[tuple[Name, str, int]]:
    """Each fate in the story, with the step it belongs to."""
    fates: list[tuple[Name, str, int]] = []
    for event in story:
        assert event.kind != "reset", "the story is longer than what a replica holds"
        facts = event.facts
        if event.kind == "step":
            fates += [((g["worker"], g["sequence"]), g["fate"], facts["step"]) for g in facts["gradients"]]
        elif event.kind == "late" or (event.kind == "rejected" and "round" not in facts):  # on its way
            name = facts["worker"], facts["sequence"]
            fates.append((name, event.kind, facts["base"] + facts["staleness"]))
    return fates


def pushes(service: Service, model: str) -> list[Name]:
    """The pushes in the ledger, which is whole."""
    entries: list[dict[str, Any]] = []
    after: int | None = 0
    while after is not None:
        page = service.request("GET", f"/v1/models/{model}/entries?limit=1000&after={after}").json
        assert page["saved_offset"] == 0, "a snapshot took the place of the first entries"
        entries += page["entries"]
        after = page["next_after"]
    assert [entry["offset"] for entry in entries] == list(range(1, len(entries) + 1))
    return [(entry["worker"], entry["sequence"]) for entry in entries if entry["kind"] == "push"]


def require_the_same_again(crew: Crew, service: Service) -> None:
    """Played from its first entry with NumPy alone, the log gives the same story and the same bits."""
    before = service.state(crew.model.name)
    service.kill()
    service.env |= {"GRADLEDGER_COMPILED": "false"}
    service.start()
    assert crew.story_again() == crew.story
    assert service.state(crew.model.name) == before
