"""Coming back: a model loaded from its snapshot, and one played from its log, beside reading the bytes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from benchmarks import limits
from benchmarks.measure import Plan, Report, take_turns, timed
from benchmarks.subject import TENSOR, body
from gradledger_server.blocks import Blocks
from gradledger_server.entries import Create, Entry, Upload
from gradledger_server.kernels.device import Device, open_device
from gradledger_server.machine import spec as specs
from gradledger_server.machine.model import Model
from gradledger_server.replica import Hot, Sender
from gradledger_server.replica.draft import draft
from gradledger_server.store import Store, open_store
from gradledger_server.wire import safetensors
from gradledger_server.wire.digest import digest
from gradledger_server.wire.records import to_record

TITLE = "Recovery"
NAME, EPOCH = "bench", "benchmark"
AT_MS = 0  # nothing here depends on the time


def run(plan: Plan) -> Report:
    """An Adam state of 192 MiB; a log of the initial values and 8 pushes of 64 MiB."""
    report = Report("recovery", TITLE)
    nbytes, pushes = plan.pick(64 << 20, 1 << 20), plan.pick(8, 2)
    state, log = 3 * nbytes, (1 + pushes) * nbytes
    passes = limits.repeated(limits.kernel(nbytes // 4), pushes)
    with limits.valkey() as plain, stored(plan) as store:
        model = begun(store, open_device("cpu"), nbytes // 4, pushes)
        replay = {
            "reading the log": limits.reading(plain, log, "log"),
            f"{pushes} kernel passes": passes,
            "replay": timed(lambda: loaded(store)),
        }
        samples = take_turns(replay, plan.pick(7, 2), warmups=1)
        report.samples["replay"] = dict(samples.seconds)
        label = f"log replay, {pushes} pushes of {nbytes >> 20} MiB"
        report.figures.append(samples.figure(label, "replay", tuple(replay)[:2], nbytes=log))

        assert model.save()
        snapshot = {
            "reading the snapshot": limits.reading(plain, state, "snapshot"),
            "load": timed(lambda: loaded(store)),
        }
        samples = take_turns(snapshot, plan.pick(15, 2), warmups=1)
        report.samples["snapshot"] = dict(samples.seconds)
        label = f"snapshot load, {state >> 20} MiB of parameters, m and v"
        report.figures.insert(0, samples.figure(label, "load", tuple(snapshot)[:1], nbytes=state))
        assert np.array_equal(loaded(store).look().block, model.look().block)
    return report


@contextmanager
def stored(plan: Plan) -> Iterator[Store]:
    """The embedded store of a service, without the service."""
    store = open_store(None, plan.directory / "store", "memory")
    try:
        yield store
    finally:
        store.close()


def begun(store: Store, device: Device, elements: int, pushes: int) -> Hot:
    """A model with its values and so many pushes in its log, and no snapshot."""
    given = {"optimizer": {"rule": "adam", "lr": 1e-3}}
    spec = specs.expand(given, {TENSOR: ((elements,), "F32")})
    assert store.create(NAME, EPOCH, to_record(Create(spec.json, None, None, AT_MS)))
    blocks = Blocks()
    hot = Hot(NAME, EPOCH, store, device, blocks)
    values = safetensors.decode(body(elements, 8))
    upload = Upload(values, digest(values.payload), AT_MS)
    hot.decide(lambda model: _unless_filled(model, upload))
    gradient = safetensors.decode(body(elements, 9))
    for sequence in range(1, pushes + 1):
        sender = Sender("bench", sequence)
        push = draft(
            gradient, sender, spec.layout, device=device, blocks=blocks, durability="memory", at_ms=AT_MS
        )
        hot.commit([push])
    assert hot.look().step == pushes
    return hot


def loaded(store: Store) -> Hot:
    """The model as a process that has just started loads it: nothing is recycled."""
    return Hot(NAME, EPOCH, store, open_device("cpu"), Blocks())


def _unless_filled(model: Model, upload: Upload) -> Entry | None:
    return upload if model.missing else None
