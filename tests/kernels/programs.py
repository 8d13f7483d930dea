"""Optimizers whose programs differ, and arrays to run them on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from gradledger_server.kernels.trace import Program
from gradledger_server.optim import catalog, chain
from gradledger_server.optim.signatures import Setting

Array = npt.NDArray[Any]

# Every rule as it comes, then the settings that change its program.
OPTIMIZERS: dict[str, dict[str, Any]] = {rule: {"rule": rule} for rule in catalog.ELEMENTWISE} | {
    "sgd, l2": {"rule": "sgd", "weight_decay": 0.01},
    "momentum, dampened, l2": {"rule": "momentum", "dampening": 0.5, "weight_decay": 0.1},
    "momentum, ema": {"rule": "momentum", "dampening": 0.9, "first_step": "ema"},
    "momentum, none": {"rule": "momentum", "momentum": 0},
    "momentum, nothing enters": {"rule": "momentum", "momentum": 0, "dampening": 1, "first_step": "ema"},
    "nesterov, l2": {"rule": "nesterov", "weight_decay": 0.01},
    "adagrad, all": {
        "rule": "adagrad",
        "lr_decay": 0.1,
        "initial_accumulator": 0.5,
        "eps_root": 1e-6,
        "weight_decay": 0.1,
    },
    "rmsprop, textbook": {"rule": "rmsprop", "preset": "textbook"},
    "adadelta, l2": {"rule": "adadelta", "weight_decay": 0.01},
    "adam, textbook": {"rule": "adam", "preset": "textbook"},
    "adam, no mean, l2": {"rule": "adam", "beta1": 0, "weight_decay": 0.01},
    "adamw, no decay": {"rule": "adamw", "weight_decay": 0},
}


def expanded(name: str) -> dict[str, Setting]:
    return catalog.expand_optimizer(OPTIMIZERS[name], where="optimizer")


def traced(name: str) -> tuple[Program, tuple[float, ...]]:
    """The program and the scalars of its third update."""
    optimizer = expanded(name)
    return chain.program(optimizer), chain.scalars(optimizer, t=3, lr=0.01)


def drawn(program: Program, count: int, dtype: npt.DTypeLike, seed: int = 0) -> dict[str, Array]:
    """Random w, g and slots; slots are not negative, as sums of squares are not."""
    generator = np.random.default_rng(seed)
    return {
        name: np.abs(values) if name in program.slots else values
        for name in program.inputs
        for values in [generator.standard_normal(count).astype(dtype)]
    }


def run(kernel: Any, arrays: Mapping[str, Array], scalars: tuple[float, ...]) -> dict[str, Array]:
    """What the kernel makes of copies of the arrays: the new weight as `w`, the new slots by letter."""
    after = {name: values.copy() for name, values in arrays.items()}
    slots = [after[name] for name in kernel.program.slots]
    kernel(after["w"], after["w"], after["g"], slots, scalars)
    return after


def equal_numbers(left: Array, right: Array) -> bool:
    """Whether the arrays have the same bits wherever one holds a number, and NaN in the same places.

    IEEE leaves a NaN's sign and payload open, and processors differ: x86 makes negative ones, GPUs positive.
    """
    numbers = ~np.isnan(right)
    return same_bits(left[numbers], right[numbers]) and bool(np.isnan(left[~numbers]).all())


def same_bits(left: Array, right: Array) -> bool:
    """Whether the arrays are equal as bytes; -0.0 is not 0.0."""
    return left.dtype == right.dtype and left.tobytes() == right.tobytes()
