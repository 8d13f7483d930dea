"""The replica: the models this process holds in memory, each played from its log. There is no leader.

    push = draft (2/6) → append (3/6) → apply (4/6) → snapshot if due (5/6) → answer

Any replica serves any model. A model is loaded when somebody asks for it, saved when its log has grown or
it falls quiet, and dropped from memory when nobody has used it for long.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from gradledger_server.entries import (
    Configure,
    Create,
    Delete,
    Json,
    Metric,
    Record,
    Tensors,
    Upload,
)
from gradledger_server.errors import (
    Invalid,
    ModelExists,
    ModelNotFound,
    ModelQuarantined,
    PreconditionFailed,
)
from gradledger_server.kernels.device import Device
from gradledger_server.machine import spec as specs
from gradledger_server.machine.apply import origin
from gradledger_server.machine.gradient import check, gather, norm
from gradledger_server.machine.image import Image
from gradledger_server.machine.model import Model
from gradledger_server.machine.reconfiguration import reconfigure
from gradledger_server.machine.row_gradient import require_rows
from gradledger_server.replica.answers import Answer
from gradledger_server.replica.clock import now_ms
from gradledger_server.replica.draft import Draft, Sender, draft
from gradledger_server.replica.hot import Hot
from gradledger_server.replica.laps import Laps
from gradledger_server.replica.mailbox import WAITING, Mailbox, shielded
from gradledger_server.replica.metrics import Reported, report
from gradledger_server.replica.published import Published, TableRows
from gradledger_server.replica.shelf import Cadence, Shelf
from gradledger_server.store.contract import SMALL_BYTES, Store, StoreFacts
from gradledger_server.wire.digest import digest
from gradledger_server.wire.records import to_record

T = TypeVar("T")

THREADS = 32  # they wait for the store more than they compute


class Replica:
    """Start it inside a running event loop with `async with`; see the module's docstring."""

    def __init__(self, store: Store, device: Device, cadence: Cadence | None = None) -> None:
        self.store = store
        self.device = device
        self.blocks = store.blocks
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="replica")
        self.shelf = Shelf(store, device, self.blocks, self._threads, cadence or Cadence())
        self._copying = asyncio.Semaphore(2)  # a copy of all slots is as large as they are

    async def __aenter__(self) -> Replica:
        self.shelf.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.shelf.stop()
        self._threads.shutdown()

    async def ready(self) -> StoreFacts:
        """The store's facts, after asking it something. Raises StoreUnavailable."""
        await self.thread(lambda: self.store.find(""))
        return await self.facts()

    async def facts(self) -> StoreFacts:
        """What the server that holds the log is and promises. Raises StoreUnavailable."""
        return await self.thread(self.store.facts)

    async def names(self) -> dict[str, str]:
        """Every model's name and epoch."""
        return await self.thread(self.store.names)

    async def create(
        self,
        name: str,
        given: Json,
        shapes: Mapping[str, tuple[tuple[int, ...], str]],
        values: Tensors | None,
        tables: Mapping[str, Json] | None = None,
    ) -> tuple[Mailbox, bool]:
        """The model of this name, and whether this call made it. Repeating a creation is harmless.

        Raises ModelExists if the name belongs to a model of another spec or with other initial values.
        """
        specs.check_model_name(name)
        entry, record = await self.thread(lambda: self._begin(given, shapes, values, tables))
        while True:
            epoch = secrets.token_hex(8)
            made = await self.thread(partial(self.store.create, name, epoch, record))
            try:
                mailbox = await self.on(name, _looked)
            except ModelNotFound:  # somebody deleted it in between: the name is free again
                continue
            if not made and mailbox.hot.model.origin != await self.thread(lambda: origin(entry)):
                raise _exists(name, entry.spec, mailbox.hot.model.spec.json)
            return mailbox, made

    def _begin(
        self,
        given: Json,
        shapes: Mapping[str, tuple[tuple[int, ...], str]],
        values: Tensors | None,
        tables: Mapping[str, Json] | None,
    ) -> tuple[Create, Record]:
        """The first entry of a model as it was asked for, checked. Of 20,000 tensors this takes seconds."""
        spec = specs.expand(given, shapes, tables)
        if values is not None:
            check(spec.layout, values, upload=True)
            norm(spec.layout, gather(spec.layout, values, self.blocks), self.device)
        entry = Create(spec.json, values, digest(values.payload) if values else None, now_ms())
        return entry, to_record(entry)

    async def on(self, name: str, work: Callable[[Mailbox], Any]) -> Any:
        """Runs `work` on the open model; if it was deleted and made anew elsewhere, on the new one."""
        mailbox = await self.shelf.open(name)
        try:
            return await work(mailbox)
        except ModelNotFound:
            pass
        except Invalid:  # of the new model it might be right
            if await mailbox.is_alive():
                raise
        except ModelQuarantined:
            self.shelf.drop(name)
            raise
        self.shelf.drop(name)
        return await work(await self.shelf.open(name))

    async def delete(self, name: str, if_match: str | None) -> None:
        """Deletes the model everywhere. Raises ModelNotFound or PreconditionFailed."""

        def remove(mailbox: Mailbox, hot: Hot) -> None:
            if if_match is not None:
                hot.look()
                hot.require_version(if_match)
            if not self.store.delete(name, hot.epoch, to_record(Delete(now_ms()))):
                raise ModelNotFound(f"there is no model {name!r}")
            mailbox.doubt()  # not before: whoever looked in between would rely on what it saw

        await self.on(name, lambda mailbox: mailbox.run(partial(remove, mailbox)))
        self.shelf.drop(name)

    async def rows(
        self, mailbox: Mailbox, table: str, ids: NDArray[np.int64] | None, view: str
    ) -> tuple[Published, TableRows]:
        """Rows of a table, no older than any acknowledged push; all if `ids` is None.

        Raises WrongRows or ViewNotFound.
        """
        if ids is not None:
            require_rows(mailbox.hot.model.layout.tables[table], ids)
        return await mailbox.run(lambda hot: hot.look_at(table, ids, view))

    async def copy(self, mailbox: Mailbox) -> tuple[Published, Image]:
        """Everything held of the model, at one step."""
        async with self._copying:
            return await mailbox.run(Hot.copy)

    async def push(
        self,
        mailbox: Mailbox,
        tensors: Tensors,
        sender: Sender,
        if_match: str | None,
        wait_s: float = 0.0,
        laps: Laps | None = None,
    ) -> Answer:
        """A gradient becomes an answer, after at most `wait_s` if it has to wait for others.

        `laps` is told where the time goes. Raises its refusal, or Unavailable when its fate is not known.
        """
        drafting = partial(self.draft, mailbox, tensors, sender, laps or Laps())
        large = len(tensors.payload) > SMALL_BYTES  # a thread's turn costs more than checking less
        push = await self.thread(drafting) if large else drafting()
        if if_match is not None:
            answer = await mailbox.run(lambda hot: hot.push_if(push, if_match))
        else:
            answer = await mailbox.push(push)
        push.laps.end("queue")  # the way back
        if wait_s and answer.receipt.fate == WAITING and push.identity is not None:
            answer = await mailbox.settled(push, answer, wait_s)
            push.laps.end("wait")
        self.shelf.save_if_due(mailbox)
        return answer

    def draft(self, mailbox: Mailbox, tensors: Tensors, sender: Sender, laps: Laps) -> Draft:
        """A push, checked and measured. Raises its refusal."""
        model = mailbox.hot.model
        made = draft(
            tensors,
            sender,
            model.layout,
            device=self.device,
            blocks=self.blocks,
            durability=self.store.facts().durability,
            at_ms=now_ms(),
            nonfinite=model.guard.policy.nonfinite,
            laps=laps,
        )
        laps.end("decode")
        return made

    async def upload(
        self, mailbox: Mailbox, tensors: Tensors, if_match: str | None, *, first: bool = False
    ) -> None:
        """Sets parameter values; with `first` only of tensors that have none yet, else PreconditionFailed."""
        layout = mailbox.hot.model.layout

        def choose(model: Model) -> Upload | None:
            named = digest(tensors.payload)
            if model.uploaded == named:
                return None  # a retry: these very values are the present ones
            mailbox.hot.require_version(if_match)
            if first and not model.missing >= tensors.table.keys():
                raise PreconditionFailed("the model has values already", hint="Pull them.")
            return Upload(tensors, named, now_ms())

        def work(hot: Hot) -> None:
            check(layout, tensors, upload=True)
            norm(layout, gather(layout, tensors, self.blocks), self.device)
            hot.decide(choose)

        await mailbox.run(work)
        self.shelf.save_if_due(mailbox)

    async def configure(self, mailbox: Mailbox, change: Json, if_match: str | None) -> None:
        """Changes hyperparameters, schedule or groups from the next push on."""

        def choose(model: Model) -> Configure:
            mailbox.hot.require_version(if_match)
            return Configure(reconfigure(model.spec, change).json, now_ms())

        await mailbox.run(lambda hot: hot.decide(choose))

    async def report(self, mailbox: Mailbox, value: float, sender: Sender) -> Reported:
        """A finite metric becomes an answer. Raises NoPlateau, SequenceGap or SequenceReused."""
        durability = self.store.facts().durability
        metric = Metric(value, sender.worker, sender.sequence, sender.key, durability, now_ms())
        reported = await mailbox.run(lambda hot: report(hot, metric))
        self.shelf.save_if_due(mailbox)
        return reported

    async def thread(self, work: Callable[[], T]) -> T:
        """Runs `work` on a thread, to the end even if the caller is cancelled."""
        return await shielded(asyncio.get_running_loop().run_in_executor(self._threads, work))


async def _looked(mailbox: Mailbox) -> Mailbox:
    await mailbox.look()
    return mailbox


def _exists(name: str, asked: Json, there: Json) -> ModelExists:
    """The refusal of a creation under a name that means another model."""
    others = [field for field in asked if asked[field] != there.get(field)]
    differs = "another spec: what differs is " + ", ".join(others) if others else "other initial values"
    return ModelExists(f"model {name!r} exists with {differs}", model=name, differs=others)
