"""How a group's optimizer is carried out, by what it needs to see at once.

an element        one fused kernel for tensors side by side, as long as they share their t
norms or shapes   stages of kernels, tensor by tensor
matrices          operation by operation on the host's CPU, tensor by tensor
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gradledger_server.kernels.device import Array, Device, Kernel
from gradledger_server.kernels.folding import Folded
from gradledger_server.kernels.stages import StagedKernel
from gradledger_server.kernels.tensor import Tensor
from gradledger_server.kernels.trace import Program
from gradledger_server.machine.spec import Group
from gradledger_server.optim import catalog, chain

Shapes = Sequence[tuple[int, ...]]  # of w and g, then of each slot


class Way(Protocol):
    """One arena's update, ready to be made."""

    @property
    def whole(self) -> bool:
        """Whether it has to be made tensor by tensor."""

    def __call__(
        self,
        out: Array,
        w: Array,
        g: Array,
        slots: Sequence[Array],
        values: Mapping[str, float],
        shapes: Shapes,
    ) -> None:
        """Write the new weight to `out`, which may be `w`, and the new slots in place.

        All arrays are flat; `shapes` matter to a way that is whole. `values` are what
        `chain.moment` says.
        """


def way(group: Group, dtype: np.dtype[Any], device: Device) -> Way:
    """The one way there is for this group's optimizer and transforms."""
    if group.optimizer["rule"] in catalog.MATRIX_RULES:
        return _OnMatrices(chain.untraced(group.optimizer, group.transforms), device)
    program = chain.program(group.optimizer, group.transforms)
    if program.staged:
        return StagedKernel(program, dtype, device)
    return Fused(program, device.kernel(program, dtype), chain.folded(group.optimizer, group.transforms))


@dataclass(frozen=True, slots=True)
class Fused:
    """One kernel; `folded` are its scalars as far as they are known beforehand."""

    program: Program
    kernel: Kernel
    folded: Folded
    whole: bool = False

    def __call__(
        self,
        out: Array,
        w: Array,
        g: Array,
        slots: Sequence[Array],
        values: Mapping[str, float],
        shapes: Shapes,  # noqa: ARG002
    ) -> None:
        self.kernel(out, w, g, slots, self.program.evaluate(values))


@dataclass(frozen=True, slots=True)
class _OnMatrices:
    """On the host's CPU wherever the arrays live: the same bits, on a GPU at the price of the copies."""

    chained: Callable[..., Sequence[Tensor]]
    device: Device
    whole: bool = True

    def __call__(
        self,
        out: Array,
        w: Array,
        g: Array,
        slots: Sequence[Array],
        values: Mapping[str, float],
        shapes: Shapes,
    ) -> None:
        tensors = [
            Tensor(self.device.at_home(array).reshape(shape), self.device.host)
            for array, shape in zip((w, g, *slots), shapes, strict=True)
        ]
        held = [tensor.values for tensor in tensors]
        results = [_apart(result.values, held) for result in self.chained(*tensors, **values)]
        for target, result in zip((out, *slots), results, strict=True):
            target[:] = self.device.to_device(result)


def _apart(result: NDArray[Any], held: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """The result, flat; a copy if it lies in one of the arrays held, which are about to be written over."""
    flat = np.ascontiguousarray(result).reshape(-1)
    return flat.copy() if any(np.may_share_memory(flat, array) for array in held) else flat
