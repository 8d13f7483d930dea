"""A model without HTTP: begun, pushed to and loaded in this process, its log in a Valkey of ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.measure import Plan
from benchmarks.subject import TENSOR, body
from gradledger_server.blocks import Blocks
from gradledger_server.entries import Create, Entry, Upload
from gradledger_server.errors import GradledgerError
from gradledger_server.kernels.device import open_device
from gradledger_server.machine import spec as specs
from gradledger_server.machine.model import Model
from gradledger_server.replica import Hot, Sender
from gradledger_server.replica.draft import draft
from gradledger_server.store import Embedded, Store, open_store
from gradledger_server.wire import safetensors
from gradledger_server.wire.digest import digest
from gradledger_server.wire.records import to_record

AT_MS = 0  # nothing here depends on the time


@contextmanager
def stored(plan: Plan) -> Iterator[tuple[Store, str]]:
    """A store with the embedded server of a service, and the server's URL."""
    with Embedded(plan.directory / "store", "memory") as server:
        store = open_store(server.url, plan.directory, "memory")
        try:
            yield store, server.url
        finally:
            store.close()


def begun(store: Store, name: str, elements: int) -> Hot:
    """An Adam model of one float32 tensor, with its values in its log and no snapshot."""
    spec = specs.expand({"optimizer": {"rule": "adam", "lr": 1e-3}}, {TENSOR: ((elements,), "F32")})
    assert store.create(name, name, to_record(Create(spec.json, None, None, AT_MS)))
    hot = loaded(store, name)
    values = safetensors.decode(body(elements, 8))
    upload = Upload(values, digest(values.payload), AT_MS)
    hot.decide(lambda model: _unless_filled(model, upload))
    return hot


def loaded(store: Store, name: str) -> Hot:
    """The model as a process that has just started loads it: nothing is recycled."""
    store.blocks.clear()
    return Hot(name, name, store, open_device("cpu"), store.blocks)


def push(hot: Hot, elements: int, sequences: range, at_once: int = 1) -> None:
    """One worker's pushes of these sequences, `at_once` of them in a round trip."""
    gradient, device, blocks = safetensors.decode(body(elements, 9)), open_device("cpu"), Blocks()
    for first in range(sequences.start, sequences.stop, at_once):
        drafts = [
            draft(
                gradient,
                Sender("bench", sequence),
                hot.model.layout,
                device=device,
                blocks=blocks,
                durability="memory",
                at_ms=AT_MS,
            )
            for sequence in range(first, min(first + at_once, sequences.stop))
        ]
        for answer in hot.commit(drafts):
            if isinstance(answer, GradledgerError):
                raise answer
    assert hot.look().step == sequences.stop - 1


def _unless_filled(model: Model, upload: Upload) -> Entry | None:
    return upload if model.missing else None
