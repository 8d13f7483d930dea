"""What happens to a gradient before its rule sees it: elementwise, so it is traced into the rule's kernel."""

from __future__ import annotations

from gradledger_server.kernels.operations import Value
from gradledger_server.optim.hyperparameters import NonNegative


def weight_decay(w: Value, g: Value, *, weight_decay: NonNegative = 0.0) -> Value:
    """L2 regularisation, added to the gradient; for every rule that has no weight decay of its own."""
    return g + weight_decay * w
