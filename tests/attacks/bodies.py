"""Bodies that must be refused, each with words its problem's detail must hold. README.md says why.

Used twice: on the decoder (tests/wire) and on a real service over HTTP, where the largest are already
refused for their length.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Attack:
    """A hostile body; a refusal's detail contains `expect`."""

    name: str
    body: bytes
    expect: str


def body(header: bytes | str | dict[str, Any], data: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors body, right or wrong: `length` is the header's length it claims."""
    if isinstance(header, dict):
        header = json.dumps(header)
    if isinstance(header, str):
        header = header.encode()
    return (len(header) if length is None else length).to_bytes(8, "little") + header + data


def tensor(
    start: Any = 0, stop: Any = 4, shape: Any = (1,), dtype: Any = "F32", **others: Any
) -> dict[str, Any]:
    """A header's member; by default one float32 at the start of the data."""
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop], **others}


ONE = b"\0\0\x80\x3f"
GOOD = body({"w": tensor()}, ONE)
W = json.dumps(tensor())


def _lengths() -> Iterator[Attack]:
    yield Attack("no body at all", b"", "has 0 bytes")
    yield Attack("less than a length", GOOD[:7], "has 7 bytes")
    yield Attack("header of length 0", body(b"", ONE), "length is 0")
    yield Attack("header longer than the body", body({"w": tensor()}, ONE, length=10_000), "length is 10000")
    yield Attack("header of 2^64 - 1 bytes", body({"w": tensor()}, ONE, length=2**64 - 1), str(2**64 - 1))
    yield Attack("header beyond the limit", body(b"{}" + b" " * (4 << 20)), "at most 4194304")
    yield Attack("body cut in the header", GOOD[:40], "length is")
    yield Attack("body cut in the data", GOOD[:-1], "which has 3 bytes")
    yield Attack("bytes behind the data", GOOD + b"\0", "1 bytes follow the last tensor")
    yield Attack("data without tensors", body("{}", ONE), "4 bytes follow the last tensor")


def _text() -> Iterator[Attack]:
    yield Attack("not JSON", body("hello, world", ONE), "expected {")
    yield Attack("a JSON list", body("[]"), "expected {")
    yield Attack("a space before the brace", body(" {}"), "expected {")
    yield Attack("a byte order mark", body(b"\xef\xbb\xbf{}"), "expected {")
    yield Attack("JSON in UTF-16", body(('{"w":' + W + "}").encode("utf-16-le"), ONE), "a member")
    yield Attack("a name that is not UTF-8", body(b'{"\xff":' + W.encode() + b"}", ONE), "UTF-8")
    yield Attack("half a surrogate pair", body('{"\\ud800":' + W + "}", ONE), "UTF-8")
    yield Attack("no end", body('{"w":' + W, ONE), "expected")
    yield Attack("a comma too many", body('{"w":' + W + ",}", ONE), "expected")
    yield Attack("a comma too few", body('{"w":' + W + '"v":' + W + "}", ONE), "expected")
    yield Attack("a second object", body('{"w":' + W + "}{}", ONE), "nothing but spaces")
    yield Attack("a NUL behind the object", body('{"w":' + W + "}\0", ONE), "nothing but spaces")
    yield Attack("a comment", body('{/**/"w":' + W + "}", ONE), "a member")
    yield Attack("lists 100,000 deep", body('{"w":' + "[" * 100_000, ONE), "is written as '[[[[")
    yield Attack("objects 100,000 deep", body('{"a":' * 100_000), "is written as")
    yield Attack("a shape 100,000 deep", body('{"w":{"shape":' + "[" * 100_000), "is written as")
    yield Attack(
        "a shape of a million numbers", body({"w": tensor(shape=[1] * 1_000_000)}, ONE), "dimensions"
    )
    yield Attack("a million empty lists", body('{"w":[' + "[]," * 1_000_000 + "[]]}"), "is written as")
    yield Attack("a million digits", body('{"w":{"shape":[' + "9" * 1_000_000 + "]}}"), "is written as")


