"""One part of the parameters: a model of its own on the service, with its own step, rounds and receipts.

    push     the pseudo-gradient, anchor - local, leaves in the background under a name it keeps
    settle   what became of it: the new global parameters, and its receipt
    doubt    no answer came: the push is kept as it was sent. The next `settle` asks the service whether it
             arrived, and sends the same bytes under the same name if it did not

So whatever happens to a connection, a round's work counts once, and local work is not lost.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field

from gradledger import errors
from gradledger.compression import Residual, Wire
from gradledger.membership import Membership
from gradledger.model import Model
from gradledger.receipt import Receipt
from gradledger.tensors import Params

WAIT_S = 20.0  # how long one request may wait for a round; then the next one does


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of a push: its receipt, and the global parameters as they were after it.

    Without a receipt it did not count, for it was too stale. `late` says that it was delivered only now,
    after an earlier try had been given up.
    """

    params: Params
    receipt: Receipt | None
    late: bool = False


@dataclass(slots=True)
class Sent:
    """A push on its way, with the local parameters it was made from; `due` is the inner step to merge at."""

    sequence: int
    gradient: Params
    local: Params
    weight: float
    due: int
    answer: Future[Settled] = field(default_factory=Future)
    in_doubt: bool = False


class Fragment:
    """`anchor` is what pseudo-gradients are measured from, `weight` how much was seen since the last push."""

    def __init__(self, model: Model, names: tuple[str, ...], wire: Wire | None = None) -> None:
        self.model = model
        self.residual = None if wire is None else Residual(wire)
        self.names = names
        self.anchor: Params = {}
        self.step = 0
        self.weight = 0.0
        self.sent: Sent | None = None
        self._sequence = 0

    @property
    def reach(self) -> int:
        """The step this worker has done its part for."""
        return self.step + (self.sent is not None)

    def join(self) -> Membership:
        """Becomes a member; the lease is renewed in the background."""
        membership = self.model.join(heartbeat=True)
        self._sequence = membership.next_sequence - 1
        return membership

    def begin(self, membership: Membership) -> Params:
        """The global parameters at the edge of a round from which on the others wait for this worker.

        A push that this worker made in an earlier life may still wait for its round: then that is awaited.
        """
        if self._sequence:
            with suppress(errors.ReceiptNotFound):
                self._await(self.model.fate(self._sequence, wait_s=WAIT_S))
        while membership.renew()["membership"] == "joining":
            self.model.pull(wait_s=WAIT_S)
        params = self.model.pull()
        self.step = self.model.step or 0
        return params

    def push(self, local: Params, due: int) -> None:
        """Sends off what was learned since the anchor; `settle` tells what became of it.

        Raises ValueError for numbers that are not finite where they are to be compressed.
        """
        gradient = {name: self.anchor[name] - local[name] for name in self.names}
        if self.residual is not None:  # once, so that a push that is sent again has the same bytes
            gradient = self.residual.compressed(gradient)
        sent = Sent(self._sequence + 1, gradient, local, self.weight, due)
        sent.answer = _in_background(lambda: self._deliver(sent))
        self.sent, self.weight = sent, 0.0

    def settle(self, patience_s: float | None) -> Settled | None:
        """What became of the push; None if that is still open after `patience_s` (None: wait).

        Raises what the push raised. A refusal left no trace, so what was sent is part of the next push. After
        any other failure the push is in doubt, and the next call finds out.
        """
        sent = self.sent
        assert sent is not None
        if sent.in_doubt:
            sent.in_doubt = False
            sent.answer = _in_background(lambda: self._find_out(sent))
        try:
            settled = sent.answer.result(patience_s)
        except TimeoutError:
            return None
        except errors.Refused:
            self._take_back(sent)
            raise
        except Exception:
            sent.in_doubt = True
            raise
        if settled.receipt is None:
            self._take_back(sent)
        else:
            self.sent, self._sequence = None, settled.receipt.sequence or sent.sequence
            if self.residual is not None:
                self.residual.settle()
        self.step = self.model.step or 0
        return settled

    def _take_back(self, sent: Sent) -> None:
        self.sent = None
        self.weight += sent.weight

    def _deliver(self, sent: Sent, *, late: bool = False) -> Settled:
        try:
            receipt = self._push(sent)
        except errors.StaleGradient:
            return Settled(self.model.pull(), None)
        return self._settled(receipt, late=late)

    def _push(self, sent: Sent) -> Receipt:
        def push() -> Receipt:
            return self.model.push(sent.gradient, base=self.step, weight=sent.weight, wait_s=WAIT_S)[1]

        try:
            return push()
        except errors.NotAMember:  # the lease ran out while the connection was gone
            self.model.join()
            return push()

    def _find_out(self, sent: Sent) -> Settled:
        # Joining says how far the service has counted, and takes up a membership that may have run out.
        if self.model.join().next_sequence > sent.sequence:
            return self._settled(self.model.fate(sent.sequence, wait_s=WAIT_S))
        return self._deliver(sent, late=True)

    def _settled(self, receipt: Receipt, *, late: bool = False) -> Settled:
        receipt = self._await(receipt)
        return Settled(self.model.pull(), receipt, late)

    def _await(self, receipt: Receipt) -> Receipt:
        while receipt.fate == "waiting":
            assert receipt.sequence is not None
            receipt = self.model.fate(receipt.sequence, wait_s=WAIT_S)
        return receipt


def _in_background(call: Callable[[], Settled]) -> Future[Settled]:
    """The call's outcome to come. Its thread holds up nobody who ends the program."""
    outcome: Future[Settled] = Future()

    def run() -> None:
        try:
            outcome.set_result(call())
        except BaseException as error:  # told to whoever asks for the outcome
            outcome.set_exception(error)

    threading.Thread(target=run, name="pseudo-gradient", daemon=True).start()
    return outcome
