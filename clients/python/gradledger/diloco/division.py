"""Which tensors are synchronised together: a division of the model into parts of about equal bytes.

    1. Put the tensors in order: largest first; of those with equally many bytes, the name that is smaller
       code point by code point.
    2. Give each to the part that has the fewest bytes so far; of several, to the first.

Bytes are those of the master copy on the service. Part 0 is the model `<name>`, part i is `<name>.<i>`, so
that workers that divide differently meet in a model whose parameters differ, and are refused, whatever the
number of parts they ask for. Any client can do this; it needs names, shapes and two loops.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any


def divide(nbytes: Mapping[str, int], parts: int) -> list[tuple[str, ...]]:
    """The tensors' names in each part, sorted. Raises ValueError unless every part gets a tensor."""
    if not 1 <= parts <= len(nbytes):
        raise ValueError(
            f"{len(nbytes)} tensors cannot be divided into {parts} parts; take 1 to {len(nbytes)}"
        )
    names: list[list[str]] = [[] for _ in range(parts)]
    filled = [0] * parts
    for name in sorted(nbytes, key=lambda name: (-nbytes[name], name)):
        # A part without a tensor comes first even if tensors without elements keep others at 0 bytes.
        lightest = min(range(parts), key=lambda part: (filled[part], len(names[part]) > 0, part))
        names[lightest].append(name)
        filled[lightest] += nbytes[name]
    return [tuple(sorted(part)) for part in names]


def model_name(name: str, part: int) -> str:
    """What the model of that part is called on the service."""
    return name if part == 0 else f"{name}.{part}"


def groups_within(groups: Sequence[Mapping[str, Any]], names: Iterable[str]) -> list[Mapping[str, Any]]:
    """Those of a spec's `groups` that take a tensor of this part; the first match wins, as on the service.

    The service refuses groups that take none, and leaving them out changes nothing for the others.
    """
    taken = {_first_match(groups, name) for name in names}
    return [group for index, group in enumerate(groups) if index in taken]


def refuse_idle_groups(groups: Sequence[Mapping[str, Any]], names: Iterable[str]) -> None:
    """Raises ValueError for a group that takes no tensor of the whole model."""
    taken = {_first_match(groups, name) for name in names}
    for index, group in enumerate(groups):
        if index not in taken:
            raise ValueError(
                f"groups[{index}] matches {group['match']!r} and takes no tensor: patterns are shell globs "
                "over whole tensor names, and the first match wins"
            )


def _first_match(groups: Sequence[Mapping[str, Any]], name: str) -> int | None:
    return next((index for index, group in enumerate(groups) if fnmatchcase(name, group["match"])), None)
