"""Entries and records: the same entry comes back, and nothing else is read."""

from __future__ import annotations

from dataclasses import fields
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradledger_server.entries import (
    Close,
    Configure,
    Create,
    Delete,
    Entry,
    Join,
    Leave,
    Metric,
    Push,
    Quarantine,
    Record,
    Tensors,
    Upload,
)
from gradledger_server.errors import MalformedRecord
from gradledger_server.wire.digest import digest
from gradledger_server.wire.records import from_json, from_record, push_record, to_json, to_record
from gradledger_server.wire.safetensors import OWN, decode, encode, header
from tests.wire.conftest import Filled, named_tensors

NUMBERS = st.floats(allow_nan=False)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
WHOLES = st.integers(0, 2**63 - 1)
SPECS = st.dictionaries(
    TEXTS,
    st.recursive(
        st.none() | st.booleans() | FINITE | TEXTS | st.integers(-(2**63), 2**63 - 1),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
        max_leaves=8,
    ),
    max_size=4,
)


def _tensors(filled: list[Filled]) -> tuple[Tensors, str]:
    payload = memoryview(b"".join(encode(filled)))
    return decode(payload), digest(payload)


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    tensors, named = _tensors(draw(named_tensors()))
    kind = draw(
        st.sampled_from([Create, Upload, Push, Metric, Configure, Join, Leave, Close, Quarantine, Delete])
    )
    at_ms = draw(WHOLES)
    if kind is Create:
        values: tuple[Any, Any] = draw(st.sampled_from([(None, None), (tensors, named)]))
        return Create(draw(SPECS), *values, at_ms)
    if kind is Upload:
        return Upload(tensors, named, at_ms)
    if kind is Configure:
        return Configure(draw(SPECS), at_ms)
    if kind is Join:
        return Join(draw(TEXTS), at_ms)
    if kind is Leave:
        return Leave(draw(TEXTS), draw(TEXTS), at_ms)
    if kind is Close:
        return Close(draw(WHOLES), draw(TEXTS), at_ms)
    if kind is Quarantine:
        return Quarantine(draw(TEXTS), draw(st.booleans()), at_ms)
    if kind is Delete:
        return Delete(at_ms)
    maybe = st.none() | TEXTS
    whole = st.none() | WHOLES
    if kind is Metric:
        return Metric(draw(FINITE), draw(maybe), draw(whole), draw(maybe), draw(TEXTS), at_ms)
    return Push(
        tensors=tensors,
        digest=named,
        worker=draw(maybe),
        sequence=draw(whole),
        key=draw(maybe),
        base=draw(whole),
        weight=draw(NUMBERS),
        grad_norm=draw(st.floats()),
        durability=draw(TEXTS),
        at_ms=at_ms,
        zeroed=draw(WHOLES),
    )


def facts(entry: Entry) -> dict[str, Any]:
    """All fields, with floats to the bit, and tensors by what they hold."""
    return {
        name: (dict(value.table), bytes(value.payload), bytes(value.data))
        if isinstance(value := getattr(entry, name), Tensors)
        else (value.hex() if isinstance(value, float) else value)
        for name in (entry._fields if isinstance(entry, Push) else [field.name for field in fields(entry)])
    }


@given(entries())
def test_the_entry_comes_back(entry: Entry) -> None:
    record = to_record(entry)
    again = from_record(Record(bytes(record.meta), memoryview(bytes(record.payload))))
    assert type(again) is type(entry)
    assert facts(again) == facts(entry)
    assert to_record(again) == record


@given(entries())
def test_the_short_way_to_a_push_s_record_writes_the_same(entry: Entry) -> None:
    if isinstance(entry, Push):
        assert push_record(entry) == to_record(entry)


def push(**changes: Any) -> Push:
    tensors, named = _tensors([("w", "F32", (1,), memoryview(b"abcd"))])
    made = Push(tensors, named, "w0", 1, None, 0, 1.0, 0.5, "fsync", 17)
    return made._replace(**changes)


def test_the_meta_is_canonical_and_readable() -> None:
    made = push()
    assert to_record(made).meta == (
        b'{"at_ms":17,"base":0,"digest":"%s","durability":"fsync","grad_norm":0.5,"key":null,"kind":"push",'
        b'"sequence":1,"v":1,"weight":1.0,"worker":"w0","zeroed":0}' % made.digest.encode()
    )


def test_tensors_are_views_of_the_payload() -> None:
    made = push()
    record = to_record(made)
    assert record.payload is made.tensors.payload
    again = from_record(record)
    assert isinstance(again, Push)
    assert again.tensors.payload is record.payload
    assert again.tensors.table is made.tensors.table


