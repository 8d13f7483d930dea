"""Our decoder beside the safetensors library: what we accept, it accepts, and both read the same tensors.

Bodies are damaged at random from one seed. GRADLEDGER_FUZZ_BODIES asks for more than the short slice.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable

from safetensors import SafetensorError

from gradledger_server.dtypes import ITEM_BYTES
from gradledger_server.errors import MalformedBody
from gradledger_server.wire.safetensors import decode
from tests.attacks.bodies import ATTACKS, body, tensor
from tests.wire.conftest import Bits, library_reads

BODIES = int(os.environ.get("GRADLEDGER_FUZZ_BODIES", "8000"))
SEED = 20_261_122

TOKENS = [
    b'"',
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b" ",
    b"\n",
    b"\\",
    b"\\u0061",
    b"\\ud83d\\ude00",
    b"\xff",
    b"\0",
]
TOKENS += [
    b"0",
    b"1",
    b"4",
    b"-0",
    b"-1",
    b"1.0",
    b"1e1",
    b"00",
    b"9223372036854775808",
    b"18446744073709551616",
]
TOKENS += [
    b"null",
    b"true",
    b"NaN",
    b'"F32"',
    b'"U8"',
    b'"dtype"',
    b'"shape"',
    b'"data_offsets"',
    b'"__metadata__"',
]
TOKENS += [
    b'{"a":"b"}',
    b'"w":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}',
    b"[0,0]",
    b'"w"',
    b'"w0"',
    b"[]",
    b"{}",
]

Damage = Callable[[random.Random, bytearray], None]


def sound(luck: random.Random) -> tuple[bytes, bytes]:
    """The header and data of a body that is right, with up to four tensors, in an order of its own."""
    places, data = {}, b""
    for index in range(luck.randrange(5)):
        dtype = luck.choice(list(ITEM_BYTES))
        shape = [luck.randrange(4) for _ in range(luck.randrange(3))]
        count = 1
        for extent in shape:
            count *= extent
        stop = len(data) + count * ITEM_BYTES[dtype]
        places[f"w{index}"] = tensor(len(data), stop, shape, dtype)
        data += luck.randbytes(stop - len(data))
    members = list(places.items())
    luck.shuffle(members)
    if luck.random() < 0.3:
        members.insert(0, ("__metadata__", {"format": "pt"}))
    spaced = luck.choice([(",", ":"), (", ", ": ")])
    return json.dumps(dict(members), separators=spaced).encode() + b" " * luck.randrange(9), data


def flip(luck: random.Random, text: bytearray) -> None:
    text[luck.randrange(len(text))] = luck.randrange(256)


def insert(luck: random.Random, text: bytearray) -> None:
    at = luck.randrange(len(text) + 1)
    text[at:at] = luck.choice(TOKENS)


def remove(luck: random.Random, text: bytearray) -> None:
    at = luck.randrange(len(text))
    del text[at : at + luck.randrange(1, 9)]


def copy(luck: random.Random, text: bytearray) -> None:
    start = luck.randrange(len(text))
    at = luck.randrange(len(text))
    text[at:at] = text[start : start + luck.randrange(1, 60)]


def renumber(luck: random.Random, text: bytearray) -> None:
    digits = [at for at, byte in enumerate(text) if 48 <= byte <= 57]
    if digits:
        text[luck.choice(digits)] = luck.choice(b"0123456789")


def swap(luck: random.Random, text: bytearray) -> None:
    """Exchanges two members' worth of text, where commas allow it."""
    commas = [at for at, byte in enumerate(text) if byte == 44]
    if len(commas) >= 3:
        a, b, c = sorted(luck.sample(commas, 3))
        text[a:c] = text[b:c] + text[a:b]


DAMAGES: list[Damage] = [flip, insert, remove, copy, renumber, renumber, swap]


def damaged(luck: random.Random) -> bytes:
    """A body after up to three damages to its header, and now and then to its length or data."""
    text, data = sound(luck)
    header = bytearray(text)
    for _ in range(luck.randrange(4)):
        if header:
            luck.choice(DAMAGES)(luck, header)
    whole = body(bytes(header), data)
    if luck.random() < 0.1:
        whole = whole[: luck.randrange(len(whole) + 1)]
    if luck.random() < 0.1:
        whole += luck.randbytes(luck.randrange(3))
    if luck.random() < 0.05:
        whole = luck.randrange(len(header) + 12).to_bytes(8, "little") + whole[8:]
    return whole


def ours(attempt: bytes) -> dict[str, Bits] | None:
    try:
        read = decode(memoryview(attempt))
    except MalformedBody:
        return None
    return {name: (place.dtype, place.shape, bytes(read[name])) for name, place in read.table.items()}


def theirs(attempt: bytes) -> dict[str, Bits] | None:
    try:
        return library_reads(attempt)
    except SafetensorError:
        return None


def test_what_we_accept_the_library_reads_alike() -> None:
    luck = random.Random(SEED)
    accepted = stricter = 0
    for _ in range(BODIES):
        attempt = damaged(luck)
        mine = ours(attempt)
        library = theirs(attempt)
        if mine is not None:
            assert mine == library, attempt
            accepted += 1
        elif library is not None:
            stricter += 1
    # Neither a decoder that refuses everything nor damage that never hurts would show anything.
    assert 0.1 * BODIES < accepted < 0.6 * BODIES
    assert stricter < 0.05 * BODIES


def test_the_library_reads_every_body_that_is_sound() -> None:
    luck = random.Random(SEED)
    for _ in range(500):
        attempt = body(*sound(luck))
        assert ours(attempt) == theirs(attempt) is not None


def test_attacks_one_damage_further() -> None:
    luck = random.Random(SEED)
    small = [attack.body for attack in ATTACKS if len(attack.body) < 500]
    for _ in range(2000):
        attempt = bytearray(luck.choice(small))
        if len(attempt) > 8:
            header = attempt[8:]
            luck.choice(DAMAGES)(luck, header)
            attempt[8:] = header
        mine = ours(bytes(attempt))
        assert mine is None or mine == theirs(bytes(attempt)), bytes(attempt)
