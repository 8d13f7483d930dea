"""What a service process is given by the one that starts it: settings, the listening socket, a leash.

The settings go through a pipe, for a Redis URL may hold a password and command lines are public.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import IO

from pydantic import BaseModel

from gradledger_server.settings import Settings
from gradledger_server.store.leash import tie

COMMAND = (sys.executable, "-m", "gradledger_server", "replica")


class Handover(BaseModel):
    """`listener` is an inherited descriptor; in `metrics_dir` the processes count together.

    `board` is the file of the connections that each holds, this one at its `place`.
    """

    settings: Settings
    listener: int
    metrics_dir: Path
    board: Path
    place: int
    parent_pid: int

    def start(self) -> subprocess.Popen[bytes]:
        """A new process with all this. It ends when the calling thread does, whatever ends that."""
        process = subprocess.Popen(
            COMMAND,
            stdin=subprocess.PIPE,
            pass_fds=(self.listener,),
            start_new_session=True,  # Ctrl-C in the terminal is for the parent alone
        )
        assert process.stdin is not None
        try:
            with process.stdin:
                process.stdin.write(self.model_dump_json().encode())
        except BrokenPipeError:
            pass  # it died at once, as whoever watches it will see
        return process

    @classmethod
    def receive(cls, pipe: IO[bytes]) -> Handover:
        """In the new process: what it was given. SIGKILL of the parent is SIGKILL of this process.

        The ledger holds what was acknowledged, and a process that lived on would hold the port.
        """
        handover = cls.model_validate_json(pipe.read())
        tie(handover.parent_pid, signal.SIGKILL)
        return handover
