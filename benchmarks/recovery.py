"""Coming back: a model loaded from its snapshot, and one played from its log, beside reading the bytes."""

from __future__ import annotations

import time

import numpy as np
import redis

from benchmarks import limits
from benchmarks.inside import begun, loaded, push, stored
from benchmarks.measure import Plan, Report, take_turns, timed
from benchmarks.subject import MODEL, UNSAVED
from gradledger_server.store import Store
from tests.service import SAFETENSORS, Service

TITLE = "Recovery"

Where = tuple[redis.Redis, Store]  # to read plain bytes from, and models


def run(plan: Plan) -> Report:
    """An Adam state of 192 MiB and pushes of 64 MiB: from a snapshot, from a log, and from both."""
    report = Report("recovery", TITLE)
    nbytes, pushes, more = plan.pick(64 << 20, 1 << 20), plan.pick(8, 2), plan.pick(16, 2)
    with limits.valkey() as plain, stored(plan) as (store, url):
        model = begun(store, MODEL, nbytes // 4)
        push(model, nbytes // 4, range(1, pushes + 1))
        _replay(plan, report, (plain, store), nbytes, pushes)
        assert model.save()
        _load(plan, report, (plain, store), 3 * nbytes)
        push(model, nbytes // 4, range(pushes + 1, pushes + more + 1))
        _both(plan, report, (plain, store, url), nbytes, more)
        assert np.array_equal(loaded(store, MODEL).look().block, model.look().block)
    return report


def _replay(plan: Plan, report: Report, where: Where, nbytes: int, pushes: int) -> None:
    plain, store = where
    log = (1 + pushes) * nbytes
    cases = {
        "reading the log": limits.reading(plain, log, "log"),
        f"{pushes} kernel passes": limits.repeated(limits.kernel(nbytes // 4), pushes),
        "replay": timed(lambda: loaded(store, MODEL)),
    }
    samples = take_turns(cases, plan.pick(7, 2), warmups=1)
    report.samples["replay"] = dict(samples.seconds)
    label = f"log replay, {pushes} pushes of {nbytes >> 20} MiB"
    report.figures.append(samples.figure(label, "replay", tuple(cases)[:2], nbytes=log))


def _load(plan: Plan, report: Report, where: Where, state: int) -> None:
    plain, store = where
    cases = {
        "reading the snapshot": limits.reading(plain, state, "snapshot"),
        "load": timed(lambda: loaded(store, MODEL)),
    }
    samples = take_turns(cases, plan.pick(15, 2), warmups=1)
    report.samples["snapshot"] = dict(samples.seconds)
    label = f"snapshot load, {state >> 20} MiB of parameters, m and v"
    report.figures.insert(0, samples.figure(label, "load", tuple(cases)[:1], nbytes=state))


def _both(
    plan: Plan, report: Report, where: tuple[redis.Redis, Store, str], nbytes: int, pushes: int
) -> None:
    """A snapshot and the log behind it, also as a service that was just started answers its first pull."""
    plain, store, url = where
    service = Service(plan.directory / "unused", "--redis-url", url, **UNSAVED)
    cases = {
        "reading both": limits.reading(plain, (3 + pushes) * nbytes, "both"),
        f"{pushes} kernel passes": limits.repeated(limits.kernel(nbytes // 4), pushes),
        "both": timed(lambda: loaded(store, MODEL)),
        "first answer": lambda: first_answer(service),
    }
    samples = take_turns(cases, plan.pick(5, 1), warmups=plan.pick(1, 0))
    report.samples["both"] = dict(samples.seconds)
    bounds, label = (
        tuple(cases)[:2],
        f"snapshot of {3 * nbytes >> 20} MiB + log of {pushes * nbytes >> 20} MiB",
    )
    report.figures.append(samples.figure(label, "both", bounds, goal=1.5))
    report.figures.append(
        samples.figure("the same, from exec to the first pull's end", "first answer", bounds)
    )


def first_answer(service: Service) -> float:
    """The seconds from starting a service's process until it has answered a pull; then it is killed."""
    started = time.perf_counter()
    service.start()
    try:
        pulled = service.request("GET", f"/v1/models/{MODEL}/parameters", Accept=SAFETENSORS)
        seconds = time.perf_counter() - started
        assert pulled.status == 200, pulled
    finally:
        service.kill()
    return seconds
