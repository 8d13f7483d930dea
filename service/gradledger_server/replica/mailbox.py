"""Pushes and pulls waiting for one model: what waits together shares one round trip to the log."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from typing import Any, TypeVar

from gradledger_server.errors import GradledgerError, ModelNotFound
from gradledger_server.machine.receipts import Receipt
from gradledger_server.replica.answers import Answer
from gradledger_server.replica.bell import Bell
from gradledger_server.replica.clock import now_ms
from gradledger_server.replica.draft import Draft
from gradledger_server.replica.events import News, Place
from gradledger_server.replica.flight import Flight, Listener
from gradledger_server.replica.hot import Hot
from gradledger_server.replica.published import Published
from gradledger_server.replica.quick import Quick
from gradledger_server.store.contract import AsyncLog

BATCH_BYTES = 256 << 20  # of payload in one group commit
WAITING = "waiting"

T = TypeVar("T")


class Mailbox:
    """The asynchronous face of a hot model. Tasks of its own carry the work, so a client that hangs up
    in the middle neither stops a commit nor confuses whose answer is whose."""

    def __init__(self, hot: Hot, log: AsyncLog, threads: Executor) -> None:
        self.hot = hot
        self._loop = asyncio.get_running_loop()  # asking for it each time costs a system call
        self._quick = Quick(hot, log)
        self._flight = Flight(hot, log, self._quick, self._announce)
        self._bell = Bell(hot.playback, self.look)
        self._threads = threads
        self._pushes: list[tuple[Draft, asyncio.Future[Answer]]] = []
        self._looks: list[asyncio.Future[Published]] = []
        self._draining: asyncio.Task[None] | None = None
        self.streams = 0  # of events, to clients
        self._deleted = False
        self._alarm: asyncio.TimerHandle | None = None
        self._set_alarm()
        self.used_at = self._loop.time()

    def touch(self) -> None:
        """Notes that somebody uses the model."""
        self.used_at = self._loop.time()

    async def push(self, draft: Draft) -> Answer:
        """The push's answer, once it is in the log and applied. Raises its refusal."""
        future: asyncio.Future[Answer] = self._loop.create_future()
        self._pushes.append((draft, future))
        self._drain()
        return await future

    def hasten(self, draft: Draft, listener: Listener) -> bool:
        """The same without a task, if nothing is in the way. False: nothing was done."""
        return self._draining is None and self._flight.push(draft, listener)

    @property
    def hastens(self) -> bool:
        """Whether `hasten` may work."""
        return self._draining is None and self._flight.open

    @property
    def latest(self) -> Published | None:
        """What `look` would answer, if nobody has to be asked."""
        return self.hot.published if self._quick.is_latest else None

    async def look(self) -> Published:
        """The parameters, no older than any push acknowledged before this call."""
        if (latest := self.latest) is not None:
            return latest
        future: asyncio.Future[Published] = self._loop.create_future()
        self._looks.append(future)
        self._drain()
        return await future

    async def seen(self, read: Callable[[Hot], T]) -> T:
        """See `Hot.seen`: at once, if the model is free."""
        await self.look()
        if not self.hot.lock.take():
            return await self.run(lambda hot: hot.seen(read))
        try:
            return read(self.hot)
        finally:
            self.hot.lock.give()

    def doubt(self) -> None:
        """Nobody may rely on what is known of the log; for any thread."""
        self._quick.doubt()

    def release(self) -> None:
        """Whoever waits is answered now, with things as they are: the service is about to end."""
        self._bell.release()

    async def is_alive(self) -> bool:
        """Whether the model has not been deleted, by whomever."""
        try:
            await self.look()
        except ModelNotFound:
            return False
        return True

    async def look_after(self, etag: str, wait_s: float) -> Published:
        """The parameters as soon as their ETag is another one, or as they are after `wait_s`."""
        return await self._bell.step(self.look, lambda found: found.etag != etag, wait_s)

    async def settled(self, draft: Draft, answer: Answer, wait_s: float) -> Answer:
        """The answer of a push that waits, as soon as it has counted, or as it is after `wait_s`."""
        return await self._bell.step(
            lambda: self.run(lambda hot: hot.answer_again(draft, answer)),
            lambda now: now.receipt.fate != WAITING,
            wait_s,
        )

    async def fate(self, worker: str, sequence: int, wait_s: float) -> Receipt:
        """The receipt of a worker's push, after at most `wait_s` if it waits. Raises ReceiptNotFound."""
        return await self._bell.step(
            lambda: self.run(lambda hot: hot.receipt(worker, sequence)),
            lambda found: found.fate != WAITING,
            wait_s,
        )

    async def news(self, after: Place | None, most: int, wait_s: float) -> News:
        """What happened behind a place, as soon as there is something, or nothing after `wait_s`."""
        return await self._bell.entry(
            lambda: self.run(lambda hot: hot.news(after, most)),
            lambda news: bool(news.events or news.lost),
            wait_s,
        )

    async def run(self, work: Callable[[Hot], T]) -> T:
        """Runs `work` on a thread, to the end even if the caller is cancelled."""
        before = self.hot.published
        try:
            return await shielded(self._thread(lambda: self._trying(work)))
        finally:
            self._announce(before)

    @property
    def stepped_at(self) -> float:
        """When the model was last seen to make a step, on the loop's clock."""
        return self._bell.stepped_at

    @property
    def busy(self) -> bool:
        """Whether a push is at work."""
        return self._draining is not None or self._flight.busy

    def _thread(self, work: Callable[[], T]) -> Awaitable[T]:
        return self._loop.run_in_executor(self._threads, work)

    def _drain(self) -> None:
        if self._draining is None:
            self._draining = self._loop.create_task(self._deliver())

    async def _deliver(self) -> None:
        try:
            while self._pushes or self._looks:
                await self._round()
        finally:
            self._draining = None

    async def _round(self) -> None:
        pushes, looks = self._take(), self._looks
        self._looks = []
        before = self.hot.published
        try:
            answers = await self._commit([draft for draft, _ in pushes])
        except Exception as failure:
            waiting: list[asyncio.Future[Any]] = [*(future for _, future in pushes), *looks]
            for future in waiting:
                if not future.done():
                    future.set_exception(failure)
            return
        self._announce(before)
        for (_, pushed), answer in zip(pushes, answers, strict=True):
            if not pushed.done():
                _settle(pushed, answer)
        for look in looks:
            if not look.done():
                look.set_result(self.hot.published)

    async def _commit(self, drafts: Sequence[Draft]) -> Sequence[Answer | GradledgerError]:
        """On the event loop what is small, else on a thread. No draft at all: only catches up."""
        if drafts:
            answers = await self._quick.commit(drafts)
            if answers is not None:
                return answers
        elif await self._quick.look() is not None:
            return []
        since, alone = self._quick.since, self._quick.is_latest
        answers = await self._thread(lambda: self._trying(lambda hot: hot.commit(drafts, alone=alone)))
        self._quick.rely_on(since)
        return answers

    def _trying(self, work: Callable[[Hot], T]) -> T:
        """What a thread does, even if nobody waits for it any more; what became of a failure is unknown."""
        try:
            return work(self.hot)
        except BaseException:
            self.doubt()
            raise

    def _take(self) -> list[tuple[Draft, asyncio.Future[Answer]]]:
        """The waiting pushes, as many as fit one commit; at least one."""
        taken, nbytes = 0, 0
        for draft, _ in self._pushes:
            nbytes += len(draft.record.payload)
            if taken and nbytes > BATCH_BYTES:
                break
            taken += 1
        batch, self._pushes = self._pushes[:taken], self._pushes[taken:]
        return batch

    def _set_alarm(self, after_s: float = 0.0) -> None:
        """Wakes somebody up for the next lease that runs out or round that closes, if there is one."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        due_ms = None if self._deleted else self.hot.deadline_ms
        if due_ms is not None:
            loop, in_s = self._loop, due_ms / 1000 - time.time()
            self._alarm = loop.call_later(max(in_s, after_s), lambda: loop.create_task(self._time_out()))

    async def _time_out(self) -> None:
        try:
            await self.run(lambda hot: hot.time_out(now_ms()))
        except ModelNotFound:
            self._deleted = True
            self._set_alarm()
        except GradledgerError:  # the server is away: once more, but not at once
            self._set_alarm(after_s=1.0)

    def _announce(self, before: Published) -> None:
        self._set_alarm()
        self._bell.ring(before, self.hot.published)


def _settle(future: asyncio.Future[Answer], answer: Answer | GradledgerError) -> None:
    if isinstance(answer, GradledgerError):
        future.set_exception(answer)
    else:
        future.set_result(answer)


async def shielded(work: Awaitable[T]) -> T:
    """Waits for `work`, which goes on even if the waiting is cancelled."""
    return await asyncio.shield(asyncio.ensure_future(work))
