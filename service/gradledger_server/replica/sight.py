"""One model in memory, and what can be seen of it.

Whoever looks is shown every push acknowledged before, on whatever replica, and no half of one: `lock` lets
one thread in at a time. How the model changes is in hot.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Self, TypeVar

from gradledger_server.blocks import Blocks
from gradledger_server.errors import ModelNotFound, ReceiptNotFound
from gradledger_server.kernels.device import Device
from gradledger_server.machine import image, views
from gradledger_server.machine.model import Model
from gradledger_server.machine.receipts import Receipt
from gradledger_server.machine.row_gradient import Rows
from gradledger_server.replica.events import News, Place
from gradledger_server.replica.lock import Lock
from gradledger_server.replica.playback import Playback
from gradledger_server.replica.published import Published, TableRows
from gradledger_server.store.contract import Store
from gradledger_server.wire import safetensors

T = TypeVar("T")


class Sight:
    """`playback` holds the model's state, `published` what readers see of it."""

    def __init__(self, name: str, epoch: str, store: Store, device: Device, blocks: Blocks) -> None:
        self.name, self.epoch = name, epoch
        self.lock = Lock()
        self._store = store
        self.playback = Playback(name, epoch, store, device, blocks)
        self._header = safetensors.header(self.model.layout.signature)
        self.published: Published = self._publish()

    @property
    def model(self) -> Model:
        return self.playback.model

    def look(self) -> Published:
        """The parameters, no older than the last push acknowledged anywhere before this call."""
        return self.seen(lambda hot: hot.published)

    def seen(self, read: Callable[[Self], T]) -> T:
        """What `read` makes of the state with every push acknowledged before this call, and no other one."""
        with self.lock:
            self._catch_up()
            return read(self)

    def look_at(self, table: str, ids: Rows | None, view: str) -> tuple[Published, TableRows]:
        """Rows of a table as the view shows them; all if `ids` is None. The table has them.

        Raises ViewNotFound.
        """
        with self.lock:
            self._catch_up()
            held = self.model.tables[table]
            read = views.rows(self.model, held, ids, view)
            published = self.published._replace(view=self.tag(view))
        return published, TableRows(held.declared, ids, read())

    @property
    def views(self) -> tuple[str, ...]:
        """What the parameters can be seen as."""
        return views.names(self.model.spec)

    def tag(self, view: str) -> str:
        """What the view's versions are told by. Raises ViewNotFound."""
        return views.tag(self.model.spec, view)

    def view(self, name: str) -> Published:
        """The parameters as the view shows them, made now, of one step. Raises ViewNotFound."""
        return self.seen(
            lambda hot: hot.published._replace(block=views.block(hot.model, name), view=hot.tag(name))
        )

    def copy(self) -> tuple[Published, image.Image]:
        """The whole state at one step."""
        return self.seen(lambda hot: (hot.published, image.copy(hot.model)))

    def news(self, after: Place | None, most: int) -> News:
        """What happened behind a place, wherever it was appended; nothing yet if None. Also its new end.

        A deleted model's last events are told before ModelNotFound is raised.
        """
        with self.lock:
            gone = None
            try:
                self._catch_up()
            except ModelNotFound as error:
                gone = error
            ring = self.playback.ring
            found, lost = ring.after(ring.end if after is None else after, most)
            if gone is not None and (not found or self.playback.broken):  # or they tell of what was foreseen
                raise gone
            until = found[-1].place if found else ring.end
            return News(found, until, lost, self.model.step)

    def receipt(self, worker: str, sequence: int) -> Receipt:
        """The fate of a worker's push. Raises ReceiptNotFound if it has not arrived or is kept no more."""
        with self.lock:
            found = self.model.receipts.kept(f"w:{worker}", sequence)
        if found is None:
            raise ReceiptNotFound(
                f"no receipt is kept for sequence {sequence} of worker {worker[:128]!r}",
                worker=worker[:128],
                sequence=sequence,
            )
        return found

    def _catch_up(self) -> None:
        self.playback.receipts.clear()
        self.playback.catch_up()
        self.published = self._publish()

    def _publish(self) -> Published:
        """What readers see of the state; the same object while nothing has changed."""
        model, block = self.model, self.model.weights.publish()
        before: Published | None = getattr(self, "published", None)
        same = before is not None and before.block is block and before.step == model.step
        if before is not None and same and before.missing == model.missing:
            return before
        return Published(self.epoch, model.step, model.layout, self._header, block, frozenset(model.missing))
