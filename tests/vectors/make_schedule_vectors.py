"""Writes schedules.json beside this file: learning rates of torch, Optax and Keras to hold ours against.

Run with a Python that has the three; the suite itself needs only what is committed. All of it in float64:
torch's schedulers compute with Python's numbers; JAX is told to by jax_enable_x64 and Keras (on JAX) by its
floatx. Where that is not enough: Keras' cos, floor and ceil give float32 whatever they are given, so its
schedules get JAX's own; its plateau callback reads an optimizer's variable, so it gets a Python number.
"""

# ruff: noqa: E402  the backends must be told first

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ["KERAS_BACKEND"] = "jax"

import jax

jax.config.update("jax_enable_x64", True)

import keras
import keras.src.ops
import numpy as np
import optax
import torch

keras.config.set_floatx("float64")
for rounded in ("cos", "floor", "ceil"):
    setattr(keras.src.ops, rounded, getattr(jax.numpy, rounded))
warnings.simplefilter("ignore")

STEPS = 64
LR = 0.1
Json = dict[str, Any]
Rates = list[float]

METRICS = [1.0, 0.9, 0.91, 0.89995, 0.9, 0.95, 0.8, 0.8, 0.8, 0.8, 0.81, 0.79, 0.79, 0.79, 0.795, 0.79]
METRICS += [0.79, 0.5, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4]


def of_torch(kind: str, *, steps: int = STEPS, lr: float = LR, **arguments: Any) -> Rates:
    """The learning rate of each update when the scheduler is stepped after every update."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    return _stepped(optimizer, getattr(torch.optim.lr_scheduler, kind)(optimizer, **arguments), steps)


def _stepped(optimizer: torch.optim.Optimizer, scheduler: Any, steps: int) -> Rates:
    rates = []
    for s in range(steps):
        rates.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        if s + 1 < steps:
            scheduler.step()
    return rates


def torch_sequence() -> Rates:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=LR)
    kinds = torch.optim.lr_scheduler
    parts = [
        kinds.LinearLR(optimizer, start_factor=0.25, total_iters=6),
        kinds.StepLR(optimizer, step_size=7, gamma=0.5),
        kinds.CosineAnnealingLR(optimizer, T_max=20),
    ]
    return _stepped(optimizer, kinds.SequentialLR(optimizer, parts, milestones=[6, 30]), 50)


def of_function(schedule: Callable[[int], Any]) -> Rates:
    """Optax and Keras schedules are functions of the updates already applied."""
    rates = [schedule(s) for s in range(STEPS)]
    for rate in rates:
        assert isinstance(rate, float) or rate.dtype in (np.float64, np.int64), rate.dtype
    return [float(rate) for rate in rates]


def of_keras(kind: str, **arguments: Any) -> Rates:
    made = getattr(keras.optimizers.schedules, kind)(**arguments)
    return of_function(lambda s: made(np.float64(s)))


def torch_plateau(**arguments: Any) -> Rates:
    """The learning rate after each metric."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=LR)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, **arguments)
    rates = []
    for metric in METRICS:
        scheduler.step(metric)
        rates.append(float(optimizer.param_groups[0]["lr"]))
    return rates


def keras_plateau(**arguments: Any) -> Rates:
    callback = keras.callbacks.ReduceLROnPlateau(monitor="loss", mode="min", **arguments)
    optimizer = SimpleNamespace(learning_rate=LR)
    callback.set_model(SimpleNamespace(optimizer=optimizer))
    callback.monitor_op = np.less
    callback.min_delta = -abs(callback.min_delta)
    callback.on_train_begin()
    rates = []
    for epoch, metric in enumerate(METRICS):
        callback.on_epoch_end(epoch, {"loss": metric})
        rates.append(float(optimizer.learning_rate))
    return rates


def optax_plateau(**arguments: Any) -> Rates:
    transform = optax.contrib.reduce_on_plateau(**arguments)
    weight = np.zeros(1, np.float64)
    state, rates = transform.init(weight), []
    for metric in METRICS:
        _, state = transform.update(weight, state, value=np.float64(metric))
        assert state.scale.dtype == np.float64
        rates.append(LR * float(state.scale))
    return rates


