"""4/6 apply: a push arrives, and counts at once, with others, or not at all.

arrive(push)   its receipt: applied, accumulated, waiting, merged, late, rejected, or left out by a guard
settle()       the steps that have become due, for whatever reason
objection(…)   why a push may not even be logged now
overdue(…)     the entry that a clock owes the log
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from gradledger_server.entries import Close, Leave, Push
from gradledger_server.errors import (
    GradledgerError,
    Invalid,
    NotAMember,
    StaleGradient,
    WorkerAhead,
    WorkerQuarantined,
)
from gradledger_server.kernels.operations import power
from gradledger_server.machine.advance import advance
from gradledger_server.machine.gradient import Gradient, length, stretches
from gradledger_server.machine.merging import merged
from gradledger_server.machine.model import Model
from gradledger_server.machine.receipts import Receipt, identity_of
from gradledger_server.machine.staleness import compensated
from gradledger_server.machine.step import Update
from gradledger_server.machine.sync.rounds import Held


def arrive(model: Model, offset: int, push: Push, gradient: Gradient) -> Receipt:
    """Takes a push whatever it is: what must not be was refused before, and what slipped in gets its fate."""
    policy = model.rounds.policy
    model.rounds.see(push.worker or "", push.at_ms)
    if (fate := _passed_over(model, push)) is not None:
        return _noted(model, push, _receipt(model, offset, push, fate))
    left_out = model.guard.left_out(push)
    if left_out is not None and policy.slack is None:  # nobody waits for what this worker gives
        receipt = _noted(model, push, _receipt(model, offset, push, left_out))
    elif policy.immediate:
        return _noted(model, push, _alone(model, offset, push, gradient))
    else:
        receipt = _noted(model, push, _receipt(model, offset, push))
        model.held[offset] = push, [] if left_out else gradient
        model.rounds.hold(Held(offset, *_name(push, offset), push.base, push.weight, push.at_ms, left_out))
    if push.worker in model.guard.quarantined:
        model.rounds.leave(push.worker)
    return settle(model, push.at_ms).get(offset, receipt)


def settle(model: Model, at_ms: int) -> dict[int, Receipt]:
    """Makes the steps that are due at that time; the receipts of their pushes, by offset."""
    settled: dict[int, Receipt] = {}
    while group := model.rounds.due():
        pushes = {held.offset: model.held.pop(held.offset) for held in group}
        for offset, receipt in _together(model, group, pushes).items():
            settled[offset] = _noted(model, pushes[offset][0], receipt)
        model.rounds.settle(group, at_ms)
    return settled


def objection(model: Model, push: Push) -> GradledgerError | None:
    """Why the present mode cannot take this push now; None for one that it has already."""
    rounds, policy = model.rounds, model.rounds.policy
    identity, staleness = identity_of(push), _staleness(model, push)
    if identity is not None and model.receipts.knows(identity, push.sequence or 1):
        return None
    if push.worker in model.guard.quarantined:
        return WorkerQuarantined(f"worker {push.worker!r} is in quarantine")
    if policy.slack is not None and push.worker is None:
        return Invalid(
            f"in mode {policy.mode!r} pushes wait for each other's workers, and this one names none",
            hint="Give it worker and sequence.",
        )
    if policy.staleness.max is not None and (staleness or 0) > policy.staleness.max:
        return StaleGradient(
            f"base is {push.base}, {staleness} steps back; the model allows {policy.staleness.max}",
            base=push.base,
            step=model.step,
            staleness=staleness,
            allowed=policy.staleness.max,
        )
    if push.worker is not None and not rounds.has_room(push.worker):
        return NotAMember(
            f"worker {push.worker!r} is not a member; mode {policy.mode!r} waits for members only",
            members=sorted(rounds.members.present),
        )
    if push.worker is not None and rounds.is_ahead(push.worker):
        return WorkerAhead(f"a push of worker {push.worker!r} waits for round {rounds.number} to close")
    return None


def overdue(model: Model, now_ms: int) -> Leave | Close | None:
    """What the clock says has happened: a lease ran out, or an open round waits no longer."""
    rounds = model.rounds
    for worker in rounds.members.silent(now_ms, rounds.policy.lease_ms):
        return Leave(worker, "lease", now_ms)
    deadline_ms, reason = rounds.deadline() or (None, "")
    if deadline_ms is None or deadline_ms > now_ms:
        return None
    return Close(rounds.number, reason, now_ms)


def next_deadline_ms(model: Model) -> int | None:
    """When `overdue` will have something to say, if nothing happens before."""
    rounds = model.rounds
    if not rounds.waiting and not rounds.members.anybody:
        return None
    leases, (closing, _) = (
        rounds.members.next_silence_ms(rounds.policy.lease_ms),
        rounds.deadline() or (None, ""),
    )
    return min((due for due in (leases, closing) if due is not None), default=None)


def _alone(model: Model, offset: int, push: Push, gradient: Gradient) -> Receipt:
    if (accumulation := model.accumulation) is None:
        return _applied(model, offset, push, gradient, push.grad_norm)
    settings = model.spec.transforms["accumulate"]
    accumulation.add(stretches(gradient), push.weight if settings["weighted"] else 1.0)
    if accumulation.pushes < settings["every"]:
        return _receipt(model, offset, push, "accumulated")
    mean = accumulation.close()
    receipt = _applied(model, offset, push, mean, length(mean, model.device))
    accumulation.clear()
    return receipt


def _applied(model: Model, offset: int, push: Push, gradient: Gradient, norm: float) -> Receipt:
    """The push makes a step of its own, as far as its staleness lets it."""
    settings, staleness = model.rounds.policy.staleness, _staleness(model, push)
    stale = staleness or 0
    if settings.compensate and stale:
        gradient = compensated(model, gradient, push.base or 0)
        norm = length(gradient, model.host)
    slowed = power(1.0 + stale, -settings.scale) if settings.scale and stale else 1.0
    update = Update(offset, model.step, norm, slowed)
    model.past.remember(model.step, model.weights)
    lr, clip_factor = advance(model, gradient, update)
    return _receipt(model, offset, push, "applied", staleness, lr, clip_factor)


def _together(
    model: Model, group: Sequence[Held], pushes: dict[int, tuple[Push, Gradient]]
) -> dict[int, Receipt]:
    """One step of several pushes, or of the one that waited for its turn, without those left out."""
    number = model.rounds.number if model.rounds.policy.take != 1 else None
    receipts = {
        offset: _receipt(model, offset, push)._replace(round=number) for offset, (push, _) in pushes.items()
    }
    left_out = {
        held.offset: receipts[held.offset]._replace(fate=held.left_out) for held in group if held.left_out
    }
    counted = {offset: pushes[offset] for offset in pushes if offset not in left_out}
    if not counted:
        return left_out
    if number is None:
        ((offset, (push, gradient)),) = counted.items()
        return {offset: _applied(model, offset, push, gradient, push.grad_norm)}
    return left_out | _merged(model, counted, receipts)


def _merged(
    model: Model, pushes: dict[int, tuple[Push, Gradient]], receipts: dict[int, Receipt]
) -> dict[int, Receipt]:
    offsets = list(pushes)
    weights = [_weight(model, push) for push, _ in pushes.values()]
    gradient, chosen = merged(model, [gradient for _, gradient in pushes.values()], weights)
    update = Update(max(offsets), model.step, length(gradient, model.host))
    lr, clip_factor = advance(model, gradient, update)
    return {
        offset: receipts[offset]._replace(
            fate="merged" if index in chosen else "rejected",
            step=model.step,
            lr=lr,
            clip_factor=clip_factor,
        )
        for index, offset in enumerate(offsets)
    }


def _weight(model: Model, push: Push) -> float:
    """What a push weighs in its round: a stale one less, if the spec says so."""
    scale, stale = model.rounds.policy.staleness.scale, _staleness(model, push) or 0
    return push.weight * power(1.0 + stale, -scale) if scale and stale else push.weight


def _passed_over(model: Model, push: Push) -> str | None:
    """The fate of a push that others came before, between its refusal's last chance and the log."""
    policy, stale = model.rounds.policy, _staleness(model, push) or 0
    if push.worker in model.guard.quarantined:
        return "quarantined"
    if policy.in_rounds and policy.late == "drop" and stale:
        return "late"
    if policy.staleness.max is not None and stale > policy.staleness.max:
        return "rejected"
    if policy.slack is not None and (push.worker is None or not model.rounds.has_room(push.worker)):
        return "rejected"
    return None


def _name(push: Push, offset: int) -> tuple[str, int]:
    """Who waits, and in which order among their own: those without a name in the order of the log."""
    return push.worker or push.key or "", push.sequence or offset


def _noted(model: Model, push: Push, receipt: Receipt) -> Receipt:
    model.fates[receipt.offset] = receipt
    if (identity := identity_of(push)) is not None:
        model.receipts.note(identity, push.digest, receipt)
    return receipt


def _staleness(model: Model, push: Push) -> int | None:
    return None if push.base is None else model.step - push.base


def _receipt(
    model: Model,
    offset: int,
    push: Push,
    fate: str = "waiting",
    staleness: int | None = None,
    lr: float | None = None,
    clip_factor: float | None = None,
) -> Receipt:
    """Of a push as things stand. Once it has made a step, its staleness has to be said: it was another."""
    norm = push.grad_norm
    return Receipt(
        fate,
        model.step,
        offset,
        push.base,
        _staleness(model, push) if lr is None else staleness,
        lr,
        clip_factor,
        norm if math.isfinite(norm) else None,
        push.durability,
        push.worker,
        push.sequence,
        None,
        push.zeroed,
    )
