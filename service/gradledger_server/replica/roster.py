"""Who takes part in a model, who must not, and how its open round stands."""

from __future__ import annotations

from typing import Any

from gradledger_server.entries import Join, Leave, Quarantine
from gradledger_server.errors import WorkerQuarantined
from gradledger_server.machine.model import Model
from gradledger_server.replica.clock import now_ms
from gradledger_server.replica.mailbox import Mailbox


def told(model: Model) -> dict[str, Any]:
    """Every worker that is a member, has pushed or is in quarantine, by name; the round and the guard."""
    rounds = model.rounds
    pushed = {name: (last, receipt) for name, last, receipt in model.receipts.workers()}
    members = rounds.members.present.keys() | rounds.members.joining.keys()
    names = sorted(pushed.keys() | members | model.guard.quarantined)
    return {
        "workers": [
            of(model, name) | {"receipt": pushed[name][1]._asdict() if name in pushed else None}
            for name in names
        ],
        "round": {
            "number": rounds.number,
            "mode": rounds.policy.mode,
            "size": rounds.size,
            "waiting": [push.worker for push in rounds.waiting],
            "grace_ms": rounds.grace_ms if rounds.policy.quorum else None,
        },
        "guard": {"largest_norm": model.guard.bound, "quarantined": sorted(model.guard.quarantined)},
    }


def of(model: Model, worker: str) -> dict[str, Any]:
    """One worker: its last sequence, its membership, and since when it has been silent."""
    last, members = model.receipts.last(f"w:{worker}"), model.rounds.members
    member = members.present.get(worker) or members.joining.get(worker)
    standing = "member" if worker in members.present else "joining" if member else None
    return {
        "worker": worker,
        "sequence": last,
        "next_sequence": last + 1,
        "membership": standing,
        "seen_at_ms": member.seen_at_ms if member else None,
        "strikes": model.guard.strikes.get(worker, 0),
        "quarantined": worker in model.guard.quarantined,
        "lease_s": model.rounds.policy.lease_s,
        "step": model.step,
    }


async def join(mailbox: Mailbox, worker: str) -> None:
    """Makes a worker a member from the round's edge on, or renews its lease. Raises WorkerQuarantined."""

    def choose(model: Model) -> Join:
        if worker in model.guard.quarantined:
            raise WorkerQuarantined(f"worker {worker!r} is in quarantine and cannot be waited for")
        return Join(worker, now_ms())

    await mailbox.run(lambda hot: hot.decide(choose))


async def leave(mailbox: Mailbox, worker: str) -> None:
    """Ends a worker's membership; one that is no member has left already."""

    def choose(model: Model) -> Leave | None:
        return Leave(worker, "left", now_ms()) if worker in model.rounds.members else None

    await mailbox.run(lambda hot: hot.decide(choose))


async def quarantine(mailbox: Mailbox, worker: str, *, begins: bool) -> None:
    """Puts a worker into quarantine or lets it out. Repeating it is harmless."""

    def choose(model: Model) -> Quarantine | None:
        changes = begins != (worker in model.guard.quarantined) or worker in model.guard.strikes
        return Quarantine(worker, begins, now_ms()) if changes else None

    await mailbox.run(lambda hot: hot.decide(choose))
