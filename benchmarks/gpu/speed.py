"""Each rule's CUDA kernel beside a copy on the GPU, and Adam beside torch's fused one; timed by the GPU."""

from __future__ import annotations

from collections.abc import Callable, Collection
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np

from benchmarks.measure import Case, Plan, Report, take_turns
from benchmarks.rules import DTYPES, step
from benchmarks.variants import Variant, default, elementwise
from gradledger_server.kernels.device import Device

TITLE = "Kernels on the GPU"
COPY = "a copy of as many bytes on the GPU"
TORCH = "torch fused Adam on the GPU"
ROW = 10  # steps between two events, so that the way to the GPU is not what is measured


def run(plan: Plan, device: Device, rules: Collection[str]) -> Report:
    """Arrays of 256 MiB, which no GPU's cache holds, in place; of the rules those that are elementwise."""
    report = Report("gpu-rules", TITLE)
    cupy: Any = import_module("cupy")
    nbytes = plan.pick(256 << 20, 1 << 20)
    for rule in elementwise():
        for dtype in DTYPES if rule in rules else ():
            _measure(plan, report, default(rule), dtype, (cupy, device, nbytes))
    if find_spec("torch") is None or not import_module("torch").cuda.is_available():
        report.notes.append("torch with CUDA is not installed here: its fused Adam was not measured.")
    return report


def _measure(
    plan: Plan, report: Report, variant: Variant, dtype: np.dtype[Any], where: tuple[Any, Device, int]
) -> None:
    cupy, device, nbytes = where
    work = step(variant, dtype, device, nbytes // dtype.itemsize)
    cases = {COPY: copying(cupy, nbytes, variant.touched), variant.rule: between_events(cupy, work)}
    if variant.rule == "adam" and dtype == np.float32:
        fused = torch_adam(nbytes // 4)
        if fused is not None:
            cases[TORCH] = fused
    samples = take_turns(cases, plan.pick(15, 3))
    report.samples[f"{variant.rule}, {dtype}"] = dict(samples.seconds)
    for name in list(cases)[1:]:
        label = f"{name}, {dtype}"
        beside = f"{samples.ratio(name, TORCH):.2f} × torch" if TORCH in cases and name != TORCH else ""
        report.figures.append(
            samples.figure(label, name, (COPY,), nbytes=nbytes * variant.touched, note=beside)
        )
    cupy.get_default_memory_pool().free_all_blocks()


def between_events(cupy: Any, work: Callable[[], object]) -> Case:
    """The time the GPU takes for `work`, by its own clock."""
    started, stopped = cupy.cuda.Event(), cupy.cuda.Event()

    def case() -> float:
        started.record()
        for _ in range(ROW):
            work()
        stopped.record()
        stopped.synchronize()
        return float(cupy.cuda.get_elapsed_time(started, stopped)) * 1e-3 / ROW

    return case


def copying(cupy: Any, nbytes: int, touched: int) -> Case:
    """How long a copy within the GPU's memory takes for as many bytes as a step touches."""
    source, target = cupy.zeros(nbytes, np.uint8), cupy.empty(nbytes, np.uint8)
    case = between_events(cupy, lambda: target.data.copy_from_device_async(source.data, nbytes))
    return lambda: case() * touched / 2


def torch_adam(elements: int) -> Case | None:
    """torch.optim.Adam(fused=True) on the same GPU; None without it."""
    if find_spec("torch") is None:
        return None
    torch: Any = import_module("torch")
    if not torch.cuda.is_available():
        return None
    parameter = torch.nn.Parameter(torch.randn(elements, device="cuda"))
    parameter.grad = torch.randn(elements, device="cuda")
    optimizer = torch.optim.Adam([parameter], lr=1e-3, fused=True)
    started, stopped = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def case() -> float:
        started.record()
        for _ in range(ROW):
            optimizer.step()
        stopped.record()
        stopped.synchronize()
        return float(started.elapsed_time(stopped)) * 1e-3 / ROW

    return case
