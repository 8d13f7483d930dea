"""The models in memory: loaded when somebody asks for one, saved when due, dropped when nobody uses it."""

from __future__ import annotations

import asyncio
import contextlib
from concurrent.futures import Executor
from dataclasses import dataclass

import structlog

from gradledger_server.blocks import Blocks
from gradledger_server.errors import GradledgerError, ModelNotFound
from gradledger_server.kernels.device import Device
from gradledger_server.replica.hot import Hot
from gradledger_server.replica.mailbox import Mailbox
from gradledger_server.store.contract import Store

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Cadence:
    """When a model is saved and dropped.

    A snapshot is due when the log since the last one exceeds `log_ratio` times the state (and
    `log_floor_bytes`) or `log_entries`, or after `quiet_s` without a step, whoever made it. Quiet models are
    saved one after the other, in `saving_share` of the time: of very many that are pushed to now and then,
    saving each every time would take several times as long as the pushes.
    """

    log_ratio: float = 4.0
    log_floor_bytes: int = 16 << 20
    log_entries: int = 10_000
    quiet_s: float = 2.0
    drop_s: float = 600.0
    tick_s: float = 0.5
    saving_share: float = 0.1

    def due(self, hot: Hot) -> bool:
        """Whether the log has grown long. Asked after every push, so what costs most is asked last."""
        played = hot.playback
        if played.unsaved_entries > self.log_entries:
            return True
        return played.unsaved_bytes > self.log_floor_bytes and (
            played.unsaved_bytes > self.log_ratio * hot.model.nbytes
        )


