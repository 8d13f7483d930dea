"""How the gradients of a round become one: the `aggregate` of a spec, applied.

    mean, sum             weighted by the pushes' weights (examples, tokens)
    median, trimmed_mean  element by element; weights play no part
    krum, multi_krum      the one, or the mean of the `keep`, that lie closest to the others

A round may be smaller than its aggregate needs, when members died in it. Then the median takes its place: it
is defined for any number and bears as many attackers as any aggregate can.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from gradledger_server.machine.fields import choice, object_of, whole
from gradledger_server.machine.sync import aggregate
from gradledger_server.machine.sync.aggregate import Array
from gradledger_server.optim.expansion import missing, wrong

NAMES = ("mean", "sum", "median", "trimmed_mean", "krum", "multi_krum")
MOST = 5_000


@dataclass(frozen=True, slots=True)
class Merge:
    """An expanded `aggregate`; a field that the name has no use for is None."""

    name: str
    trim: int | None  # cut off at either end
    attackers: int | None  # f: how many may say anything at all
    keep: int | None  # of the most trusted

    @property
    def fewest(self) -> int:
        """The gradients it needs at least."""
        match self.name:
            case "trimmed_mean":
                return 2 * (self.trim or 0) + 1
            case "krum" | "multi_krum":
                return max(2 * (self.attackers or 0) + 3, self.keep or 1)
        return 1


def expand_merge(where: str, given: object) -> dict[str, Any]:
    """The `aggregate` object with every field; a bare name stands for an object. Raises InvalidSpec."""
    fields = object_of(where, {"name": given} if isinstance(given, str) else given, _FIELDS)
    name = choice(f"{where}.name", fields.get("name", "mean"), NAMES)
    needed = {"trimmed_mean": ("trim",), "krum": ("attackers",), "multi_krum": ("attackers", "keep")}.get(
        name, ()
    )
    for field in _FIELDS[1:]:
        if field in needed and fields.get(field) is None:
            raise missing(f"{where}.{field}", f"a number, which {name!r} needs")
        if field not in needed and fields.get(field) is not None:
            raise wrong(f"{where}.{field}", fields[field], f"nothing: {name!r} has no use for it")
    low = {"trim": 0, "attackers": 0, "keep": 1}
    checked = {f: whole(f"{where}.{f}", fields.get(f), low[f], MOST, optional=True) for f in _FIELDS[1:]}
    return {"name": name, **checked}


_FIELDS = ("name", "trim", "attackers", "keep")


def merge(
    how: Merge,
    arenas: Sequence[Sequence[Array]],
    weights: Sequence[float],
    outs: Sequence[Array],
    sum_of_squares: Callable[[Array], float],
) -> list[int]:
    """Writes the merged gradient and answers which pushes are in it, by index.

    `arenas` holds for every arena the flat arrays of all pushes, `outs` one array for each.
    """
    everybody = list(range(len(weights)))
    name = how.name if len(weights) >= how.fewest else "median"
    chosen = everybody
    if name in ("krum", "multi_krum"):
        scores = aggregate.krum_scores(
            aggregate.squared_distances(arenas, sum_of_squares), how.attackers or 0
        )
        chosen = aggregate.most_trusted(scores, how.keep or 1)
    for gradients, out in zip(arenas, outs, strict=True):
        match name:
            case "mean":
                aggregate.weighted_mean(gradients, weights, out)
            case "sum":
                aggregate.weighted_sum(gradients, weights, out)
            case "median":
                aggregate.median(gradients, out)
            case "trimmed_mean":
                aggregate.trimmed_mean(gradients, how.trim or 0, out)
            case _:
                aggregate.weighted_mean([gradients[i] for i in chosen], [1.0] * len(chosen), out)
    return chosen
