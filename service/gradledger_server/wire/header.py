"""The header of a safetensors body: from its JSON text to a table of placements, and back.

The text is read by the grammar below and not by a general JSON parser. Nothing but tensors can be written in
it, so nothing but tensors can cost memory or depth. wire/safetensors.py has the format.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType

import orjson

from gradledger_server.dtypes import ITEM_BYTES
from gradledger_server.entries import Placement
from gradledger_server.errors import InvalidName, MalformedBody, WrongShape
from gradledger_server.wire import strict

Shaped = tuple[str, str, tuple[int, ...]]  # name, dtype, shape
Table = MappingProxyType[str, Placement]

RANK_MAX = 32
NAME_CHARS_MAX = 2048
NAME_TOKEN_BYTES_MAX = 12 * NAME_CHARS_MAX + 2  # every character an escaped surrogate pair, and the quotes
METADATA_BYTES_MAX = 256 << 10
TENSOR_BYTES_MAX = 2**63 - 1
METADATA = "__metadata__"

# Possessive (*+ ?+ ++): what was read is never given back, so time and memory are linear in the text.
_RULES = {b"_": rb"[ \t\n\r]*+"}
_RULES[b"string"] = rb'"[^"\\\x00-\x1f]*+(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\x00-\x1f]*+)*+"'
_RULES[b"whole"] = rb"(?:0|[1-9][0-9]{0,18}+)"
_RULES[b"wholes"] = rb"\[%(_)s(?:%(whole)s%(_)s(?:,%(_)s%(whole)s%(_)s)*+)?+\]" % _RULES
_RULES[b"next"] = rb'%(_)s(?:,%(_)s(?=")|(?=\}))' % _RULES  # on to another member, or the end of the object
_RULES[b"field"] = (
    rb'(?:"dtype"%(_)s:%(_)s"(?P<dtype>[A-Z0-9_]++)"'
    rb'|"shape"%(_)s:%(_)s(?P<shape>%(wholes)s)'
    rb'|"data_offsets"%(_)s:%(_)s(?P<offsets>%(wholes)s))%(next)s'
) % _RULES

_OPEN = re.compile(rb"\{%(_)s" % _RULES)
_NAME = re.compile(rb"(%(string)s)%(_)s:%(_)s" % _RULES)
_TENSOR = re.compile(rb"\{%(_)s(?:%(field)s){3}\}%(next)s" % _RULES)
_METADATA = re.compile(rb"(\{%(_)s(?:%(string)s%(_)s:%(_)s%(string)s%(next)s)*+\})%(next)s" % _RULES)
_CLOSE = re.compile(rb"\}%(_)s\Z" % _RULES)

# A fixed set, not the Unicode tables of the Python at hand: a log must read the same everywhere.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def parse(text: bytes, tensors_max: int) -> Table:
    """The placements in wire order, laid back to back from 0. Raises MalformedBody."""
    places: dict[str, Placement] = {}
    metadata_seen = False
    at = _read(_OPEN, text, 0, "{").end()
    while text[at : at + 1] != b"}":
        named = _read(_NAME, text, at, 'a member "name": {…}')
        name, at = _name(named[1]), named.end()
        if name in places or (metadata_seen and name == METADATA):
            raise _wrong(name, "is there twice", "every name once")
        if name == METADATA:
            metadata_seen, at = True, _skip_metadata(text, at)
        elif len(places) == tensors_max:
            raise _wrong(name, f"is tensor number {tensors_max + 1}", f"at most {tensors_max} in one body")
        else:
            places[name], at = _placement(name, text, at)
    _read(_CLOSE, text, at, "nothing but spaces behind the last brace")
    return _laid_out(places)


def render(tensors: Iterable[Shaped]) -> bytes:
    """The JSON text that places `tensors` back to back in this order. Raises as `table_of`."""
    return orjson.dumps(
        {
            name: {"dtype": place.dtype, "shape": place.shape, "data_offsets": (place.start, place.stop)}
            for name, place in table_of(tensors).items()
        }
    )


def table_of(tensors: Iterable[Shaped]) -> Table:
    """The table a reader makes of `render(tensors)`.

    Raises InvalidName, WrongShape, and KeyError for a dtype that is none.
    """
    places: dict[str, Placement] = {}
    start = 0
    for name, dtype, shape in tensors:
        objection = "is there twice" if name in places else _objection(name)
        if objection:
            raise InvalidName(f"tensor {strict.shown(name)} {objection}")
        nbytes = _byte_count(dtype, shape)
        if nbytes is None or len(shape) > RANK_MAX:
            raise WrongShape(f"tensor {strict.shown(name)} has shape {strict.shown(list(shape))}: too large")
        places[name] = Placement(dtype, tuple(shape), start, start + nbytes)
        start += nbytes
    return MappingProxyType(places)


def _read(rule: re.Pattern[bytes], text: bytes, at: int, expected: str) -> re.Match[bytes]:
    found = rule.match(text, at)
    if found is None:
        raise MalformedBody(
            f"at byte {at} the safetensors header has {_quoted(text, at)}; expected {expected}",
            hint=_HINT,
            byte=at,
        )
    return found


def _name(token: bytes) -> str:
    if len(token) > NAME_TOKEN_BYTES_MAX:
        raise MalformedBody(
            f"the name {_quoted(token, 0)} has {len(token)} bytes; "
            f"expected at most {NAME_CHARS_MAX} characters",
            hint=_HINT,
        )
    try:
        name: str = orjson.loads(token)
    except ValueError:
        raise MalformedBody(f"the name {_quoted(token, 0)} is not UTF-8 text", hint=_HINT) from None
    if name != METADATA and (objection := _objection(name)):
        raise _wrong(name, objection, f"1 to {NAME_CHARS_MAX} characters, none of them a control character")
    return name


def _objection(name: str) -> str | None:
    """Why this cannot be a tensor's name; None if it can."""
    if name == METADATA:
        return "is the format's own word"
    if not 1 <= len(name) <= NAME_CHARS_MAX:
        return f"has a name of {len(name)} characters"
    return "has a control character in its name" if _CONTROL.search(name) else None


