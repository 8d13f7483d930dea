"""Specs drawn from the registries with nonsense somewhere in them: taken whole or refused by field."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

from gradledger_server.optim.catalog import RULES
from tests.api.talk import Json, Model
from tests.machine import lives

NONSENSE: list[Any] = [
    *(None, True, "", "x", "1", -1, 0, 0.5, 1e300, 2**53 + 1, 10**400, 1e-320),
    *([], [1], [[[]]], {}, {"a": 1}, {"": {}}, {"name": "x"}, {"rule": "adam"}, "\0", "é" * 300),
    {"name": "sequence", "schedules": [{}], "boundaries": [1]},
]
ECHOED = ("optimizer", "schedule", "transforms", "groups", "sync", "parameters")
SPECS, CHANGES = 150, 80


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every member and item."""
    members = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, member in members:
        yield (*path, key)
        yield from places(member, (*path, key))


def spoilt(spec: Json, draw: random.Random) -> Json:
    """The spec with something else in one place."""
    changed: Any = copy.deepcopy(spec)
    *above, last = draw.choice([*places(changed)])
    within = changed
    for key in above:
        within = within[key]
    within[last] = draw.choice(NONSENSE)
    return dict(changed)


def test_a_spoilt_spec_makes_a_model_or_a_problem_that_names_the_field(new: Model) -> None:
    draw, made = random.Random(3), 0
    for _ in range(SPECS):
        asked = spoilt(dict(lives.wanted(draw.choice([*RULES]), draw).json), draw)
        answer = new.send("PUT", "", asked)
        if answer.status == 201:
            made += 1
            echoed = {name: answer.json[name] for name in ECHOED}
            again = Model(new.service, f"{new.name}.again")
            repeated = again.send("PUT", "", echoed)
            assert repeated.status == 201, (echoed, repeated)
            assert {name: repeated.json[name] for name in ECHOED} == echoed
            assert (new.send("DELETE").status, again.send("DELETE").status) == (204, 204)
            continue
        assert answer.status in (400, 422), (json.dumps(asked), answer)
        assert answer.problem != "invalid-spec" or "field" in answer.json, (asked, answer)
        assert new.send("GET").status == 404, "a refusal leaves no trace"
    assert 0 < made < SPECS / 2, "some nonsense is none, most is"


def test_a_spoilt_change_leaves_the_model_as_it_was(new: Model) -> None:
    new.create(
        {"w": [1.0], "b": [1.0]},
        {"rule": "rmsprop"},
        schedule={"name": "plateau"},
        transforms={"ema": {}, "clip_value": {"limit": 1}},
        groups=[{"match": "b*", "optimizer": {"rule": "lamb"}}],
    )
    draw, described = random.Random(4), new.describe()
    whole = {name: described[name] for name in ("optimizer", "schedule", "transforms", "groups")}
    for _ in range(CHANGES):
        before = new.describe()
        answer = new.send("PATCH", "", spoilt(whole, draw))
        if answer.status != 200:
            assert answer.status in (400, 422), answer
            assert {**new.describe(), "saved_offset": 0} == {**before, "saved_offset": 0}
