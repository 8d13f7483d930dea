"""Many small pushes in one turn of the loop: they go from stop to stop together, and each is itself."""

from __future__ import annotations

import itertools
import re
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, save

from gradledger_server.api.haste import TOGETHER, TOGETHER_BYTES, Haste, Hasty
from gradledger_server.api.shortcut import Shortcut
from gradledger_server.entries import Delete
from gradledger_server.replica import Answer, Mailbox
from gradledger_server.replica.shelf import Shelf
from gradledger_server.store import RedisStore
from gradledger_server.wire.records import to_record
from tests.api.here import PULSE_S, Here
from tests.api.talk import SGD, Model, answers
from tests.api.test_shortcut import GRADIENT, pushed
from tests.replica.world import World
from tests.service import SAFETENSORS


@contextmanager
def lines_to(here: Here, count: int) -> Iterator[Sequence[socket.socket]]:
    with ExitStack() as opened:
        address = ("127.0.0.1", here.port)
        yield [opened.enter_context(socket.create_connection(address, timeout=10)) for _ in range(count)]


@pytest.mark.parametrize("count", [20, 3 * TOGETHER + 1])
def test_many_clients_push_at_once_and_each_gets_its_own_answer(here: Here, ready: Model, count: int) -> None:
    steps = []
    with lines_to(here, count) as lines:
        with here.holding():
            for number, line in enumerate(lines):
                line.sendall(pushed(ready, GRADIENT, f"?worker=w{number}&sequence=1"))
            time.sleep(PULSE_S)
        for number, line in enumerate(lines):
            (answer,) = answers(line, 1)
            assert b'"worker":"w%d"' % number in answer
            steps.append(int(re.findall(rb'"step":(\d+)', answer)[0]))
            body = answer.partition(b"\r\n\r\n")[2]
            assert load(body)["b"].tolist() == [1.0 - steps[-1], 2.0 - steps[-1], 3.0 - steps[-1]]
    assert sorted(steps) == list(range(2, 2 + count))
    assert here.at_once == [True] * count


