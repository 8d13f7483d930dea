"""What an outer loop may be told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, TypedDict, get_args

from gradledger.client import Client
from gradledger.compression import Wire

NESTEROV = {"rule": "nesterov", "preset": "diloco"}  # lr 0.7, momentum 0.9


class Options(TypedDict, total=False):
    """`client`, `name` and `every` are needed.

    client       of the service
    name         the model's; fragment 0 has it, fragment i is `<name>.<i>`
    every        H: inner steps from one round of a fragment to its next
    worker       this worker's name: the same one after a restart goes on where it was; default: a new one
    fragments    F: parts that are synchronised at different times (1 <= F <= H)
    overlap      inner steps made while a push is on its way (0 <= overlap < H)
    wire         how pseudo-gradients go out: "int8", "bf16", or None for all their bytes. What is lost of one
                 comes with the next (error feedback)
    mixing       how much of the local parameters stays when an overlap ends, 0 (none) to 1 (all)
    outer        the rule on the service and its settings; default Nesterov, lr 0.7, momentum 0.9
    groups       the spec's groups; each fragment gets those that take one of its tensors
    sync         the spec's sync; default "bsp"
    spec         more of the spec: `schedule`, `transforms`. What is global there is so within each fragment
    patience_s   how long a worker waits for the others before it goes on with inner steps. By default for as
                 long as it takes; with several fragments two leases, for their rounds could wait in a circle
    """

    client: Client
    name: str
    every: int
    worker: str | None
    fragments: int
    overlap: int
    mixing: float
    wire: Wire | None
    outer: Mapping[str, Any] | str
    groups: Sequence[Mapping[str, Any]]
    sync: Mapping[str, Any] | str
    spec: Mapping[str, Any]
    patience_s: float | None


def require_known(options: Mapping[str, Any]) -> None:
    """Raises TypeError for an option there is none of, one that is missing, and what is no client."""
    for name in options.keys() - Options.__annotations__.keys():
        close = get_close_matches(name, Options.__annotations__, 1)
        raise TypeError(f"there is no option {name!r}" + (f"; did you mean {close[0]!r}?" if close else ""))
    for name in ("client", "name", "every"):
        if name not in options:
            raise TypeError(f"the option {name!r} is missing")
    if not isinstance(options["client"], Client):
        got = type(options["client"]).__name__
        raise TypeError(f"client is of type {got}; expected a gradledger.Client, such as Client('http://…')")


def require_sense(options: Options) -> None:
    """Raises ValueError for what does not fit together."""
    if options["every"] < 1:
        raise ValueError(f"every is {options['every']}; expected how many inner steps, 1 or more")
    every, fragments = options["every"], options.get("fragments", 1)
    overlap, mixing = options.get("overlap", 0), options.get("mixing", 0.0)
    if not 1 <= fragments <= every:
        raise ValueError(f"fragments is {fragments}; expected 1 to every={every}: one at most makes a round")
    if not 0 <= overlap < every:
        raise ValueError(
            f"overlap is {overlap}; expected 0 to every - 1 = {every - 1}: it ends before the next turn"
        )
    if (wire := options.get("wire")) is not None and wire not in get_args(Wire):
        raise ValueError(f"wire is {wire!r}; expected None or one of {', '.join(get_args(Wire))}")
    if not 0 <= mixing <= 1 or (mixing and not overlap):
        raise ValueError(f"mixing is {mixing}; expected 0 to 1, and 0 where there is no overlap to mix after")
