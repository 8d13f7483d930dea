"""Which library's behaviour each setting reproduces: the rows of docs/schedules.md.

A schedule is written as a spec has it. Names in capitals are numbers of the user's; the tests put numbers in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Reproduced:
    """A library's own words, ours for the same learning rates, and what to mind."""

    library: str
    theirs: str
    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""


TF, CAFFE, TORCH, OPTAX, KERAS = "TF1", "Caffe", "torch", "Optax", "Keras"
_DECAY = {"decay_rate": "R", "decay_steps": "N"}

LIBRARIES = (
    Reproduced(TF, "exponential_decay", "exponential_decay", _DECAY, "Keras ExponentialDecay alike"),
    Reproduced(TF, "exponential_decay(staircase)", "exponential_decay", {**_DECAY, "staircase": True}),
    Reproduced(TF, "natural_exp_decay", "natural_exp_decay", _DECAY),
    Reproduced(TF, "inverse_time_decay", "inverse_time_decay", _DECAY, "Keras InverseTimeDecay alike"),
    Reproduced(
        TF,
        "piecewise_constant",
        "piecewise_constant",
        {"boundaries": "[…]", "values": "[…]", "boundary": "gt"},
        "the update with s == b keeps the old value; Keras PiecewiseConstantDecay alike",
    ),
    Reproduced(
        TF,
        "polynomial_decay(cycle)",
        "polynomial_decay",
        {"decay_steps": "N", "cycle": True},
        "at s == N the end, and at N + 1 a jump up; Keras PolynomialDecay alike",
    ),
    Reproduced(CAFFE, "fixed", "constant"),
    Reproduced(CAFFE, "step", "exponential_decay", {**_DECAY, "staircase": True}, "or caffe_step"),
    Reproduced(CAFFE, "exp", "exponential_decay", {"decay_rate": "R", "decay_steps": 1}, "or caffe_exp"),
    Reproduced(
        CAFFE,
        "inv",
        "inverse_time_decay",
        {"decay_rate": "R", "decay_steps": 1, "power": "P"},
        "or caffe_inv",
    ),
    Reproduced(CAFFE, "multistep", "multistep", {"step_values": "[…]", "gamma": "R"}, "or caffe_multistep"),
    Reproduced(
        CAFFE, "poly", "polynomial_decay", {"decay_steps": "N", "end_lr": 0, "power": "P"}, "or caffe_poly"
    ),
    Reproduced(CAFFE, "sigmoid", "sigmoid", {"gamma": "G", "step_size": "N"}, "or caffe_sigmoid"),
    Reproduced(TORCH, "StepLR", "exponential_decay", {**_DECAY, "staircase": True}),
    Reproduced(
        TORCH,
        "MultiStepLR",
        "multistep",
        {"step_values": "[…]", "gamma": "R"},
        "milestones given twice are not taken: multiply their gammas",
    ),
    Reproduced(TORCH, "ExponentialLR", "exponential_decay", {"decay_rate": "R", "decay_steps": 1}),
    Reproduced(TORCH, "LinearLR", "linear", {"total_steps": 5}),
    Reproduced(
        TORCH,
        "ConstantLR",
        "sequence",
        {"schedules": "[…]", "boundaries": "[N]"},
        "of linear with start_factor and end_factor alike, and constant",
    ),
    Reproduced(TORCH, "PolynomialLR", "polynomial_decay", {"decay_steps": "N", "end_lr": 0, "power": "P"}),
    Reproduced(
        TORCH,
        "CosineAnnealingLR",
        "cosine_decay",
        {"decay_steps": "N", "end_lr": "E", "after_end": "rise"},
        "rises again after T_max; everyone else holds",
    ),
    Reproduced(
        TORCH,
        "CosineAnnealingWarmRestarts",
        "cosine_restarts",
        {"first_decay_steps": "N", "t_mul": 1, "end_lr": "E"},
    ),
    Reproduced(
        TORCH,
        "OneCycleLR",
        "one_cycle",
        {"total_steps": "N", "ends": "last"},
        "the last of N updates has the final learning rate; past N torch raises, and we hold; momentum stays",
    ),
    Reproduced(
        TORCH,
        "OneCycleLR(three_phase)",
        "one_cycle",
        {"total_steps": "N", "ends": "last", "three_phase": True, "pct_final": 0.6},
        "pct_final is twice pct_start",
    ),
    Reproduced(TORCH, "SequentialLR", "sequence", {"schedules": "[…]", "boundaries": "[…]"}),
    Reproduced(TORCH, "ReduceLROnPlateau", "plateau", {"min_decrease": 1e-8}, "reduces at bad metric 11"),
    Reproduced(
        OPTAX,
        "piecewise_constant_schedule",
        "piecewise_constant",
        {"boundaries": "[…]", "values": "[…]", "boundary": "ge"},
        "scales become values: multiply them up; one scale throughout is multistep",
    ),
    Reproduced(OPTAX, "polynomial_schedule", "polynomial_decay", {"decay_steps": "N", "end_lr": "E"}),
    Reproduced(OPTAX, "exponential_decay", "exponential_decay", _DECAY, "without end_value"),
    Reproduced(
        OPTAX,
        "cosine_decay_schedule",
        "cosine_decay",
        {"decay_steps": "N", "alpha": "A", "exponent": "P"},
    ),
    Reproduced(
        OPTAX,
        "warmup_cosine_decay_schedule",
        "warmup_cosine",
        {"warmup_steps": "W", "decay_steps": "N", "warmup": "included"},
        "decay_steps count the warm-up",
    ),
    Reproduced(OPTAX, "warmup_constant_schedule", "warmup_constant", {"warmup_steps": "W"}),
    Reproduced(
        OPTAX,
        "cosine_onecycle_schedule",
        "one_cycle",
        {"total_steps": "N", "ends": "after"},
        "the update after the last has the final learning rate",
    ),
    Reproduced(
        OPTAX,
        "linear_onecycle_schedule",
        "one_cycle",
        {"total_steps": "N", "ends": "after", "anneal": "linear", "three_phase": True},
    ),
    Reproduced(OPTAX, "join_schedules", "sequence", {"schedules": "[…]", "boundaries": "[…]"}),
    Reproduced(
        OPTAX,
        "sgdr_schedule",
        "sequence",
        {"schedules": "[…]", "boundaries": "[…]", "scales": "[…]"},
        "of warmup_cosine",
    ),
    Reproduced(
        OPTAX,
        "contrib.reduce_on_plateau",
        "plateau",
        {"reduce": "at"},
        "reduces at bad metric 10; accumulation_size 1",
    ),
    Reproduced(KERAS, "CosineDecay", "cosine_decay", {"decay_steps": "N", "alpha": "A"}),
    Reproduced(
        KERAS,
        "CosineDecay(warmup_target)",
        "warmup_cosine",
        {"warmup_steps": "W", "decay_steps": "N", "alpha": "A", "warmup": "excluded"},
        "decay_steps do not count the warm-up",
    ),
    Reproduced(
        KERAS,
        "CosineDecayRestarts",
        "cosine_restarts",
        {"first_decay_steps": "N", "t_mul": "T", "m_mul": "M", "alpha": "A"},
        "Keras finds the restart by a logarithm and may be one update off; we count",
    ),
    Reproduced(
        KERAS,
        "ReduceLROnPlateau",
        "plateau",
        {"reduce": "at", "threshold_mode": "abs", "cooldown_last": "counted"},
        "reduces at bad metric 10; the last metric of a cooldown counts",
    ),
    Reproduced("schedulefree", "warmup_steps", "warmup_constant", {"warmup_steps": "W", "count_from": "one"}),
    Reproduced("fairseq", "inverse_sqrt", "inverse_sqrt", {"warmup_steps": "W", "init_lr": "I"}),
    Reproduced("tensor2tensor", "noam", "noam", {"model_width": "D", "warmup_steps": "W"}, "t = s + 1"),
    Reproduced(
        "pytorch_optimizer",
        "wsd",
        "wsd",
        {"warmup_steps": "W", "stable_steps": "N", "decay_steps": "D", "floor": "clip"},
        "there only the cosine is clipped; the other shapes jump to min_ratio at the end",
    ),
    Reproduced(
        "transformers",
        "get_wsd_schedule",
        "wsd",
        {"warmup_steps": "W", "stable_steps": "N", "decay_steps": "D", "shape": "cosine", "floor": "scale"},
    ),
)
