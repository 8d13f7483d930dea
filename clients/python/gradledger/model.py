"""One model on the service, as one worker sees it."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from math import ceil
from typing import Any
from urllib.parse import quote

from numpy.typing import ArrayLike, NDArray

from gradledger import tensors
from gradledger.compression import BFloat16, Residual, Wire, compressed
from gradledger.errors import MalformedAnswer, ModelNotFound, ParametersMissing, PreconditionFailed
from gradledger.membership import Membership
from gradledger.receipt import Receipt
from gradledger.rows import Rows, joined, spread
from gradledger.tensors import Params
from gradledger.transport import Answer, Body, Transport
from gradledger.worker import Worker

ACCEPTED = 202  # the push waits for others
TRAIN = "train"  # the view that gradients are computed at
Gradients = Mapping[str, ArrayLike | Rows]
Form = Wire | Residual | None  # how gradients go out; None: as they are


@dataclass(frozen=True, slots=True)
class _Seen:
    etag: str
    step: int
    params: Params


class Model:
    """Push gradients, pull parameters. Made by `Client.create` or `Client.model`.

    Threads may share a model; their pushes take turns. Parameters are read-only views of what the service
    sent: copy an array to change it.
    """

    def __init__(self, name: str, transport: Transport, worker: str | None = None) -> None:
        self.name = name
        self._path = f"/v1/models/{quote(name, safe='')}"
        self._transport = transport
        self._worker = Worker(worker)
        self._pushing = threading.Lock()
        self._seeing = threading.Lock()
        self._seen: _Seen | None = None
        self._views: dict[str, _Seen] = {}

    @property
    def worker(self) -> str:
        """The name this model's pushes are counted under."""
        return self._worker.name

    @property
    def step(self) -> int | None:
        """The step of the newest parameters seen here, None before the first."""
        return None if self._seen is None else self._seen.step

    def join(self, worker: str | None = None, *, heartbeat: bool = False) -> Membership:
        """Makes the worker a member: from the round's edge on the others wait for it, and it for them.

        `worker` is the name its pushes carry from here on, by default the one they had. Every push renews
        the lease; with `heartbeat` it is renewed in the background as well. Joining again is harmless.
        """
        with self._pushing:
            membership = Membership(self._transport, self._path, worker or self.worker)
            self._worker.take(membership.worker, membership.next_sequence - 1)
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
        Raises the service's refusals: NonFinite, WrongShape, …; NotAMember if the worker has not joined or
        its lease ran out, WorkerAhead while its last push still waits, StaleGradient if `base` is too far
        back. Raises ConnectionFailed when no answer came in the time allowed for retries; the push may then
        have counted.
        """
        answer = self._push(grads, base, weight, {"Accept": tensors.MEDIA_TYPE}, wait_s, wire)
        if answer.status == ACCEPTED:
            return self._newest(), _receipt_in(answer)
        try:
            receipt = json.loads(answer.headers["Receipt"])
        except (KeyError, ValueError) as error:
            raise MalformedAnswer("the answer to a push has no readable Receipt header") from error
        return self._see(answer), Receipt.from_json(receipt)

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
        headers = {"Accept": "application/json", "Prefer": "return=minimal"}
        return _receipt_in(self._push(grads, base, weight, headers, wait_s, wire))

    def fate(self, sequence: int, *, worker: str | None = None, wait_s: float = 0.0) -> Receipt:
        """What became of a push, of this worker or of another one; after at most `wait_s` if it waits.

        Raises ReceiptNotFound if it never arrived, or is not among the worker's latest 64.
        """
        name = quote(self.worker if worker is None else worker, safe="")
        answer = self._transport.send(
            "GET", f"{self._path}/receipts/{name}/{sequence}", headers=_patience({}, wait_s), wait_s=wait_s
        )
        return Receipt.from_json(answer.json())

    def workers(self) -> dict[str, Any]:
        """Who takes part, {"workers": […], "round": {…}}: each one's standing, and who waits in the round."""
        return dict(self._transport.send("GET", f"{self._path}/workers").json())

    def pull(self, *, wait_s: float = 0.0, view: str = TRAIN) -> Params:
        """The current parameters; if they are those seen last, nothing is transferred.

        Tables are not among them: ask for `rows`, or for a whole `table`.
        With `wait_s` the service holds the answer until there is a newer step, at most so long. `view` asks
        for another of the model's views, such as "ema"; gradients are computed at the default one. Raises
        ViewNotFound.
        """
        seen, headers = self._seen if view == TRAIN else self._views.get(view), {"Accept": tensors.MEDIA_TYPE}
        if seen is not None:
            headers["If-None-Match"] = seen.etag
        answer = self._transport.send(
            "GET",
            f"{self._path}/parameters",
            query=_query(view),
            headers=_patience(headers, wait_s),
            wait_s=wait_s,
        )
        if answer.status == 304 and seen is not None:
            return dict(seen.params)
        return self._see(answer, view)

    def rows(self, table: str, ids: ArrayLike, *, view: str = TRAIN) -> Rows:
        """The present values of a table's rows, in the order of `ids`, or another view of them."""
        asked = Rows(ids, ())
        answer = self._transport.send(
            "POST",
            f"{self._path}/parameters/{quote(table, safe='')}/rows",
            query=_query(view),
            headers={"Accept": tensors.MEDIA_TYPE},
            body=Body(tensors.MEDIA_TYPE, tensors.encode({"rows": asked.ids})),
        )
        found: Rows = joined(tensors.decode(answer.body))[table]
        return found

    def table(self, name: str, *, view: str = TRAIN) -> NDArray[Any]:
        """All rows of a table, also those nobody has touched, or another view of them."""
        path = f"{self._path}/parameters/{quote(name, safe='')}"
        answer = self._transport.send("GET", path, query=_query(view), headers={"Accept": tensors.MEDIA_TYPE})
        values: NDArray[Any] = tensors.decode(answer.body)[name]
        return values

    def state(self) -> Params:
        """Everything the optimizer knows: `param/<name>`, `<slot>/<name>` and update counts `t/<name>`."""
        answer = self._transport.send("GET", f"{self._path}/state", headers={"Accept": tensors.MEDIA_TYPE})
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
        with self._seeing:
            self._seen = None
            self._views.clear()

    def begin(self, params: Gradients) -> None:
        """Uploads initial values; a model that has values already keeps them. Either way they are pulled."""
        try:
            self.pull()
        except ParametersMissing:
            body = Body(tensors.MEDIA_TYPE, tensors.encode(spread(params)))
            # Of workers that begin a model together, the first one's values count.
            with suppress(PreconditionFailed):
                self._transport.send(
                    "PUT", f"{self._path}/parameters", headers={"If-None-Match": "*"}, body=body
                )
            self.pull()

    def _push(
        self,
        grads: Gradients,
        base: int | None,
        weight: float,
        headers: Mapping[str, str],
        wait_s: float,
        wire: Form,
    ) -> Answer:
        with self._pushing:
            seen = self._seen
            if base is None and seen is not None:
                base = seen.step
            sent = _in_form(grads, wire)
            body = Body(tensors.MEDIA_TYPE, tensors.encode(sent, () if seen is None else seen.params))
            # The push has its name before it is sent the first time; retries are the transport's affair.
            sequence = self._worker.next(self._last_sequence)
            query = {"worker": self.worker, "sequence": sequence, "weight": weight}
            if base is not None:
                query["base"] = base
            try:
                answer = self._transport.send(
                    "POST",
                    f"{self._path}/gradients",
                    query=query,
                    headers=_patience(headers, wait_s),
                    body=body,
                    wait_s=wait_s,
                )
            except BaseException:
                self._worker.doubt()
                raise
            self._worker.settle(sequence)
            if isinstance(wire, Residual):
                wire.settle()
            return answer

    def _last_sequence(self, worker: str) -> int:
        listed = self.workers()["workers"]
        return next((int(each["sequence"]) for each in listed if each["worker"] == worker), 0)

    def _newest(self) -> Params:
        """The parameters seen last, pulled if there are none."""
        seen = self._seen
        return self.pull() if seen is None else dict(seen.params)

    def _see(self, answer: Answer, view: str = TRAIN) -> Params:
        """Remembers the answer's parameters if no newer ones were seen."""
        answer.body.flags.writeable = False
        params = joined(tensors.decode(answer.body))
        dense = {name: value for name, value in params.items() if not isinstance(value, Rows)}
        seen = _Seen(*_version(answer.headers.get("ETag", "")), dense)
        with self._seeing:
            if view != TRAIN:
                self._views[view] = seen
                return dict(seen.params)
            known = self._seen
            if known is None or _epoch(known) != _epoch(seen) or known.step <= seen.step:
                self._seen = seen
        return params


