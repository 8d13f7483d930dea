"""The fields of an object in a spec, checked one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gradledger_server.optim.expansion import meant, unknown, wrong


def object_of(where: str, given: object, known: Sequence[str]) -> Mapping[str, Any]:
    """The object, empty if there is none, with no field that is not known."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise wrong(where, given, "an object")
    for name in given:
        if name not in known:
            raise unknown(str(name), known, where=where, of=where)
    return given


def choice(where: str, value: object, names: Sequence[str]) -> str:
    """One of the names."""
    if not isinstance(value, str) or value not in names:
        raise wrong(where, value, "one of " + ", ".join(names), hint=meant(value, names))
    return value


def whole(where: str, value: object, low: int, high: int, *, optional: bool = False) -> int | None:
    """A whole number within its bounds."""
    if value is None and optional:
        return None
    if type(value) is not int or not low <= value <= high:
        raise wrong(where, value, f"a whole number from {low} to {high}" + (", or null" if optional else ""))
    return value


def real(where: str, value: object, low: float, high: float) -> float:
    """A number within its bounds, which are finite, as a float."""
    fits = isinstance(value, int | float) and not isinstance(value, bool)
    if not fits or not low <= value <= high:  # type: ignore[operator]
        raise wrong(where, value, f"a number from {low:g} to {high:g}")
    return float(value)  # type: ignore[arg-type]
