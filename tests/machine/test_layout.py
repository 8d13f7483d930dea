"""The arenas: what lies where in the block of all parameters."""

from __future__ import annotations

from math import prod

import hypothesis.strategies as st
from hypothesis import given

from gradledger_server.dtypes import ITEM_BYTES
from gradledger_server.machine.layout import Declared, Layout

DECLARED = st.lists(
    st.builds(
        Declared,
        name=st.text("abcdefgh.", min_size=1, max_size=6),
        shape=st.lists(st.integers(0, 4), max_size=3).map(tuple),
        dtype=st.sampled_from(["F32", "F64"]),
        group=st.integers(0, 2),
    ),
    min_size=1,
    max_size=20,
    unique_by=lambda tensor: tensor.name,
)


def test_wider_numbers_come_first_then_groups_then_names() -> None:
    layout = Layout(
        [
            Declared("b", (2,), "F32", 0),
            Declared("a", (3,), "F32", 1),
            Declared("c", (), "F32", 0),
            Declared("z", (1, 5), "F64", 1),
        ]
    )
    assert [name for name, _, _ in layout.signature] == ["z", "b", "c", "a"]
    assert [(arena.dtype, arena.group, arena.size, arena.offset) for arena in layout.arenas] == [
        ("F64", 1, 5, 0),
        ("F32", 0, 3, 40),
        ("F32", 1, 3, 52),
    ]
    assert layout.nbytes == 64
    assert layout.elements == 11
    assert layout.byte_range("c") == (48, 52)


def test_a_scalar_takes_one_element_and_an_empty_tensor_none() -> None:
    layout = Layout([Declared("empty", (0, 7), "F32", 0), Declared("scalar", (), "F32", 0)])
    assert layout.byte_range("empty") == (0, 0)
    assert layout.byte_range("scalar") == (0, 4)


@given(DECLARED)
def test_the_tensors_fill_the_block_exactly_and_aligned(tensors: list[Declared]) -> None:
    layout = Layout(tensors)
    end = 0
    for index, place in enumerate(layout.places):
        start, stop = layout.byte_range(place.tensor.name)
        item = ITEM_BYTES[place.tensor.dtype]
        assert place.index == index
        assert start == end
        assert stop - start == prod(place.tensor.shape) * item
        assert start % item == 0
        end = stop
    assert end == layout.nbytes


@given(DECLARED)
def test_an_arena_holds_one_dtype_and_one_group_and_no_two_arenas_agree(tensors: list[Declared]) -> None:
    layout = Layout(tensors)
    for arena_index, arena in enumerate(layout.arenas):
        for place in layout.places[arena.first : arena.last]:
            assert (place.arena, place.tensor.dtype, place.tensor.group) == (
                arena_index,
                arena.dtype,
                arena.group,
            )
    kinds = [(arena.dtype, arena.group) for arena in layout.arenas]
    assert len(set(kinds)) == len(kinds)


@given(DECLARED, st.randoms(use_true_random=False))
def test_the_order_of_declaration_does_not_matter(tensors: list[Declared], random: object) -> None:
    shuffled = list(tensors)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert Layout(shuffled).signature == Layout(tensors).signature