def _names() -> Iterator[Attack]:
    yield Attack("a name twice", body('{"w":' + W + ',"w":' + W + "}", ONE), "twice")
    yield Attack("a name twice, once escaped", body('{"w":' + W + ',"\\u0077":' + W + "}", ONE), "twice")
    yield Attack("an empty name", body({"": tensor()}, ONE), "0 characters")
    yield Attack("a name of a million escapes", body('{"' + "\\n" * 1_000_000 + '":1}'), "has 2000002 bytes")
    yield Attack("a control character", body({"w\u0000": tensor()}, ONE), "control character")
    yield Attack("a raw control character", body('{"w\n":' + W + "}", ONE), "a member")
    yield Attack("a name of 3,000 characters", body({"w" * 3000: tensor()}, ONE), "3000 characters")
    yield Attack("a tensor called __metadata__", body({"__metadata__": tensor()}, ONE), "__metadata__")
    yield Attack("metadata that is a text", body({"__metadata__": "x", "w": tensor()}, ONE), "__metadata__")
    yield Attack(
        "metadata with a number", body({"__metadata__": {"a": 1}, "w": tensor()}, ONE), "__metadata__"
    )
    yield Attack("metadata that is null", body({"__metadata__": None, "w": tensor()}, ONE), "__metadata__")
    yield Attack("metadata that nests", body({"__metadata__": {"a": {}}, "w": tensor()}, ONE), "__metadata__")
    meta = '"__metadata__":{"a":"b"}'
    yield Attack("metadata twice", body("{" + meta + "," + meta + "}"), "twice")
    yield Attack("metadata with a name twice", body('{"__metadata__":{"a":"b","a":"c"}}'), "twice")
    yield Attack("metadata not UTF-8", body(b'{"__metadata__":{"a":"\xff"}}'), "__metadata__")
    yield Attack("metadata of a MiB", body({"__metadata__": {"a": "b" * (1 << 20)}}), "at most 262144")


def _fields() -> Iterator[Attack]:
    whole = {"a number": 1, "a list": [], "a text": "F32", "null": None, "nothing": {}}
    for kind, value in whole.items():
        yield Attack(f"a tensor that is {kind}", body({"w": value}, ONE), "'w' is written as")
    yield Attack("a field missing", body({"w": {"dtype": "F32", "shape": [1]}}, ONE), "'w' is written as")
    yield Attack("a field unknown", body({"w": tensor(strides=[1])}, ONE), "'w' is written as")
    twice = '{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}'
    yield Attack("a field twice", body('{"w":' + twice + "}", ONE), "'w' is written as")
    twice = '{"dtype":"F32","dtype":"F32","data_offsets":[0,4]}'
    yield Attack("a field twice, another missing", body('{"w":' + twice + "}", ONE), "'w' is written as")
    for dtype in ("F128", "f32", "", "F4", "__class__", "O"):
        yield Attack(f"dtype {dtype!r}", body({"w": tensor(dtype=dtype)}, ONE), "'w'")
    yield Attack("dtype as a list", body({"w": tensor(dtype=["F32"])}, ONE), "'w' is written as")
    for value in (-1, 1.0, 1e0, True, None, "1", [1], {}):
        yield Attack(f"a shape of {value!r}", body({"w": tensor(shape=[value])}, ONE), "'w' is written as")
        yield Attack(f"an offset of {value!r}", body({"w": tensor(stop=value)}, ONE), "'w' is written as")
    for literal in ("-0", "01", "+1", "1e0", "0x1", "NaN", "1_0", "\u0661"):
        shape = W.replace("[1]", f"[{literal}]")
        yield Attack(f"a shape of {literal}", body('{"w":' + shape + "}", ONE), "'w' is written as")
    yield Attack("a shape that is a number", body({"w": tensor(shape=1)}, ONE), "'w' is written as")
    yield Attack("33 dimensions", body({"w": tensor(shape=[1] * 33)}, ONE), "33 dimensions")


