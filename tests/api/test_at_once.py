"""Small requests that are served without a task: nobody can tell from the answers, however large they are."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, save

from tests.api.here import PULSE_S, Here, prepared
from tests.api.talk import SGD, Model, answers, say, whole_answer
from tests.api.test_shortcut import GRADIENT, SAID, asked, pushed
from tests.api.test_timing import ALWAYS, told
from tests.service import SAFETENSORS

# -- the same answers ----------------------------------------------------------------------------

MORE: dict[str, Callable[[Model], bytes]] = {
    "a repeat": lambda m: pushed(m, GRADIENT, "?worker=before&sequence=1"),
    "a repeat with another body": lambda m: pushed(
        m, save({"b": np.full(3, 7.0)}), "?worker=before&sequence=1"
    ),
    "a push with its base": lambda m: pushed(m, GRADIENT, "?worker=w&sequence=1&base=1"),
    "a stale push": lambda m: pushed(m, GRADIENT, "?worker=w&sequence=1&base=0"),
    "a push that names its answer's form": lambda m: pushed(
        m, GRADIENT, "?worker=w&sequence=1", Accept="application/x-safetensors"
    ),
    "a push by another media type": lambda m: pushed(
        m, GRADIENT, "?worker=w&sequence=1", Content_Type="application/octet-stream"
    ),
    "a push that is compressed": lambda m: pushed(
        m, GRADIENT, "?worker=w&sequence=1", Content_Encoding="gzip"
    ),
    "a push with an id": lambda m: pushed(m, GRADIENT, "?worker=w&sequence=1", X_Request_ID="mine"),
    "a push with a weight": lambda m: pushed(m, GRADIENT, "?worker=w&sequence=1&weight=0.5"),
    "a worker and a key": lambda m: pushed(m, GRADIENT, "?worker=w&sequence=1", Idempotency_Key="k"),
    "another dtype": lambda m: pushed(m, save({"b": np.ones(3, np.float32)}), "?worker=w&sequence=1"),
    "another shape": lambda m: pushed(m, save({"b": np.ones(4)}), "?worker=w&sequence=1"),
    "a pull of what is known": lambda m: asked(m, If_None_Match=m.describe()["etag"]),
    "a pull of anything new": lambda m: asked(m, If_None_Match="*"),
    "a pull of what was": lambda m: asked(m, If_None_Match='"0.1"'),
    "a pull that would wait": lambda m: asked(m, Prefer="wait=0"),
    "a pull that nobody can answer": lambda m: asked(m, Accept="image/png"),
    "a pull of the view that trains": lambda m: asked(m, "?view=train"),
}
AT_ONCE = {
    "a push",
    "an answer by JSON",
    "a push with its base",
    "a stale push",
    "a push that names its answer's form",
    "a push by another media type",
    "a push with an id",
    "another dtype",
    "a pull",
    "a pull by safetensors",
    "a pull that says what goes without saying",
    "a pull with a length",
    "two lines of one header",
    "a pull of what is known",
    "a pull of anything new",
    "a pull of what was",
}
SAYINGS = SAID | MORE


@pytest.mark.parametrize("saying", SAYINGS)
def test_both_ways_lead_to_the_same_bytes(here: Here, new: Model, saying: str) -> None:
    """With a task and without; what differs between any two answers is left out, and nothing else."""
    heard: list[Any] = []
    for way in ("task", "once"):
        model = prepared(here, f"{new.name}.{way}")
        request = SAYINGS[saying](model)
        here.at_once.clear()
        here.tasks, here.patient = 0, way == "task"
        try:
            heard.append(lasting(whole_answer(here, request), model.name))
        finally:
            here.patient = False
        taken = way == "once" and saying in AT_ONCE
        assert (here.at_once, here.tasks) == ([taken], int(not taken))
        heard.append(model.evidence()[0] | {"epoch": "", "etag": "", "name": ""})
    assert heard[:2] == heard[2:]


def lasting(answer: bytes, name: str) -> bytes:
    """Without the epoch, the request's id, the clock and the model's name."""
    answer = answer.replace(name.encode(), b"NAME")
    answer = re.sub(rb"[0-9a-f]{16}", b"HEX", answer)
    answer = re.sub(rb"(?i)date: [^\r]*", b"date", answer)
    return re.sub(rb"dur=[0-9.]+", b"dur", answer)


def test_a_push_at_once_says_where_its_time_went(here: Here, ready: Model) -> None:
    answer = ready.push_bytes(GRADIENT, "worker=w&sequence=1")
    assert told(answer) == ALWAYS
    assert here.at_once == [True]


def test_a_lost_line_ends_what_was_known_until_somebody_has_asked(here: Here, ready: Model) -> None:
    here.hang_up()
    for sequence in range(1, 4):
        assert ready.push_bytes(GRADIENT, f"worker=w&sequence={sequence}").status == 200
    assert (here.at_once[0], here.at_once[-1]) == (False, True)
    here.hang_up()
    here.at_once.clear()
    assert [ready.pull()["b"] for _ in range(3)] == [[-3.0, -2.0, -1.0]] * 3
    assert (here.at_once[0], here.at_once[-1]) == (False, True)


def test_values_that_are_missing_are_no_answer(here: Here, new: Model) -> None:
    new = Model(here, new.name).create({"b": {"shape": [2]}}, SGD)
    assert [new.send("GET", "/parameters").problem for _ in range(2)] == ["parameters-missing"] * 2
    gradient = {"b": np.ones(2, np.float32)}
    assert [new.push_bytes(gradient, "worker=w&sequence=1").problem for _ in range(2)] == [
        "parameters-missing"
    ] * 2


def test_what_is_served_at_once_is_counted(here: Here, ready: Model) -> None:
    def counted() -> tuple[float, float]:
        text = here.http.request("GET", f"{here.url}/metrics").data.decode()
        values = dict(line.rsplit(" ", 1) for line in text.splitlines() if line and line[0] != "#")
        pushes, nbytes = 'gradledger_pushes_total{fate="applied"}', "gradledger_received_bytes_total"
        return float(values[pushes]), float(values[nbytes])

    wait_until(lambda: counted() == counted())
    before = counted()
    for sequence in (1, 2, 3):
        assert ready.push_bytes(GRADIENT, f"worker=counted&sequence={sequence}").status == 200
    assert here.at_once[-3:] == [True] * 3
    wait_until(lambda: counted() == (before[0] + 3, before[1] + 3 * len(GRADIENT)))


def wait_until(happened: Callable[[], bool]) -> None:
    """The service takes down what it has counted every second."""
    deadline = time.monotonic() + 10
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.1)


# -- answers that do not fit ---------------------------------------------------------------------


def large(here: Here, name: str) -> Model:
    """A model whose pushes may be small and whose answers are not: 200 KB."""
    model = Model(here, name).create({"big": {"shape": [50_000]}, "b": {"shape": [3]}}, SGD)
    values = {"big": np.arange(50_000, dtype=np.float32), "b": np.zeros(3, np.float32)}
    assert model.send("PUT", "/parameters", save(values), Content_Type=SAFETENSORS).status == 200
    assert model.send("GET", "/parameters", Accept=SAFETENSORS).status == 200
    here.at_once.clear()
    here.tasks = 0
    return model


def test_a_large_answer_to_a_small_push_is_whole(here: Here, new: Model) -> None:
    model = large(here, new.name)
    gradient = {"b": np.ones(3, np.float32)}
    for sequence in range(1, 4):
        answer = model.push_bytes(gradient, f"worker=w&sequence={sequence}")
        parameters = load(answer.data)
        assert parameters["b"].tolist() == [-sequence] * 3
        assert parameters["big"].tolist() == list(range(50_000))
    assert (here.at_once, here.tasks) == ([True] * 3, 0)


def test_who_reads_slowly_gets_every_answer_whole(here: Here, new: Model) -> None:
    """Forty pulls, then a push: 8 MB, which no socket holds."""
    model = large(here, new.name)
    gradient = save({"b": np.ones(3, np.float32)})
    with socket.create_connection(("127.0.0.1", here.port), timeout=10) as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
        for _ in range(40):
            line.sendall(asked(model, Accept=SAFETENSORS))
            time.sleep(0.002)
        line.sendall(pushed(model, gradient, "?worker=w&sequence=1"))
        time.sleep(PULSE_S)
        heard = [answer.partition(b"\r\n\r\n")[2] for answer in answers(line, 41)]
    assert len(set(heard[:40])) == 1
    assert load(heard[0])["b"].tolist() == [0, 0, 0]
    assert load(heard[40])["b"].tolist() == [-1, -1, -1]
    assert load(heard[40])["big"].tolist() == list(range(50_000))


def test_who_hangs_up_before_a_large_answer_disturbs_nobody(here: Here, new: Model) -> None:
    model = large(here, new.name)
    gradient = save({"b": np.ones(3, np.float32)})
    for sequence in range(1, 6):
        say(here, pushed(model, gradient, f"?worker=w&sequence={sequence}"), close=True)
    deadline = time.monotonic() + 5
    while model.describe()["step"] < 5:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert model.push_bytes(gradient, "worker=w&sequence=6").receipt["step"] == 6
