"""Starts a program that ends when its parent thread does: `python leash.py PARENT_PID LOCK_FD COMMAND …`.

This small program becomes the command. Before that it asks the kernel for SIGTERM at its parent's death,
which survives exec, and writes its process id, which is the command's too, into the lock file it inherits.
Doing this between fork and exec of a process with threads would be a gamble; here there is one thread.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def tie(parent_pid: int, end: signal.Signals) -> None:
    """This process gets the signal `end` at its parent thread's death, and exits if it has died already."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, end)
    if os.getppid() != parent_pid:  # it died before we could be tied to it
        sys.exit(1)


def main(parent_pid: int, lock_fd: int, command: list[str]) -> None:
    """Never returns."""
    tie(parent_pid, signal.SIGTERM)
    os.ftruncate(lock_fd, 0)
    os.pwrite(lock_fd, str(os.getpid()).encode(), 0)
    os.execv(command[0], command)  # noqa: S606  # there is no shell to want


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
