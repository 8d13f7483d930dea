"""Workers of an outer loop on a real service, with connections that break when told to."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from examples.diloco.relay import Relay
from gradledger import Client
from gradledger.diloco import fragment
from tests.service import Service

_numbers = itertools.count(1)


class Cutting(Relay):
    """A relay that loses what it is told to lose: "requests" or "answers", until told otherwise."""

    losing: str | None = None

    def passes(self, upwards: bool) -> bool:
        return self.losing != ("requests" if upwards else "answers")


@pytest.fixture
def running(service: Service) -> Iterator[Client]:
    with Client(service.url) as client:
        yield client


@pytest.fixture
def cutting(service: Service) -> Iterator[Cutting]:
    with Cutting(service.url) as relay:
        yield relay


@pytest.fixture
def far(cutting: Cutting, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """A client behind the cutting relay, which gives up soon."""
    monkeypatch.setattr(fragment, "WAIT_S", 1.0)
    with Client(cutting.url, timeout_s=5, retry_for_s=0.2) as client:
        yield client


@pytest.fixture
def name() -> str:
    """The name of a model that nobody has."""
    return f"diloco.{next(_numbers)}"