def _places() -> Iterator[Attack]:
    eight = ONE * 2
    yield Attack("one offset", body({"w": {**tensor(), "data_offsets": [4]}}, ONE), "data_offsets [4]")
    yield Attack("no offsets", body({"w": {**tensor(), "data_offsets": []}}, ONE), "data_offsets []")
    yield Attack("three offsets", body({"w": {**tensor(), "data_offsets": [0, 4, 4]}}, ONE), "3 data_offsets")
    yield Attack("offsets the wrong way round", body({"w": tensor(4, 0)}, ONE), "data_offsets [4, 0]")
    yield Attack("a hole at the start", body({"w": tensor(4, 8)}, eight), "leaves a hole")
    yield Attack("a hole between", body({"v": tensor(), "w": tensor(8, 12)}, eight + ONE), "leaves a hole")
    yield Attack("two tensors on the same bytes", body({"v": tensor(), "w": tensor()}, ONE), "overlaps")
    yield Attack("two tensors overlapping", body({"v": tensor(), "w": tensor(2, 6)}, eight), "overlaps")
    yield Attack("a tensor around another", body({"v": tensor(0, 8, [2]), "w": tensor()}, eight), "overlaps")
    yield Attack("an end past the data", body({"w": tensor(0, 8, [2])}, ONE), "which has 4 bytes")
    yield Attack("a start past the data", body({"w": tensor(2**40, 2**40 + 4)}, ONE), "leaves a hole")
    yield Attack("fewer bytes than the shape", body({"w": tensor(shape=[2])}, ONE), "8 bytes later")
    yield Attack("more bytes than the shape", body({"w": tensor(shape=[])} | {}, eight[:5]), "1 bytes follow")
    yield Attack("a scalar of 8 bytes", body({"w": tensor(0, 8, [])}, eight), "4 bytes later")
    yield Attack("offsets past 2^63", body({"w": tensor(2**63, 2**63 + 4)}, ONE), "leaves a hole")
    yield Attack("offsets past 10^19", body({"w": tensor(2**64, 2**64 + 4)}, ONE), "'w' is written as")
    yield Attack("a product of 2^64", body({"w": tensor(0, 0, [2**63, 2])}), "at most 9223372036854775807")
    yield Attack("a product of 2^64 + 4", body({"w": tensor(0, 4, [2**62 + 1])}, ONE), "at most")
    yield Attack("a product of 2^64 beside a 0", body({"w": tensor(0, 0, [0, 2**62, 4])}), "at most")
    yield Attack(
        "32 dimensions of 2^63 and a 0", body({"w": tensor(0, 0, [2**63 - 1] * 31 + [0])}), "at most"
    )
    many = {f"w{i}": tensor(i, i + 1, [1], "U8") for i in range(20_001)}
    yield Attack("20,001 tensors", body(many, bytes(20_001)), "number 20001")
    member = '"w":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},'
    yield Attack("10^5 tensors", body("{" + member * 100_000 + '"x":' + W + "}"), "at most 4194304")


def _scales() -> Iterator[tuple[str, Attack]]:
    """Of a gradient for the one element of `w`: the problem's slug goes with each."""
    whole, scale = tensor(0, 1, dtype="I8"), tensor(1, 5)
    pair = {"w": whole, "w#scale": scale}

    def scaled(by: float) -> bytes:
        return body(pair, b"\x01" + struct.pack("<f", by))

    yield "wrong-scale", Attack("no scale", body({"w": whole}, b"\x01"), "'w#scale' is not in the body")
    yield "wrong-scale", Attack("a scale alone", body({"w#scale": tensor()}, ONE), "'w', which is not in")
    both = {"w": tensor(), "w#scale": tensor(4, 8)}
    yield "wrong-scale", Attack("a scale beside F32", body(both, ONE * 2), "'w', which is F32")
    yield "wrong-scale", Attack("a negative scale", scaled(-1.0), "w#scale[0] is -1.0")
    yield "wrong-scale", Attack("a scale of -0", scaled(-0.0), "w#scale[0] is -0.0")
    yield "wrong-scale", Attack("a scale of -inf", scaled(-math.inf), "w#scale[0] is -inf")
    for value in (math.nan, -math.nan, math.inf):
        sign = math.copysign(1, value)
        yield (
            "non-finite",
            Attack(f"a scale of {value}, sign {sign}", scaled(value), "'w' holds 1 NaN or infinite"),
        )
    huge = body(pair, b"\x7f" + struct.pack("<f", 3e38))
    yield "non-finite", Attack("a product beyond float32", huge, "'w' holds 1 NaN or infinite")
    none = {"w": whole, "w#scale": tensor(1, 1, [0])}
    yield "wrong-shape", Attack("no scale for a block", body(none, b"\x01"), "expected [1]")
    two = {"w": whole, "w#scale": tensor(1, 9, [2])}
    yield "wrong-shape", Attack("two scales for a block", body(two, b"\x01" + ONE * 2), "expected [1]")
    flat = {"w": whole, "w#scale": tensor(1, 5, [])}
    yield "wrong-shape", Attack("a scale of no dimension", body(flat, b"\x01" + ONE), "expected [1]")
    many = {"w": whole, "w#scale": tensor(1, 1, [2**60, 0])}
    yield "wrong-shape", Attack("scales of 2^60 times nothing", body(many, b"\x01"), "expected [1]")
    wide = {"w": whole, "w#scale": tensor(1, 9, dtype="F64")}
    yield "wrong-dtype", Attack("a scale in F64", body(wide, b"\x01" + bytes(8)), "'w#scale' has dtype F64")
    for dtype in ("U8", "BOOL", "F8_E4M3"):
        other = {"w": tensor(0, 1, dtype=dtype), "w#scale": scale}
        yield "wrong-dtype", Attack(f"{dtype} with a scale", body(other, b"\x01" + ONE), f"has dtype {dtype}")
    more = {**pair, "w#scale#scale": tensor(5, 9)}
    yield "unknown-tensor", Attack("scales of scales", body(more, b"\x01" + ONE * 2), "'w#scale#scale'")
    stray = {**pair, "v#scale": tensor(5, 9)}
    yield "unknown-tensor", Attack("scales of nothing", body(stray, b"\x01" + ONE * 2), "'v#scale'")