class Shelf:
    """Open models by name. Between `start` and `stop` it is tended every `cadence.tick_s`.

    `_awake` are those used or changed since they were last found saved and quiet, `_quiet` those that wait to
    be saved. The others are not looked at but when it is time to drop some: there may be many thousands.
    """

    def __init__(
        self, store: Store, device: Device, blocks: Blocks, threads: Executor, cadence: Cadence
    ) -> None:
        self._store, self._device, self._blocks = store, device, blocks
        self._threads = threads
        self._cadence = cadence
        self._log = store.async_log()
        self._open: dict[str, asyncio.Task[Mailbox]] = {}
        self._saves: dict[str, asyncio.Task[None]] = {}
        self._awake: dict[str, Mailbox] = {}
        self._quiet: dict[str, Mailbox] = {}
        self._saving: asyncio.Task[None] | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._released = False

    def start(self) -> None:
        """Begins to tend the models. Inside a running event loop."""
        self._keeper = asyncio.create_task(self._keep())

    async def stop(self) -> None:
        """Saves what is not saved yet."""
        assert self._keeper is not None
        for task in (self._keeper, self._saving):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        for mailbox in self.loaded():
            with contextlib.suppress(GradledgerError):
                await mailbox.run(Hot.save)
        self._log.close()

    def release(self) -> None:
        """Nobody waits for others any more: the service is about to end, and every request is answered."""
        self._released = True
        for mailbox in self.loaded():
            mailbox.release()

    async def open(self, name: str) -> Mailbox:
        """The model in memory, loaded if need be. Raises ModelNotFound or ModelQuarantined."""
        task = self._open.get(name)
        if task is None:
            task = self._open[name] = asyncio.create_task(self._load(name))
            task.add_done_callback(lambda done: self._forget_failed(name, done))
        if not task.done():
            await asyncio.shield(task)
        return self._used(name, task)

    def at_hand(self, name: str) -> Mailbox | None:
        """The same if it is in memory, else None."""
        task = self._open.get(name)
        if task is None or not task.done() or task.cancelled() or task.exception() is not None:
            return None
        return self._used(name, task)

    def _used(self, name: str, task: asyncio.Task[Mailbox]) -> Mailbox:
        mailbox = task.result()
        mailbox.touch()
        self._awake[name] = mailbox
        return mailbox

    def loaded(self) -> list[Mailbox]:
        """The models in memory."""
        done = (task for task in self._open.values() if task.done() and not task.cancelled())
        return [task.result() for task in done if task.exception() is None]

    async def _load(self, name: str) -> Mailbox:
        loop = asyncio.get_running_loop()
        epoch = await loop.run_in_executor(self._threads, self._store.find, name)
        if epoch is None:
            raise ModelNotFound(f"there is no model {name!r}", model=name)
        needed = (name, epoch, self._store, self._device, self._blocks)
        hot = await loop.run_in_executor(self._threads, Hot, *needed)
        mailbox = Mailbox(hot, self._log, self._threads)
        if self._released:
            mailbox.release()
        return mailbox

    def _forget_failed(self, name: str, task: asyncio.Task[Mailbox]) -> None:
        if task.cancelled() or task.exception() is not None:
            self._open.pop(name, None)

    def drop(self, name: str) -> None:
        """Forgets the model; whoever works on it still may."""
        for models in (self._open, self._awake, self._quiet):
            models.pop(name, None)

    def save_if_due(self, mailbox: Mailbox) -> None:
        """Begins to save the model if its log has grown long."""
        if mailbox.hot.epoch not in self._saves and self._cadence.due(mailbox.hot):
            self._begin_to_save(mailbox)

    def _begin_to_save(self, mailbox: Mailbox) -> asyncio.Task[None]:
        epoch = mailbox.hot.epoch
        task = self._saves[epoch] = asyncio.create_task(self._save(mailbox))
        task.add_done_callback(lambda _: self._saves.pop(epoch, None))
        return task

    async def _save(self, mailbox: Mailbox) -> None:
        try:
            await mailbox.run(Hot.save)
        except ModelNotFound:  # another replica deleted it
            self.drop(mailbox.hot.name)
        except GradledgerError as failure:
            log.warning("snapshot failed; it will be tried again", model=mailbox.hot.name, why=failure.detail)

    async def _keep(self) -> None:
        """Every tick: sees to what fell quiet, gives idle memory back, and now and then drops the unused."""
        clock, looked_at = asyncio.get_running_loop().time, 0.0
        while True:
            await asyncio.sleep(self._cadence.tick_s)
            now = clock()
            # A comprehension keeps no model alive between two ticks, as a loop's variable would.
            unused_s = [self._tend(mailbox, now) for mailbox in list(self._awake.values())]
            if min(unused_s, default=float("inf")) > self._cadence.quiet_s:
                self._blocks.clear()
            if self._quiet and self._saving is None:
                self._saving = asyncio.create_task(self._save_quietly())
            if now - looked_at > self._cadence.drop_s / 10:
                looked_at = now
                self._blocks.age()
                for name in [name for name in self._open if self._is_unused(name, now)]:
                    self.drop(name)

    def _tend(self, mailbox: Mailbox, now: float) -> float:
        """Lets a quiet model sleep, behind a snapshot if it needs one; how long nobody has used it."""
        hot, quiet_s, unused_s = mailbox.hot, now - mailbox.stepped_at, now - mailbox.used_at
        if hot.playback.unsaved_entries and quiet_s > self._cadence.quiet_s and hot.epoch not in self._saves:
            self._quiet[hot.name] = mailbox
            del self._awake[hot.name]
        elif not hot.playback.unsaved_entries and unused_s > self._cadence.quiet_s:
            del self._awake[hot.name]
        return unused_s

    async def _save_quietly(self) -> None:
        """Saves what is quiet, one after the other, and rests in between."""
        try:
            while self._quiet:
                begun = asyncio.get_running_loop().time()
                name = next(iter(self._quiet))
                self._awake[name] = self._quiet.pop(name)  # to be looked at again
                await self._begin_to_save(self._awake[name])
                took_s = asyncio.get_running_loop().time() - begun
                await asyncio.sleep(took_s * (1.0 / self._cadence.saving_share - 1.0))
        finally:
            self._saving = None

    def _is_unused(self, name: str, now: float) -> bool:
        task = self._open[name]
        if not task.done() or task.cancelled() or task.exception() is not None:
            return False
        mailbox = task.result()
        saved = not mailbox.hot.playback.unsaved_entries and mailbox.hot.epoch not in self._saves
        if not saved:  # a clock wrote to its log while it slept
            self._awake.setdefault(name, mailbox)
        return saved and not mailbox.busy and now - mailbox.used_at > self._cadence.drop_s
