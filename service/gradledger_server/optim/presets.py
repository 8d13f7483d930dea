"""Presets: bundles of explicit numbers, expanded when a model is created: changing one changes no old model.

A preset names the rules it has, and says where it differs from their own defaults. `torch` is the default
and there for every rule: PyTorch's numbers are the defaults, and where PyTorch has no such rule, its
author's. The others are refused for a rule they do not name.
"""

from __future__ import annotations

from collections.abc import Mapping

from gradledger_server.optim.signatures import Setting

DEFAULT_PRESET = "torch"

Bundle = Mapping[str, Setting]

_INSIDE_ROOT: Bundle = {"eps": 0.0, "eps_root": 1e-6}
_TAU: Bundle = {"eps": 1e-3, "initial_accumulator": 1e-6}

# The equations as textbooks print them: one epsilon, under the root, and a short memory for RMSProp.
_TEXTBOOK: Mapping[str, Bundle] = {
    "sgd": {},
    "momentum": {},
    "adagrad": _INSIDE_ROOT,
    "rmsprop": {"rho": 0.9, **_INSIDE_ROOT},
    "adadelta": {"rho": 0.9, "eps_root": 1e-6},
    "adam": _INSIDE_ROOT,
}

# Keras 3: the learning rate is in the velocity, epsilon under the root but for the Adam family, and larger.
_KERAS: Mapping[str, Bundle] = {
    "sgd": {"lr": 1e-2},
    "momentum": {"lr": 1e-2, "lr_in_velocity": True},
    "nesterov": {"lr": 1e-2, "lr_in_velocity": True},
    "lion": {"lr": 1e-3},
    "adagrad": {"lr": 1e-3, "eps": 0.0, "eps_root": 1e-7, "initial_accumulator": 0.1},
    "rmsprop": {"lr": 1e-3, "rho": 0.9, "eps": 0.0, "eps_root": 1e-7, "lr_in_velocity": True},
    "adadelta": {"lr": 1e-3, "rho": 0.95, "eps_root": 1e-7},
    "ftrl": {"start": "zero"},
    "adam": {"eps": 1e-7, "eps_ref": "raw"},
    "adamw": {"eps": 1e-7, "eps_ref": "raw", "weight_decay": 4e-3},
    "amsgrad": {"eps": 1e-7, "eps_ref": "raw"},
    "adamax": {"lr": 1e-3, "eps": 1e-7, "eps_in": "denominator"},
    "nadam": {"lr": 1e-3, "eps": 1e-7, "momentum_decay": 1.0},
    "lamb": {"eps": 1e-7, "weight_decay_mode": "first"},
    "adafactor": {"lr": 1e-3, "eps": 1e-30, "eps_mode": "add", "weight_decay_mode": "first"},
    "muon": {
        "velocity": "sum",
        "eps_mode": "add",
        "rows_are": "in",
        "shape_scale": "rms",
        "weight_decay": 4e-3,
    },
}

# TensorFlow 1: RMSProp's mean starts at one and Adagrad has no epsilon but a sum that starts at 0.1.
_TF1: Mapping[str, Bundle] = {
    "sgd": {},
    "momentum": {},
    "nesterov": {},
    "adagrad": {"eps": 0.0, "initial_accumulator": 0.1},
    "rmsprop": {
        "rho": 0.9,
        "eps": 0.0,
        "eps_root": 1e-10,
        "initial_accumulator": 1.0,
        "lr_in_velocity": True,
    },
    "adadelta": {"lr": 1e-3, "rho": 0.95, "eps_root": 1e-8},
    "ftrl": {"start": "zero"},
    "adam": {"eps_ref": "raw"},
    "adamax": {"lr": 1e-3, "eps_in": "denominator"},
    "nadam": {"lr": 1e-3, "eps_ref": "raw", "momentum_form": "tf"},
}

