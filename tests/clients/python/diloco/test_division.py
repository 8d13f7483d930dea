"""The division by bytes: nothing missing, nothing twice, about even, and the same for everybody."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradledger.diloco.division import divide, groups_within, model_name, refuse_idle_groups

SIZES = st.dictionaries(st.text(min_size=1, max_size=5), st.integers(0, 10**9), min_size=1, max_size=40)


@given(SIZES, st.data())
@settings(deadline=None)
def test_every_tensor_is_in_one_part_and_every_part_has_one(
    nbytes: dict[str, int], data: st.DataObject
) -> None:
    count = data.draw(st.integers(1, len(nbytes)))
    parts = divide(nbytes, count)
    assert len(parts) == count and all(parts)
    assert sorted(name for part in parts for name in part) == sorted(nbytes)
    # Graham 1969: whoever gets the last tensor was the lightest before, so no part is heavier than the mean
    # of all by more than its own largest tensor.
    mean = sum(nbytes.values()) / count
    for part in parts:
        smallest = min(nbytes[name] for name in part)
        assert sum(nbytes[name] for name in part) - smallest <= mean


@given(SIZES, st.integers(0, 9), st.data())
@settings(deadline=None)
def test_the_order_of_declaration_plays_no_part(
    nbytes: dict[str, int], seed: int, data: st.DataObject
) -> None:
    count = data.draw(st.integers(1, len(nbytes)))
    names = list(nbytes)
    random.Random(seed).shuffle(names)
    assert divide({name: nbytes[name] for name in names}, count) == divide(nbytes, count)


@given(SIZES.filter(lambda sizes: len(sizes) > 1), st.data())
@settings(deadline=None)
def test_other_numbers_of_parts_never_agree_on_all_they_share(
    nbytes: dict[str, int], data: st.DataObject
) -> None:
    """So whoever divides differently is refused by a model that exists."""
    few = data.draw(st.integers(1, len(nbytes) - 1))
    many = data.draw(st.integers(few + 1, len(nbytes)))
    assert any(a != b for a, b in zip(divide(nbytes, few), divide(nbytes, many), strict=False))


def test_by_hand() -> None:
    nbytes = {"a": 4, "b": 7, "c": 4, "d": 6, "e": 1}
    assert divide(nbytes, 2) == [("b", "c"), ("a", "d", "e")]
    assert [model_name("m", part) for part in range(3)] == ["m", "m.1", "m.2"]


@pytest.mark.parametrize("parts", [0, 3])
def test_a_part_without_tensors_is_refused(parts: int) -> None:
    with pytest.raises(ValueError, match="2 tensors cannot be divided"):
        divide({"a": 1, "b": 1}, parts)


def test_groups_go_where_they_take_a_tensor_and_the_first_match_wins() -> None:
    groups = [{"match": "*.bias"}, {"match": "head.*"}, {"match": "*"}]
    assert groups_within(groups, ["head.bias", "body.bias"]) == [groups[0]]
    assert groups_within(groups, ["head.weight", "body.weight"]) == groups[1:]
    refuse_idle_groups(groups, ["head.bias", "head.weight", "x"])
    with pytest.raises(ValueError, match=r"groups\[1\] matches 'head\.\*'"):
        refuse_idle_groups(groups, ["head.bias", "x"])
