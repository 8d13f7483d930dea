"""What other libraries call the same forms. Understood when a spec is read, never written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gradledger_server.optim.expansion import missing, unknown


@dataclass(frozen=True, slots=True)
class Alias:
    """Another name for a schedule: its own names for settings, and the settings the name stands for."""

    of: str
    settings: Mapping[str, str] = field(default_factory=dict)
    means: Mapping[str, object] = field(default_factory=dict)


_GAMMA = {"gamma": "decay_rate"}

ALIASES: Mapping[str, Alias] = {
    "caffe_fixed": Alias("constant"),
    "caffe_step": Alias("exponential_decay", {**_GAMMA, "step_size": "decay_steps"}, {"staircase": True}),
    "caffe_exp": Alias("exponential_decay", _GAMMA, {"decay_steps": 1}),
    "caffe_inv": Alias("inverse_time_decay", {**_GAMMA, "power": "power"}, {"decay_steps": 1}),
    "caffe_multistep": Alias("multistep", {"gamma": "gamma", "step_values": "step_values"}),
    "caffe_poly": Alias("polynomial_decay", {"power": "power", "max_iter": "decay_steps"}, {"end_lr": 0.0}),
    "caffe_sigmoid": Alias("sigmoid", {"gamma": "gamma", "step_size": "step_size"}),
}


def plain(name: str, given: Mapping[str, object], where: str) -> tuple[str, Mapping[str, object]]:
    """The name and settings an alias stands for; other names as they are. Raises InvalidSpec."""
    alias = ALIASES.get(name)
    if alias is None:
        return name, given
    renamed: dict[str, object] = {}
    for setting, value in given.items():
        if setting not in alias.settings:
            raise unknown(setting, tuple(alias.settings), where=where, of=f"schedule {name!r}")
        renamed[alias.settings[setting]] = value
    for setting, own in alias.settings.items():
        if own in _REQUIRED and own not in renamed:
            raise missing(f"{where}.{setting}", "a number", hint=f"schedule {name!r} needs it.")
    return alias.of, {**alias.means, **renamed}


_REQUIRED = {"decay_rate", "decay_steps"}  # by a name of their own here, so their absence is told by it