# Optax's rprop takes every step one update late, so it is no preset; its adan keeps the paper's 1 - beta2,
# whose beta2 is one minus the decay meant here.
_OPTAX: Mapping[str, Bundle] = {
    "sgd": {},
    "momentum": {},
    "nesterov": {},
    "signsgd": {},
    "signum": {},
    "lion": {"weight_decay": 1e-3},
    "adagrad": {"eps": 0.0, "eps_root": 1e-7, "initial_accumulator": 0.1},
    "rmsprop": {"rho": 0.9, "eps": 0.0, "eps_root": 1e-8, "lr_in_velocity": True},
    "adadelta": {},
    "adam": {},
    "adamw": {"weight_decay": 1e-4},
    "amsgrad": {"max_ref": "corrected"},
    "adamax": {},
    "nadam": {"momentum_form": "constant"},
    "radam": {"eps_ref": "corrected", "threshold_strict": False},
    "yogi": {"initial_mean": 1e-6},
    "adabelief": {},
    "adan": {"change_factor": 0.08, "eps_root": 1e-8},
    "schedule_free_sgd": {},
    "schedule_free_adamw": {},
    "lars": {"trust_norm": "sum"},
    "lamb": {},
    "adafactor": {
        "eps": 1e-30,
        "eps_mode": "add",
        "relative_step": False,
        "factored": "largest",
        "factored_from": 128,
        "weight_decay_mode": "decoupled_abs",
    },
    "muon": {
        "velocity": "corrected",
        "eps": 1e-8,
        "eps_mode": "add",
        "rows_are": "in",
        "weight_decay": 0.0,
    },
}

# Caffe: the learning rate is in the velocity. Adam's beta1 is the solver's `momentum`, which it has as 0.
_CAFFE: Mapping[str, Bundle] = {
    "sgd": {},
    "momentum": {"lr_in_velocity": True},
    "nesterov": {"lr_in_velocity": True},
    "adagrad": {"eps": 1e-8},
    "rmsprop": {},
    "adadelta": {"eps_root": 1e-8},
    "adam": {"beta1": 0.0, "eps_ref": "raw"},
}

_PAPER: Mapping[str, Bundle] = {
    "rmsprop": {"rho": 0.9},
    "adadelta": {"rho": 0.95},
    "rprop": {"lr": 0.1},
    "adam": {},
    "adamw": {"weight_decay": 1e-5, "weight_decay_mode": "decoupled_abs"},  # torch's pull, lr times 0.01
    "amsgrad": {"eps": 0.0, "bias_correction": False},
    "adamax": {"eps": 0.0},
    "nadam": {},
    "radam": {"threshold": 4.0},
    "yogi": {},
    "adabelief": {"eps": 1e-8, "eps_root": 1e-8},
    "lion": {},
    "adan": {},
    "fedadagrad": _TAU,
    "fedadam": _TAU,
    "fedyogi": _TAU,
    "lars": {"momentum": 0.9, "weight_decay": 5e-4},
    "lamb": {"weight_decay": 0.01},
    "adafactor": {"eps": 1e-30, "eps_mode": "add"},
    "muon": {"lr": 0.02, "eps_mode": "add", "weight_decay": 0.0},
}

# Douillard et al. 2023: whole inner training runs are the gradients.
_DILOCO: Mapping[str, Bundle] = {"nesterov": {"lr": 0.7, "momentum": 0.9}}

PRESETS: Mapping[str, Mapping[str, Bundle]] = {
    "torch": {},
    "keras": _KERAS,
    "tf1": _TF1,
    "optax": _OPTAX,
    "caffe": _CAFFE,
    "paper": _PAPER,
    "textbook": _TEXTBOOK,
    "diloco": _DILOCO,
}


def presets_of(rule: str) -> tuple[str, ...]:
    """The presets there are for a rule, the default first."""
    return tuple(name for name, bundles in PRESETS.items() if name == DEFAULT_PRESET or rule in bundles)
