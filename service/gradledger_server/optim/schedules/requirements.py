"""What the settings of one schedule must be to one another, beyond what each must be by itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gradledger_server.optim.expansion import wrong

SLOWEST_GROWTH = 1.1  # below it, the restarts before a large s would be too many to count


def require_harmony(name: str, settled: Mapping[str, Any], where: str) -> None:
    """Raises InvalidSpec, naming the setting to change."""
    if name == "piecewise_constant":
        _require_one_more(settled, "values", where)
    if name == "sequence":
        _require_one_more(settled, "schedules", where)
        if len(settled["scales"]) not in (0, len(settled["schedules"])):
            allowed = f"no numbers, or {len(settled['schedules'])}: one for each of schedules"
            raise wrong(f"{where}.scales", settled["scales"], allowed)
    if settled.get("alpha") and settled.get("end_lr"):
        raise wrong(f"{where}.alpha", settled["alpha"], "0 if end_lr says where the learning rate ends")
    if name == "cosine_restarts" and 1 < settled["t_mul"] < SLOWEST_GROWTH:
        raise wrong(f"{where}.t_mul", settled["t_mul"], f"1, or from {SLOWEST_GROWTH} on")
    if name == "one_cycle" and settled["three_phase"] and settled["pct_final"] < settled["pct_start"]:
        raise wrong(f"{where}.pct_final", settled["pct_final"], "at least pct_start")
    if name == "warmup_cosine" and settled["warmup"] == "included":
        _require_room(settled, where)


def _require_one_more(settled: Mapping[str, Any], setting: str, where: str) -> None:
    count, expected = len(settled[setting]), len(settled["boundaries"]) + 1
    if count != expected:
        raise wrong(f"{where}.{setting}", settled[setting], f"a list of {expected}, one more than boundaries")


def _require_room(settled: Mapping[str, Any], where: str) -> None:
    if settled["decay_steps"] <= settled["warmup_steps"]:
        hint = 'decay_steps count the warm-up; with "warmup": "excluded" they do not.'
        allowed = f"above warmup_steps, {settled['warmup_steps']}"
        raise wrong(f"{where}.decay_steps", settled["decay_steps"], allowed, hint=hint)
