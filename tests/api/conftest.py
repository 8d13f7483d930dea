"""A model of the test's own on the shared service."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

import pytest

from tests.api.here import Here, prepared
from tests.api.talk import Model
from tests.service import Service

_numbers = itertools.count(1)


@pytest.fixture
def new(service: Service, request: pytest.FixtureRequest) -> Model:
    """A name nobody used, for a model not yet created."""
    name = re.sub(r"[^A-Za-z0-9]+", "-", request.node.name.removeprefix("test_"))[:60].strip("-")
    return Model(service, f"{name}.{next(_numbers)}")


@pytest.fixture
def model(new: Model) -> Model:
    """SGD with learning rate 1: `w` 2×2 in F32, zeros, and `b` in F64, [1, 2, 3]."""
    return new.create({"w": [[0.0, 0.0], [0.0, 0.0]], "b": {"values": [1.0, 2.0, 3.0], "dtype": "F64"}})


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Here]:
    """A service in this very process."""
    with Here(tmp_path_factory.mktemp("here")) as running:
        yield running


@pytest.fixture
def ready(here: Here, new: Model) -> Model:
    """A model whose latest parameters are known without asking."""
    return prepared(here, new.name)
