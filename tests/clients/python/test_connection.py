"""Small requests leave in one packet, large bodies as they are."""

from __future__ import annotations

from threading import get_ident

import numpy as np
import pytest

from gradledger import Client
from gradledger.connection import JOINED_BYTES, Connection
from tests.service import Service


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The bytes of each packet."""
    packets: list[int] = []
    ours = get_ident()
    put, ours = Connection.put, get_ident()

    def noting(connection: Connection, packet: bytes | memoryview) -> None:
        if get_ident() == ours:  # other tests' clients may still be at work in threads of their own
            packets.append(len(packet))
        put(connection, packet)

    monkeypatch.setattr(Connection, "put", noting)
    return packets


def test_a_small_push_is_one_packet_and_so_is_a_question(service: Service, sent: list[int]) -> None:
    with Client(service.url) as client:
        grads = {"w": np.ones(1024, np.float32)}
        model = client.create("one-packet", grads, "sgd")
        sent.clear()
        model.push(grads)
        assert len(sent) == 1
        assert sent[0] > grads["w"].nbytes
        sent.clear()
        assert model.describe()["step"] == 1
        assert len(sent) == 1
        model.delete()


def test_a_large_body_is_sent_behind_its_head(service: Service, sent: list[int]) -> None:
    with Client(service.url) as client:
        grads = {"w": np.ones(JOINED_BYTES, np.float32)}
        model = client.create("many-packets", grads, "sgd")
        sent.clear()
        params, _ = model.push(grads)
        assert sent[0] < 2000, "both heads, HTTP's and the body's"
        assert sent[1:] == [grads["w"].nbytes]
        assert np.all(params["w"] < 1.0)
        model.delete()