def torch_cases() -> list[tuple[str, Json, Rates]]:
    return [
        (
            "StepLR",
            {"name": "exponential_decay", "decay_rate": 0.5, "decay_steps": 10, "staircase": True},
            of_torch("StepLR", step_size=10, gamma=0.5),
        ),
        (
            "MultiStepLR",
            {"name": "multistep", "step_values": [5, 6, 30], "gamma": 0.3},
            of_torch("MultiStepLR", milestones=[5, 6, 30], gamma=0.3),
        ),
        ("ExponentialLR", {"name": "caffe_exp", "gamma": 0.9}, of_torch("ExponentialLR", gamma=0.9)),
        ("LinearLR", {"name": "linear", "total_steps": 5}, of_torch("LinearLR")),
        (
            "LinearLR down",
            {"name": "linear", "total_steps": 40, "start_factor": 1.0, "end_factor": 0.1},
            of_torch("LinearLR", start_factor=1.0, end_factor=0.1, total_iters=40),
        ),
        (
            "ConstantLR",
            {
                "name": "sequence",
                "schedules": [
                    {"name": "linear", "start_factor": 1 / 3, "end_factor": 1 / 3, "total_steps": 1},
                    {"name": "constant"},
                ],
                "boundaries": [5],
            },
            of_torch("ConstantLR"),
        ),
        (
            "PolynomialLR",
            {"name": "caffe_poly", "max_iter": 30, "power": 2.5},
            of_torch("PolynomialLR", total_iters=30, power=2.5),
        ),
        (
            "CosineAnnealingLR",
            {"name": "cosine_decay", "decay_steps": 20, "end_lr": 0.01, "after_end": "rise"},
            of_torch("CosineAnnealingLR", T_max=20, eta_min=0.01),
        ),
        (
            "CosineAnnealingWarmRestarts",
            {"name": "cosine_restarts", "first_decay_steps": 8, "t_mul": 1, "end_lr": 0.002},
            of_torch("CosineAnnealingWarmRestarts", T_0=8, eta_min=0.002),
        ),
        (
            "CosineAnnealingWarmRestarts longer",
            {"name": "cosine_restarts", "first_decay_steps": 5, "t_mul": 3},
            of_torch("CosineAnnealingWarmRestarts", T_0=5, T_mult=3),
        ),
        (
            "OneCycleLR",
            {"name": "one_cycle", "total_steps": 40},
            of_torch("OneCycleLR", steps=40, max_lr=LR, total_steps=40, cycle_momentum=False),
        ),
        (
            "OneCycleLR linear, three phases",
            {
                "name": "one_cycle",
                "total_steps": 37,
                "pct_start": 0.4,
                "pct_final": 0.8,
                "div_factor": 10,
                "final_div_factor": 100,
                "anneal": "linear",
                "three_phase": True,
            },
            of_torch(
                "OneCycleLR",
                steps=37,
                max_lr=LR,
                total_steps=37,
                pct_start=0.4,
                div_factor=10.0,
                final_div_factor=100.0,
                anneal_strategy="linear",
                three_phase=True,
                cycle_momentum=False,
            ),
        ),
        (
            "SequentialLR",
            {
                "name": "sequence",
                "schedules": [
                    {"name": "linear", "start_factor": 0.25, "total_steps": 6},
                    {"name": "caffe_step", "gamma": 0.5, "step_size": 7},
                    {"name": "cosine_decay", "decay_steps": 20, "after_end": "rise"},
                ],
                "boundaries": [6, 30],
            },
            torch_sequence(),
        ),
    ]


