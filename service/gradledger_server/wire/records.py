"""Entries as records of the log, and back: `from_record(to_record(entry))` is the entry.

The facts become canonical JSON (sorted names, no spaces), {"kind": "push", "v": 1, …}; the tensors stay the
safetensors body that arrived.

    kind        facts, besides v and kind                                           payload
    create      at_ms digest spec                                                   tensors if any
    upload      at_ms digest                                                        tensors
    push        at_ms base digest durability grad_norm key sequence weight worker
                zeroed                                                              tensors
    metric      at_ms durability key sequence value worker                          none
    configure   at_ms spec                                                          none
    join        at_ms worker                                                        none
    leave       at_ms reason worker                                                 none
    close       at_ms reason round                                                  none
    quarantine  at_ms begins worker                                                 none
    delete      at_ms                                                               none
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from gradledger_server.entries import (
    Close,
    Configure,
    Create,
    Delete,
    Entry,
    Join,
    Json,
    Leave,
    Metric,
    Push,
    Quarantine,
    Record,
    Tensors,
    Upload,
)
from gradledger_server.errors import MalformedBody, MalformedRecord
from gradledger_server.wire import safetensors, strict
from gradledger_server.wire.digest import digest

VERSION = 1

Check = Callable[[Any], Any]  # what a fact must be: returns it, or raises ValueError


def _text(value: Any) -> str:
    if type(value) is not str:
        raise ValueError("a text")
    return value


def _whole(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**63:
        raise ValueError("a whole number from 0")
    return value


def _real(value: Any) -> float:
    if value in ("inf", "-inf", "nan"):  # JSON has no numbers for these
        return float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("a number")
    return float(value)


def _truth(value: Any) -> bool:
    if type(value) is not bool:
        raise ValueError("true or false")
    return value


def _object(value: Any) -> Json:
    if not isinstance(value, Mapping):
        raise ValueError("an object")
    return value


def _maybe(check: Check) -> Check:
    return lambda value: None if value is None else check(value)


_KINDS: Mapping[str, tuple[type[Any], Mapping[str, Check]]] = {
    "create": (Create, {"spec": _object, "digest": _maybe(_text), "at_ms": _whole}),
    "upload": (Upload, {"digest": _text, "at_ms": _whole}),
    "push": (
        Push,
        {
            "digest": _text,
            "worker": _maybe(_text),
            "sequence": _maybe(_whole),
            "key": _maybe(_text),
            "base": _maybe(_whole),
            "weight": _real,
            "grad_norm": _real,
            "durability": _text,
            "at_ms": _whole,
            "zeroed": _whole,
        },
    ),
    "metric": (
        Metric,
        {
            "value": _real,
            "worker": _maybe(_text),
            "sequence": _maybe(_whole),
            "key": _maybe(_text),
            "durability": _text,
            "at_ms": _whole,
        },
    ),
    "configure": (Configure, {"spec": _object, "at_ms": _whole}),
    "join": (Join, {"worker": _text, "at_ms": _whole}),
    "leave": (Leave, {"worker": _text, "reason": _text, "at_ms": _whole}),
    "close": (Close, {"round": _whole, "reason": _text, "at_ms": _whole}),
    "quarantine": (Quarantine, {"worker": _text, "begins": _truth, "at_ms": _whole}),
    "delete": (Delete, {"at_ms": _whole}),
}
_KIND_OF = {entry: kind for kind, (entry, _) in _KINDS.items()}


def to_record(entry: Entry) -> Record:
    """The entry as the log keeps it. Raises MalformedRecord for facts that would not read back the same."""
    kind = _KIND_OF[type(entry)]
    _, checks = _KINDS[kind]
    facts = _checked(kind, checks, {name: getattr(entry, name) for name in checks})
    written = {name: _written(fact) if type(fact) is float else fact for name, fact in facts.items()}
    meta = to_json({"v": VERSION, "kind": kind, **written})
    if "spec" in facts and from_json(meta)["spec"] != facts["spec"]:
        raise MalformedRecord(f"the spec of a {kind} is not plain JSON: it would not read back the same")
    tensors: Tensors | None = getattr(entry, "tensors", None)
    if (tensors is None) != (facts.get("digest") is None):
        raise MalformedRecord(f"a {kind} has tensors without a digest, or a digest without tensors")
    return Record(meta, memoryview(b"") if tensors is None else tensors.payload)


def push_record(push: Push) -> Record:
    """What `to_record` makes of a push that was checked when it arrived, at a fraction of its time."""
    facts = {
        "at_ms": push.at_ms,
        "base": push.base,
        "digest": push.digest,
        "durability": push.durability,
        "grad_norm": _written(push.grad_norm),
        "key": push.key,
        "kind": "push",
        "sequence": push.sequence,
        "v": VERSION,
        "weight": _written(push.weight),
        "worker": push.worker,
        "zeroed": push.zeroed,
    }
    return Record(orjson.dumps(facts), push.tensors.payload)


def from_record(record: Record) -> Entry:
    """The entry a record holds; its tensors are views of the record's payload.

    Raises MalformedRecord unless the facts are ones that `to_record` writes and the payload fits its digest.
    """
    meta = dict(from_json(record.meta))
    version, kind = meta.pop("v", None), meta.pop("kind", None)
    if version != VERSION or type(kind) is not str or kind not in _KINDS:
        raise MalformedRecord(
            f"a record has version {version!r:.80} and kind {kind!r:.80}; "
            f"expected {VERSION} and one of {', '.join(_KINDS)}"
        )
    entry, checks = _KINDS[kind]
    if meta.keys() != checks.keys():
        raise MalformedRecord(f"a {kind} has the facts {sorted(meta)}; expected {sorted(checks)}")
    facts = _checked(kind, checks, meta)
    tensors = _tensors(kind, record.payload, facts.get("digest"))
    if "digest" in checks:
        facts["tensors"] = tensors
    made: Entry = entry(**facts)
    return made


def to_json(facts: Json) -> bytes:
    """Canonical JSON: sorted names, no spaces, floats that read back exactly; NaN becomes null.

    Raises MalformedRecord for what JSON has no form for.
    """
    try:
        return orjson.dumps(facts, default=_mapping, option=orjson.OPT_SORT_KEYS)
    except TypeError as error:
        raise MalformedRecord(f"facts without a JSON form: {error}") from None


def from_json(text: bytes) -> Json:
    """The object `to_json` wrote, in any spelling: another release may write floats otherwise.

    Raises MalformedRecord if it is no object, or names a fact twice.
    """
    try:
        facts = strict.loads(text, "a record's facts")
    except MalformedBody as error:
        raise MalformedRecord(error.detail) from None
    if not isinstance(facts, dict):
        raise MalformedRecord(f"a record's facts are {strict.shown(facts)}; expected an object")
    return facts


def _mapping(value: object) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


def _checked(kind: str, checks: Mapping[str, Check], facts: Mapping[str, Any]) -> dict[str, Any]:
    checked = {}
    for name, check in checks.items():
        try:
            checked[name] = check(facts[name])
        except ValueError as expected:
            raise MalformedRecord(f"{name} of a {kind} is {facts[name]!r:.80}; expected {expected}") from None
    return checked


def _written(fact: Any) -> Any:
    return repr(fact) if isinstance(fact, float) and not math.isfinite(fact) else fact


def _tensors(kind: str, payload: memoryview, expected: str | None) -> Tensors | None:
    if expected is None:
        if payload.nbytes:
            raise MalformedRecord(f"a {kind} without tensors has {payload.nbytes} bytes of payload")
        return None
    if (got := digest(payload)) != expected:
        raise MalformedRecord(f"the payload of a {kind} has digest {got}; its facts say {expected}")
    try:
        return safetensors.decode(payload, safetensors.OWN)
    except MalformedBody as error:
        raise MalformedRecord(f"the payload of a {kind} cannot be read: {error.detail}") from None
