"""What both trainings have in common, and what each has its own. Nothing here needs PyTorch.

The learning rates are those that ended lowest of the ones tried, all times 1e-3: 1.2, 2, 3, 5, 8 and 12 for
data parallelism, and 4, 6 and 8 for DiLoCo's inner steps with H = 75.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

WORKERS = 4
BATCH = 16  # stretches of text per worker and step
SEED = 0  # of the model's first values; worker i draws its batches with seed i
ADAMW = {"beta1": 0.9, "beta2": 0.95, "weight_decay": 0.1}
SYNC = {"mode": "bsp", "workers": WORKERS}
FEWER = 50  # so many times fewer bytes are promised


@dataclass(frozen=True)
class Way:
    """One way to train: every worker makes `steps` steps; worker 0 looks at the loss every `look` of them."""

    name: str
    steps: int
    look: int
    lr: float

    def shorter(self, looks: int) -> Way:
        """The same way, ended after `looks` looks at the loss."""
        return replace(self, steps=min(self.steps, looks * self.look))

    @property
    def adamw(self) -> dict[str, Any]:
        return {"rule": "adamw", "lr": self.lr, **ADAMW}


PARALLEL = Way("data parallel", steps=400, look=20, lr=5e-3)
DILOCO = Way("DiLoCo", steps=1050, look=75, lr=4e-3)  # `look` is H as well: after a round all are at one
WAYS = {"parallel": PARALLEL, "diloco": DILOCO}
