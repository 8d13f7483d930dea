"""From what a client wrote to explicit, checked settings; what is wrong is named with what would be right."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from itertools import pairwise
from typing import Any

from gradledger_server.errors import InvalidSpec
from gradledger_server.optim.hyperparameters import Items
from gradledger_server.optim.signatures import Hyperparameter, Setting

_NAMING = ("name", "rule", "type", "mode")  # where other APIs say what something is
_LONGEST_CHARS = 80  # of a name that is compared with others


def wrong(where: str, got: object, allowed: str, *, hint: str | None = None) -> InvalidSpec:
    """The refusal of one field: `where` is its path in the spec, such as "optimizer.beta1"."""
    shown = _shown(got)
    return InvalidSpec(
        f"{where} is {as_json(got)}; allowed: {allowed}.", hint=hint, field=where, got=shown, allowed=allowed
    )


def missing(where: str, allowed: str, *, hint: str | None = None) -> InvalidSpec:
    """The same of a field that has to be there and is not."""
    detail = f"{where} is missing; allowed: {allowed}."
    return InvalidSpec(detail, hint=hint or f"Give {where}.", field=where, got=None, allowed=allowed)


def choose(
    given: Mapping[str, object], key: str, known: Sequence[str], *, where: str, default: str | None
) -> str:
    """The name given under `key`, which must be one of `known`."""
    name = given.get(key, default)
    if isinstance(name, str) and name in known:
        return name
    allowed = "one of " + ", ".join(known)
    if name is None:
        other = next((field for field in _NAMING if field != key and given.get(field) in known), None)
        hint = f"{where}.{other} is not known: give {json.dumps({key: given[other]})}." if other else None
        raise missing(f"{where}.{key}", allowed, hint=hint)
    raise wrong(f"{where}.{key}", name, allowed, hint=meant(name, known))


def settle(
    given: Mapping[str, object],
    declared: Mapping[str, Hyperparameter],
    defaults: Mapping[str, Setting],
    *,
    where: str,
    of: str,
    elsewhere: Mapping[str, str] | None = None,
) -> dict[str, Setting]:
    """Every declared hyperparameter with its value: as given, else from `defaults`, else its own default.

    `elsewhere` tells where to find fields that are known, but not here. Raises InvalidSpec for the first
    field that is unknown, missing or out of range.
    """
    for name in given:
        if name not in declared:
            raise unknown(name, tuple(declared), where=where, of=of, found=(elsewhere or {}).get(name))
    settled = {}
    for name, parameter in declared.items():
        value = given.get(name, defaults.get(name, parameter.default))
        if name not in given and value is None:
            raise missing(f"{where}.{name}", parameter.allowed, hint=f"{of} needs {where}.{name}.")
        settled[name] = check(parameter, value, where=f"{where}.{name}")
    return settled


def unknown(name: str, known: Sequence[str], *, where: str, of: str, found: str | None = None) -> InvalidSpec:
    """The refusal of a field nobody declared."""
    first = found or meant(name, known)
    listed = ", ".join(known) or "nothing"
    return InvalidSpec(
        f"{where}.{_cut(name)} is not known: {of} takes {listed}.",
        hint=f"{first} Remove the field or use a known one." if first else "Remove it.",
        field=f"{where}.{_cut(name)}",
        known=list(known),
    )


def meant(name: object, known: Iterable[str]) -> str | None:
    """The known name that is most like this one, asked for in a hint; None if none is like it."""
    if not isinstance(name, str):
        return None
    close = get_close_matches(name[:_LONGEST_CHARS].lower(), known, 1, cutoff=0.5)
    return f"Did you mean {close[0]!r}?" if close else None


def with_meant(name: object, known: Iterable[str], hint: str) -> str:
    """The hint, behind the question for the name that was perhaps meant."""
    asked = meant(name, known)
    return f"{asked} {hint}" if asked else hint


def check(parameter: Hyperparameter, value: object, *, where: str) -> Setting:
    """The value in its own type, or InvalidSpec. A boolean is not a number; neither is NaN or a string."""
    if parameter.kind == "choice":
        fits = isinstance(value, str) and value in parameter.choices
    elif parameter.kind == "switch":
        fits = isinstance(value, bool)
    elif parameter.items is not None:
        return _list(parameter.items, value, where=where)  # type: ignore[return-value]
    else:
        return _number(parameter, value, where=where)
    if not fits:
        raise wrong(where, value, parameter.allowed)
    return value  # type: ignore[return-value]


def _number(parameter: Hyperparameter, value: object, *, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong(where, value, f"a number, {parameter.allowed}")
    try:
        number = float(value)
    except OverflowError:  # an integer beyond float64
        number = math.inf
    assert parameter.bounds is not None
    whole = parameter.kind == "integer"
    exact = value if whole and math.isfinite(number) else number  # 2^53 + 1 would be rounded into the bounds
    if not parameter.bounds.allow(exact) or (whole and not number.is_integer()):
        raise wrong(where, value, parameter.allowed)
    return int(number) if whole else number


def _list(items: Items, value: object, *, where: str) -> list[Any]:
    if not isinstance(value, list | tuple) or not items.least <= len(value) <= items.most:
        raise wrong(where, value, items.describe())
    if items.each is None:
        return list(value)
    each = Hyperparameter("each", "integer" if items.whole else "number", None, items.each)
    checked = [_number(each, item, where=f"{where}[{index}]") for index, item in enumerate(value)]
    for index, (before, after) in enumerate(pairwise(checked), start=1):
        if items.rising and after <= before:
            raise wrong(f"{where}[{index}]", after, f"above {where}[{index - 1}], which is {before}")
    return checked


def as_json(value: object) -> str:
    """A value as a message says it, in JSON's words and not in Python's: null, true."""
    shown = _shown(value)
    return shown if isinstance(shown, str) else json.dumps(shown)


def _shown(value: object) -> Any:
    """A value as it may stand in a problem: simple ones as they are, others as short text."""
    if value is None or isinstance(value, bool) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, int) and abs(value) < 2**53:
        return value
    return _cut(value) if isinstance(value, str) else _cut(_text(value))


def _text(value: object) -> str:
    if isinstance(value, int):
        return "an integer beyond 2^53"  # printing thousands of digits would be an attack on us
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}" if value else "an empty list"
    if isinstance(value, Mapping):
        return "an object" if value else "an empty object"
    return repr(value) if isinstance(value, float) else "no value of JSON"


def _cut(text: str) -> str:
    return text if len(text) <= 64 else text[:61] + "..."
