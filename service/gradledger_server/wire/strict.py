"""JSON that means one thing: UTF-8, finite numbers, whole characters, bounded depth, no name twice."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any, NoReturn

from gradledger_server.errors import MalformedBody

_GZIP = b"\x1f\x8b"


def loads(text: bytes | memoryview, what: str) -> Any:
    """The value written in `text`; `what` names it in the errors. Raises MalformedBody.

    Takes some 30 times the memory of `text` at worst: bound its length first.
    """
    if not len(text):
        raise MalformedBody(f"{what} is empty; expected JSON", hint="Send one JSON value, such as {}.")
    try:
        written = str(text, "utf-8")
        value = json.loads(
            written, object_pairs_hook=_members, parse_float=_finite, parse_constant=_not_a_number
        )
        if (
            "\\ud" in written or "\\uD" in written
        ):  # escapes of surrogates: no text, unless they come in pairs
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise MalformedBody(
            f"{what} is nested too deep",
            hint="Tensors are nested one list per dimension; nothing else nests deeper.",
        ) from None
    except UnicodeError as error:
        raise _no_text(bytes(text[:2]), what, error) from None
    except ValueError as error:
        why = str(error).partition(";")[0]  # Python's advice on too many digits is not for clients
        raise MalformedBody(
            f"{what} is not JSON: {why}", hint="Send one JSON value in UTF-8, with finite numbers only."
        ) from None
    return value


def _no_text(begin: bytes, what: str, error: UnicodeError) -> MalformedBody:
    """The refusal of bytes that are not UTF-8, or stand for half a character."""
    if begin == _GZIP:
        return MalformedBody(f"{what} is gzip; expected JSON", hint="Send it uncompressed.")
    if isinstance(error, UnicodeDecodeError):
        why = f"byte {error.start} cannot be read as UTF-8"
    else:
        why = "it has half of a surrogate pair, which is no character"
    return MalformedBody(f"{what} is not JSON: {why}", hint="Send one JSON value in UTF-8.")


def shown(value: object, most_chars: int = 80) -> str:
    """`value` as a message may quote it: on one line, and short however long it is."""
    text = repr(value[: most_chars + 1] if isinstance(value, str) else value)
    return text if len(text) <= most_chars else text[: most_chars - 1] + "…"


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise MalformedBody(
            f"the name {shown(twice)} appears twice in one object", hint="Give every name once."
        )
    return members


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"{shown(digits)} is beyond the largest number")
    return number


def _not_a_number(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number")
