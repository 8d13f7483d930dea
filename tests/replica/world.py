"""A log, and replicas playing it: what a service is without HTTP, threads and time."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from gradledger_server.blocks import Blocks
from gradledger_server.entries import (
    Configure,
    Create,
    Delete,
    Join,
    Json,
    Leave,
    Quarantine,
    Tensors,
    Upload,
)
from gradledger_server.errors import GradledgerError, ModelNotFound
from gradledger_server.kernels.cpu import CpuDevice
from gradledger_server.machine import image
from gradledger_server.machine import spec as specs
from gradledger_server.machine.gradient import check
from gradledger_server.machine.model import Model
from gradledger_server.machine.reconfiguration import reconfigure
from gradledger_server.replica import Answer, Hot, Sender
from gradledger_server.replica.draft import Draft, draft
from gradledger_server.store.contract import Store
from gradledger_server.wire import safetensors
from gradledger_server.wire.digest import digest
from gradledger_server.wire.records import to_record

NUMPY = CpuDevice(compiled=False)
Arrays = Mapping[str, NDArray[Any]]
_epochs = itertools.count(1)


def tensors_of(arrays: Arrays) -> Tensors:
    """As a request would bring them."""
    return safetensors.decode(memoryview(save({name: np.asarray(array) for name, array in arrays.items()})))


def array_bytes(arrays: Arrays) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in arrays.items()}


def state_digest(model: Model) -> str:
    """Of everything the model is: weights, slots, counts, spec and receipts."""
    taken = image.copy(model)
    hashed = hashlib.sha256(json.dumps([taken.tensors, taken.facts], sort_keys=True).encode())
    for part in taken.parts:
        hashed.update(part.tobytes())
    return hashed.hexdigest()


class World:
    """Named models in one store, each held by the replicas that were asked for it."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.now_ms = 0  # as every replica's clock tells it
        self.blocks = Blocks()
        self._hot: dict[tuple[str, str], Hot] = {}

    def create(
        self,
        model: str,
        shapes: Mapping[str, tuple[int, ...]],
        values: Arrays | None,
        tables: Mapping[str, Json] | None = None,
        **given: Any,
    ) -> bool:
        """Creates the model; False if the name is taken."""
        spec = specs.expand(given, {name: (shape, "F32") for name, shape in shapes.items()}, tables)
        tensors = None if values is None else tensors_of(values)
        entry = Create(spec.json, tensors, digest(tensors.payload) if tensors else None, 0)
        return self.store.create(model, f"{next(_epochs):016x}", to_record(entry))

    def hot(self, model: str, replica: str = "one") -> Hot:
        """The model in the replica's memory, loaded at first use."""
        if (model, replica) not in self._hot:
            self._hot[model, replica] = self._load(model)
        return self._hot[model, replica]

    def forget(self, model: str, replica: str = "one") -> None:
        """The replica's memory is gone, as after a crash."""
        self._hot.pop((model, replica), None)

    def draft(self, model: str, gradient: Arrays, replica: str = "one", **named: Any) -> Draft:
        """A checked push of the gradient."""
        return draft(
            tensors_of(gradient),
            Sender(**named),
            self.hot(model, replica).model.layout,
            device=NUMPY,
            blocks=self.blocks,
            durability="memory",
            at_ms=self.now_ms,
        )

    def push(
        self, model: str, gradient: Arrays, replica: str = "one", if_match: str | None = None, **named: Any
    ) -> Answer:
        """The push's answer; raises its refusal."""
        one = self.draft(model, gradient, replica, **named)
        if if_match is not None:
            return self.hot(model, replica).push_if(one, if_match)
        (answer,) = self.commit(model, [one], replica)
        if isinstance(answer, GradledgerError):
            raise answer
        return answer

    def commit(
        self, model: str, drafts: Sequence[Draft], replica: str = "one"
    ) -> list[Answer | GradledgerError]:
        return self.hot(model, replica).commit(drafts)

    def upload(self, model: str, values: Arrays, replica: str = "one") -> None:
        hot, tensors = self.hot(model, replica), tensors_of(values)
        check(hot.model.layout, tensors, upload=True)
        hot.decide(lambda _: Upload(tensors, digest(tensors.payload), 0))

    def configure(self, model: str, change: Json, replica: str = "one") -> None:
        self.hot(model, replica).decide(lambda held: Configure(reconfigure(held.spec, change).json, 0))

    def join(self, model: str, worker: str, replica: str = "one") -> None:
        self.hot(model, replica).decide(lambda _: Join(worker, self.now_ms))

    def leave(self, model: str, worker: str, replica: str = "one") -> None:
        self.hot(model, replica).decide(lambda _: Leave(worker, "left", self.now_ms))

    def quarantine(self, model: str, worker: str, replica: str = "one", *, begins: bool) -> None:
        self.hot(model, replica).decide(lambda _: Quarantine(worker, begins, self.now_ms))

    def time_out(self, model: str, replica: str = "one") -> None:
        """What the replica's alarm does when it rings."""
        self.hot(model, replica).time_out(self.now_ms)

    def delete(self, model: str, replica: str = "one") -> bool:
        deleted = self.store.delete(model, self.hot(model, replica).epoch, to_record(Delete(0)))
        self.forget(model, replica)
        return deleted

    def _load(self, model: str) -> Hot:
        epoch = self.store.find(model)
        if epoch is None:
            raise ModelNotFound(f"there is no model {model!r}")
        return Hot(model, epoch, self.store, NUMPY, self.blocks)
