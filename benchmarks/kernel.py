"""One Adam step over 16 Mi float32 elements: our kernels, Numba's, torch's, and a memory copy.

All work in place on arrays of their own, so that each touches the same 7 × 4 bytes per element: w, g, m, v
are read, w, m, v are written. A copy touches 2 × 4.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.measure import Case, Plan, Report, take_turns, timed
from benchmarks.noise import noise
from gradledger_server.kernels.crew import Crew
from gradledger_server.kernels.device import open_device
from gradledger_server.optim import catalog, chain

TITLE = "The kernel alone"
TOUCHED = 7  # arrays
COPIED = 2
COPY = "a copy of as many bytes"
LR, BETA1, BETA2, EPS, T = 1e-3, 0.9, 0.999, 1e-8, 3

Arrays = list[NDArray[np.float32]]


def run(plan: Plan) -> Report:
    """Each with one thread and, on two cores or more, with two."""
    report = Report("kernel", TITLE)
    elements = plan.pick(16 << 20, 1 << 18)
    for threads in (1, 2)[: len(os.sched_getaffinity(0))]:
        makers = dict(MAKERS)
        if threads > 1:
            del makers["blocked NumPy"]  # it has no threads
        cases = {COPY: copying(elements, threads)}
        for name, make in makers.items():
            case = make(elements, threads)
            if case is not None:
                cases[name] = case
            elif threads == 1:
                report.notes.append(f"{name}: skipped, because its package is not installed here.")
        _measure(plan, report, cases, threads, elements)
    return report


def _measure(plan: Plan, report: Report, cases: dict[str, Case], threads: int, elements: int) -> None:
    samples = take_turns(cases, plan.pick(15, 3))
    report.samples[f"{threads} threads"] = dict(samples.seconds)
    nbytes, these = elements * TOUCHED * 4, f"{threads} thread{'s' if threads > 1 else ''}"
    for name in cases:
        if name == COPY:
            continue
        beside = f"{samples.ratio(name, TORCH):.2f} × torch" if TORCH in cases and name != TORCH else ""
        report.figures.append(samples.figure(f"{name}, {these}", name, (COPY,), nbytes=nbytes, note=beside))
    if TORCH in cases:
        report.figures.append(
            samples.figure(f"LLVM beside torch, {these}", OURS, (TORCH,), goal=1.0, nbytes=nbytes)
        )


def copying(elements: int, threads: int, touched: int = TOUCHED) -> Case:
    """How long copying takes for as many bytes as a step touches, `touched` arrays of so many elements."""
    source, target, crew = noise(elements, 1), noise(elements, 2), Crew(threads)
    edges = [elements * part // threads for part in range(threads + 1)]
    parts = list(pairwise(edges))

    def copy(start: int, stop: int) -> None:
        np.copyto(target[start:stop], source[start:stop])

    case = timed(lambda: crew.spread(copy, parts))
    return lambda: case() * touched / COPIED


def arrays(elements: int) -> Arrays:
    """w, g, m, v."""
    w, g, m, v = (noise(elements, seed) for seed in range(4))
    return [w, g, m, np.abs(v)]


def ours(elements: int, threads: int, *, compiled: bool) -> Case:
    adam = catalog.expand_optimizer({"rule": "adam", "lr": LR}, where="optimizer")
    device = open_device("cpu", threads=threads, compiled=compiled)
    step = device.kernel(chain.program(adam), np.float32)
    scalars = chain.scalars(adam, t=T, lr=LR)
    w, g, *slots = arrays(elements)
    return timed(lambda: step(w, w, g, slots, scalars))


def numba(elements: int, threads: int) -> Case | None:
    """What one would write by hand, without fast-math."""
    if find_spec("numba") is None:
        return None
    package: Any = import_module("numba")
    step = package.njit(parallel=True, error_model="numpy")(_numba_loop(package.prange))
    values = arrays(elements)
    one = np.float32(1)
    scalars = [np.float32(x) for x in (LR, BETA1, BETA2, EPS, 1 - BETA1**T, 1 - BETA2**T)]

    def one_step() -> None:
        package.set_num_threads(threads)
        step(*values, *scalars, one)

    return timed(one_step)


def _numba_loop(prange: Any) -> Callable[..., None]:
    def loop(
        w: Any, g: Any, m: Any, v: Any, lr: Any, b1: Any, b2: Any, eps: Any, c1: Any, c2: Any, one: Any
    ) -> None:
        for i in prange(w.size):
            m[i] = b1 * m[i] + (one - b1) * g[i]
            v[i] = b2 * v[i] + (one - b2) * g[i] * g[i]
            w[i] -= lr * (m[i] / c1) / (np.sqrt(v[i] / c2) + eps)

    return loop


def torch(elements: int, threads: int) -> Case | None:
    """torch.optim.Adam(fused=True) on the CPU."""
    if find_spec("torch") is None:
        return None
    package: Any = import_module("torch")
    w, g, *_ = arrays(elements)
    parameter = package.nn.Parameter(package.from_numpy(w))
    parameter.grad = package.from_numpy(g)
    optimizer = package.optim.Adam([parameter], lr=LR, fused=True)

    def one_step() -> None:
        package.set_num_threads(threads)
        optimizer.step()

    return timed(one_step)


OURS = "LLVM"
TORCH = "torch fused Adam"
MAKERS: dict[str, Callable[[int, int], Case | None]] = {
    "blocked NumPy": lambda elements, threads: ours(elements, threads, compiled=False),
    OURS: lambda elements, threads: ours(elements, threads, compiled=True),
    "strict Numba": numba,
    TORCH: torch,
}
