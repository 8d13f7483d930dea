"""One gradient followed through all six stops, with the bytes that are really there at each."""

from __future__ import annotations

import hashlib
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, save

from gradledger_server.blocks import Blocks
from gradledger_server.entries import Create, Push
from gradledger_server.machine.apply import apply, begin
from gradledger_server.replica import Sender
from gradledger_server.replica.draft import draft
from gradledger_server.store import Embedded, RedisStore
from gradledger_server.wire import records, safetensors
from gradledger_server.wire.digest import digest
from tests.replica.world import NUMPY
from tests.service import SAFETENSORS, Service

STOPS = {
    "1/6 HTTP": "api.gradients",
    "2/6 decode": "replica.draft",
    "3/6 log": "store.log",
    "4/6 apply": "machine.apply",
    "5/6 snapshot": "store.snapshots",
    "6/6 respond": "api.responses",
}

W = np.array([[1.0, -2.0], [0.5, 4.0]], np.float32)
G = np.array([[0.25, 1.0], [-3.0, 0.125]], np.float32)
AFTER = W - np.float32(0.1) * G


@pytest.mark.parametrize(("stop", "module"), STOPS.items(), ids=STOPS.values())
def test_the_docstring_opens_with_its_stop(stop: str, module: str) -> None:
    assert (import_module(f"gradledger_server.{module}").__doc__ or "").startswith(f"{stop}: ")


def test_one_gradient_through_every_stop(tmp_path: Path) -> None:
    body = save({"w": G})
    with (
        Embedded(tmp_path / "valkey", "fsync") as server,
        Service(
            tmp_path / "service", "--redis-url", server.url, GRADLEDGER_SNAPSHOT_QUIET_S="3600"
        ) as service,
    ):
        store = RedisStore(server.url)
        asked = {"optimizer": {"rule": "sgd", "lr": 0.1}, "parameters": {"w": W.tolist()}}
        assert service.request("PUT", "/v1/models/m", asked).status == 201
        epoch = store.find("m")
        assert epoch is not None

        # 1/6 HTTP: a request becomes a Push.
        answer = service.request(
            "POST", "/v1/models/m/gradients?worker=w0&sequence=1&base=0", body, Content_Type=SAFETENSORS
        )
        assert answer.status == 200

        # 3/6 log: what is durable is the very body that was sent, and the facts beside it.
        create, pushed = store.read(epoch, 0)
        assert bytes(pushed.record.payload) == body
        chain = hashlib.sha1(create.chain.encode() + pushed.record.meta, usedforsecurity=False)
        assert pushed.chain == chain.hexdigest()
        entry = records.from_record(pushed.record)
        assert isinstance(entry, Push)
        assert (entry.worker, entry.sequence, entry.base, entry.digest) == ("w0", 1, 0, digest(body))
        assert entry.durability == "fsync"

        # 2/6 decode: tensors are views of those bytes; what was measured is what the entry says.
        origin = records.from_record(create.record)
        assert isinstance(origin, Create)
        model = begin(origin, NUMPY, Blocks())
        tensors = safetensors.decode(pushed.record.payload)
        assert np.shares_memory(
            np.frombuffer(tensors["w"], np.uint8), np.frombuffer(pushed.record.payload, np.uint8)
        )
        again = draft(
            tensors,
            Sender("w0", 1, base=0),
            model.layout,
            device=NUMPY,
            blocks=Blocks(),
            durability="fsync",
            at_ms=entry.at_ms,
        )
        assert again.record.meta == pushed.record.meta
        assert entry.grad_norm == pytest.approx(np.linalg.norm(G.astype(np.float64)), rel=1e-15)

        # 4/6 apply: the Push becomes an update.
        receipt = apply(model, pushed.offset, entry)
        assert receipt is not None
        assert bytes(model.weights.publish()) == AFTER.tobytes()

        # 6/6 respond: the update becomes an answer, a header and the very bytes of the weights.
        assert answer.data.endswith(AFTER.tobytes())
        assert load(answer.data)["w"].tobytes() == AFTER.tobytes()
        assert answer.headers["etag"] == f'"{epoch}.1"'
        told = answer.receipt
        assert (told["offset"], told["step"], told["staleness"], told["lr"]) == (pushed.offset, 1, 0, 0.1)
        assert (told["grad_norm"], told["durability"], told["replayed"]) == (
            receipt.grad_norm,
            "fsync",
            False,
        )

        # 5/6 snapshot: an orderly stop saves what it holds; the entries before it leave the log.
        assert store.load(epoch) is None
        assert service.stop() == 0
        snapshot = store.load(epoch)
        assert snapshot is not None
        assert (snapshot.offset, snapshot.chain) == (pushed.offset, pushed.chain)
        (saved,) = snapshot.parts
        assert load(bytes(saved))["param/w"].tobytes() == AFTER.tobytes()
        head = store.head(epoch)
        assert head is not None
        assert (head.offset, head.saved, store.read(epoch, pushed.offset)) == (
            pushed.offset,
            pushed.offset,
            [],
        )
        store.close()
