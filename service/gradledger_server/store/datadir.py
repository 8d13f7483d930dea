"""The embedded server's directory: who may use it, and what lies in it.

    service.lock     held by the service, holds its process id
    server.lock      held by the server itself (inherited), holds its process id
    valkey.sock      the server's socket, elsewhere if the path were too long for one
    valkey.password  for the socket, of the server that runs or ran last
    valkey.log       the server's own words
    appendonlydir/   the data, durability fsync and everysec
    dump.rdb         the data, durability memory, as of the last orderly stop

A lock ends with the process that holds it, however that ends, so neither can be left behind.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
import shutil
import signal
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import structlog

from gradledger_server.errors import StoreUnavailable, StoreUnsuitable

log = structlog.get_logger()

PASSWORD_FILE = "valkey.password"  # noqa: S105  # a name, and no password
SOCKET_PATH_BYTES = 100  # the kernel takes 107
PATIENCE_S = {signal.SIGTERM: 30.0, signal.SIGKILL: 5.0}  # SIGTERM: it may have data to write
POLL_S = 0.02


class DataDir:
    """One data directory, made if it is not there."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as refused:
            raise StoreUnsuitable(
                f"the data directory {self.path} cannot be made: {refused.strerror}",
                hint="Choose another with --data-dir.",
            ) from refused

    @property
    def socket(self) -> Path:
        """Where the server listens."""
        near = self.path / "valkey.sock"
        return near if len(os.fsencode(near)) <= SOCKET_PATH_BYTES else self._far() / "valkey.sock"

    @property
    def server_log(self) -> Path:
        return self.path / "valkey.log"

    @property
    def url(self) -> str:
        """The server's, for `RedisStore` and for whoever has to look inside, with its latest password."""
        return f"unix://{self.socket}?password={(self.path / PASSWORD_FILE).read_text()}"

    def new_password(self) -> str:
        """A password for the server, from now on in a file that its owner alone can read."""
        password, made = secrets.token_hex(16), self.path / f"{PASSWORD_FILE}.new"
        made.unlink(missing_ok=True)
        with os.fdopen(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(password)
        made.replace(self.path / PASSWORD_FILE)
        return password

    @property
    def has_append_only_file(self) -> bool:
        return any((self.path / "appendonlydir").glob("*.manifest"))

    @property
    def has_dump(self) -> bool:
        return (self.path / "dump.rdb").exists()

    def remove_append_only_file(self) -> None:
        """Once a dump holds the same."""
        # Renamed first: a crash in between must not leave half of one that looks whole.
        leftover = self.path / "appendonlydir.old"
        shutil.rmtree(leftover, ignore_errors=True)
        (self.path / "appendonlydir").rename(leftover)
        shutil.rmtree(leftover)

    def remove_dump(self) -> None:
        """Once an append-only file holds the same."""
        (self.path / "dump.rdb").unlink()

    def free_bytes(self) -> int:
        """What its disk has left. Raises StoreUnsuitable if nothing can be written to it."""
        with self._writing(), tempfile.TemporaryFile(dir=self.path):
            return shutil.disk_usage(self.path).free

    def claim(self) -> int:
        """Takes the directory for this process; the lock's descriptor. Raises StoreUnsuitable if taken."""
        descriptor = self._open("service.lock")
        if not _lock(descriptor):
            owner = _pid(descriptor)
            os.close(descriptor)
            raise StoreUnsuitable(
                f"the data directory {self.path} is in use by process {owner}",
                hint="Stop that service, or give this one another --data-dir.",
            )
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        return descriptor

    def release(self, descriptor: int) -> None:
        """Gives the directory back, once its server has ended."""
        if self.socket.parent != self.path:
            with contextlib.suppress(OSError):
                self.socket.parent.rmdir()
        os.close(descriptor)

    def server_lock(self) -> int:
        """The lock for a new server to inherit; a server of an earlier service that still runs is stopped."""
        descriptor = self._open("server.lock")
        if not _lock(descriptor) and not self._stop_owner(descriptor):
            owner = _pid(descriptor)
            os.close(descriptor)
            raise StoreUnavailable(f"process {owner} holds {self.path / 'server.lock'} and does not stop")
        os.ftruncate(descriptor, 0)  # nobody may take the last owner's process id for the next one's
        return descriptor

    def _stop_owner(self, descriptor: int) -> bool:
        """Asks whoever holds the lock to stop, then insists; whether the lock is ours now."""
        log.info("stopping the Valkey of an earlier service", pid=_pid(descriptor), data_dir=str(self.path))
        for how, patience_s in PATIENCE_S.items():
            if self._runs_here(owner := _pid(descriptor)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(owner, how)
            deadline = time.monotonic() + patience_s
            while time.monotonic() < deadline:
                if _lock(descriptor):
                    return True
                time.sleep(POLL_S)
        return False

    def _runs_here(self, pid: int) -> bool:
        """Whether the process is a server of this directory, which is its working directory."""
        with contextlib.suppress(OSError):
            return pid > 0 and (Path("/proc") / str(pid) / "cwd").samefile(self.path)
        return False

    def _open(self, name: str) -> int:
        with self._writing():
            return os.open(self.path / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as refused:
            raise StoreUnsuitable(
                f"the data directory {self.path} cannot be written to: {refused.strerror}",
                hint="Choose another with --data-dir.",
            ) from refused

    def _far(self) -> Path:
        """A directory of this user alone whose name follows from the data directory's."""
        short = hashlib.sha256(os.fsencode(self.path)).hexdigest()[:16]
        far = Path(tempfile.gettempdir()) / f"gradledger-{os.getuid()}-{short}"
        far.mkdir(mode=0o700, exist_ok=True)
        found = far.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
            raise StoreUnsuitable(
                f"{far} belongs to somebody else or is open to others; the server's socket cannot lie there",
                hint=f"Remove it, or choose a --data-dir with a path under {SOCKET_PATH_BYTES - 12} bytes.",
            )
        return far


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _pid(descriptor: int) -> int:
    return int(os.pread(descriptor, 20, 0) or b"0")
