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
    `log_floor_bytes`) or `log_entries`, or after `quiet_s` without a step, whoever made it.
    """

    log_ratio: float = 4.0
    log_floor_bytes: int = 16 << 20
    log_entries: int = 10_000
    quiet_s: float = 2.0
    drop_s: float = 600.0
    tick_s: float = 0.5

    def due(self, hot: Hot, quiet_s: float) -> bool:
        """Asked of every model at every tick and after every push, so what costs most is asked last."""
        played = hot.playback
        if not played.unsaved_entries:
            return False
        if played.unsaved_entries > self.log_entries or quiet_s > self.quiet_s:
            return True
        return played.unsaved_bytes > self.log_floor_bytes and (
            played.unsaved_bytes > self.log_ratio * hot.model.nbytes
        )


class Shelf:
    """Open models by name. Between `start` and `stop` it is tended every `cadence.tick_s`."""

    def __init__(
        self, store: Store, device: Device, blocks: Blocks, threads: Executor, cadence: Cadence
    ) -> None:
        self._store, self._device, self._blocks = store, device, blocks
        self._threads = threads
        self._cadence = cadence
        self._log = store.async_log()
        self._open: dict[str, asyncio.Task[Mailbox]] = {}
        self._saves: dict[str, asyncio.Task[None]] = {}
        self._keeper: asyncio.Task[None] | None = None
        self._released = False

    def start(self) -> None:
        """Begins to tend the models. Inside a running event loop."""
        self._keeper = asyncio.create_task(self._keep())

    async def stop(self) -> None:
        """Saves what is not saved yet."""
        assert self._keeper is not None
        self._keeper.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._keeper
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
        mailbox = task.result() if task.done() else await asyncio.shield(task)
        mailbox.touch()
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
        self._open.pop(name, None)

    def save_if_due(self, mailbox: Mailbox, quiet_s: float = 0.0) -> None:
        """Begins to save the model if its log has grown, or it has made no step for `quiet_s`."""
        hot = mailbox.hot
        if hot.epoch not in self._saves and self._cadence.due(hot, quiet_s):
            task = self._saves[hot.epoch] = asyncio.create_task(self._save(mailbox))
            task.add_done_callback(lambda _: self._saves.pop(hot.epoch, None))

    async def _save(self, mailbox: Mailbox) -> None:
        try:
            await mailbox.run(Hot.save)
        except ModelNotFound:  # another replica deleted it
            self.drop(mailbox.hot.name)
        except GradledgerError as failure:
            log.warning("snapshot failed; it will be tried again", model=mailbox.hot.name, why=failure.detail)

    async def _keep(self) -> None:
        """Every tick: saves what fell quiet, drops what nobody used, gives idle memory back."""
        while True:
            await asyncio.sleep(self._cadence.tick_s)
            now = asyncio.get_running_loop().time()
            # A comprehension keeps no model alive between two ticks, as a loop's variable would.
            unused_s = [self._tend(mailbox, now) for mailbox in self.loaded()]
            if min(unused_s, default=float("inf")) > self._cadence.quiet_s:
                self._blocks.clear()

    def _tend(self, mailbox: Mailbox, now: float) -> float:
        """Saves or drops the model if it is time; how long nobody has used it."""
        unused_s = now - mailbox.used_at
        self.save_if_due(mailbox, now - mailbox.stepped_at)
        saved = not mailbox.hot.playback.unsaved_entries and mailbox.hot.epoch not in self._saves
        if unused_s > self._cadence.drop_s and saved and not mailbox.busy:
            self.drop(mailbox.hot.name)
        return unused_s
