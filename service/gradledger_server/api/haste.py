"""Small pushes at once: no task, no waiting, and those that arrive together go from stop to stop together.

    arrive      read, checked, measured, and on their way to the log
    prepare     the answers, while the log is at work (flight.py has applied the pushes by then)
    conclude    the log has spoken, and the answers leave

The whole way of a push is more code than the caches of a core hold. At a stop all are served before the first
goes on, so all but the first find that stop's code in the caches. Who comes alone waits for nobody.

What says anything unusual, or to a model that is not ready for it, is left to `gradients.push`, which serves
it, or says what is wrong with it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from itertools import accumulate
from re import Match

from fastapi import Request
from starlette.responses import Response

from gradledger_server.api import problems, responses
from gradledger_server.api.context import Context
from gradledger_server.api.forms import Chosen, form_of_answer, form_of_body
from gradledger_server.api.gradients import USUAL, finish, named
from gradledger_server.api.whole import Whole, once
from gradledger_server.entries import Tensors
from gradledger_server.errors import GradledgerError, ModelNotFound, ModelQuarantined
from gradledger_server.replica import Answer, Draft, Laps, Mailbox
from gradledger_server.wire import safetensors

UNUSUAL = ("if-match", "prefer", "idempotency-key")
TOGETHER = 32  # the bytes of more would not stay in the caches either
TOGETHER_BYTES = 1 << 20  # unless a single one is larger: nobody else gets a turn meanwhile

Told = Callable[[Response | None], None]


class Haste:
    """All such pushes of one event loop."""

    def __init__(self) -> None:
        self._present = 0  # those not told yet
        self._arrived: list[Hasty] = []
        self._foreseen: list[Hasty] = []
        self._landed: list[Hasty] = []

    def push(self, request: Whole, served: Context, told: Told) -> None:
        """Serves a push: `told` gets its answer; or None, and nothing was done, if it needs the long way."""
        self._arrived.append(Hasty(self, request, served, told))
        self._present += 1
        if self._present == 1:
            self._arrive()
        elif len(self._arrived) == 1:
            asyncio.get_running_loop().call_soon(self._arrive)

    def foresee(self, hasty: Hasty) -> None:
        """It is applied; its answer is prepared with the others'."""
        self._foreseen.append(hasty)

    def hear(self, hasty: Hasty) -> None:
        """The log has spoken of it; it is told with the others of which the same packet speaks."""
        self._landed.append(hasty)
        if len(self._landed) == self._present:
            self._conclude()
        elif len(self._landed) == 1:
            asyncio.get_running_loop().call_soon(self._conclude)

    def _arrive(self) -> None:
        count = self._count()
        going, self._arrived = self._arrived[:count], self._arrived[count:]
        for stop in (Hasty.recognised, Hasty.read, Hasty.measured, Hasty.flying):
            going = [hasty for hasty in going if self._goes(hasty, stop)]
        if going:
            asyncio.get_running_loop().call_soon(self._prepare)  # when they have left and are applied
        if self._arrived:
            asyncio.get_running_loop().call_soon(self._arrive)

    def _count(self) -> int:
        """How many of those that arrived go together, at least one."""
        nbytes = accumulate(hasty.nbytes for hasty in self._arrived[:TOGETHER])
        return max(1, sum(total <= TOGETHER_BYTES for total in nbytes))

    def _prepare(self) -> None:
        foreseen, self._foreseen = self._foreseen, []
        for hasty in foreseen:
            hasty.prepare()

    def _conclude(self) -> None:
        self._prepare()
        landed, self._landed = self._landed, []
        concluded = [(hasty, hasty.conclusion()) for hasty in landed]
        for hasty, response in concluded:
            self._tell(hasty, response)

    def _goes(self, hasty: Hasty, stop: Callable[[Hasty], bool]) -> bool:
        try:
            goes = stop(hasty)
        except Exception:  # whatever it is, the long way says it
            goes = False
        if not goes:
            self._tell(hasty, None)
        return goes

    def _tell(self, hasty: Hasty, response: Response | None) -> None:
        self._present -= 1
        try:
            hasty.tell(response)
        except Exception as failure:  # the others shall hear of theirs
            told = {"message": "an answer could not be sent", "exception": failure}
            asyncio.get_running_loop().call_exception_handler(told)


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


class Hasty:
    """One of them. Where it may not go on, the long way says why."""

    _usual: Match[str]
    _chosen: Chosen
    _mailbox: Mailbox
    _tensors: Tensors
    _draft: Draft
    _answer: Answer | Exception

    def __init__(self, haste: Haste, request: Whole, served: Context, told: Told) -> None:
        self._haste, self._request, self._served, self._told = haste, request, served, told
        self._laps = Laps()
        self._foreseen: Answer | None = None
        self._prepared: Response | None = None

    @property
    def nbytes(self) -> int:
        """Of its body."""
        return len(self._request.whole)

    def recognised(self) -> bool:
        """Whether it says the usual to a model that is ready for it."""
        head, replica = self._request.head, self._served.replica
        usual, chosen = USUAL.fullmatch(head.query), _chosen(self._request)
        mailbox = replica.shelf.at_hand(head.model)
        if usual is None or chosen is None or mailbox is None or not mailbox.hastens:
            return False
        self._usual, self._chosen, self._mailbox = usual, chosen, mailbox
        self._laps.end("receive")
        return self.nbytes <= self._served.limits.max_body_bytes

    def read(self) -> bool:
        """Its tensors can be read, or it raises."""
        self._tensors = safetensors.decode(self._request.whole)
        return True

    def measured(self) -> bool:
        """They are a gradient of the model, or it raises."""
        sender, replica = named(self._usual), self._served.replica
        self._draft = replica.draft(self._mailbox, self._tensors, sender, self._laps)
        return True

    def flying(self) -> bool:
        """Whether it is on its way to the log."""
        return self._mailbox.hasten(self._draft, self)

    def foresee(self, answer: Answer) -> None:
        """What the answer will be, if the log says what is expected."""
        self._foreseen = answer
        self._haste.foresee(self)

    def prepare(self) -> None:
        """Makes that answer, so that it can leave with the log's word; what fails is made once more then."""
        assert self._foreseen is not None
        with contextlib.suppress(Exception):
            self._prepared = responses.pushed(self._foreseen, self._chosen)
        self._laps.end("respond")

    def hear(self, answer: Answer | Exception) -> None:
        """What has become of it."""
        self._answer = answer
        self._haste.hear(self)

    def conclusion(self) -> Response | None:
        """The answer as it leaves; None if the model went away meanwhile: the long way looks for another."""
        if isinstance(self._answer, ModelNotFound | ModelQuarantined):
            return None
        try:
            return self._answered(self._answer)
        except Exception as error:
            return problems.unexpected(self._request, error)

    def tell(self, response: Response | None) -> None:
        """Sends the answer; None sends the request on the long way."""
        self._told(response)
        if response is not None:
            self._served.replica.shelf.save_if_due(self._mailbox)

    def _answered(self, answer: Answer | Exception) -> Response:
        if isinstance(answer, GradledgerError):
            return problems.answer(self._request, answer)
        if isinstance(answer, Exception):
            return problems.unexpected(self._request, answer)
        prepared = self._prepared if answer is self._foreseen else None
        response = prepared or responses.pushed(answer, self._chosen)
        finish(response, self._served, answer, self._tensors, self._laps)
        return response