def _in_form(grads: Gradients, wire: Form) -> Mapping[str, ArrayLike | BFloat16]:
    """The arrays of a body."""
    if wire is None:
        return spread(grads)
    return wire.compressed(grads) if isinstance(wire, Residual) else compressed(grads, wire)


def _patience(headers: Mapping[str, str], wait_s: float) -> dict[str, str]:
    """The headers, with how long the service may take; it counts whole seconds."""
    preferred = [headers[name] for name in ("Prefer",) if name in headers]
    wished = [*preferred, f"wait={ceil(wait_s)}"] if wait_s else preferred
    return {**headers, "Prefer": ", ".join(wished)} if wished else dict(headers)


def _receipt_in(answer: Answer) -> Receipt:
    members = answer.json()
    if not isinstance(members, dict) or "receipt" not in members:
        raise MalformedAnswer(f"the answer to a push has no receipt: {members!r}")
    return Receipt.from_json(members["receipt"])


def _query(view: str) -> dict[str, str]:
    return {} if view == TRAIN else {"view": view}


def _epoch(seen: _Seen) -> str:
    return seen.etag.rpartition(".")[0]


def _version(etag: str) -> tuple[str, int]:
    step = etag.rpartition(".")[2].rstrip('"')
    if not step.isdecimal():
        raise MalformedAnswer(f'expected an ETag "<epoch>.<step>", got {etag!r}')
    return etag, int(step)