def optax_cases() -> list[tuple[str, Json, Rates]]:
    waves = [
        {"init_value": 0.0, "peak_value": 0.1, "warmup_steps": 3, "decay_steps": 20, "end_value": 0.01},
        {"init_value": 0.0, "peak_value": 0.05, "warmup_steps": 4, "decay_steps": 30, "end_value": 0.005},
    ]
    return [
        ("constant_schedule", {"name": "constant"}, of_function(optax.constant_schedule(LR))),
        (
            "polynomial_schedule",
            {"name": "polynomial_decay", "decay_steps": 30, "end_lr": 0.01, "power": 1.7},
            of_function(optax.polynomial_schedule(LR, 0.01, 1.7, 30)),
        ),
        (
            "piecewise_constant_schedule",
            {"name": "piecewise_constant", "boundaries": [5, 20], "values": [0.1, 0.05, 0.005]},
            of_function(optax.piecewise_constant_schedule(LR, {5: 0.5, 20: 0.1})),
        ),
        (
            "exponential_decay",
            {"name": "exponential_decay", "decay_rate": 0.7, "decay_steps": 9},
            of_function(optax.exponential_decay(LR, 9, 0.7)),
        ),
        (
            "exponential_decay staircase",
            {"name": "exponential_decay", "decay_rate": 0.7, "decay_steps": 9, "staircase": True},
            of_function(optax.exponential_decay(LR, 9, 0.7, staircase=True)),
        ),
        (
            "cosine_decay_schedule",
            {"name": "cosine_decay", "decay_steps": 30, "alpha": 0.05, "exponent": 1.3},
            of_function(optax.cosine_decay_schedule(LR, 30, 0.05, 1.3)),
        ),
        (
            "warmup_constant_schedule",
            {"name": "warmup_constant", "warmup_steps": 7, "init_lr": 0.02},
            of_function(optax.warmup_constant_schedule(0.02, LR, 7)),
        ),
        (
            "warmup_cosine_decay_schedule",
            {"name": "warmup_cosine", "warmup_steps": 7, "decay_steps": 40, "end_lr": 0.01},
            of_function(optax.warmup_cosine_decay_schedule(0.0, LR, 7, 40, 0.01)),
        ),
        (
            "cosine_onecycle_schedule",
            {"name": "one_cycle", "total_steps": 40, "ends": "after"},
            of_function(optax.cosine_onecycle_schedule(40, LR)),
        ),
        (
            "linear_onecycle_schedule",
            {
                "name": "one_cycle",
                "total_steps": 45,
                "ends": "after",
                "anneal": "linear",
                "three_phase": True,
            },
            of_function(optax.linear_onecycle_schedule(45, LR)),
        ),
        (
            "join_schedules",
            {
                "name": "sequence",
                "schedules": [
                    {"name": "warmup_constant", "warmup_steps": 10},
                    {"name": "exponential_decay", "decay_rate": 0.8, "decay_steps": 5},
                ],
                "boundaries": [10],
            },
            of_function(
                optax.join_schedules(
                    [optax.linear_schedule(0.0, LR, 10), optax.exponential_decay(LR, 5, 0.8)], [10]
                )
            ),
        ),
        (
            "sgdr_schedule",
            {
                "name": "sequence",
                "schedules": [
                    {"name": "warmup_cosine", "warmup_steps": 3, "decay_steps": 20, "alpha": 0.1},
                    {"name": "warmup_cosine", "warmup_steps": 4, "decay_steps": 30, "alpha": 0.1},
                ],
                "boundaries": [20],
                "scales": [1.0, 0.5],
            },
            of_function(optax.sgdr_schedule(waves)),
        ),
    ]