@pytest.mark.parametrize(
    ("nbytes", "together"),
    [
        ([TOGETHER_BYTES + 1], 1),
        ([TOGETHER_BYTES + 1, 1], 1),
        ([1, TOGETHER_BYTES], 1),
        ([TOGETHER_BYTES // 4] * 5, 4),
        ([1] * (TOGETHER + 1), TOGETHER),
    ],
)
def test_how_many_go_together(nbytes: list[int], together: int) -> None:
    """The others wait for another turn of the loop, and everybody else has one in between."""
    haste = Haste()
    haste._arrived = [SimpleNamespace(nbytes=each) for each in nbytes]  # type: ignore[misc]
    assert haste._count() == together


def test_of_many_at_once_those_that_must_take_the_long_way_do_and_the_others_go(
    here: Here, ready: Model
) -> None:
    """Each is at fault at another stop."""
    faults = {
        "worker=w0&sequence=1&weight=2": GRADIENT,
        "worker=w1&sequence=1": save({"b": np.full(3, np.nan)}),
        "worker=w2&sequence=1": save({"c": np.ones(3)}),
        "worker=w3&sequence=5": GRADIENT,
    }
    said = {f"worker=f{number}&sequence=1": GRADIENT for number in range(8)} | faults
    with lines_to(here, len(said)) as lines:
        with here.holding():
            for line, (query, body) in zip(lines, said.items(), strict=True):
                line.sendall(pushed(ready, body, f"?{query}"))
            time.sleep(PULSE_S)
        told = [int(answers(line, 1)[0].split()[1]) for line in lines]
    assert told == [200] * 8 + [200, 422, 422, 409]
    assert sorted(here.at_once) == [False] * 4 + [True] * 8
    assert ready.describe()["step"] == 10


def test_one_that_cannot_be_told_is_hung_up_on_and_the_others_hear(
    here: Here, ready: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    laid_out, broken = Shortcut._laid_out, itertools.count()

    def failing(*arguments: Any) -> Any:
        if next(broken) == 0:
            raise MemoryError
        return laid_out(*arguments)

    with lines_to(here, 8) as lines:
        with here.holding():
            for number, line in enumerate(lines):
                line.sendall(pushed(ready, GRADIENT, f"?worker=w{number}&sequence=1"))
            time.sleep(PULSE_S)
            monkeypatch.setattr(Shortcut, "_laid_out", failing)
        heard = [line.recv(1 << 16)[:12] for line in lines]
    assert sorted(heard) == [b""] + [b"HTTP/1.1 200"] * 7
    again = ready.push_bytes(load(GRADIENT), f"worker=w{heard.index(b'')}&sequence=1")
    assert again.receipt["replayed"]
    assert ready.describe()["step"] == 9


def test_one_that_fails_in_no_foreseen_way_goes_the_long_way(
    here: Here, ready: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured, broken = Hasty.measured, itertools.count()
    gone: list[Hasty] = []

    def failing(hasty: Hasty) -> bool:
        gone.append(hasty)
        if next(broken) == 3:
            raise MemoryError
        return measured(hasty)

    monkeypatch.setattr(Hasty, "measured", failing)
    with lines_to(here, 8) as lines:
        with here.holding():
            for number, line in enumerate(lines):
                line.sendall(pushed(ready, GRADIENT, f"?worker=w{number}&sequence=1"))
            time.sleep(PULSE_S)
        told = [answers(line, 1)[0].split()[1] for line in lines]
    assert told == [b"200"] * 8
    assert here.at_once.count(False) >= 1
    assert ready.describe()["step"] == 9
    assert gone[0]._haste._present == 0, "whoever comes alone waits for nobody"


# -- what is done about each ---------------------------------------------------------------------


def test_where_the_log_says_another_thing_that_is_told(
    here: Here, ready: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    hear = Hasty.hear

    def other(hasty: Hasty, answer: Answer | Exception) -> None:
        assert isinstance(answer, Answer) and hasty._prepared is not None
        hear(hasty, answer._replace(replayed=True))

    monkeypatch.setattr(Hasty, "hear", other)
    assert ready.push_bytes({"b": np.ones(3)}, "worker=w&sequence=1").receipt["replayed"]


@pytest.mark.parametrize("again", [False, True])
def test_a_model_that_went_away_is_looked_for_once_more(here: Here, ready: Model, *, again: bool) -> None:
    """Somebody else deleted it, and perhaps made another of the same name, of which nobody here has heard."""
    elsewhere = RedisStore(here._store.url)
    replica, epoch = World(elsewhere), elsewhere.find(ready.name)
    assert epoch is not None
    assert elsewhere.delete(ready.name, epoch, to_record(Delete(0)))
    if again:
        replica.create(ready.name, {"b": (3,)}, {"b": np.zeros(3, np.float32)}, optimizer=SGD)
    answer = ready.push_bytes({"b": np.ones(3, np.float32)}, "worker=w&sequence=1")
    elsewhere.close()
    assert here.at_once == [True, False], "it was in the air before it took the long way"
    if again:
        assert (answer.status, answer.receipt["step"]) == (200, 1)
        assert ready.pull()["b"] == [-1.0] * 3
    else:
        assert (answer.status, answer.problem) == (404, "model-not-found")


def test_whether_the_model_is_to_be_saved_is_asked_after_each(
    here: Here, ready: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Mailbox] = []
    monkeypatch.setattr(Shelf, "save_if_due", lambda _, mailbox: asked.append(mailbox))
    for sequence in (1, 2):
        assert ready.push_bytes({"b": np.ones(3)}, f"worker=w&sequence={sequence}").status == 200
    assert (here.at_once, len(asked)) == ([True, True], 2)


def test_a_small_body_beyond_the_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which is all that is wrong with it: in another dtype the same numbers may be sent."""
    monkeypatch.setenv("GRADLEDGER_MAX_BODY_BYTES", "1024")
    with Here(tmp_path) as narrow:
        model = Model(narrow, "narrow").create({"b": {"shape": [200]}}, SGD)
        values = save({"b": np.zeros(200, np.float32)})
        assert model.send("PUT", "/parameters", values, Content_Type=SAFETENSORS).status == 200
        assert model.push_bytes({"b": np.ones(200, np.float32)}, "worker=w&sequence=1").status == 200
        with lines_to(narrow, 1) as (line,):
            line.sendall(pushed(model, save({"b": np.ones(200)}), "?worker=w&sequence=2"))
            refused = answers(line, 1)[0]
            assert refused.startswith(b"HTTP/1.1 413") and b"\r\nconnection: close\r\n" in refused
            line.settimeout(2)  # sooner than anybody who is silent is hung up on
            assert line.recv(1) == b""
        assert model.push_bytes({"b": np.ones(200, np.float32)}, "worker=w&sequence=2").status == 200
