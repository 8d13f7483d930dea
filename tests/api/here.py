"""A service in the test's own process: over HTTP and with a real Valkey, and yet open to be looked into."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import redis
import uvicorn
from starlette.responses import Response

from gradledger_server.api.haste import Hasty, Told
from gradledger_server.api.lane import Lane
from gradledger_server.api.shortcut import Shortcut
from gradledger_server.api.telemetry import Metrics
from gradledger_server.api.whole import Whole
from gradledger_server.server import configured, device_of
from gradledger_server.settings import Settings
from gradledger_server.store import open_store
from tests.api.talk import SGD, Model
from tests.service import Service

PULSE_S = 0.05  # long enough for a request to come as far as it can


class Here(Service):
    """`at_once` tells of each small request whether it was served without a task; `tasks` counts tasks."""

    def __init__(self, data_dir: Path, durability: str = "memory") -> None:
        super().__init__(data_dir)
        self._store = open_store(None, data_dir, durability)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        settings = Settings()
        configuration = configured(self._store, device_of(settings), settings, Metrics())
        self._server = uvicorn.Server(configuration)
        self._thread = threading.Thread(target=self._server.run, args=([self._listener],))
        self.at_once: list[bool] = []
        self.tasks = 0
        self.patient = False  # then nothing is served at once
        self._patch = pytest.MonkeyPatch()

    def start(self) -> Here:
        self._watch()
        self._thread.start()
        while not self._server.started:
            assert self._thread.is_alive()
            time.sleep(0.005)
        return self

    def __enter__(self) -> Here:
        return self.start()

    def stop(self) -> int:
        self._server.should_exit = True
        self._thread.join(60)
        self._patch.undo()
        self._listener.close()
        self._store.close()
        self.http.clear()
        return 0

    def __exit__(self, *_: object) -> None:
        self.stop()

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Meanwhile the Valkey says nothing: what is posted to it stays in the air."""
        pid = self.valkey_pid()
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def hang_up(self) -> None:
        """The Valkey cuts every line to it."""
        with redis.Redis.from_url(self._store.url, protocol=2) as client:
            client.client_kill_filter(_type="normal", skipme=True)
        time.sleep(0.02)

    def valkey_pid(self) -> int:
        pid: int = self._store._server.pid  # type: ignore[attr-defined]  # the store owns its server
        return pid

    def _watch(self) -> None:
        at_once, flying, start = Lane.at_once, Hasty.flying, Shortcut._start

        def noting(lane: Lane, request: Whole, told: Told) -> None:
            def noted(response: Response | None) -> None:
                if response is None or request.head.method == "GET":
                    self.at_once.append(response is not None)
                told(response)

            if self.patient:
                noted(None)
            else:
                at_once(lane, request, noted)

        def leaving(hasty: Hasty) -> bool:
            if flies := flying(hasty):
                self.at_once.append(True)
            return flies

        def counting(shortcut: Shortcut, work: object) -> None:
            self.tasks += 1
            start(shortcut, work)  # type: ignore[arg-type]

        self._patch.setattr(Lane, "at_once", noting)
        self._patch.setattr(Hasty, "flying", leaving)
        self._patch.setattr(Shortcut, "_start", counting)


def prepared(here: Here, name: str) -> Model:
    """A new model whose latest parameters the service knows without asking."""
    model = Model(here, name).create({"b": {"values": [1.0, 2.0, 3.0], "dtype": "F64"}}, SGD)
    assert model.push_bytes({"b": np.ones(3)}, "worker=before&sequence=1").status == 200
    assert model.pull()["b"] == [0.0, 1.0, 2.0]
    here.at_once.clear()
    here.tasks = 0
    return model