def test_numpy_numbers_and_mappings_are_written_plain() -> None:
    again = from_record(to_record(push(weight=2, grad_norm=np.float64(0.1))))
    assert isinstance(again, Push)
    assert (type(again.weight), type(again.grad_norm)) == (float, float)
    spec = MappingProxyType({"groups": [MappingProxyType({"lr": 0.1})]})
    assert from_record(to_record(Configure(spec, 1))) == Configure({"groups": [{"lr": 0.1}]}, 1)


@pytest.mark.parametrize(
    "entry",
    [
        Configure({"lr": float("nan")}, 1),
        Configure({"betas": (0.9, 0.999)}, 1),
        Configure({"n": 2**70}, 1),
        Configure({"when": {1, 2}}, 1),
        Configure({"name": "\ud800"}, 1),
        Delete(-1),
        Delete(1.0),  # type: ignore[arg-type]
        push(sequence=True),
        push(worker=b"w0"),
        push(weight="1"),
        push(weight=True),
        push(digest=None),
        Create({}, None, "00", 1),
        Create({}, push().tensors, None, 1),
    ],
)
def test_what_would_not_read_back_is_not_written(entry: Entry) -> None:
    with pytest.raises(MalformedRecord):
        to_record(entry)


@pytest.mark.parametrize("norm", [float("inf"), -0.0, 5e-324, 1.7976931348623157e308, 0.1 + 0.2])
def test_numbers_come_back_to_the_bit(norm: float) -> None:
    again = from_record(to_record(push(grad_norm=norm)))
    assert isinstance(again, Push)
    assert again.grad_norm.hex() == norm.hex()


def edited(**changes: Any) -> bytes:
    """The meta of a push with other facts, canonical all the same."""
    read = {**from_json(to_record(push()).meta), **changes}
    return to_json({name: fact for name, fact in read.items() if fact is not ...})


METAS = {
    "nothing": b"",
    "not JSON": b"{",
    "not an object": b"[]",
    "not UTF-8": b'{"v":"\xff"}',
    "a fact twice": edited().replace(b'"v":1', b'"v":1,"v":1'),
    "a number that is none": edited().replace(b"0.5", b"NaN"),
    "no version": edited(v=...),
    "a later version": edited(v=2),
    "no kind": edited(kind=...),
    "an unknown kind": edited(kind="shove"),
    "a kind that is a list": edited(kind=["push"]),
    "another kind's facts": edited(kind="upload"),
    "a fact missing": edited(base=...),
    "a fact too many": edited(colour="red"),
    "a negative base": edited(base=-1),
    "a base with a point": edited(base=1.0),
    "a sequence that is true": edited(sequence=True),
    "a worker that is a number": edited(worker=7),
    "a weight that is a text": edited(weight="heavy"),
    "no durability": edited(durability=None),
    "another digest": edited(digest="0" * 32),
    "no digest": edited(digest=None),
}


@pytest.mark.parametrize("meta", METAS.values(), ids=list(METAS))
def test_a_meta_we_did_not_write_is_not_read(meta: bytes) -> None:
    payload = to_record(push()).payload
    assert isinstance(from_record(Record(edited(), payload)), Push)
    with pytest.raises(MalformedRecord):
        from_record(Record(meta, payload))


def test_a_payload_that_is_not_the_one_is_not_read() -> None:
    record = to_record(push())
    for payload in (record.payload[:-1], bytes(record.payload) + b"\0", b"", bytes(len(record.payload))):
        with pytest.raises(MalformedRecord, match="digest"):
            from_record(Record(record.meta, memoryview(payload)))
    with pytest.raises(MalformedRecord, match="without tensors"):
        from_record(Record(to_record(Delete(1)).meta, record.payload))
    junk = memoryview(b"junk")
    with pytest.raises(MalformedRecord, match="cannot be read"):
        from_record(Record(edited(digest=digest(junk)), junk))


def test_a_snapshot_may_hold_more_tensors_than_a_request() -> None:
    many = memoryview(header([(f"param/{i}", "U8", (1,)) for i in range(20_001)]) + bytes(20_001))
    entry = Upload(decode(many, limits=OWN), digest(many), 1)
    again = from_record(to_record(entry))
    assert isinstance(again, Upload)
    assert len(again.tensors.table) == 20_001


def test_facts_are_written_in_one_spelling_and_read_in_any() -> None:
    assert to_json({"b": [1, 2.5], "a": MappingProxyType({"x": None})}) == b'{"a":{"x":null},"b":[1,2.5]}'
    for spelling in (b'{"a":1e300,"b":"\xc3\xa9"}', b'{ "b": "\\u00e9", "a": 1.0e+300 }'):
        assert from_json(spelling) == {"a": 1e300, "b": "é"}
