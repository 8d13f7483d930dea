"""One worker process of the digits figures: gradients of its share of the images, while there are tickets.

A ticket is the right to one gradient. All workers draw from one roll, so every mode gets as many gradients,
whoever is fast enough to make them.
"""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import dataclass
from multiprocessing.queues import SimpleQueue
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Barrier
from typing import Any

import numpy as np

from gradledger import Model
from gradledger.answer import Answer
from gradledger.transport import Transport
from gradledger_server.demo import digits

BATCH = 32
PATIENCE_S = 20.0  # how long the service may hold the answer of a push that waits for others


@dataclass(frozen=True, slots=True)
class Task:
    """What a worker does: a gradient takes `takes_s`, as if the network were a large one.

    With `waits` it is a member and waits for its round; otherwise it pushes and goes on.
    """

    url: str
    model: str
    index: int
    takes_s: float
    waits: bool
    share: digits.Images


class Metered(Transport):
    """Counts the bodies' bytes."""

    up = down = 0

    def send(self, *arguments: Any, **options: Any) -> Answer:
        answer = super().send(*arguments, **options)
        body = options.get("body")
        self.up += body.length_bytes if body is not None else 0
        self.down += answer.body.nbytes
        return answer


def work(task: Task, tickets: Synchronized[int], start: Barrier, told: SimpleQueue[tuple[int, int]]) -> None:
    """Pushes until the tickets are out; tells the bytes of the bodies it sent and received."""
    transport = Metered(task.url, timeout_s=30.0, retry_for_s=30.0, headers={})
    model = Model(task.model, transport, f"w{task.index}")
    draw = np.random.default_rng(task.index)
    with model.join() if task.waits else nullcontext():
        params = model.pull()
        start.wait()
        while _drawn(tickets):
            began = time.monotonic()
            rows = draw.choice(len(task.share.y), BATCH, replace=False)
            _, grads = digits.gradient(params, digits.Images(task.share.x[rows], task.share.y[rows]))
            time.sleep(max(0.0, task.takes_s - (time.monotonic() - began)))
            params, receipt = model.push(grads, wait_s=PATIENCE_S if task.waits else 0.0)
            if receipt.fate == "waiting":
                params = model.pull()
    told.put((transport.up, transport.down))


def _drawn(tickets: Synchronized[int]) -> bool:
    with tickets.get_lock():
        tickets.value -= 1
        return tickets.value >= 0
