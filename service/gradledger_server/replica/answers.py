"""What a push is told, by what the log said of it and what the state made of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from gradledger_server.entries import Logged
from gradledger_server.errors import (
    Conflict,
    GradledgerError,
    ModelNotFound,
    ModelQuarantined,
    SequenceGap,
)
from gradledger_server.machine.receipts import Receipt
from gradledger_server.replica.draft import Draft
from gradledger_server.replica.playback import Own, Playback
from gradledger_server.replica.published import Published, TableRows, touched_rows
from gradledger_server.store.contract import Appended, Gap, Gone, Outcome, Seen


class Answer(NamedTuple):
    """A push's answer: its receipt, and the newest parameters and touched rows, at its step or later."""

    receipt: Receipt
    replayed: bool
    published: Published
    rows: tuple[TableRows, ...] = ()


def answer_of(
    playback: Playback, published: Published, draft: Draft, result: Outcome
) -> Answer | GradledgerError:
    """The answer to a draft whose outcome has been played, or why there is none."""
    if not isinstance(result, Appended | Seen):
        return refusal(playback.name, result, draft)
    receipt = playback.receipts.get(result.chain) if isinstance(result, Appended) else None
    try:
        receipt = receipt or draft.known(playback.model)
    except GradledgerError as reused:
        return reused
    if receipt is None and isinstance(result, Appended) and draft.identity is None:
        receipt = draft.bare_receipt(playback.model, result.offset)
    if receipt is None and draft.push.key is not None:  # it was just forgotten, and is new the next time
        return refusal(playback.name, result, draft)
    if receipt is None:
        return ModelQuarantined(f"the log of model {playback.name!r} knows a push that its state does not")
    rows = touched_rows(playback.model, draft.gradient)
    return Answer(receipt, isinstance(result, Seen), published, rows)


def refusal(model: str, result: Outcome, draft: Draft | None = None) -> GradledgerError:
    """What to say of an outcome that is no append."""
    if isinstance(result, Gap):
        assert draft is not None, "only pushes are numbered"
        worker, sequence = draft.push.worker, draft.push.sequence
        return SequenceGap(
            f"worker {worker!r} sent sequence {sequence}; expected {result.expected}",
            worker=worker,
            got=sequence,
            expected=result.expected,
        )
    if isinstance(result, Gone):
        return ModelNotFound(f"model {model!r} was deleted")
    return Conflict("the push could not be appended", hint="Repeat the same request.")


def or_raise(answer: Answer | GradledgerError) -> Answer:
    """The answer; raises what is none."""
    if isinstance(answer, GradledgerError):
        raise answer
    return answer


def own_entries(drafts: Sequence[Draft], results: Sequence[Outcome]) -> Own:
    """The drafts that were appended, by offset: they need not be read back."""
    return {
        result.offset: (Logged(result.offset, result.chain, draft.record), draft)
        for draft, result in zip(drafts, results, strict=False)
        if isinstance(result, Appended)
    }
