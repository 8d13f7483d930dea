"""The processes of the demonstration: one service, several workers. None outlives it."""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import IO, Any

READY_S = 30.0
DRAIN_S = 10.0


class DemoFailed(Exception):
    """The demonstration cannot go on, or did not show what it promises."""


class Service:
    """`gradledger serve` on a port and a data directory of its own. It can be killed and started again.

    `options` are more options of `serve`.
    """

    def __init__(self, data_dir: Path, log: Path, *options: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = int(free.getsockname()[1])
        self.url = f"http://127.0.0.1:{self._port}"
        self._data_dir = data_dir
        self._log = log
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts the service and waits until it can take pushes."""
        command = ["serve", "--port", str(self._port), "--data-dir", str(self._data_dir), *self._options]
        with self._log.open("ab") as log:
            self._process = _start(["-m", "gradledger_server", *command], stdout=log, stderr=log)
        patience_ends = time.monotonic() + READY_S
        while not self._ready():
            if self._process.poll() is not None or time.monotonic() > patience_ends:
                raise DemoFailed(f"the service did not start; it said:\n{tail(self._log)}")
            time.sleep(0.05)

    def kill(self) -> None:
        """SIGKILL: no chance to save anything."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> None:
        """Lets the service finish what it is doing, for a while."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(DRAIN_S)
            except subprocess.TimeoutExpired:
                self.kill()

    def _ready(self) -> bool:
        with closing(HTTPConnection("127.0.0.1", self._port, timeout=1.0)) as connection:
            try:
                connection.request("GET", "/readyz")
                return connection.getresponse().status == 200
            except (HTTPException, OSError):
                return False


class Crew:
    """The worker processes, and what they tell: each line of JSON on their standard output, in `told`.

    Worker i is `python -m <module>` with `options[i]`; what else it says is in `logs`.
    """

    def __init__(self, module: str, options: Sequence[Sequence[str]], logs: Path) -> None:
        self.told: queue.Queue[dict[str, Any]] = queue.Queue()
        self._logs = [logs / f"w{index}.log" for index in range(len(options))]
        self._processes: list[subprocess.Popen[bytes]] = []
        self._readers: list[threading.Thread] = []
        try:
            for given, path in zip(options, self._logs, strict=True):
                self._hire(["-m", module, *given], path)
        except BaseException:
            self.dismiss()
            raise

    def _hire(self, arguments: list[str], path: Path) -> None:
        with path.open("wb") as log:
            process = _start(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)
        self._processes.append(process)
        assert process.stdout is not None
        reader = threading.Thread(target=self._listen, args=(process.stdout,), daemon=True)
        reader.start()
        self._readers.append(reader)

    def _listen(self, stream: IO[bytes]) -> None:
        for line in stream:
            self.told.put(json.loads(line))

    def done(self) -> bool:
        """Whether all have finished and what they told is in `told`. Raises DemoFailed if one failed."""
        for process, path in zip(self._processes, self._logs, strict=True):
            if process.poll():
                raise DemoFailed(
                    f"worker {path.stem} ended with {process.returncode}; it said:\n{tail(path)}"
                )
        return not any(reader.is_alive() for reader in self._readers)

    def dismiss(self) -> None:
        """Ends those still working."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()
        for reader in self._readers:
            reader.join()
        for process in self._processes:
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()


def end_with_parent() -> None:
    """Ends this process with the one that started it: when its standard input closes."""

    def watch() -> None:
        sys.stdin.read()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def tail(path: Path, lines: int = 15) -> str:
    """The last lines of a log."""
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])


def _start(arguments: list[str], **streams: Any) -> subprocess.Popen[bytes]:
    # A group of its own: Ctrl-C reaches this process alone, which then ends the others in order. Settings of
    # the user's own service are none of the demo's, and matrices this small gain nothing from more threads.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GRADLEDGER_")}
    environment |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, *arguments], env=environment, process_group=0, **streams)


def interrupt_on_terminate() -> None:
    """Makes SIGTERM end this process the way Ctrl-C does: with everything put away."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)
