"""A real service in a process of its own, to start, curl, kill and start again."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import psutil
import urllib3
from numpy.typing import NDArray
from safetensors.numpy import load, save

SAFETENSORS = "application/vnd.safetensors"
Arrays = dict[str, NDArray[Any]]


class Service:
    """`gradledger serve` on a free port, which it keeps over restarts. `env` adds settings."""

    def __init__(self, data_dir: Path, *arguments: str, **env: str) -> None:
        self.data_dir = data_dir
        self.arguments = arguments
        self.env = {**os.environ, **env}
        self.host, self.port = "127.0.0.1", 0
        self.process: subprocess.Popen[str] | None = None
        self.output: list[str] = []
        self.http = urllib3.PoolManager(retries=False, timeout=60.0, maxsize=32)

    def start(self) -> Service:
        """Returns when the service answers /readyz."""
        command = [sys.executable, "-m", "gradledger_server", "serve", "--port", str(self.port)]
        command += ["--data-dir", str(self.data_dir), *self.arguments]
        self.process = subprocess.Popen(
            command, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        announced = threading.Event()
        threading.Thread(target=self._listen, args=(self.process, announced), daemon=True).start()
        if not announced.wait(60) or self.process.poll() is not None:
            raise AssertionError(f"the service did not start:\n{''.join(self.output)}")
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                if self.http.request("GET", f"{self.url}/readyz").status == 200:
                    return self
            except urllib3.exceptions.HTTPError:
                pass
            time.sleep(0.02)
        raise AssertionError(f"the service is not ready:\n{''.join(self.output)}")

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def kill(self) -> None:
        """SIGKILL, as a crash would."""
        self.signal(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        return self.signal(signal.SIGTERM)

    def signal(self, number: signal.Signals) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        code = self.process.wait(60)
        self.http.clear()
        return code

    def valkey_pid(self) -> int:
        """The embedded server's process."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task").glob("*/children")
        (pid,) = {int(pid) for child in children for pid in child.read_text().split()}
        return pid

    def request(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """Sends JSON (any object) or bytes as they are; header names use underscores."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            given.setdefault("Content-Type", "application/json")
        answer = self.http.request(method, self.url + path, body=body, headers=given)
        return Answer(answer.status, {k.lower(): v for k, v in answer.headers.items()}, answer.data)

    def push(self, model: str, gradients: Arrays, **facts: Any) -> Answer:
        """A push as safetensors, answered in kind."""
        query = "&".join(f"{name}={value}" for name, value in facts.items())
        return self.request(
            "POST", f"/v1/models/{model}/gradients?{query}", save(gradients), Content_Type=SAFETENSORS
        )

    def pull(self, model: str) -> Arrays:
        return load(self.request("GET", f"/v1/models/{model}/parameters", Accept=SAFETENSORS).data)

    def state(self, model: str) -> bytes:
        answer = self.request("GET", f"/v1/models/{model}/state")
        assert answer.status == 200, answer.data
        return answer.data

    def __enter__(self) -> Service:
        return self.start()

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self.process is not None and self.process.poll() is None:
            try:
                self.stop()
            except subprocess.TimeoutExpired:
                self.kill()

    def _listen(self, process: subprocess.Popen[str], announced: threading.Event) -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                self.output.append(line)
                if found := re.search(r"serves http://(\S+):(\d+)", line):
                    self.host, self.port = found[1], int(found[2])
                    announced.set()
        process.wait()  # it has closed its output, so it is ending; `start` wants to see that it has
        announced.set()


class Answer:
    """An HTTP answer."""

    def __init__(self, status: int, headers: dict[str, str], data: bytes) -> None:
        self.status, self.headers, self.data = status, headers, data

    @property
    def json(self) -> Any:
        return json.loads(self.data)

    @property
    def receipt(self) -> dict[str, Any]:
        """The push's receipt, from the header or the body."""
        told = self.headers.get("receipt")
        receipt: dict[str, Any] = json.loads(told) if told else self.json["receipt"]
        return receipt

    @property
    def problem(self) -> str:
        """The slug of the problem type."""
        assert self.headers["content-type"] == "application/problem+json", (self.status, self.data[:300])
        return str(self.json["type"].removeprefix("/problems/"))

    def __repr__(self) -> str:
        return f"Answer({self.status}, {self.data[:300]!r})"


def normal(shape: tuple[int, ...], seed: int) -> NDArray[np.float32]:
    """Seeded float32 noise."""
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def gone(pid: int) -> bool:
    """Whether the process has ended, be it that nobody has buried it yet."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True
