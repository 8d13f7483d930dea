"""Every elementwise rule's compiled kernel beside a memory copy of as many bytes, on all cores."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.elements import drawn
from benchmarks.kernel import COPY, copying
from benchmarks.measure import Plan, Report, take_turns, timed
from benchmarks.variants import Variant, default, elementwise
from gradledger_server.kernels.device import Device, open_device

TITLE = "Every rule"
GOAL = 1.43  # seven tenths of the speed of a copy
DTYPES = (np.dtype(np.float32), np.dtype(np.float64))


def run(plan: Plan) -> Report:
    """Arrays of 64 MiB, in place, in both dtypes; and how long it takes to make the kernels."""
    report = Report("rules", TITLE)
    nbytes = plan.pick(64 << 20, 1 << 18)
    threads = len(os.sched_getaffinity(0))
    device = open_device("cpu", threads=threads)
    for rule in elementwise():
        variant = default(rule)
        for dtype in DTYPES:
            cases = {
                COPY: copying(nbytes // 4, threads, variant.touched),
                rule: timed(step(variant, dtype, device, nbytes // dtype.itemsize)),
            }
            samples = take_turns(cases, plan.pick(15, 3))
            report.samples[f"{rule}, {dtype}"] = dict(samples.seconds)
            report.figures.append(
                samples.figure(f"{rule}, {dtype}", rule, (COPY,), goal=GOAL, nbytes=nbytes * variant.touched)
            )
    return report


def step(variant: Variant, dtype: np.dtype[Any], device: Device, elements: int) -> Callable[[], None]:
    """One step of the rule over arrays of the device, in place."""
    arrays = drawn(dict.fromkeys(variant.program.inputs, elements), dtype, (0, 0))
    w, g, *slots = (device.to_device(array) for array in arrays.values())
    kernel, scalars = device.kernel(variant.program, dtype), variant.program.evaluate(variant.values(3))
    return lambda: kernel(w, w, g, slots, scalars)
