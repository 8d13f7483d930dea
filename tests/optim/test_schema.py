"""The JSON Schema of every setting accepts what the service accepts, and refuses what it refuses."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest

from gradledger_server.errors import InvalidSpec
from gradledger_server.optim import catalog
from gradledger_server.optim.expansion import check
from gradledger_server.optim.hyperparameters import Bounds
from gradledger_server.optim.schedules.catalog import SCHEDULES, settings_of
from gradledger_server.optim.signatures import Hyperparameter, facts_of
from gradledger_server.optim.transforms import TRANSFORMS

DECLARED = {
    **{rule: catalog.rule_facts(rule).hyperparameters for rule in catalog.RULES},
    **{name: settings_of(name) for name in SCHEDULES},
    **{name: facts_of(TRANSFORMS[name]).hyperparameters for name in TRANSFORMS},
}
NONSENSE: list[Any] = [None, True, False, "", "1", "nan", [], [1], {}, {"a": 1}, -1, 0, 0.5, 1, 1.0, 2, 1e300]


def numbers_around(bounds: Bounds) -> Iterator[float]:
    for end in (bounds.low, bounds.high):
        yield from (math.nextafter(end, -math.inf), end, math.nextafter(end, math.inf), end - 1, end + 1)
    yield (bounds.low + min(bounds.high, bounds.low + 1)) / 2


def samples(declared: Hyperparameter) -> Iterator[Any]:
    yield from (*NONSENSE, *declared.choices, json.loads(json.dumps(declared.default)))
    if declared.bounds is not None:
        yield from numbers_around(declared.bounds)
    if (items := declared.items) is not None:
        if items.each is not None:
            yield from ([number] for number in [*numbers_around(items.each), *NONSENSE])
        for count in (items.least - 1, items.least, items.most, items.most + 1):
            # Rising, as JSON Schema cannot ask for.
            yield [{} if items.each is None else items.each.low + step for step in range(1, count + 1)]


@pytest.mark.parametrize("name", DECLARED)
def test_what_the_schema_accepts_is_accepted_and_nothing_else(name: str) -> None:
    for declared in DECLARED[name].values():
        schema = jsonschema.Draft202012Validator(declared.json_schema())
        for value in samples(declared):
            if declared.items is not None and declared.items.each is None and value == [1]:
                continue  # whether it is a schedule is for the reader of schedules to say
            try:
                check(declared, value, where="here")
            except InvalidSpec as refusal:
                assert not schema.is_valid(value), (declared.name, value, refusal)
            else:
                assert schema.is_valid(value), (declared.name, value)
