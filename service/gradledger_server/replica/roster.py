"""Who takes part in a model and how its open round stands, for whoever asks."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from gradledger_server.machine.model import Model


def told(model: Model) -> dict[str, Any]:
    """Every worker that is a member or has pushed, by name, and the round."""
    rounds = model.rounds
    pushed = {name: (last, receipt) for name, last, receipt in model.receipts.workers()}
    names = sorted(pushed.keys() | rounds.members.present.keys() | rounds.members.joining.keys())
    return {
        "workers": [
            of(model, name) | {"receipt": asdict(pushed[name][1]) if name in pushed else None}
            for name in names
        ],
        "round": {
            "number": rounds.number,
            "mode": rounds.policy.mode,
            "size": rounds.size,
            "waiting": [push.worker for push in rounds.waiting],
        },
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
        "lease_s": model.rounds.policy.lease_s,
        "step": model.step,
    }