def keras_cases() -> list[tuple[str, Json, Rates]]:
    decay = {"initial_learning_rate": LR, "decay_steps": 10, "decay_rate": 0.6}
    ours = {"decay_steps": 10, "decay_rate": 0.6}
    return [
        ("ExponentialDecay", {"name": "exponential_decay", **ours}, of_keras("ExponentialDecay", **decay)),
        (
            "ExponentialDecay staircase",
            {"name": "exponential_decay", **ours, "staircase": True},
            of_keras("ExponentialDecay", **decay, staircase=True),
        ),
        ("InverseTimeDecay", {"name": "inverse_time_decay", **ours}, of_keras("InverseTimeDecay", **decay)),
        (
            "InverseTimeDecay staircase",
            {"name": "inverse_time_decay", **ours, "staircase": True},
            of_keras("InverseTimeDecay", **decay, staircase=True),
        ),
        (
            "PiecewiseConstantDecay",
            {
                "name": "piecewise_constant",
                "boundaries": [5, 6, 40],
                "values": [0.1, 0.2, 0.03, 0.004],
                "boundary": "gt",
            },
            of_keras("PiecewiseConstantDecay", boundaries=[5, 6, 40], values=[0.1, 0.2, 0.03, 0.004]),
        ),
        (
            "PolynomialDecay",
            {"name": "polynomial_decay", "decay_steps": 30, "power": 0.5},
            of_keras("PolynomialDecay", initial_learning_rate=LR, decay_steps=30, power=0.5),
        ),
        (
            "PolynomialDecay cycle",
            {"name": "polynomial_decay", "decay_steps": 10, "end_lr": 0.01, "cycle": True},
            of_keras(
                "PolynomialDecay",
                initial_learning_rate=LR,
                decay_steps=10,
                end_learning_rate=0.01,
                cycle=True,
            ),
        ),
        (
            "CosineDecay",
            {"name": "cosine_decay", "decay_steps": 30, "alpha": 0.1},
            of_keras("CosineDecay", initial_learning_rate=LR, decay_steps=30, alpha=0.1),
        ),
        (
            "CosineDecay after a warm-up",
            {
                "name": "warmup_cosine",
                "warmup_steps": 8,
                "decay_steps": 30,
                "init_lr": 0.01,
                "alpha": 0.1,
                "warmup": "excluded",
            },
            of_keras(
                "CosineDecay",
                initial_learning_rate=0.01,
                decay_steps=30,
                alpha=0.1,
                warmup_target=LR,
                warmup_steps=8,
            ),
        ),
        (
            "CosineDecayRestarts",
            {"name": "cosine_restarts", "first_decay_steps": 8, "t_mul": 2, "m_mul": 0.8, "alpha": 0.05},
            of_keras(
                "CosineDecayRestarts",
                initial_learning_rate=LR,
                first_decay_steps=8,
                t_mul=2.0,
                m_mul=0.8,
                alpha=0.05,
            ),
        ),
        (
            "CosineDecayRestarts fractional",
            {"name": "cosine_restarts", "first_decay_steps": 9, "t_mul": 1.5},
            of_keras("CosineDecayRestarts", initial_learning_rate=LR, first_decay_steps=9, t_mul=1.5),
        ),
    ]


def plateau_cases() -> list[tuple[str, Json, Rates]]:
    keras_own = {"reduce": "at", "threshold_mode": "abs", "cooldown_last": "counted"}
    return [
        (
            "torch",
            {"name": "plateau", "patience": 2, "min_decrease": 1e-8},
            torch_plateau(patience=2),
        ),
        (
            "torch",
            {"name": "plateau", "factor": 0.5, "patience": 1, "cooldown": 3, "min_lr": 0.02},
            torch_plateau(factor=0.5, patience=1, cooldown=3, min_lr=0.02),
        ),
        (
            "torch",
            {
                "name": "plateau",
                "goal": "max",
                "threshold_mode": "abs",
                "threshold": 0.005,
                "patience": 0,
                "factor": 0.9,
            },
            torch_plateau(mode="max", threshold_mode="abs", threshold=0.005, patience=0, factor=0.9),
        ),
        (
            "keras",
            {"name": "plateau", **keras_own, "patience": 2, "factor": 0.5},
            keras_plateau(patience=2, factor=0.5),
        ),
        (
            "keras",
            {"name": "plateau", **keras_own, "patience": 3, "factor": 0.5, "cooldown": 3, "min_lr": 0.01},
            keras_plateau(patience=3, factor=0.5, cooldown=3, min_lr=0.01),
        ),
        (
            "optax",
            {"name": "plateau", "reduce": "at", "patience": 2, "factor": 0.5, "cooldown": 2},
            optax_plateau(patience=2, factor=0.5, cooldown=2),
        ),
        (
            "optax",
            {"name": "plateau", "reduce": "at", "patience": 4, "factor": 0.3},
            optax_plateau(patience=4, factor=0.3),
        ),
    ]


def main() -> None:
    cases = [
        {"library": library, "name": name, "schedule": schedule, "lr": LR, "rates": rates}
        for library, made in (("torch", torch_cases()), ("optax", optax_cases()), ("keras", keras_cases()))
        for name, schedule, rates in made
    ]
    plateaus = [
        {"library": library, "schedule": schedule, "lr": LR, "rates": rates}
        for library, schedule, rates in plateau_cases()
    ]
    document = {
        "made_by": "make_schedule_vectors.py",
        "torch": torch.__version__,
        "optax": optax.__version__,
        "keras": keras.__version__,
        "jax": jax.__version__,
        "metrics": METRICS,
        "cases": cases,
        "plateaus": plateaus,
    }
    target = Path(__file__).with_name("schedules.json")
    target.write_text(
        json.dumps(document, separators=(",", ":")).replace('{"library"', '\n{"library"') + "\n"
    )


if __name__ == "__main__":
    main()
