"""Worker processes that train one model together, to be killed, and the story that the service told of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from gradledger import Client, Event, Model
from tests.service import Service

CHECKOUT = Path(__file__).resolve().parents[2]
GIVE_UP_S = 90.0
END = "configure"  # what is done last to a model


@dataclass(frozen=True)
class Told:
    """One answer to a push, as its worker got it. `began` and `ended` are on the machine's one clock."""

    sequence: int
    fate: str
    step: int
    offset: int
    began: float
    ended: float


@dataclass
class Member:
    """A worker process."""

    name: str
    process: subprocess.Popen[str]
    log: IO[str]
    told: list[Told] = field(default_factory=list)
    killed: bool = False

    def __post_init__(self) -> None:
        self._reader = threading.Thread(target=self._listen, daemon=True)
        self._reader.start()

    @property
    def settled(self) -> list[Told]:
        """What was told of pushes that had their fate."""
        return [each for each in list(self.told) if each.fate != "waiting"]

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.killed = True
        self.gone()

    def gone(self) -> int:
        """Waits for its end, and for its last words."""
        code = self.process.wait(GIVE_UP_S)
        self._reader.join(GIVE_UP_S)
        self.log.close()
        return code

    def _listen(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout:
            for line in self.process.stdout:
                if line.endswith("\n"):  # otherwise it was killed in the middle of it
                    self.told.append(Told(**json.loads(line)))


class Crew:
    """Members of one model, and what the service tells of it while they work and things die."""

    def __init__(self, service: Service, directory: Path, sync: Mapping[str, Any], workers: int) -> None:
        self.mode, self.sync = str(sync["mode"]), sync
        self._client = Client(service.url, timeout_s=10.0, retry_for_s=GIVE_UP_S)
        weights = {"w": np.ones((32, 8), np.float32)}
        rule = {"rule": "momentum", "lr": 0.01}
        self.model: Model = self._client.create(f"fire-{self.mode}", weights, rule, sync=dict(sync))
        self.story: list[Event] = []
        self._listener = threading.Thread(target=self._hear, daemon=True)
        self._listener.start()
        self.members = [self._hire(service, directory, number) for number in range(workers)]

    def _hire(self, service: Service, directory: Path, number: int) -> Member:
        name = f"w{number}"
        log = (directory / f"{self.mode}-{name}.log").open("w+")
        command = [
            sys.executable,
            "-m",
            "tests.crash.trainer",
            service.url,
            self.model.name,
            name,
            str(number),
        ]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        process = subprocess.Popen(
            command,
            cwd=CHECKOUT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        return Member(name, process, log)

    @property
    def living(self) -> list[Member]:
        return [member for member in self.members if not member.killed]

    def wait_for_pushes(self, count: int) -> None:
        """Until each of those alive has `count` more pushes settled."""
        wanted = {member.name: len(member.settled) + count for member in self.living}
        deadline = time.monotonic() + GIVE_UP_S
        while waiting := [m for m in self.living if len(m.settled) < wanted[m.name]]:
            for member in waiting:
                if member.process.poll() is not None:
                    raise AssertionError(self._last_words(member))
            assert time.monotonic() < deadline, f"{self.mode}: {[m.name for m in waiting]} hang"
            time.sleep(0.02)

    def finish(self) -> None:
        """Those alive leave; the story ends."""
        for member in self.living:
            assert member.process.stdin is not None
            member.process.stdin.close()
        for member in self.living:
            assert member.gone() == 0, self._last_words(member)
        self.model.configure(optimizer={"lr": 0.02})
        self._listener.join(GIVE_UP_S)
        assert not self._listener.is_alive()

    def dismiss(self) -> None:
        """Whatever happened, nobody stays."""
        for member in self.living:
            member.kill()
        for member in self.members:
            if member.process.stdin is not None and not member.process.stdin.closed:
                member.process.stdin.close()
        self._client.close()

    def story_again(self) -> list[Event]:
        """As the service tells it now."""
        return _heard(self.model)

    def _hear(self) -> None:
        self.story = _heard(self.model)

    def _last_words(self, member: Member) -> str:
        return f"{member.name} of {self.mode}: {Path(member.log.name).read_text()[-2000:]}"


def _heard(model: Model) -> list[Event]:
    """The story from the beginning to its end. Snapshots are none of it."""
    story: list[Event] = []
    with model.events(after=0) as events:
        for event in events:
            story += [] if event.kind == "snapshot" else [event]
            if event.kind == END:
                break
    return story
