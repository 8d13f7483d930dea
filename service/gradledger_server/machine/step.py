"""One arena's step: its group's rule, made ready for its dtype and given its numbers.

elementwise rule      one kernel for tensors side by side, as long as they share their t
rule with norms       stages of kernels, tensor by tensor
rule on matrices      array by array on the host, tensor by tensor
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from gradledger_server.entries import Json
from gradledger_server.kernels.device import Array, Device, Kernel
from gradledger_server.kernels.stages import StagedKernel
from gradledger_server.kernels.tensor import Tensor
from gradledger_server.kernels.trace import Program
from gradledger_server.machine.spec import Group
from gradledger_server.optim import catalog, chain

Shapes = Sequence[tuple[int, ...]]  # of w and g, then of each slot


@dataclass(frozen=True, slots=True)
class Step:
    """How one arena is advanced. `whole` says that it has to be done tensor by tensor."""

    numbers: Mapping[str, float]  # the hyperparameters that are numbers
    schedule: Json
    whole: bool
    run: Callable[[Array, Array, Array, Sequence[Array], Mapping[str, float], Shapes], None]

    @classmethod
    def of(cls, group: Group, dtype: np.dtype[Any], device: Device) -> Step:
        rule = str(group.optimizer["rule"])
        numbers = catalog.numbers(group.optimizer)
        if rule in catalog.MATRIX_RULES:
            settings = chain.settings(group.optimizer)
            run = partial(_on_matrices, catalog.MATRIX_RULES[rule], settings, device)
            return cls(numbers, group.schedule, True, run)
        program = chain.program(group.optimizer)
        if program.norms:
            return cls(numbers, group.schedule, True, partial(_staged, StagedKernel(program, dtype, device)))
        run = partial(_fused, program, device.kernel(program, dtype))
        return cls(numbers, group.schedule, False, run)

    def advance(
        self, out: Array, w: Array, g: Array, slots: Sequence[Array], *, t: int, s: int, shapes: Shapes
    ) -> None:
        """Update number `t` of the elements given, after `s` updates of the model; weights into `out`.

        All arrays are flat; `shapes` matter to a step that is `whole`.
        """
        lr = catalog.learning_rate(self.schedule, self.numbers["lr"], s)
        self.run(out, w, g, slots, {**self.numbers, "t": t, "lr": lr}, shapes)


def _fused(
    program: Program,
    kernel: Kernel,
    out: Array,
    w: Array,
    g: Array,
    slots: Sequence[Array],
    values: Mapping[str, float],
    shapes: Shapes,  # noqa: ARG001
) -> None:
    kernel(out, w, g, slots, program.evaluate(values))


def _staged(
    kernel: StagedKernel,
    out: Array,
    w: Array,
    g: Array,
    slots: Sequence[Array],
    values: Mapping[str, float],
    shapes: Shapes,  # noqa: ARG001
) -> None:
    kernel(out, w, g, slots, values)


def _on_matrices(
    rule: Callable[..., Sequence[Tensor]],
    settings: Mapping[str, Any],
    device: Device,
    out: Array,
    w: Array,
    g: Array,
    slots: Sequence[Array],
    values: Mapping[str, float],
    shapes: Shapes,
) -> None:
    """The rule on the host's CPU, wherever the arrays live: the same bits, at the price of two copies."""
    flat = (w, g, *slots)
    tensors = [
        Tensor(_at_home(device, array).reshape(shape), device.host)
        for array, shape in zip(flat, shapes, strict=True)
    ]
    given = {**settings, "t": int(values["t"]), "lr": values["lr"]}
    for target, result in zip((out, *slots), rule(*tensors, **given), strict=True):
        target[:] = device.to_device(np.ascontiguousarray(result.values).reshape(-1))


def _at_home(device: Device, array: Array) -> Array:
    if device.on_host:
        return array
    host = np.empty(array.size, array.dtype)
    device.to_host(array, host)
    return host
