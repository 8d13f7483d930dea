"""Presets: bundles of explicit numbers, expanded when a model is created: changing one changes no old model.

A preset says where it differs from the rules' own defaults, rule by rule.
"""

from __future__ import annotations

from collections.abc import Mapping

DEFAULT_PRESET = "torch"

_INSIDE_ROOT = {"eps": 0.0, "eps_root": 1e-6}

PRESETS: Mapping[str, Mapping[str, Mapping[str, float]]] = {
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
}