def _json() -> Iterator[Attack]:
    def push(gradient: str) -> bytes:
        return b'{"gradients":{"w":%s}}' % gradient.encode()

    yield Attack("no body at all", b"", "is empty")
    yield Attack("not JSON", b"hello", "not JSON")
    yield Attack("cut short", push("[1]")[:-1], "not JSON")
    yield Attack("two values", b"{}{}", "not JSON")
    yield Attack("a list", b"[]", "expected a JSON object")
    yield Attack("a text", b'"w"', "expected a JSON object")
    yield Attack("not UTF-8", b'{"\xff":1}', "not JSON")
    yield Attack("UTF-16", '{"w":1}'.encode("utf-16"), "not JSON")
    yield Attack("a byte order mark", b"\xef\xbb\xbf{}", "not JSON")
    yield Attack("half a surrogate pair", b'{"\\ud800":1}', "not JSON")
    yield Attack("a control character", b'{"a\n":1}', "not JSON")
    yield Attack("NaN", push("[NaN]"), "not JSON")
    yield Attack("Infinity", push("[-Infinity]"), "not JSON")
    yield Attack("1e999", push("[1e999]"), "not JSON")
    yield Attack("a million digits", push("[" + "9" * 1_000_000 + "]"), "not JSON")
    yield Attack("single quotes", b"{'w':1}", "not JSON")
    yield Attack("a trailing comma", push("[1,]"), "not JSON")
    yield Attack("a comment", b'{"w":1} // here', "not JSON")
    yield Attack("a name twice", b'{"gradients":{},"gradients":{}}', "'gradients' appears twice")
    yield Attack("a tensor twice", b'{"gradients":{"w":[1],"\\u0077":[2]}}', "'w' appears twice")
    yield Attack("lists 100,000 deep", push("[" * 100_000 + "]" * 100_000), "nested too deep")
    yield Attack("lists 1,020 deep", push("[" * 1020 + "]" * 1020), "nested too deep")
    yield Attack("objects 100,000 deep", b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "nested too deep")


def _values() -> Iterator[tuple[str, object, str]]:
    yield "a text", ["1.5"], "'1.5' at [0]"
    yield "a boolean", [1.0, True], "True at [1]"
    yield "null", [[1.0], [None]], "None at [1, 0]"
    yield "an object", {"a": 1}, "expected a number"
    yield "a text alone", "1.0", "expected a number"
    yield "a ragged list", [[1.0, 2.0], [3.0]], "a list of 1 at [1]"
    yield "a number among lists", [[1.0], 2.0], "2.0 at [1]"
    yield "a list among numbers", [1.0, [2.0]], "[2.0] at [1]"
    yield "a list among empty ones", [[], [1.0]], "a list of 1 at [1]"
    deep: object = 1.0
    for _ in range(33):
        deep = [deep]
    yield "33 dimensions", deep, "dimensions"


ATTACKS: list[Attack] = [*_lengths(), *_text(), *_names(), *_fields(), *_places()]
"""Safetensors bodies."""

SCALE_ATTACKS: list[tuple[str, Attack]] = list(_scales())
"""Bodies of a push that can be read and make no gradient: (slug of the problem, attack)."""

JSON_ATTACKS: list[Attack] = list(_json())
"""JSON bodies of a push that cannot be read at all."""

JSON_VALUES: list[tuple[str, object, str]] = list(_values())
"""What cannot be a tensor in JSON: (name, value, words of the detail)."""
