"""Pushes in the air, over HTTP: nothing that is shown is ahead of the log, and each is answered at last."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, save

from tests.api.here import PULSE_S, Here, prepared
from tests.api.talk import SGD, Model, answers, head, say
from tests.api.test_shortcut import GRADIENT, asked, pushed
from tests.service import Service

SHOWN: dict[str, Callable[[Model], Any]] = {
    "the model": lambda m: (m.describe()["step"], m.describe()["offset"]),
    "its learning rate": lambda m: m.describe()["lr"],
    "the workers": lambda m: [w["sequence"] for w in m.send("GET", "/workers").json["workers"]],
    "the entries": lambda m: (
        (ledger := m.send("GET", "/entries").json)
        and (
            len(ledger["entries"]),
            ledger["offset"],
        )
    ),
    "its state": lambda m: load(m.send("GET", "/state").data)["param/b"].tolist(),
    "a receipt": lambda m: m.send("GET", "/receipts/w/1").json["step"],
}


@pytest.mark.parametrize("shown", SHOWN)
def test_nothing_that_is_shown_is_ahead_of_the_log(here: Here, new: Model, shown: str) -> None:
    """Asked while a push is in the air: either as before, or once the log has it, as after."""
    model = Model(here, new.name).create({"b": [8.0]}, SGD, schedule=HALVING)
    gradient = save({"b": np.ones(1, np.float32)})
    assert model.push_bytes(gradient, "worker=w&sequence=1").status == 200
    before, seen = SHOWN[shown](model), []
    asking = threading.Thread(target=lambda: seen.append(SHOWN[shown](model)))
    with socket.create_connection(("127.0.0.1", here.port), timeout=10) as line:
        here.at_once.clear()
        with here.holding():
            line.sendall(pushed(model, gradient, "?worker=w&sequence=2"))
            time.sleep(PULSE_S)
            assert here.at_once == [True]
            asking.start()
            time.sleep(PULSE_S)
            early = list(seen)
        answers(line, 1)
    asking.join(10)
    after = SHOWN[shown](model)
    assert early in ([], [before])
    assert seen in ([before], [after])


HALVING = {"name": "exponential_decay", "decay_rate": 0.5, "decay_steps": 1}


def test_a_pull_does_not_wait_for_a_push_in_the_air(here: Here, ready: Model) -> None:
    with socket.create_connection(("127.0.0.1", here.port), timeout=10) as line:
        with here.holding():
            line.sendall(pushed(ready, GRADIENT, "?worker=w&sequence=1"))
            time.sleep(PULSE_S)
            assert ready.pull()["b"] == [0.0, 1.0, 2.0]
        assert answers(line, 1)[0].startswith(b"HTTP/1.1 200")
    assert ready.pull()["b"] == [-1.0, 0.0, 1.0]


def test_the_push_of_a_client_that_hung_up_counts_once(here: Here, ready: Model) -> None:
    with here.holding():
        say(here, pushed(ready, GRADIENT, "?worker=w&sequence=1"), close=True)
        time.sleep(PULSE_S)
        assert here.at_once == [True]
    again = ready.push_bytes(GRADIENT, "worker=w&sequence=1")
    assert again.receipt["replayed"]
    assert ready.pull()["b"] == [-1.0, 0.0, 1.0]
    assert ready.describe()["step"] == 2


def test_what_is_sent_behind_a_push_in_the_air_is_answered_behind_it(here: Here, ready: Model) -> None:
    """Pushes and pulls, and something that only the parser knows, in pieces as they happen to come."""
    said = [
        pushed(ready, GRADIENT, "?worker=w&sequence=1"),
        asked(ready),
        pushed(ready, GRADIENT, "?worker=w&sequence=2"),
        head("GET", "/livez"),
        pushed(ready, GRADIENT, "?worker=w&sequence=3"),
        asked(ready),
    ]
    with socket.create_connection(("127.0.0.1", here.port), timeout=10) as line:
        with here.holding():
            line.sendall(said[0])
            time.sleep(PULSE_S)
            behind = b"".join(said[1:])
            for piece in (behind[:100], behind[100:300], behind[300:]):
                line.sendall(piece)
                time.sleep(PULSE_S / 2)
        heard = answers(line, 6)
    assert [b'"sequence":1' in heard[0], b'"sequence":2' in heard[2], b'"sequence":3' in heard[4]] == [
        True
    ] * 3
    assert b'"b":[-1.0,0.0,1.0]' in heard[1]
    assert b"alive" in heard[3]
    assert b'"b":[-3.0,-2.0,-1.0]' in heard[5]


def test_pushes_one_behind_the_other_on_one_line(here: Here, ready: Model) -> None:
    with socket.create_connection(("127.0.0.1", here.port), timeout=10) as line:
        for sequence in range(1, 31):
            line.sendall(pushed(ready, GRADIENT, f"?worker=w&sequence={sequence}"))
            (answer,) = answers(line, 1)
            assert b'"sequence":%d,' % sequence in answer
    assert (here.at_once, here.tasks) == ([True] * 30, 0)
    assert ready.describe()["step"] == 31


# -- the server dies -----------------------------------------------------------------------------


def test_a_push_that_the_server_never_heard_is_not_acknowledged(tmp_path: Path) -> None:
    with Here(tmp_path, "fsync") as mine:
        model = prepared(mine, "m")
        with socket.create_connection(("127.0.0.1", mine.port), timeout=30) as line:
            pid = mine.valkey_pid()
            os.kill(pid, signal.SIGSTOP)
            line.sendall(pushed(model, GRADIENT, "?worker=w&sequence=1"))
            time.sleep(PULSE_S)
            assert mine.at_once == [True]
            os.kill(pid, signal.SIGKILL)
            (answer,) = answers(line, 1)
            status, _, rest = answer.partition(b"\r\n")
            assert status.startswith(b"HTTP/1.1 503")
            assert b"store-unavailable" in rest and b"retry-after" in rest.lower()
            while (again := model.push_bytes(GRADIENT, "worker=w&sequence=1")).status != 200:
                time.sleep(0.02)
        assert not again.receipt["replayed"]
        assert again.receipt["step"] == 2


def test_what_is_in_the_air_is_answered_before_the_service_ends(tmp_path: Path) -> None:
    with Service(tmp_path) as ending:
        model = Model(ending, "m").create({"b": {"values": [1.0, 2.0, 3.0], "dtype": "F64"}}, SGD)
        assert model.push_bytes(GRADIENT, "worker=w&sequence=1").status == 200
        heard: list[int] = []
        request = pushed(model, GRADIENT, "?worker=w&sequence=2")
        waiting = threading.Thread(target=lambda: heard.append(say(ending, request)[0]))
        valkey = ending.valkey_pid()
        os.kill(valkey, signal.SIGSTOP)
        try:
            waiting.start()
            time.sleep(2 * PULSE_S)
            assert ending.process is not None
            ending.process.terminate()
            time.sleep(2 * PULSE_S)
            assert not heard
        finally:
            os.kill(valkey, signal.SIGCONT)
        assert ending.process.wait(30) == 0
        waiting.join(10)
        assert heard == [200]
        ending.start()
        assert model.describe()["step"] == 2
