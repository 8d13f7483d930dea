"""Optimizers whose programs differ, and arrays to run them on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.variants import Variant
from gradledger_server.kernels.trace import Program
from gradledger_server.optim import catalog, transform_spec

Array = npt.NDArray[Any]

AVERAGES: dict[str, Any] = {
    "lookahead": {"every": 3},
    "ema": {"start": "warmup"},
    "polyak": {"after": 1, "every": 2},
}
ELEMENTWISE: dict[str, Any] = {
    "clip_global_norm": {"max_norm": 0.7},
    "clip_value": {"limit": 0.2},
    "noise": {"eta": 0.3},
    **AVERAGES,
}

# Every rule as it comes, then the settings that change its program, then transforms around it.
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
    "momentum, lr in the velocity": {"rule": "momentum", "preset": "keras"},
    "nesterov, lr in the velocity": {"rule": "nesterov", "preset": "caffe"},
    "lion, decay": {"rule": "lion", "weight_decay": 0.1},
    "adagrad, no epsilon": {"rule": "adagrad", "preset": "tf1"},
    "rmsprop, textbook": {"rule": "rmsprop", "preset": "textbook"},
    "rmsprop, centered": {"rule": "rmsprop", "centered": True},
    "rmsprop, momentum": {"rule": "rmsprop", "momentum": 0.9},
    "rmsprop, all": {"rule": "rmsprop", "preset": "tf1", "centered": True, "momentum": 0.9},
    "adadelta, l2": {"rule": "adadelta", "weight_decay": 0.01},
    "adam, textbook": {"rule": "adam", "preset": "textbook"},
    "adam, no mean, l2": {"rule": "adam", "beta1": 0, "weight_decay": 0.01},
    "adam, raw": {"rule": "adam", "preset": "keras"},
    "adam, biased": {"rule": "adam", "bias_correction": False},
    "adamw, no decay": {"rule": "adamw", "weight_decay": 0},
    "adamw, absolute decay": {"rule": "adamw", "preset": "paper"},
    "amsgrad, corrected": {"rule": "amsgrad", "preset": "optax"},
    "amsgrad, no epsilon": {"rule": "amsgrad", "preset": "paper"},
    "adamax, outside": {"rule": "adamax", "preset": "keras"},
    "adamax, no epsilon": {"rule": "adamax", "preset": "paper"},
    "nadam, constant": {"rule": "nadam", "preset": "optax"},
    "nadam, tf": {"rule": "nadam", "preset": "tf1"},
    "radam, trusted from the start": {"rule": "radam", "preset": "optax", "beta2": 0.75, "threshold": 4},
    "ftrl, all": {"rule": "ftrl", "l1": 0.1, "l2": 0.2, "l2_shrinkage": 0.3, "beta": 0.5, "lr": 0.1},
    "ftrl, tf": {"rule": "ftrl", "preset": "tf1", "l1": 0.01},
    "adan, decay": {"rule": "adan", "weight_decay": 0.1, "eps_root": 1e-6},
    "schedule_free_sgd, warming up": {"rule": "schedule_free_sgd", "warmup_steps": 10},
    "schedule_free_adamw, all": {"rule": "schedule_free_adamw", "warmup_steps": 2, "weight_decay": 0.1},
    "sgd, clipped": {"rule": "sgd", "transforms": {"clip_global_norm": {"max_norm": 0.7}}},
    "momentum, clipped like optax, by value": {
        "rule": "momentum",
        "weight_decay": 0.1,
        "transforms": {"clip_global_norm": {"max_norm": 0.7, "clip_eps": 0}, "clip_value": {"limit": 0.2}},
    },
    "adam, decoupled, noise": {
        "rule": "adam",
        "weight_decay": 0.1,
        "weight_decay_mode": "decoupled",
        "transforms": {"noise": {"eta": 0.3}},
    },
    "rmsprop, decoupled_abs, debiased": {
        "rule": "rmsprop",
        "weight_decay": 0.1,
        "weight_decay_mode": "decoupled_abs",
        "transforms": {"ema": {"start": "debiased"}},
    },
    "sgd, averages": {"rule": "sgd", "transforms": AVERAGES},
    "adamw, all transforms": {"rule": "adamw", "transforms": ELEMENTWISE},
}

# Programs that need whole tensors: their norms, their shapes, or both.
WHOLE: dict[str, dict[str, Any]] = {
    "lars": {"rule": "lars", "weight_decay": 0.1},
    "lars, of the sum": {"rule": "lars", "weight_decay": 0.1, "trust_norm": "sum", "lr_in_velocity": False},
    "lamb": {"rule": "lamb", "weight_decay": 0.1},
    "lamb, decay first": {"rule": "lamb", "weight_decay": 0.1, "weight_decay_mode": "first"},
    "sgd, clip_norm": {"rule": "sgd", "transforms": {"clip_norm": {"max_norm": 0.7}}},
    "rmsprop, agc": {"rule": "rmsprop", "transforms": {"agc": {"clipping": 0.5}}},
    "momentum, agc, out": {"rule": "momentum", "transforms": {"agc": {"rows_are": "out"}}},
    "adam, centralize": {"rule": "adam", "transforms": {"centralize": {}}},
    "lamb, all transforms": {
        "rule": "lamb",
        "transforms": {**ELEMENTWISE, "clip_norm": {"max_norm": 0.5}, "agc": {}, "centralize": {}},
    },
}

SIZES = frozenset("vdpse")  # slots that hold squares, sizes or steps


def variant(name: str) -> Variant:
    """One of `OPTIMIZERS` or `WHOLE`."""
    given = OPTIMIZERS.get(name) or WHOLE[name]
    settings = {key: value for key, value in given.items() if key != "transforms"}
    return Variant(
        rule=settings["rule"],
        name=name,
        optimizer=catalog.expand_optimizer(settings, where="optimizer"),
        transforms=transform_spec.expand(given.get("transforms", {}), where="transforms"),
    )


def traced(name: str, t: int = 3) -> tuple[Program, tuple[float, ...]]:
    """The program and the scalars of its third update, or of update `t`, of a push that is clipped."""
    its = variant(name)
    return its.program, its.program.evaluate(its.values(t, norm=3.0))


def drawn(program: Program, count: int, dtype: npt.DTypeLike, seed: int = 0) -> dict[str, Array]:
    """Random w, g and slots; those that hold sizes or squares are not negative."""
    generator = np.random.default_rng(seed)
    return {
        name: np.abs(values) if name in SIZES else values
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
