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
from gradledger.errors import MalformedAnswer, ModelNotFound, ParametersMissing, PreconditionFailed
from gradledger.receipt import Receipt
from gradledger.rows import Rows, joined, spread
from gradledger.tensors import Params
from gradledger.transport import Answer, Body, Transport
from gradledger.worker import Worker

TRAIN = "train"  # the view that gradients are computed at
Gradients = Mapping[str, ArrayLike | Rows]


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

    def push(
        self, grads: Gradients, *, base: int | None = None, weight: float = 1.0
    ) -> tuple[Params, Receipt]:
        """Sends gradients (F16, BF16, F32 or F64, of the parameters' shapes) and answers the new parameters.

        A table's gradient is `Rows`, and its answer holds the rows that were touched, as `Rows` too.
        `base` is the step the gradients were computed at, by default that of the newest parameters seen here;
        threads that share a model should say it. The gradients must not be changed until this returns.
        Raises the service's refusals (NonFinite, WrongShape, …), and ConnectionFailed when no answer came in
        the time allowed for retries; the push may then have counted.
        """
        answer = self._push(grads, base, weight, {"Accept": tensors.MEDIA_TYPE})
        try:
            receipt = json.loads(answer.headers["Receipt"])
        except (KeyError, ValueError) as error:
            raise MalformedAnswer("the answer to a push has no readable Receipt header") from error
        return self._see(answer), Receipt.from_json(receipt)

    def push_only(self, grads: Gradients, *, base: int | None = None, weight: float = 1.0) -> Receipt:
        """Like `push`, without bringing the new parameters back: for when they are not needed yet."""
        headers = {"Accept": "application/json", "Prefer": "return=minimal"}
        answered = self._push(grads, base, weight, headers).json()
        return Receipt.from_json(answered["receipt"])

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
        if wait_s:
            headers["Prefer"] = f"wait={ceil(wait_s)}"  # whole seconds
        answer = self._transport.send(
            "GET", f"{self._path}/parameters", query=_query(view), headers=headers, wait_s=wait_s
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

    def _push(self, grads: Gradients, base: int | None, weight: float, headers: Mapping[str, str]) -> Answer:
        with self._pushing:
            seen = self._seen
            if base is None and seen is not None:
                base = seen.step
            body = Body(
                tensors.MEDIA_TYPE, tensors.encode(spread(grads), () if seen is None else seen.params)
            )
            # The push has its name before it is sent the first time; retries are the transport's affair.
            sequence = self._worker.next(self._last_sequence)
            query = {"worker": self.worker, "sequence": sequence, "weight": weight}
            if base is not None:
                query["base"] = base
            try:
                answer = self._transport.send(
                    "POST", f"{self._path}/gradients", query=query, headers=headers, body=body
                )
            except BaseException:
                self._worker.doubt()
                raise
            self._worker.settle(sequence)
            return answer

    def _last_sequence(self, worker: str) -> int:
        listed = self._transport.send("GET", f"{self._path}/workers").json()["workers"]
        return next((int(each["sequence"]) for each in listed if each["worker"] == worker), 0)

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


def _query(view: str) -> dict[str, str]:
    return {} if view == TRAIN else {"view": view}


def _epoch(seen: _Seen) -> str:
    return seen.etag.rpartition(".")[0]


def _version(etag: str) -> tuple[str, int]:
    step = etag.rpartition(".")[2].rstrip('"')
    if not step.isdecimal():
        raise MalformedAnswer(f'expected an ETag "<epoch>.<step>", got {etag!r}')
    return etag, int(step)
