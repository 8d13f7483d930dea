"""What a model should be, written a second time and as plainly as can be: dicts and NumPy's arithmetic."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

F32 = np.float32
Tensor = NDArray[np.float32]


@dataclass
class Named:
    """One acknowledged push that has a name."""

    offset: int
    step: int
    gradient: dict[str, Tensor]


@dataclass
class Plain:
    """One model. `optimizer` has every number the rule needs."""

    optimizer: dict[str, Any]
    values: dict[str, Tensor]
    step: int = 0
    offset: int = 1
    t: dict[str, int] = field(default_factory=dict)
    slots: dict[str, Tensor] = field(default_factory=dict)
    last: dict[str, int] = field(default_factory=dict)
    workers: dict[tuple[str, int], Named] = field(default_factory=dict)
    keys: dict[str, Named] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.t = dict.fromkeys(self.values, 0)
        for slot in {"sgd": "", "momentum": "u", "adam": "mv"}[self.optimizer["rule"]]:
            for name, value in self.values.items():
                self.slots[f"{slot}/{name}"] = np.zeros_like(value)

    def push(self, gradient: dict[str, Tensor]) -> Named:
        for name, g in gradient.items():
            self.t[name] += 1
            getattr(self, f"_{self.optimizer['rule']}")(name, g, F32(self.optimizer["lr"]))
        self.step += 1
        self.offset += 1
        return Named(self.offset, self.step, gradient)

    def upload(self, values: dict[str, Tensor]) -> None:
        self.values |= values
        self.step += 1
        self.offset += 1

    def configure(self, lr: float) -> None:
        self.optimizer = {**self.optimizer, "lr": lr}
        self.offset += 1

    def _sgd(self, name: str, g: Tensor, lr: np.float32) -> None:
        self.values[name] = self.values[name] - lr * g

    def _momentum(self, name: str, g: Tensor, lr: np.float32) -> None:
        u = F32(self.optimizer["momentum"]) * self.slots[f"u/{name}"] + g
        self.slots[f"u/{name}"] = u
        self.values[name] = self.values[name] - lr * u

    def _adam(self, name: str, g: Tensor, lr: np.float32) -> None:
        t, beta1, beta2 = self.t[name], self.optimizer["beta1"], self.optimizer["beta2"]
        m = F32(beta1) * self.slots[f"m/{name}"] + F32(1 - beta1) * g
        v = F32(beta2) * self.slots[f"v/{name}"] + F32(1 - beta2) * g * g
        self.slots[f"m/{name}"], self.slots[f"v/{name}"] = m, v
        m_hat, v_hat = m / F32(1 - beta1**t), v / F32(1 - beta2**t)
        root: Tensor = np.sqrt(v_hat)
        self.values[name] = self.values[name] - lr * m_hat / (root + F32(self.optimizer["eps"]))
