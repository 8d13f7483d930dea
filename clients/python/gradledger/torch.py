"""DiLoCo around a PyTorch module and its optimizer.

    diloco = DiLoCo(module, inner, client=client, name="chars", worker="w0", every=50)
    with diloco:
        for tokens, targets in batches:
            inner.zero_grad()
            loss(module(tokens), targets).backward()
            diloco.step(weight=tokens.numel())      # the inner step; every 50th makes a round as well

What takes part are the parameters that require a gradient, each once however often it is shared. Buffers (the
running statistics of batch normalisation, say) stay every worker's own; so does the inner optimizer's state.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Unpack

import numpy as np
import torch
from numpy.typing import NDArray

from gradledger.diloco import Options, OuterLoop
from gradledger.receipt import Receipt
from gradledger.tensors import Params


class ModuleParameters:
    """A module's trainable parameters, as `gradledger.diloco.Local` has them. They may be on any device."""

    def __init__(self, module: torch.nn.Module) -> None:
        self._parameters = {name: each for name, each in module.named_parameters() if each.requires_grad}

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._parameters)

    def read(self, names: Iterable[str]) -> Params:
        return {name: _master(self._parameters[name]) for name in names}

    def write(self, params: Mapping[str, NDArray[Any]]) -> None:
        with torch.no_grad():
            for name, value in params.items():
                # A copy, since what was pulled is read-only and PyTorch knows no such memory.
                self._parameters[name].copy_(torch.from_numpy(np.array(value)))


class DiLoCo(OuterLoop):
    """An outer loop over `module`, whose inner steps `inner_optimizer` makes; for the options see there."""

    def __init__(
        self,
        module: torch.nn.Module,
        inner_optimizer: torch.optim.Optimizer,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(ModuleParameters(module), **options)
        self.inner_optimizer = inner_optimizer

    def step(self, weight: float = 1.0) -> list[Receipt]:
        """The inner optimizer's step, then `OuterLoop.step`: if that raises, the inner step has been made."""
        self.inner_optimizer.step()
        return super().step(weight)


def _master(parameter: torch.Tensor) -> NDArray[Any]:
    dtype = torch.float64 if parameter.dtype == torch.float64 else torch.float32
    values: NDArray[Any] = parameter.detach().to("cpu", dtype, copy=True).numpy()
    return values
