"""A model's pushes on their way: each is named when its turn comes, and one is on its way at a time.

The service takes a worker's pushes in the order of their sequence, so a second one on its way would gain
nothing but a place in memory. Whoever has the next one waits for its turn: that is the back-pressure.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

from gradledger.answer import Answer
from gradledger.landing import Landing
from gradledger.membership import Membership
from gradledger.transport import Body, Transport
from gradledger.worker import Worker

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Push:
    """What to send, but for its name. `taken` is called once the service has it."""

    body: Body
    query: Mapping[str, Any]
    headers: Mapping[str, str]
    wait_s: float = 0.0
    landing: Landing | None = None
    taken: Callable[[], None] | None = None


class Outbox:
    """The pushes of one worker to the model at `path`."""

    def __init__(self, transport: Transport, path: str, worker: str | None) -> None:
        self._transport = transport
        self._path = path
        self._worker = Worker(worker)
        self._turn = threading.Lock()

    @property
    def worker(self) -> str:
        """The name that pushes are counted under."""
        return self._worker.name

    def join(self, worker: str | None) -> Membership:
        """Makes the worker a member, and counts its pushes from where the service says."""
        with self._turn:
            membership = Membership(self._transport, self._path, worker or self.worker)
            self._worker.take(membership.worker, membership.next_sequence - 1)
        return membership

    def send(self, make: Callable[[], Push]) -> Answer:
        """Makes the push in its turn, once those before it have their answers, and answers its own."""
        with self._turn:
            return self._send(make(), self._sequence())

    def begin(self, make: Callable[[], Push], finish: Callable[[Answer], T]) -> Future[T]:
        """Makes the push in its turn, which it waits for, names it, and sends it in the background.

        What `finish` makes of the answer, or whatever went wrong, is in the future.
        """
        future: Future[T] = Future()
        future.set_running_or_notify_cancel()
        self._turn.acquire()  # given back by the thread that sends, or below if there will be none
        try:
            push, sequence = make(), self._sequence()
            name = f"push {sequence} of {self.worker}"
            threading.Thread(target=self._finish, args=(future, push, sequence, finish), name=name).start()
        except BaseException as error:
            self._turn.release()
            if not isinstance(error, Exception):
                raise
            future.set_exception(error)
        return future

    def _finish(self, future: Future[T], push: Push, sequence: int, finish: Callable[[Answer], T]) -> None:
        try:
            finished = finish(self._send(push, sequence))
        except BaseException as error:
            self._turn.release()
            future.set_exception(error)
        else:
            self._turn.release()  # first: what hangs on the future may push again
            future.set_result(finished)

    def _sequence(self) -> int:
        self._transport.require_open()  # a push that has its name is sent, also if the end comes before it is
        return self._worker.next(self._last_sequence)

    def _send(self, push: Push, sequence: int) -> Answer:
        # The push has its name before it is sent the first time; retries are the transport's affair.
        try:
            answer = self._transport.send(
                "POST",
                f"{self._path}/gradients",
                query={"worker": self.worker, "sequence": sequence, **push.query},
                headers=push.headers,
                body=push.body,
                wait_s=push.wait_s,
                landing=push.landing,
                begun=True,
            )
        except BaseException:
            self._worker.doubt()
            raise
        self._worker.settle(sequence)
        if push.taken is not None:
            push.taken()
        return answer

    def _last_sequence(self, worker: str) -> int:
        listed = self._transport.send("GET", f"{self._path}/workers").json()["workers"]
        return next((int(each["sequence"]) for each in listed if each["worker"] == worker), 0)
