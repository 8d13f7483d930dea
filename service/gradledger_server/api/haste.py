"""Small pushes at once: no task, no waiting, and the answer is made while the log is at work.

What says the usual to a model that is ready for it is served here; anything else is left to `gradients.push`,
which serves it, or says what is wrong with it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from fastapi import Request
from starlette.responses import Response

from gradledger_server.api import problems, responses
from gradledger_server.api.context import Context
from gradledger_server.api.forms import Chosen, form_of_answer, form_of_body
from gradledger_server.api.gradients import USUAL, finish, named
from gradledger_server.api.whole import Whole, once
from gradledger_server.errors import GradledgerError
from gradledger_server.replica import Answer, Draft, Laps, Mailbox
from gradledger_server.wire import safetensors

UNUSUAL = ("if-match", "prefer", "idempotency-key")

Told = Callable[[Response], None]


def push(request: Whole, served: Context, told: Told) -> bool:
    """Serves a push; `told` gets its answer later. False, and nothing done, if it needs the long way."""
    laps, usual, chosen = Laps(), USUAL.fullmatch(request.head.query), _chosen(request)
    mailbox = served.replica.shelf.at_hand(request.head.model)
    if usual is None or chosen is None or mailbox is None or not mailbox.hastens:
        return False
    if len(request.whole) > served.limits.max_body_bytes:
        return False
    laps.end("receive")
    try:
        tensors = safetensors.decode(request.whole)
        draft = served.replica.draft(mailbox, tensors, named(usual), laps)
    except Exception:  # whatever it is, the long way says it
        return False
    return mailbox.hasten(draft, _Hasty(request, served, mailbox, draft, chosen, told))


@once
def _chosen(request: Request) -> Chosen | None:
    """The form of the new parameters, if the headers say nothing out of the ordinary of a push."""
    if any(name in request.headers for name in UNUSUAL) or "content-length" not in request.headers:
        return None
    try:
        form = form_of_body(request)
        return form_of_answer(request, form) if form == "safetensors" else None
    except GradledgerError:
        return None


class _Hasty:
    """Whoever sent such a push."""

    __slots__ = ("_chosen", "_draft", "_foreseen", "_mailbox", "_request", "_response", "_served", "_told")

    def __init__(
        self, request: Whole, served: Context, mailbox: Mailbox, draft: Draft, chosen: Chosen, told: Told
    ) -> None:
        self._request, self._served, self._mailbox = request, served, mailbox
        self._draft, self._chosen, self._told = draft, chosen, told
        self._foreseen: Answer | None = None
        self._response: Response | None = None

    def foresee(self, answer: Answer) -> None:
        """Makes the answer, so that it can leave with the log's word; what fails is made once more then."""
        with contextlib.suppress(Exception):
            self._response, self._foreseen = responses.pushed(answer, self._chosen), answer
        self._draft.laps.end("respond")

    def hear(self, answer: Answer | Exception) -> None:
        """Sends it, or another."""
        try:
            response = self._answered(answer)
        except Exception as error:
            response = problems.unexpected(self._request, error)
        self._told(response)
        self._served.replica.shelf.save_if_due(self._mailbox)

    def _answered(self, answer: Answer | Exception) -> Response:
        if isinstance(answer, GradledgerError):
            return problems.answer(self._request, answer)
        if isinstance(answer, Exception):
            return problems.unexpected(self._request, answer)
        response = self._response if answer is self._foreseen else None
        response = response or responses.pushed(answer, self._chosen)
        finish(response, self._served, answer, self._draft.push.tensors, self._draft.laps)
        return response