def _skip_metadata(text: bytes, at: int) -> int:
    """Metadata means nothing here, but it must be what the format says: strings by name."""
    found = _read(_METADATA, text, at, '__metadata__ as {"name": "text", …}')
    if len(found[1]) > METADATA_BYTES_MAX:
        raise _wrong(METADATA, f"has {len(found[1])} bytes", f"at most {METADATA_BYTES_MAX}")
    strict.loads(found[1], "__metadata__")
    return found.end()


def _placement(name: str, text: bytes, at: int) -> tuple[Placement, int]:
    found = _TENSOR.match(text, at)
    if found is None or not (found["dtype"] and found["shape"] and found["offsets"]):
        raise _wrong(
            name,
            f"is written as {_quoted(text, at)}",
            '{"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, each once, whole and below 10^19',
        )
    dtype = found["dtype"].decode()
    if dtype not in ITEM_BYTES:
        raise _wrong(name, f"has dtype {strict.shown(dtype)}", f"one of {' '.join(ITEM_BYTES)}")
    shape = _wholes(name, "dimensions", found["shape"], RANK_MAX)
    offsets = _wholes(name, "data_offsets", found["offsets"], 2)
    nbytes = _byte_count(dtype, shape)
    if nbytes is None:
        raise _wrong(name, f"has shape {strict.shown(list(shape))}", f"at most {TENSOR_BYTES_MAX} bytes")
    if len(offsets) != 2 or offsets[1] - offsets[0] != nbytes:
        raise _wrong(
            name,
            f"has data_offsets {list(offsets)}",
            f"a start and a stop {nbytes} bytes later, as {dtype} of shape {strict.shown(list(shape))} needs",
        )
    return Placement(dtype, shape, *offsets), found.end()


def _wholes(name: str, what: str, listed: bytes, most: int) -> tuple[int, ...]:
    inner = listed[1:-1]
    if inner.count(b",") >= most:
        raise _wrong(name, f"has {inner.count(b',') + 1} {what}", f"at most {most}")
    return tuple(map(int, inner.split(b","))) if inner.strip() else ()


def _byte_count(dtype: str, shape: Iterable[int]) -> int | None:
    """The bytes of a tensor; None if its extents multiply beyond any memory, even where one of them is 0."""
    nbytes, empty = ITEM_BYTES[dtype], False
    for extent in shape:
        nbytes *= max(extent, 1)
        empty = empty or extent == 0
        if nbytes > TENSOR_BYTES_MAX:
            return None
    return 0 if empty else nbytes


def _laid_out(places: Mapping[str, Placement]) -> Table:
    """Wire order, once sure that the tensors leave no hole and share no byte."""
    ordered = sorted(places.items(), key=lambda item: (item[1].start, item[1].stop))
    end = 0
    for name, place in ordered:
        if place.start != end:
            fault = "leaves a hole" if place.start > end else "overlaps the tensor before it"
            raise _wrong(name, f"starts at byte {place.start} and {fault}", f"a start at byte {end}")
        end = place.stop
    return MappingProxyType(dict(ordered))


_HINT = "Write the body with a safetensors library; its tensors' bytes follow one another without gaps."


def _wrong(name: str, got: str, expected: str) -> MalformedBody:
    shown = strict.shown(name)
    return MalformedBody(
        f"tensor {shown} {got}; expected {expected}", hint=_HINT, tensor=name[:NAME_CHARS_MAX]
    )


def _quoted(text: bytes, at: int) -> str:
    return strict.shown(text[at : at + 100].decode("utf-8", "replace")) if at < len(text) else "its end"
