"""Pushes too large to arrive in one piece and too small for a thread: they land in place, and go at once."""

from __future__ import annotations

import itertools
import socket
import time
import weakref
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, save

from gradledger_server.api.body import LANDED_BYTES
from gradledger_server.blocks import Block, Blocks
from gradledger_server.replica import SMALL_BYTES
from gradledger_server.store import keys
from tests.api.here import PULSE_S, Here
from tests.api.talk import SGD, Model, answers, say, whole_answer
from tests.api.test_shortcut import pushed
from tests.service import SAFETENSORS, Arrays

ADAM = {"rule": "adam", "lr": 1e-3}
HEADER_BYTES = len(save({"w": np.zeros(1, np.float32)})) - 4 + 8  # of some more digits
SIZES = {
    "one piece": 60 << 10,
    "the largest inside an entry": keys.INLINE_BYTES - HEADER_BYTES & ~3,
    "a chunk": LANDED_BYTES,
    "some pieces": 300 << 10,
    "the largest model": 1 << 20,
}


def noise(nbytes: int, seed: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(seed).standard_normal(nbytes // 4, np.float32)


def sized(here: Here, name: str, nbytes: int, **optimizer: Any) -> Model:
    """A model of one tensor, whose latest parameters the service knows without asking."""
    model = Model(here, name).create({"w": {"shape": [nbytes // 4]}}, optimizer or ADAM)
    values = save({"w": noise(nbytes, 0)})
    assert model.send("PUT", "/parameters", values, Content_Type=SAFETENSORS).status == 200
    assert model.send("GET", "/parameters", Accept=SAFETENSORS).status == 200
    here.at_once.clear()
    here.tasks = 0
    return model


def sequences(model: Model, body: bytes, count: int, worker: str = "w") -> Iterator[bytes]:
    return (pushed(model, body, f"?worker={worker}&sequence={number}") for number in range(1, count + 1))


@pytest.mark.parametrize("nbytes", SIZES.values(), ids=SIZES)
def test_both_ways_lead_to_the_same_state_and_answers(here: Here, new: Model, nbytes: int) -> None:
    heard: list[Any] = []
    for way in ("task", "once"):
        model = sized(here, f"{new.name}.{way}", nbytes)
        here.patient = way == "task"
        try:
            for seed in range(1, 4):
                answer = model.push_bytes({"w": noise(nbytes, seed)}, f"worker=w&sequence={seed}")
                assert answer.status == 200
                heard.append((answer.data, answer.receipt | {"epoch": ""}))
        finally:
            here.patient = False
        assert (here.at_once, here.tasks) == (([True] * 3, 0) if way == "once" else ([False] * 3, 3))
        heard.append({name: array.tobytes() for name, array in model.state().items()})
    assert heard[:4] == heard[4:]


def test_what_is_larger_goes_the_long_way(here: Here, new: Model) -> None:
    model = sized(here, new.name, SMALL_BYTES + 4)
    assert model.push_bytes({"w": noise(SMALL_BYTES + 4, 1)}, "worker=w&sequence=1").status == 200
    assert (here.at_once, here.tasks) == ([], 0)


@pytest.mark.parametrize("cuts", [(1,), (5, 4_000), (100, 70_000, 70_001), range(900, 300_000, 20_011)])
def test_a_body_lands_whole_however_it_is_cut(here: Here, new: Model, cuts: tuple[int, ...]) -> None:
    model, gradient = sized(here, new.name, 300 << 10, **SGD), noise(300 << 10, 1)
    request = pushed(model, save({"w": gradient}), "?worker=w&sequence=1")
    start = request.index(b"\r\n\r\n") + 4
    edges = [0, *(start + cut for cut in cuts), len(request)]
    pieces = [request[first:last] for first, last in itertools.pairwise(edges)]
    status, _, body = say(here, *pieces, pause_s=0.005)
    assert status == 200
    assert np.array_equal(load(body)["w"], noise(300 << 10, 0) - gradient)
    assert (here.at_once, here.tasks) == ([True], 0)


def test_one_behind_the_other_on_one_line_without_waiting(here: Here, new: Model) -> None:
    model, gradient = sized(here, new.name, 200 << 10, **SGD), noise(200 << 10, 1)
    with socket.create_connection(("127.0.0.1", here.port), timeout=10) as line:
        for request in sequences(model, save({"w": gradient}), 8):
            line.sendall(request)
        heard = [load(answer.partition(b"\r\n\r\n")[2])["w"] for answer in answers(line, 8)]
    expected = noise(200 << 10, 0)
    for parameters in heard:
        expected -= gradient
        assert np.array_equal(parameters, expected)


def test_many_at_once_and_each_gets_its_own_answer(here: Here, new: Model) -> None:
    """More than go together, while the Valkey says nothing."""
    model, gradient = sized(here, new.name, 256 << 10, **SGD), noise(256 << 10, 1)
    seen = []
    with ExitStack() as opened:
        address = ("127.0.0.1", here.port)
        lines = [opened.enter_context(socket.create_connection(address, timeout=10)) for _ in range(12)]
        with here.holding():
            for number, line in enumerate(lines):
                line.sendall(pushed(model, save({"w": gradient}), f"?worker=w{number}&sequence=1"))
            time.sleep(PULSE_S)
        for number, line in enumerate(lines):
            (answer,) = answers(line, 1)
            assert b'"worker":"w%d"' % number in answer
            seen.append(answer.partition(b"\r\n\r\n")[2])
    assert len(set(seen)) == 12
    assert model.describe()["step"] == 12
    assert here.at_once == [True] * 12


def test_what_is_refused_leaves_no_trace(here: Here, new: Model) -> None:
    model = sized(here, new.name, 200 << 10)
    spoilt = noise(200 << 10, 1)
    spoilt[77] = np.nan
    bodies: dict[int, Arrays] = {422: {"w": spoilt}, 409: {"w": noise(200 << 10, 1)}}
    with model.untouched():
        for status, body in bodies.items():
            sequence = 1 if status == 422 else 5
            assert model.push_bytes(body, f"worker=w&sequence={sequence}").status == status
        too_much = save({"w": noise(900 << 10, 1)})
        assert model.push_bytes(too_much, "worker=w&sequence=1").status == 422


def test_a_repeat_is_answered_and_not_applied(here: Here, new: Model) -> None:
    model = sized(here, new.name, 200 << 10)
    request = pushed(model, save({"w": noise(200 << 10, 1)}), "?worker=w&sequence=1")
    first, again = whole_answer(here, request), whole_answer(here, request)
    assert b"idempotent-replayed: true" in again
    assert first.partition(b"\r\n\r\n")[2] == again.partition(b"\r\n\r\n")[2]
    assert model.describe()["step"] == 1


@pytest.fixture
def alive(monkeypatch: pytest.MonkeyPatch) -> list[weakref.ref[Block]]:
    """The blocks that were taken."""
    taken: list[weakref.ref[Block]] = []
    take = Blocks.take

    def noting(blocks: Blocks, nbytes: int) -> Block:
        block = take(blocks, nbytes)
        taken.append(weakref.ref(block))
        return block

    monkeypatch.setattr(Blocks, "take", noting)
    return taken


def test_an_idle_line_keeps_no_body(here: Here, new: Model, alive: list[weakref.ref[Block]]) -> None:
    """Nor does one whose client hung up in the middle. What is left is what the model has published."""
    model = sized(here, new.name, 200 << 10)
    body = save({"w": noise(200 << 10, 1)})
    request = pushed(model, body, "?worker=w&sequence=1")
    say(here, request[: len(request) // 2], close=True)
    alive.clear()
    with socket.create_connection(("127.0.0.1", here.port), timeout=10) as line:
        for request in sequences(model, body, 3):
            line.sendall(request)
            answers(line, 1)
        deadline = time.monotonic() + 2  # sooner than anybody who is silent is hung up on
        while sum(block() is not None for block in alive) > 1:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert len(alive) > 3
    assert model.describe()["step"] == 3


def test_rows_of_a_table_go_at_once_too(here: Here, new: Model) -> None:
    """With a task and without, new rows among them, and in any order."""
    table = {"shape": [1000, 64], "rows": "lazy", "init": {"name": "normal", "std": 0.05}}
    heard: list[Any] = []
    for way in ("task", "once"):
        model = Model(here, f"{new.name}.{way}").create({"t": table}, ADAM)
        assert model.send("GET", "/parameters", Accept=SAFETENSORS).status == 200
        here.at_once.clear()
        here.patient = way == "task"
        try:
            for sequence in range(1, 5):
                dice = np.random.default_rng(sequence)
                rows = dice.permutation(1000)[:300]
                gradient: Arrays = {"t#rows": rows, "t": dice.standard_normal((300, 64), np.float32)}
                answer = model.push_bytes(gradient, f"worker=w&sequence={sequence}")
                assert answer.status == 200
                assert load(answer.data)["t#rows"].tolist() == sorted(rows)
                heard.append(answer.data)
        finally:
            here.patient = False
        assert here.at_once == [way == "once"] * 4
        heard.append({name: array.tobytes() for name, array in model.state().items()})
    assert heard[:5] == heard[5:]


def test_a_table_whose_rows_all_move_is_left_to_a_thread(here: Here, new: Model) -> None:
    table = {"shape": [1000, 64], "rows": "dense", "init": {"name": "zeros"}}
    model = Model(here, new.name).create({"t": table}, ADAM)
    assert model.send("GET", "/parameters", Accept=SAFETENSORS).status == 200
    here.at_once.clear()
    gradient: Arrays = {"t#rows": np.arange(10), "t": np.ones((10, 64), np.float32)}
    assert model.push_bytes(gradient, "worker=w&sequence=1").status == 200
    assert here.at_once == [False]
