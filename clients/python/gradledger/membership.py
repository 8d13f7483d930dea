"""A worker's place in the rounds of a model, by lease.

    join      from the round's edge on the others wait for this worker, while its lease runs
    push      renews the lease, and so does `renew`
    leave     nobody waits for the worker any more; what it pushed counts

A worker that falls silent for longer than its lease is a member no longer. Where pushes are further apart
than that, as with many local steps between them, `heartbeat=True` renews in the background.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from types import TracebackType
from typing import Any
from urllib.parse import quote

from gradledger.errors import ClientClosed, ConnectionFailed, GradledgerError, MalformedAnswer, ModelNotFound
from gradledger.transport import Body, Transport

BEATS_PER_LEASE = 3


class Membership:
    """Made by `Model.join`; a context manager that leaves at its end.

    `lease_s` is how long a silence may be, `next_sequence` what the worker's first push must carry.
    """

    def __init__(self, transport: Transport, path: str, worker: str) -> None:
        told = transport.send("POST", f"{path}/workers", body=Body.of_json({"worker": worker})).json()
        try:
            self.worker = str(told["worker"])
            self.lease_s = float(told["lease_s"])
            self.next_sequence = int(told["next_sequence"])
        except (KeyError, TypeError, ValueError) as error:
            raise MalformedAnswer(f"the answer to a join cannot be read: {told!r}") from error
        self._transport = transport
        self._path = f"{path}/workers/{quote(self.worker, safe='')}"
        self._left = threading.Event()
        self._pulse: threading.Thread | None = None

    def renew(self) -> dict[str, Any]:
        """A sign of life: the lease runs anew; if it had run out, the worker is a member again.

        Answers how the worker stands: `membership` ("member" or "joining"), `sequence`, `step`, ….
        """
        return dict(self._transport.send("PUT", self._path).json())

    def leave(self) -> None:
        """Ends the membership, at once for whoever waits. Repeating it is harmless."""
        self._left.set()
        if self._pulse is not None:  # a beat after the farewell would be a new membership
            self._pulse.join()
        with suppress(ModelNotFound):
            self._transport.send("DELETE", self._path)

    def keep_alive(self) -> None:
        """Begins to renew the lease in the background, until the worker leaves, the model is gone, or the
        client is closed."""
        if self._pulse is None:
            self._pulse = threading.Thread(target=self._beat, name=f"lease of {self.worker}", daemon=True)
            self._pulse.start()

    def _beat(self) -> None:
        while not self._left.wait(self.lease_s / BEATS_PER_LEASE):
            try:
                self._transport.send("PUT", self._path, retry_for_s=0.0)  # the next beat is the retry
            except (ModelNotFound, ClientClosed):
                return
            except GradledgerError:
                continue

    def __enter__(self) -> Membership:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.leave()
        except (ConnectionFailed, ClientClosed):
            # The lease will run out by itself; what went wrong before matters more.
            if error is None:
                raise
