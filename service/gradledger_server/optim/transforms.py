"""What happens to a gradient before its rule sees it: elementwise, so it is traced into the rule's kernel."""

from __future__ import annotations

from collections.abc import Callable

from gradledger_server.kernels.operations import Value
from gradledger_server.optim.hyperparameters import NonNegative


def weight_decay(w: Value, g: Value, *, weight_decay: NonNegative = 0.0) -> Value:
    """Weight decay as L2 regularisation, added to the gradient. Krogh & Hertz 1991, A Simple Weight Decay.

    Use: against overfitting, with any rule that has no weight decay of its own.
    """
    return g + weight_decay * w


TRANSFORMS: dict[str, Callable[..., Value]] = {transform.__name__: transform for transform in (weight_decay,)}
"""By name, in the order in which they are applied."""
