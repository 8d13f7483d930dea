"""One model on the service, as one worker sees it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import suppress
from typing import Any
from urllib.parse import quote

from numpy.typing import ArrayLike, NDArray

from gradledger import tensors
from gradledger.answer import Answer
from gradledger.asking import PARAMETERS, RECEIPT, TRAIN, patient, viewed
from gradledger.compression import Residual
from gradledger.errors import MalformedAnswer, ModelNotFound, ParametersMissing, PreconditionFailed
from gradledger.events import Events
from gradledger.gradients import Form, Gradients, copied, encoded
from gradledger.landing import Landing
from gradledger.membership import Membership
from gradledger.outbox import Outbox, Push
from gradledger.receipt import Receipt
from gradledger.rows import Rows, joined
from gradledger.sight import Sight
from gradledger.tensors import Params
from gradledger.transport import Body, Transport

ACCEPTED = 202  # the push waits for others


class Model:
    """Push gradients, pull parameters. Made by `Client.create` or `Client.model`.

    Threads may share a model; their pushes take turns. Parameters are read-only views of what the service
    sent: copy an array to change it.
    """

    def __init__(self, name: str, transport: Transport, worker: str | None = None) -> None:
        self.name = name
        self._path = f"/v1/models/{quote(name, safe='')}"
        self._transport = transport
        self._outbox = Outbox(transport, self._path, worker)
        self._sight = Sight(transport, self._path)

    @property
    def worker(self) -> str:
        """The name this model's pushes are counted under."""
        return self._outbox.worker

    @property
    def step(self) -> int | None:
        """The step of the newest parameters seen here, None before the first."""
        return self._sight.step

    def join(self, worker: str | None = None, *, heartbeat: bool = False) -> Membership:
        """Makes the worker a member: from the round's edge on the others wait for it, and it for them.

        `worker` is the name its pushes carry from here on, by default the one they had. Every push renews
        the lease; with `heartbeat` it is renewed in the background as well. Joining again is harmless.
        """
        membership = self._outbox.join(worker)
        if heartbeat:
            membership.keep_alive()
        return membership

    def push(
        self,
        grads: Gradients,
        *,
        base: int | None = None,
        weight: float = 1.0,
        wait_s: float = 0.0,
        wire: Form = None,
        out: Params | None = None,
    ) -> tuple[Params, Receipt]:
        """Sends gradients (F16, BF16, F32 or F64, of the parameters' shapes) and answers the new parameters.

        With `wire` "bf16" or "int8" they are compressed first (compression.py), to a half and a quarter of
        float32's bytes; with a `Residual` what that loses is added to the next push, once this one is taken.

        Where pushes wait for each other, `wait_s` is how long the service may hold the answer until this one
        has counted (it holds none for more than a minute). If it still waits then, the receipt's fate is
        "waiting", the parameters are the newest seen, and `fate` tells later what became of it: the push is
        in the log and must not be made again.

        A table's gradient is `Rows`, and its answer holds the rows that were touched, as `Rows` too.
        `base` is the step the gradients were computed at, by default that of the newest parameters seen here;
        threads that share a model should say it. The gradients must not be changed until this returns.
        With `out`, arrays by name, the parameters are read into those arrays, which are part of the answer;
        nothing of their size is allocated. They hold neither the old nor the new values if this raises.

        Raises the service's refusals: NonFinite, WrongShape, …; NotAMember if the worker has not joined or
        its lease ran out, WorkerAhead while its last push still waits, StaleGradient if `base` is too far
        back. Raises ConnectionFailed when no answer came in the time allowed for retries; the push may then
        have counted. Raises ValueError if an array of `out` cannot be written to, or once the push has
        counted if it is not like the parameter of its name.
        """
        landing = _landing(out)
        answer = self._outbox.send(
            lambda: self._push(grads, self._base(base), weight, PARAMETERS, wait_s, wire, landing)
        )
        return self._pushed(answer, landing)

    def push_async(
        self,
        grads: Gradients,
        *,
        base: int | None = None,
        weight: float = 1.0,
        wait_s: float = 0.0,
        wire: Form = None,
        out: Params | None = None,
        copy: bool = False,
    ) -> Future[tuple[Params, Receipt]]:
        """Like `push`, in the background: compute the next gradient while this one is on its way.

        The push has its name when this returns, and what `push` answers or raises is in the future. Pushes
        count in the order of the calls. One is on its way at a time: the next call waits for its answer.
        The gradients, and the arrays of `out`, must be left alone until the future is done; with `copy` the
        gradients are copied first, and may be changed at once.

        Say the `base`. By default it is the step of the newest parameters seen here when this is called,
        which need not be those that the gradients were computed at if an answer came meanwhile.
        """
        at, landing = self._base(base), _landing(out)

        def make() -> Push:
            given = copied(grads) if copy else grads
            return self._push(given, at, weight, PARAMETERS, wait_s, wire, landing)

        return self._outbox.begin(make, lambda answer: self._pushed(answer, landing))

    def push_only(
        self,
        grads: Gradients,
        *,
        base: int | None = None,
        weight: float = 1.0,
        wait_s: float = 0.0,
        wire: Form = None,
    ) -> Receipt:
        """Like `push`, without bringing the new parameters back: for when they are not needed yet."""
        answer = self._outbox.send(lambda: self._push(grads, self._base(base), weight, RECEIPT, wait_s, wire))
        return _receipt_in(answer)

    def fate(self, sequence: int, *, worker: str | None = None, wait_s: float = 0.0) -> Receipt:
        """What became of a push, of this worker or of another one; after at most `wait_s` if it waits.

        Raises ReceiptNotFound if it never arrived, or is not among the worker's latest 64.
        """
        name = quote(self.worker if worker is None else worker, safe="")
        answer = self._transport.send(
            "GET", f"{self._path}/receipts/{name}/{sequence}", headers=patient({}, wait_s), wait_s=wait_s
        )
        return Receipt.from_json(answer.json())

    def workers(self) -> dict[str, Any]:
        """Who takes part, {"workers": […], "round": {…}}: each one's standing, and who waits in the round."""
        return dict(self._transport.send("GET", f"{self._path}/workers").json())

    def quarantine(self, worker: str) -> None:
        """From now on none of a worker's gradients count and nobody waits for it."""
        self._transport.send("PUT", f"{self._path}/quarantine/{quote(worker, safe='')}")

    def release(self, worker: str) -> None:
        """Lets a worker out of quarantine; it begins without strikes."""
        self._transport.send("DELETE", f"{self._path}/quarantine/{quote(worker, safe='')}")

    def events(self, after: str | int | None = None) -> Events:
        """What happens to the model, as it happens: an iterator of `Event`, which ends with "delete".

        It begins now, or behind `after`: an event's id, an iterator's `last_id`, or 0 for all that is held.
        A broken connection is resumed where it was. What is held no more is told as "reset".
        Raises ModelNotFound, and MalformedRequest if `after` is no id.
        """
        return Events(self._transport, self._path, after)

    def pull(self, *, wait_s: float = 0.0, view: str = TRAIN, out: Params | None = None) -> Params:
        """The current parameters; if they are those seen last, nothing is transferred.

        Tables are not among them: ask for `rows`, or for a whole `table`.
        With `wait_s` the service holds the answer until there is a newer step, at most so long. `view` asks
        for another of the model's views, such as "ema"; gradients are computed at the default one. With
        `out`, arrays by name, they are read into those arrays, as `push` does. Raises ViewNotFound.
        """
        return self._sight.pull(view, wait_s, _landing(out))

    def rows(self, table: str, ids: ArrayLike, *, view: str = TRAIN) -> Rows:
        """The present values of a table's rows, in the order of `ids`, or another view of them."""
        asked = Rows(ids, ())
        answer = self._transport.send(
            "POST",
            f"{self._path}/parameters/{quote(table, safe='')}/rows",
            query=viewed(view),
            headers=PARAMETERS,
            body=encoded({"rows": asked.ids}),
        )
        found: Rows = joined(tensors.decode(answer.body))[table]
        return found

    def table(self, name: str, *, view: str = TRAIN) -> NDArray[Any]:
        """All rows of a table, also those nobody has touched, or another view of them."""
        path = f"{self._path}/parameters/{quote(name, safe='')}"
        answer = self._transport.send("GET", path, query=viewed(view), headers=PARAMETERS)
        values: NDArray[Any] = tensors.decode(answer.body)[name]
        return values

    def state(self) -> Params:
        """Everything the optimizer knows: `param/<name>`, `<slot>/<name>` and update counts `t/<name>`."""
        answer = self._transport.send("GET", f"{self._path}/state", headers=PARAMETERS)
        return tensors.decode(answer.body)

    def describe(self) -> dict[str, Any]:
        """The model's fully expanded spec, its step and its tensors."""
        return dict(self._transport.send("GET", self._path).json())

    def configure(self, **changes: Any) -> dict[str, Any]:
        """Changes fields of the spec, such as `optimizer={"lr": 1e-4}`, from the next push on."""
        return dict(self._transport.send("PATCH", self._path, body=Body.of_json(changes)).json())

    def delete(self) -> None:
        """Deletes the model with all its state and history."""
        try:
            self._transport.send("DELETE", self._path)
        except ModelNotFound as error:
            if error.tries == 1:  # otherwise the first try deleted it and its answer was lost
                raise
        self._sight.forget()

    def begin(self, params: Gradients) -> None:
        """Uploads initial values; a model that has values already keeps them. Either way they are pulled."""
        try:
            self.pull()
        except ParametersMissing:
            # Of workers that begin a model together, the first one's values count.
            path, first = f"{self._path}/parameters", {"If-None-Match": "*"}
            with suppress(PreconditionFailed):
                self._transport.send("PUT", path, headers=first, body=encoded(params))
            self.pull()

    def _base(self, base: int | None) -> int | None:
        return self.step if base is None else base

    def _push(
        self,
        grads: Gradients,
        base: int | None,
        weight: float,
        headers: Mapping[str, str],
        wait_s: float,
        wire: Form,
        landing: Landing | None = None,
    ) -> Push:
        query: dict[str, float] = {} if base is None else {"base": base}
        if weight != 1.0:
            query["weight"] = weight
        body = encoded(grads, wire, self._sight.order)
        taken = wire.settle if isinstance(wire, Residual) else None
        return Push(body, query, patient(headers, wait_s), wait_s, landing, taken)

    def _pushed(self, answer: Answer, landing: Landing | None) -> tuple[Params, Receipt]:
        if answer.status == ACCEPTED:
            return self._sight.newest(landing), _receipt_in(answer)
        try:
            receipt = json.loads(answer.headers.get("Receipt", ""))
        except ValueError as error:
            raise MalformedAnswer("the answer to a push has no readable Receipt header") from error
        return self._sight.see(answer, landing=landing), Receipt.from_json(receipt, answer.timing_ms)


def _landing(out: Params | None) -> Landing | None:
    return None if out is None else Landing(out)


def _receipt_in(answer: Answer) -> Receipt:
    members = answer.json()
    if not isinstance(members, dict) or "receipt" not in members:
        raise MalformedAnswer(f"the answer to a push has no receipt: {members!r}")
    return Receipt.from_json(members["receipt"], answer.timing_ms)
