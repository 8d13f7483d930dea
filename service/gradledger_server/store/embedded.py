"""Our own Valkey, kept running: started with the service, restarted when it dies, gone when the service is.

One thread starts the server and watches it, because the kernel ends the server with the thread that started
it: a service killed with SIGKILL takes its Valkey along, gently, and the next service can start. Another one
keeps the server's file small.
"""

from __future__ import annotations

import contextlib
import subprocess
import threading
from pathlib import Path

import structlog
from redis.exceptions import RedisError

from gradledger_server.errors import StoreUnavailable
from gradledger_server.store.compaction import LOOK_S
from gradledger_server.store.datadir import DataDir
from gradledger_server.store.valkey import Valkey

log = structlog.get_logger()

FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 5.0
STOP_S = 60.0  # to write what is in memory to disk


class Embedded:
    """Use it as a context, or `start` and `stop` it. `durability` is fsync, everysec or memory."""

    def __init__(self, data_dir: Path, durability: str = "fsync") -> None:
        self._data_dir = DataDir(data_dir)
        self._durability = durability
        self._password = ""  # so that nobody comes in by mistake, and we may rely on it
        self._claim: int | None = None
        self._server: Valkey | None = None
        self._failure: Exception | None = None
        self._started = threading.Event()
        self._stopping = threading.Event()
        self._watch = threading.Thread(target=self._keep_running, name="valkey", daemon=True)
        self._tidying = threading.Thread(target=self._keep_tidy, name="valkey's file", daemon=True)

    @property
    def url(self) -> str:
        """For `RedisStore`; the same over restarts."""
        return self._data_dir.url

    @property
    def pid(self) -> int:
        """The server's process id; another one after each restart."""
        if self._server is None:
            raise StoreUnavailable("the embedded Valkey is not running")
        return self._server.process.pid

    def start(self) -> Embedded:
        """Returns when the server has loaded its data. Raises StoreUnsuitable or StoreUnavailable."""
        self._claim = self._data_dir.claim()
        self._password = self._data_dir.new_password()
        self._watch.start()
        self._started.wait()
        if self._failure is not None:
            self.stop()
            raise self._failure
        if self._durability != "memory":
            self._tidying.start()
        return self

    def stop(self) -> None:
        """Ends the server in order; nothing it acknowledged is lost, whatever its durability."""
        self._stopping.set()
        if self._watch.ident is not None:
            self._end()
            self._watch.join()
        if self._tidying.ident is not None:
            self._tidying.join()
        if self._claim is not None:
            self._data_dir.release(self._claim)
            self._claim = None

    def __enter__(self) -> Embedded:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _keep_running(self) -> None:
        pause_s = FIRST_PAUSE_S
        while not self._stopping.is_set():
            try:
                self._run()
                pause_s = FIRST_PAUSE_S
            except Exception as failure:
                self._end()
                if not self._started.is_set():
                    self._failure = failure
                    self._started.set()
                    return
                log.error("the embedded Valkey does not start", why=str(failure))
            self._stopping.wait(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        self._end()

    def _run(self) -> None:
        """One life of the server. Returns when it has ended."""
        self._server = Valkey(self._data_dir, self._durability, self._password)
        if self._stopping.is_set():  # `stop` may have looked for a server just before there was one
            return
        self._server.make_ready()
        self._started.set()
        status = self._server.process.wait()
        if not self._stopping.is_set():
            log.warning("the embedded Valkey died and is started again", status=status)

    def _keep_tidy(self) -> None:
        pause_s = LOOK_S
        while not self._stopping.wait(pause_s):
            with contextlib.suppress(RedisError, OSError):  # it may be about to end
                if self._server is not None:
                    pause_s = self._server.compact_if_due()

    def _end(self) -> None:
        """Asks the present server to stop, and insists after a while."""
        if self._server is None:
            return
        process = self._server.process
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
