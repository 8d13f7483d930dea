"""Presets: bundles of explicit numbers, expanded when a model is created: changing one changes no old model.

A preset says where it differs from the rules' own defaults, rule by rule.
"""

from __future__ import annotations

from collections.abc import Mapping

from gradledger_server.optim.signatures import Setting

DEFAULT_PRESET = "torch"

_INSIDE_ROOT = {"eps": 0.0, "eps_root": 1e-6}

PRESETS: Mapping[str, Mapping[str, Mapping[str, Setting]]] = {
    # PyTorch's numbers are the rules' defaults.
    "torch": {},
    # The equations as textbooks print them: one epsilon, under the root, and a short memory for RMSProp.
    "textbook": {
        "adagrad": _INSIDE_ROOT,
        "rmsprop": {"rho": 0.9, **_INSIDE_ROOT},
        "adadelta": {"rho": 0.9, "eps_root": 1e-6},
        "adam": _INSIDE_ROOT,
        "adamw": _INSIDE_ROOT,
    },
    "paper": {
        "lars": {"momentum": 0.9, "weight_decay": 5e-4},
        "lamb": {"weight_decay": 0.01},
        "adafactor": {"eps": 1e-30, "eps_mode": "add"},
        "muon": {"lr": 0.02, "eps_mode": "add", "weight_decay": 0.0},
    },
    "optax": {
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
    },
    "keras": {
        "lamb": {"eps": 1e-7, "weight_decay_mode": "first"},
        "adafactor": {"lr": 1e-3, "eps": 1e-30, "eps_mode": "add", "weight_decay_mode": "first"},
        "muon": {
            "velocity": "sum",
            "eps_mode": "add",
            "rows_are": "in",
            "shape_scale": "rms",
            "weight_decay": 0.004,
        },
    },
}
