"""One worker process of the fire tests: it joins, pushes, waits for each fate, and tells what it was told.

Lines of JSON on standard output: one for each answer to a push, an acknowledgement (`waiting` among them) or
its fate. It leaves when its standard input closes; otherwise it is killed.
"""

from __future__ import annotations

import json
import random
import sys
import threading
import time
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from gradledger import Client, Membership, Model, Receipt
from gradledger.errors import NotAMember

WAIT_S = 1.0  # how long the service may hold an answer: short, so that both answers occur
THINKS_S = 0.02, 0.2  # from and to: how long a gradient takes


@dataclass
class Trainer:
    """Pushes noise around the way to zero, one gradient after the other."""

    model: Model
    membership: Membership
    dice: random.Random
    stopping: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        params = self.model.pull()
        noise = np.random.default_rng(self.dice.getrandbits(32))
        while not self.stopping.is_set():
            time.sleep(self.dice.uniform(*THINKS_S))
            gradient = params["w"] + noise.standard_normal(params["w"].shape, np.float32)
            self.push({"w": gradient})
            params = self.model.pull()

    def push(self, gradient: dict[str, NDArray[np.float32]]) -> None:
        """Until it has its fate, or nobody is left who could close its round."""
        began = time.monotonic()
        receipt = self.acknowledged(gradient)
        self.tell(receipt, began)
        while receipt.fate == "waiting" and not self.stopping.is_set():
            assert receipt.sequence is not None
            receipt = self.model.fate(receipt.sequence, wait_s=WAIT_S)
            self.tell(receipt, began)

    def acknowledged(self, gradient: dict[str, NDArray[np.float32]]) -> Receipt:
        while True:
            try:
                return self.model.push_only(gradient, wait_s=WAIT_S)
            except NotAMember:  # the service was away for longer than the lease
                self.membership.renew()

    def tell(self, receipt: Receipt, began: float) -> None:
        told = {name: getattr(receipt, name) for name in ("sequence", "fate", "step", "offset")}
        print(json.dumps(told | {"began": began, "ended": time.monotonic()}), flush=True)


def _stop_at_the_end_of_input(stopping: threading.Event) -> None:
    sys.stdin.read()
    stopping.set()


def main(url: str, model: str, name: str, seed: str) -> None:
    with Client(url, timeout_s=10.0, retry_for_s=120.0) as client:
        remote = client.model(model)
        # Every other one relies on its pushes alone for its lease.
        with remote.join(name, heartbeat=int(seed) % 2 == 0) as membership:
            trainer = Trainer(remote, membership, random.Random(int(seed)))
            threading.Thread(target=_stop_at_the_end_of_input, args=(trainer.stopping,), daemon=True).start()
            trainer.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
